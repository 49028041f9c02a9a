"""Any elementwise function."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ntk_lab.errors import InputError
from ntk_lab.kernel import Covariance
from ntk_lab.kernel.kinked import kinked_mean, kinked_product, kinked_slopes
from ntk_lab.nn.activation import Activation
from ntk_lab.nn.expanded import expanded_dual
from ntk_lab.nn.module import module

_NAMESPACES = {"jax.nn": jax.nn, "jax.numpy": jnp}


def kinked_dual(f: Callable, kinks: tuple[float, ...], cov: Covariance):
    """Both duals of a continuous function that is smooth between ``kinks``."""
    k11, k22 = (kinked_mean(f, kinks, v) for v in (cov.var1, cov.var2))
    product = kinked_product(f, kinks, cov)
    return cov.after_smooth_rule(k11, k22, product), kinked_slopes(f, kinks, cov)


@module
class Elementwise(Activation):
    """``fn(x)`` for any continuous elementwise function.

    Parameters
    ----------
    fn
        A function of arrays that JAX can differentiate, the same object for equal layers (it is
        hashed: define it once), or the name of one of ``jax.nn`` or ``jax.numpy``, such as
        ``"jax.nn.silu"``. Functions from there are kept by name, so that the layer has JSON.
    kinks
        The points at which ``fn`` or one of its first derivatives jumps; it must be smooth between
        them. Kinks that are not named make kernels NaN, or wrong by up to 1e-6 (1e-4 in float32).

    Notes
    -----
    Without kinks the dual is found by Hermite expansion (``ntk_lab.nn.expanded``). With a kink at
    zero alone it is integrated by sectors of the plane with 1280 evaluations a pair: for ``elu``
    within 1e-13 of ``sqrt(k11 k22)``. With others it is integrated by panels between them, which
    takes ten times as long. Errors are those of Gauss-Legendre rules, which fall exponentially
    with the smoothness between kinks but are not estimated: check an unusual function against
    ``ntk.empirical``.

    Raises
    ------
    InputError
        ``fn`` that is not callable and not such a name; kinks that are not finite.
    """

    fn: Callable | str
    kinks: tuple[float, ...] = ()

    def __post_init__(self):
        fn = self.fn if isinstance(self.fn, str) else _name(self.fn)
        object.__setattr__(self, "fn", fn)
        object.__setattr__(self, "kinks", tuple(sorted(float(c) for c in set(self.kinks))))
        if not callable(self.elementwise):
            raise InputError(f"Elementwise got {self.fn!r}; it must be an elementwise function.")
        if not all(abs(c) < float("inf") for c in self.kinks):
            raise InputError(f"Elementwise got kinks={self.kinks}; they must be finite.")

    @property
    def elementwise(self) -> Callable:
        """The function itself."""
        if not isinstance(self.fn, str):
            return self.fn
        space, _, name = self.fn.rpartition(".")
        if not callable(getattr(_NAMESPACES.get(space), name, None)):
            raise InputError(
                f"Elementwise got {self.fn!r}; as text it must name a function of jax.nn or "
                'jax.numpy, such as "jax.nn.silu".'
            )
        return getattr(_NAMESPACES[space], name)

    def function(self, x: jax.Array) -> jax.Array:
        return self.elementwise(x)

    def dual(self, cov: Covariance) -> tuple[Covariance, jax.Array]:
        if not self.kinks:
            return expanded_dual(self.elementwise, cov)
        return kinked_dual(self.elementwise, self.kinks, cov)


def _name(fn: Callable) -> Callable | str:
    """Name of a function of JAX, the function itself for others."""
    name = getattr(fn, "__name__", "")
    for space, functions in _NAMESPACES.items():
        if getattr(functions, name, None) is fn:
            return f"{space}.{name}"
    return fn
