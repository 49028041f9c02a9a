"""How the NTK of finite attention networks deviates from its limit, by heads and their width."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.compiled import compiled
from ntk_lab.errors import InputError
from ntk_lab.nn.module import Module
from ntk_lab.nn.seeds import kernel_over_seeds
from ntk_lab.theory.attention_heads import relative_variance
from ntk_lab.theory.power_law import PowerLaw, fit_power_law


class HeadLaw(NamedTuple):
    """Fit of ``Var = (a + b / d) / H`` to relative variances.

    Attributes
    ----------
    a, b
        Constants, ``a`` being the variance of one infinitely wide head.
    covariance
        Of ``(a, b)``, from the errors of the variances.
    chi_square, degrees_of_freedom
        Misfit, which is about the degrees of freedom where the law holds.
    """

    a: float
    b: float
    covariance: np.ndarray
    chi_square: float
    degrees_of_freedom: int

    @property
    def standard_errors(self) -> tuple[float, float]:
        """Of ``a`` and ``b``."""
        return float(self.covariance[0, 0] ** 0.5), float(self.covariance[1, 1] ** 0.5)


class KernelDeviation(NamedTuple):
    """Kernels of random finite networks beside that of infinite width.

    Attributes
    ----------
    sizes
        Heads and head widths ``(k, 2)``.
    kernels
        ``(k, seeds, n, n)``, float64.
    limit, limit_stderr
        Kernel of infinite width and its standard error, zero where it is not sampled, ``(n, n)``.
    """

    sizes: np.ndarray
    kernels: np.ndarray
    limit: np.ndarray
    limit_stderr: np.ndarray

    @property
    def variance(self) -> tuple[np.ndarray, np.ndarray]:
        """``sum_ij Var(K_ij) / |limit|^2`` at each size, and standard errors, ``(k,)``."""
        found = [relative_variance(k, self.limit) for k in self.kernels]
        return np.array([v for v, _ in found]), np.array([e for _, e in found])

    @property
    def bias(self) -> tuple[np.ndarray, np.ndarray]:
        """``<E[K] - limit, limit> / |limit|^2`` at each size, and standard errors, ``(k,)``.

        Signed and linear in the kernels, so that errors are those of a mean. Errors of the limit,
        which all sizes share, are in them.
        """
        square = (self.limit**2).sum()
        along = np.einsum("ksij,ij->ks", self.kernels, self.limit) / square - 1
        # Entries of a sampled limit share draws: as if they were wrong in the same direction.
        shared = (self.limit_stderr * np.abs(self.limit)).sum() / square
        own = along.std(1, ddof=1) / along.shape[1] ** 0.5
        return along.mean(1), np.hypot(own, shared)

    @property
    def distance(self) -> tuple[np.ndarray, np.ndarray]:
        """Root mean square over networks of ``|K - limit| / |limit|``, and standard errors."""
        squares = ((self.kernels - self.limit) ** 2).sum((2, 3)) / (self.limit**2).sum()
        mean = squares.mean(1)
        error = squares.std(1, ddof=1) / squares.shape[1] ** 0.5
        return mean**0.5, error / (2 * mean**0.5)

    def power(self, of: str, along: str, fixed: int) -> PowerLaw:
        """Power of the heads or of their width in a deviation, the other being fixed.

        Parameters
        ----------
        of
            ``"fluctuation"`` (root of the variance), ``"bias"`` (its size) or ``"distance"``.
        along
            ``"heads"`` or ``"head width"``, with three sizes at least at which the other is
            ``fixed``.

        Raises
        ------
        InputError
            Too few sizes, or other names.
        """
        axes, kinds = ("heads", "head width"), ("fluctuation", "bias", "distance")
        if along not in axes or of not in kinds:
            raise InputError(f"of={of!r}, along={along!r}; choose from {kinds} and {axes}.")
        moving = axes.index(along)
        rows = self.sizes[:, 1 - moving] == fixed
        if len(np.unique(self.sizes[rows, moving])) < 3:
            raise InputError(
                f"{int(rows.sum())} sizes have {axes[1 - moving]} {fixed}; a power takes three."
            )
        if of == "fluctuation":
            variance, error = self.variance
            value = variance**0.5
            error = error / (2 * value)
        else:
            value, error = self.bias if of == "bias" else self.distance
            value = np.abs(value)
        return fit_power_law(self.sizes[rows, moving], value[rows], error[rows])

    def head_law(self) -> HeadLaw:
        """Fit of ``Var = (a + b / d) / H`` to all sizes by weighted least squares.

        Raises
        ------
        InputError
            Fewer than three sizes, or heads of one width only.
        """
        heads, width = self.sizes.T.astype(float)
        if len(heads) < 3 or len(np.unique(width)) < 2:
            raise InputError("a and b take three sizes or more, and two head widths or more.")
        value, error = self.variance
        basis = np.stack([1 / heads, 1 / (heads * width)], 1) / error[:, None]
        covariance = np.linalg.inv(basis.T @ basis)
        a, b = covariance @ (basis.T @ (value / error))
        misfit = float(((value / error - basis @ np.array([a, b])) ** 2).sum())
        return HeadLaw(float(a), float(b), covariance, misfit, len(heads) - 2)


def kernel_deviation(
    build: Callable[[int, int], Module],
    x: Any,
    key: jax.Array,
    *,
    sizes: Sequence[tuple[int, int]],
    seeds: int = 32,
    repeats: int = 8,
) -> KernelDeviation:
    """Measure how the NTK of finite networks approaches its limit as heads and their width grow.

    Parameters
    ----------
    build
        From heads and head width to a network with one output, the same one but for these two:
        its kernel of infinite width is taken from the first.
    x
        Inputs ``(n, *shape)``.
    key, seeds
        Randomness, and networks of each size, at least two; independent for every size.
    sizes
        Pairs ``(heads, head width)``.
    repeats
        Draws of the limit where layers sample it (``scaling="sqrt"``), see
        :func:`ntk_lab.nn.kernel_over_seeds`.

    Returns
    -------
    KernelDeviation
        Float64 arrays of what was computed in the dtype of the parameters.

    Raises
    ------
    InputError
        Sizes that are not pairs of positive integers, fewer than two networks, or several outputs.

    Notes
    -----
    Theory: :func:`attention_theory`, and :func:`head_moments` for ``a`` of one layer. Cost: a
    gradient a size, seed and example.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, ntk_lab as ntk
    >>> def build(heads, width):
    ...     return ntk.nn.Sequential(
    ...         ntk.nn.GlobalSelfAttention(1, heads, width, width), ntk.nn.GlobalAvgPool()
    ...     )
    >>> found = ntk.theory.kernel_deviation(
    ...     build, jnp.eye(3)[None], jax.random.key(0), sizes=((1, 4), (4, 4)), seeds=3
    ... )
    >>> found.kernels.shape
    (2, 3, 1, 1)
    """
    pairs = [tuple(size) for size in sizes]
    whole = all(len(p) == 2 and all(isinstance(v, int) and v > 0 for v in p) for p in pairs)
    if not pairs or not whole or seeds < 2:
        raise InputError(
            f"sizes={sizes}, seeds={seeds}; give pairs (heads, head width) of positive integers "
            "and two or more networks of each."
        )
    x, first = jnp.asarray(x), build(*pairs[0])
    if first.output_shape(x.shape[1:]) != (1,):
        raise InputError(f"outputs are {first.output_shape(x.shape[1:])}; build networks of one.")
    limit, stderr = _limit(first, x, repeats)
    kernels = []
    for i, (heads, width) in enumerate(pairs):
        net = build(heads, width)
        keys = jax.random.split(jax.random.fold_in(key, i), seeds)
        kernels.append(np.asarray(_kernels(net, keys, x), float))
    return KernelDeviation(np.array(pairs), np.array(kernels), limit, stderr)


def _limit(net: Module, x: jax.Array, repeats: int) -> tuple[np.ndarray, np.ndarray]:
    """NTK of infinite width, and its standard error."""
    layers = jax.tree.leaves(net, is_leaf=_samples)
    if any(_samples(layer) for layer in layers):
        found = kernel_over_seeds(net, x, repeats=repeats)
        return np.asarray(found.kernel.ntk, float), np.asarray(found.stderr.ntk, float)
    kernel = np.asarray(net.kernel(x).ntk, float)
    return kernel, np.zeros_like(kernel)


def _samples(layer: Any) -> bool:
    return getattr(layer, "scaling", "") == "sqrt" and layer.mechanism != "identity"


@compiled(sequential=True, static_argnums=0)
def _kernels(net: Module, keys: jax.Array, x: jax.Array) -> jax.Array:
    # Plain gradients: for one output as fast as `empirical.ntk`, and compiled sooner.
    gradients = jax.vmap(jax.grad(lambda p, e: net.apply(p, e[None])[0, 0]), (None, 0))

    def of(key: jax.Array) -> jax.Array:
        leaves = jax.tree.leaves(gradients(net.init(key, x.shape[1:]), x))
        flat = [g.reshape(len(x), -1) for g in leaves]
        return sum(
            (jnp.matmul(g, g.T, precision=jax.lax.Precision.HIGHEST) for g in flat),
            jnp.zeros((len(x), len(x)), flat[0].dtype),
        )

    return jax.lax.map(of, keys)
