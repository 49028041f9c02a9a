"""A training loss as a function of the parameters: its value, gradient and curvature."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.compiled import compiled
from ntk_lab.empirical.ntk import Model, Params
from ntk_lab.errors import InputError
from ntk_lab.losses import Loss, mean_loss, read_loss


class Objective:
    """``L(params) = mean_i loss(f(params, x_i), y_i)``, in blocks of ``batch`` examples.

    Products with its Hessian are of the numbers of all floating-point parameters as one vector
    ``(P,)``; other parameters are held constant.
    """

    def __init__(
        self, f: Model, params: Params, x: Any, y: Any, loss: str | Loss, batch: int | None = None
    ):
        leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(x)]
        if not leaves or any(leaf.ndim == 0 or len(leaf) == 0 for leaf in leaves):
            raise InputError("x holds no examples; expected a batch (n, *shape).")
        if batch is not None and (isinstance(batch, bool) or int(batch) != batch or batch < 1):
            raise InputError(f"batch={batch!r}; it is a number of examples, at least 1, or None.")
        self.f, self.loss, self.n = f, read_loss(loss), len(leaves[0])
        self.batch = self.n if batch is None else int(batch)
        self.x = jax.tree.map(jnp.asarray, x)
        outputs = jax.eval_shape(f, params, x)
        if getattr(outputs, "ndim", 0) not in (1, 2) or len(outputs.shape) == 0:
            raise InputError(
                f"f(params, x) has shape {getattr(outputs, 'shape', None)}; a loss is of outputs "
                "(n, C) or (n,). Wrap f so that each example has one row."
            )
        count = 1 if outputs.ndim == 1 else outputs.shape[1]
        self.y = read_targets(y, self.n, count, outputs.dtype)
        self._value = compiled(self._block, sequential=True)
        self._outputs = compiled(self._prediction, sequential=True)
        self._product = compiled(self._columns, static_argnums=4, sequential=True)

    def value(self, params: Params) -> float:
        """The loss."""
        parts = [self._value(params, x, y) for x, y in self._blocks()]
        return float(np.sum([np.asarray(part, np.float64) for part in parts]))

    def whole(self, params: Params) -> jax.Array:
        """The loss of all examples at once, to be differentiated and compiled."""
        return self._block(params, self.x, self.y)

    def outputs(self, params: Params) -> np.ndarray:
        """Outputs ``(n, C)``."""
        return np.concatenate([np.asarray(self._outputs(params, x)) for x, _ in self._blocks()])

    def product(self, params: Params, columns: jax.Array, gauss_newton: bool) -> jax.Array:
        """The Hessian, or its Gauss-Newton part ``J^T l'' J``, times columns ``(P, m)``."""
        total = jnp.zeros_like(columns)
        for x, y in self._blocks():
            total = total + self._product(params, x, y, columns, gauss_newton)
        return total

    def _blocks(self):
        for start in range(0, self.n, self.batch):
            stop = start + self.batch
            cut = partial(jax.lax.slice_in_dim, start_index=start, limit_index=min(stop, self.n))
            yield jax.tree.map(cut, self.x), self.y[start:stop]

    def _prediction(self, params, x):
        found = self.f(params, x)
        return found[:, None] if found.ndim == 1 else found

    def _block(self, params, x, y):
        outputs = self._prediction(params, x)
        return mean_loss(self.loss, outputs, y) * (len(y) / self.n)

    def _columns(self, params, x, y, columns, gauss_newton):
        theta, fill = flattened(params)

        def outputs(vector):
            return self._prediction(fill(vector), x)

        def measured(found):
            return mean_loss(self.loss, found, y) * (len(y) / self.n)

        def full(v):
            return jax.jvp(jax.grad(lambda t: measured(outputs(t))), (theta,), (v,))[1]

        def part(v):
            found, change = jax.jvp(outputs, (theta,), (v,))
            _, slope = jax.jvp(jax.grad(measured), (found,), (change,))
            return jax.vjp(outputs, theta)[1](slope)[0]

        return jax.vmap(part if gauss_newton else full, in_axes=1, out_axes=1)(columns)


def flattened(params: Params) -> tuple[jax.Array, Any]:
    """All numbers that can be trained as one vector, and the way back to ``params``."""
    leaves, tree = jax.tree.flatten(params)
    leaves = [jnp.asarray(leaf) for leaf in leaves]
    chosen = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    if not chosen:
        raise InputError("params holds no floating-point numbers, so nothing can be trained.")
    dtype = leaves[chosen[0]].dtype
    for i in chosen[1:]:
        dtype = jnp.promote_types(dtype, leaves[i].dtype)
    vector = jnp.concatenate([leaves[i].astype(dtype).reshape(-1) for i in chosen])
    ends = np.cumsum([leaves[i].size for i in chosen]).tolist()

    def fill(values: jax.Array) -> Params:
        filled = list(leaves)
        for i, start, end in zip(chosen, [0, *ends[:-1]], ends, strict=True):
            filled[i] = values[start:end].reshape(leaves[i].shape).astype(leaves[i].dtype)
        return jax.tree.unflatten(tree, filled)

    return vector, fill


def read_targets(y: Any, n: int, outputs: int, dtype: Any) -> jax.Array:
    """Targets ``(n, outputs)``; class numbers become centred one-hot ones, as in `ntk.compare`."""
    y = jnp.asarray(y)
    if y.ndim == 1 and jnp.issubdtype(y.dtype, jnp.integer) and outputs > 1 and len(y) == n:
        low, high = int(y.min()), int(y.max())
        if low < 0 or high >= outputs:
            raise InputError(
                f"targets are class numbers from {low} to {high}, and there are {outputs} "
                "outputs; number the classes from 0."
            )
        return jax.nn.one_hot(y, outputs, dtype=dtype) - jnp.asarray(1 / outputs, dtype)
    y = y[:, None] if y.ndim == 1 else y
    if y.shape != (n, outputs):
        raise InputError(
            f"targets have shape {y.shape}; expected ({n}, {outputs}), or class numbers ({n},) "
            "for several outputs."
        )
    y = y.astype(dtype)
    if not bool(jnp.isfinite(y).all()):
        raise InputError("targets hold NaN or infinity; remove these examples.")
    return y
