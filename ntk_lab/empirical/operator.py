"""The empirical NTK as an operator: products with it, never the matrix or the Jacobian."""

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntk_lab.concrete import is_concrete
from ntk_lab.empirical import products
from ntk_lab.empirical.arguments import Select, arguments, result_of
from ntk_lab.empirical.checks import check_examples, check_finite
from ntk_lab.empirical.diagonal import diagonal
from ntk_lab.empirical.ntk import Model, cotangents
from ntk_lab.empirical.operator_solves import Solves
from ntk_lab.empirical.operator_traces import Traces
from ntk_lab.empirical.products import Network
from ntk_lab.empirical.structured.build import build
from ntk_lab.empirical.tiles import default_memory
from ntk_lab.errors import InputError


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["net", "inputs1", "inputs2", "basis"],
    meta_fields=["mode", "outputs", "dtype", "paths"],
)
@dataclass(frozen=True)
class Operator(Solves, Traces):
    """Matrix-free empirical NTK; made by :func:`operator`.

    A pytree, so that it can be an argument of functions under ``jit``. Its vectors have the shape
    ``(n, *outputs)`` of the network's outputs or, flattened, ``(n C,)``; stacks of vectors have
    one more axis at the end. Results are shaped as what they were computed from.

    Attributes
    ----------
    shape
        Of the matrix: ``(n1 C, n2 C)``, or ``(n1, n2)`` for the trace over outputs.
    vector_shape
        Of a vector that it is multiplied by.
    dtype
        That of the parameters.
    T
        The transpose, which is itself where both batches are one.
    """

    net: Network
    inputs1: list[Any]
    inputs2: list[Any] | None
    basis: jax.Array | None
    mode: Literal["full", "trace"]
    outputs: tuple[int, ...]
    dtype: Any
    paths: tuple[str, ...]

    @property
    def leaves(self) -> list[Any]:
        """Parameters, as a list."""
        return self.net.values[self.net.offset :]

    @property
    def examples(self) -> tuple[int, int]:
        """Number of examples in each batch."""
        n1 = len(self.inputs1[0])
        return n1, n1 if self.inputs2 is None else len(self.inputs2[0])

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the matrix."""
        n1, n2 = self.examples
        outputs = math.prod(self.outputs)
        return n1 * outputs, n2 * outputs

    @property
    def vector_shape(self) -> tuple[int, ...]:
        """Shape of a vector that it is multiplied by."""
        return (self.examples[1], *self.outputs)

    @property
    def T(self) -> "Operator":
        """The transpose: the kernel of the second batch with the first."""
        if self.inputs2 is None:
            return self
        return replace(self, inputs1=self.inputs2, inputs2=self.inputs1)

    def __matmul__(self, v: ArrayLike) -> jax.Array:
        """``Theta v = J(x1) (J(x2)^T v)``: a backward pass, then a forward one, tile by tile."""
        v = jnp.asarray(v)
        columns, shape = self._columns(v)
        result = self._apply(columns)
        if is_concrete(result) and not bool(jnp.isfinite(result).all()):
            if is_concrete(columns) and not bool(jnp.isfinite(columns).all()):
                raise InputError("the vector holds NaN or infinity, and so would the product.")
            check_finite(result, self)
        return result.reshape(shape)

    def diagonal(self) -> jax.Array:
        """Entries ``Theta[i, i]``, exactly, of the shape of a vector.

        Costs a forward pass an example and a backward pass an output, and no gradient is formed
        where the product of norms of its factors is cheaper.
        """
        self._square("diagonal")
        found = diagonal(self.net, self.inputs1, self.basis, self.dtype)
        found = found.mean(axis=1) if self.mode == "trace" else found
        check_finite(found, self)
        return found.reshape(self.vector_shape)

    def _square(self, what: str) -> None:
        if self.inputs2 is not None:
            raise InputError(
                f"{what} is of a kernel of one batch with itself; this one is of shape "
                f"{self.shape}, of two batches. Make the operator without x2."
            )

    def _columns(self, v: jax.Array) -> tuple[jax.Array, tuple[int, ...]]:
        """As a matrix ``(N2, m)``, and the shape of the result."""
        (rows, size), lead = self.shape, self.vector_shape
        axes = len(lead)
        if v.shape[:axes] == lead and v.ndim <= axes + 1:
            rest, shape = v.shape[axes:], (self.examples[0], *self.outputs)
        elif 1 <= v.ndim <= 2 and v.shape[0] == size:
            rest, shape = v.shape[1:], (rows,)
        else:
            raise InputError(
                f"the vector has shape {v.shape}; expected {lead} or ({size},), or a stack of "
                f"vectors with one more axis at the end, as the kernel is {self.shape}."
            )
        return v.astype(self.dtype).reshape(size, math.prod(rest)), (*shape, *rest)

    def _apply(self, columns: jax.Array) -> jax.Array:
        """The product with a matrix ``(N2, m)``, within the limit."""
        count, outputs = columns.shape[1], self.net.program.outputs
        terms = outputs if self.mode == "trace" else 1
        some = self._traced if self.mode == "trace" else self._whole
        spans = products.chunks(self.net, count * terms, max(self.examples))
        parts = [some(columns, np.arange(*span)) for span in spans]
        if not parts:
            return jnp.zeros((self.shape[0], count), self.dtype)
        found = jnp.concatenate(parts).reshape(count, terms, self.shape[0])
        return found.mean(axis=1).T.astype(self.dtype)

    def _whole(self, columns: jax.Array, which: np.ndarray) -> jax.Array:
        """Some columns of the product, as rows: one direction each."""
        n1, n2 = self.examples
        k = math.prod(self.outputs)
        cotangents = columns[:, which].T.reshape(len(which), n2, k).astype(self._out)
        if self.basis is not None:
            cotangents = jnp.matmul(cotangents, self.basis, precision="highest")
        found = products.both(self.net, self.inputs1, self.inputs2, cotangents)
        if self.basis is not None:
            found = jnp.matmul(found, self.basis.T, precision="highest")
        return found.reshape(len(which), n1 * k)

    def _traced(self, columns: jax.Array, which: np.ndarray) -> jax.Array:
        """Terms of the mean over outputs, as rows: a direction for each column and output."""
        outputs = self.net.program.outputs
        output = jax.nn.one_hot(which % outputs, outputs, dtype=self._out)
        vectors = columns[:, which // outputs].T.astype(self._out)
        cotangents = vectors[:, :, None] * output[:, None]
        found = products.both(self.net, self.inputs1, self.inputs2, cotangents)
        return (found * output[:, None]).sum(axis=2)

    @property
    def _out(self) -> Any:
        return self.net.program.closed.jaxpr.outvars[0].aval.dtype


def operator(
    f: Model,
    params: Any,
    x1: Any,
    x2: Any = None,
    *,
    outputs: Literal["full", "trace"] | jax.Array | np.ndarray = "full",
    select: Select | None = None,
    memory: float | None = None,
    batch: int | None = None,
) -> Operator:
    """Empirical NTK ``Theta = J(x1) J(x2)^T`` as an operator that never forms it, nor ``J``.

    Parameters
    ----------
    f, params, x1, x2, select
        As for :func:`ntk`.
    outputs
        ``"full"``: the kernel of all outputs, a matrix ``(n1 C, n2 C)``. ``"trace"``: its mean
        over outputs, ``(n1, n2)``. An array ``(C, k)`` or ``(C,)``: the full kernel of
        ``f @ array``.
    memory
        Bytes that a product may use beside parameters, inputs, vectors and the result; default a
        quarter of what is free. The result is the same, to rounding, for every limit.
    batch
        Examples at a time; by default as many as fit ``memory`` and pay.

    Returns
    -------
    Operator
        ``k @ v``, ``k.T``, ``k.diagonal()``; ``k.solve(y, ridge)`` by preconditioned conjugate
        gradients, ``k.eigsh(top)``; ``k.trace()``, ``k.frobenius_norm(key)``,
        ``k.logdet(ridge, key)`` and ``k.spectral_density(grid, key)`` with standard errors.

    Raises
    ------
    InputError, NumericalError
        As for :func:`ntk`; values that are not finite are found when products are taken.

    Notes
    -----
    A product takes, for each vector (and, for the trace, each output), a backward and a forward
    pass over the examples, about five times what evaluating ``f`` takes, and memory for two
    gradients and one tile. In the dtype of the parameters. Products are linear and JAX transforms
    them: ``jit``, ``grad``, ``vmap``, also in the parameters. Then values cannot be looked at, and
    NaN is not found. arXiv:1806.07572.

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> k = ntk.empirical.operator(lambda w, x: jnp.tanh(x @ w), jnp.ones((3, 2)), jnp.eye(3))
    >>> k.shape, (k @ jnp.ones((3, 2))).shape
    ((6, 6), (3, 2))
    """
    args = arguments(f, params, x1, x2, select)
    if isinstance(outputs, str):
        if outputs not in ("full", "trace"):
            raise InputError(
                f"outputs={outputs!r}; choose 'full' or 'trace', or give an array "
                f"({args.outputs}, k) that the outputs are multiplied by."
            )
        basis = None
        shape = () if outputs == "trace" else result_of(f, params, x1).shape[1:]
    else:
        _, basis, vector = cotangents(outputs, args)
        shape = () if vector else (len(basis),)
    program = build(f, args.signature(structured=True, merge=True))
    check_examples(program, args)
    limit = default_memory() if memory is None else memory
    return Operator(
        net=products.network(args, program, limit, batch),
        inputs1=args.inputs1,
        inputs2=args.inputs2,
        basis=basis,
        mode="trace" if isinstance(outputs, str) and outputs == "trace" else "full",
        outputs=tuple(shape),
        dtype=args.dtype,
        paths=tuple(args.paths),
    )
