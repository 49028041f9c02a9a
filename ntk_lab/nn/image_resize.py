"""Resizing by interpolation."""

import jax
import jax.numpy as jnp

from ntk_lab.errors import InputError
from ntk_lab.kernel import Need, State, moments
from ntk_lab.kernel.positions import mix
from ntk_lab.nn.module import Module, Params, module
from ntk_lab.nn.window import check_spatial

METHODS = ("nearest", "linear", "cubic", "lanczos3", "lanczos5")


@module
class ImageResize(Module):
    """Interpolation to other spatial sizes, as ``jax.image.resize`` does it.

    Parameters
    ----------
    shape
        New size of each spatial axis; -1 keeps a size.
    method
        ``"nearest"``, ``"linear"``, ``"cubic"``, ``"lanczos3"`` or ``"lanczos5"``.
    antialias
        Whether to smooth before an axis is made smaller.

    Notes
    -----
    A fixed linear map ``A`` of the positions: ``q' = A q A^T`` and ``t' = A t A^T``. The kernel
    needs the covariance between all positions: time and memory grow with their square.

    Raises
    ------
    InputError
        An unknown method, sizes below one, or not one for each spatial axis.

    Examples
    --------
    >>> import ntk_lab as ntk
    >>> ntk.nn.ImageResize((-1, 12), "linear").output_shape((5, 6, 3))
    (5, 12, 3)
    """

    shape: tuple[int, ...]
    method: str = "linear"
    antialias: bool = True

    def __post_init__(self):
        if self.method not in METHODS:
            raise InputError(
                f"ImageResize got method {self.method!r}; choose one of {', '.join(METHODS)}."
            )
        sizes = tuple(self.shape)
        if not sizes or any(not isinstance(n, int) or (n < 1 and n != -1) for n in sizes):
            raise InputError(
                f"ImageResize got shape={self.shape!r}; give the new size of each spatial axis, or "
                "-1 to keep it."
            )
        object.__setattr__(self, "shape", sizes)

    @property
    def keeps_independence(self) -> bool:
        return True

    def _target(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(old if n == -1 else n for n, old in zip(self.shape, sizes, strict=True))

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        sizes = check_spatial("ImageResize", shape, len(self.shape))
        return (*self._target(sizes), shape[-1])

    def init(self, key: jax.Array, shape: tuple[int, ...], dtype=None) -> Params:
        self.output_shape(shape)
        return ()

    def apply(self, params: Params, x: jax.Array) -> jax.Array:
        return self._resized(x, (x.shape[0], *self.output_shape(x.shape[1:])))

    def _resized(self, x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return jax.image.resize(
            x, shape, self.method, self.antialias, precision=jax.lax.Precision.HIGHEST
        )

    def need(self, after: Need) -> Need:
        return after.for_mixing()

    def propagate(self, state: State) -> State:
        state = moments(state)
        sizes = state.layout.shape
        # Interpolation acts on one axis after the other, on each as on the rows of the identity.
        matrices = [
            None if new == old else self._resized(jnp.eye(old, dtype=state.ntk.dtype), (new, old))
            for new, old in zip(self._target(sizes), sizes, strict=True)
        ]
        return mix(state, matrices)
