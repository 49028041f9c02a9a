"""Methods of the operator that iterate until they are right: solves and eigenpairs."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntk_lab.concrete import is_concrete
from ntk_lab.empirical.operator_base import Products, not_negative, precision, whole
from ntk_lab.errors import ConvergenceError, InputError
from ntk_lab.solve import (
    Eigenpairs,
    Nystrom,
    Solution,
    conjugate_gradient,
    nystrom,
    top_eigenpairs,
)

Preconditioner = Literal["none", "diagonal", "nystrom"] | Nystrom


class Solves(Products):
    """Solves and eigenpairs."""

    def solve(
        self,
        y: ArrayLike,
        ridge: float,
        *,
        tol: float | None = None,
        max_iterations: int = 1000,
        preconditioner: Preconditioner = "none",
        rank: int = 100,
        key: jax.Array | None = None,
    ) -> Solution:
        """Solve ``(Theta + ridge I) a = y`` by preconditioned conjugate gradients.

        Parameters
        ----------
        y
            A vector or a stack of vectors, as for products. For ``outputs="trace"`` targets
            ``(n, C)`` are a stack of ``C`` vectors.
        ridge
            Added to the diagonal; for the loss ``1/(2n) sum |f - y|^2 + decay/2 |theta|^2`` that
            is ``n decay``.
        tol
            Bound on ``|y - (Theta + ridge I) a| / |y|``; default 1e-5 in float32, 1e-10 in
            float64.
        max_iterations
            Bound on products with the kernel.
        preconditioner
            ``"none"``; ``"diagonal"``, the exact diagonal, for kernels with very unequal diagonal
            entries; ``"nystrom"``, a randomized approximation of rank ``rank`` (arXiv:2110.02820),
            for kernels whose spectrum falls quickly; or what :meth:`nystrom` returned, which
            serves all ridges.
        rank, key
            Of the Nyström approximation: its cost is ``rank`` products. The key decides random
            directions and does not change the result beyond ``tol``.

        Returns
        -------
        Solution
            ``value`` in the shape of ``y``, ``relative_residual`` computed from it at the end,
            for each vector, and ``iterations``.

        Raises
        ------
        ConvergenceError
            A :class:`ntk_lab.errors.NumericalError` whose ``result`` is the `Solution` so far.
        InputError
            Vectors of another shape, arguments out of range, values that are not known (``jit``).

        Notes
        -----
        The iterations grow as the square root of ``(largest eigenvalue + ridge) / (smallest +
        ridge)``; the Nyström approximation puts its eigenvalue number ``rank`` in place of the
        largest. Rounding lets residuals fall to about ``eps`` times that ratio.

        Examples
        --------
        >>> import jax.numpy as jnp, ntk_lab as ntk
        >>> k = ntk.empirical.operator(lambda w, x: x @ w, jnp.ones((3, 1)), jnp.eye(3))
        >>> k.solve(jnp.ones((3, 1)), ridge=1.0).value[:, 0]
        Array([0.5, 0.5, 0.5], dtype=float32)
        """
        n = self._sized("solve")
        ridge = not_negative("ridge", ridge)
        y = jnp.asarray(y)
        columns, _ = self._columns(y)
        stack = y.ndim > (1 if y.shape[0] == n else len(self.vector_shape))
        self._known("solve", columns)
        precondition = self._preconditioner(preconditioner, ridge, min(rank, n), key)
        return _shaped(
            lambda: conjugate_gradient(
                lambda v: self @ v + ridge * v,
                columns,
                precondition=precondition,
                tol=precision(self.dtype, tol),
                max_iterations=whole("max_iterations", max_iterations, 1),
            ),
            lambda s: s._replace(
                value=s.value.reshape(y.shape),
                relative_residual=s.relative_residual.reshape(columns.shape[1:] if stack else ()),
            ),
        )

    def nystrom(self, rank: int, key: jax.Array | None = None) -> Nystrom:
        """Randomized Nyström approximation of the kernel, which preconditions solves.

        Parameters
        ----------
        rank
            Number of random directions, and of products.
        key
            Decides the directions.

        Returns
        -------
        Nystrom
            ``vectors`` of shape ``(N, rank)`` and ``values``; see :func:`ntk_lab.solve.nystrom`.

        Raises
        ------
        InputError
            A rank out of range.
        """
        n = self._sized("nystrom")
        rank = whole("rank", rank, 1, n)
        return nystrom(self.__matmul__, n, rank, _start(key), self.dtype)

    def eigsh(
        self,
        top: int,
        *,
        tol: float | None = None,
        block: int | None = None,
        max_products: int | None = None,
        key: jax.Array | None = None,
    ) -> Eigenpairs:
        """Largest eigenvalues and their eigenvectors, by block Lanczos iteration.

        Parameters
        ----------
        top
            How many.
        tol
            Bound on residual norms relative to the largest eigenvalue; default 1e-5 in float32,
            1e-10 in float64.
        block
            Vectors at a time. An eigenvalue that occurs more often than that may be found too few
            times. Default: 8, or the number of outputs up to 32, as wide networks repeat each
            eigenvalue once an output.
        max_products
            Bound on products with single vectors; default ``20 (top + block)``.
        key
            Decides the vectors to start from; does not change the result beyond ``tol``.

        Returns
        -------
        Eigenpairs
            ``eigenvalues`` in descending order, ``eigenvectors`` of shape ``(*vector_shape, top)``
            and ``residual_norms``: within that distance of each value there is an eigenvalue.

        Raises
        ------
        ConvergenceError
            A :class:`ntk_lab.errors.NumericalError` whose ``result`` holds the pairs so far.
        InputError
            Arguments out of range, values that are not known (``jit``).

        Notes
        -----
        Holds about ``4 top + 12 block`` vectors; kernels not larger than half of that are formed
        and decomposed. See :func:`ntk_lab.solve.top_eigenpairs`.

        Examples
        --------
        >>> import jax.numpy as jnp, ntk_lab as ntk
        >>> x = jnp.diag(jnp.array([1.0, 2.0, 3.0]))
        >>> k = ntk.empirical.operator(lambda w, x: x @ w, jnp.ones(3), x)
        >>> print(k.eigsh(2).eigenvalues.round(4))
        [9. 4.]
        """
        n = self._sized("eigsh")
        top = whole("top", top, 1, n)
        if block is None:
            block = max(8, min(n // max(self.vector_shape[0], 1), 32))
        block = whole("block", block, 1)
        most = (
            20 * (top + block) if max_products is None else whole("max_products", max_products, 1)
        )
        self._known("eigsh", ())
        return _shaped(
            lambda: top_eigenpairs(
                self.__matmul__,
                n,
                top,
                key=_start(key),
                dtype=self.dtype,
                block=block,
                tol=precision(self.dtype, tol),
                max_products=most,
            ),
            lambda found: found._replace(
                eigenvectors=found.eigenvectors.reshape(*self.vector_shape, -1)
            ),
        )

    def _preconditioner(self, chosen: Any, ridge: float, rank: int, key: Any) -> Any:
        if isinstance(chosen, Nystrom):
            return lambda v: chosen.inverse(ridge, v)
        if chosen == "none":
            return None
        if chosen == "diagonal":
            diagonal = self.diagonal().reshape(-1, 1) + ridge
            return lambda v: v / jnp.where(diagonal > 0, diagonal, 1)
        if chosen == "nystrom":
            found = self.nystrom(rank, key)
            return lambda v: found.inverse(ridge, v)
        raise InputError(
            f"preconditioner={chosen!r}; choose 'none', 'diagonal' or 'nystrom', or give what "
            "k.nystrom(rank, key) returns."
        )

    def _known(self, what: str, *others: Any) -> None:
        if not is_concrete(self.net.values, self.inputs1, *others):
            raise InputError(
                f"{what} iterates until the values are right, and under jit, grad or vmap values "
                "are not known. Call it outside; products k @ v work inside."
            )


def _shaped(compute: Callable[[], Any], shape: Callable[[Any], Any]) -> Any:
    """The result in other shapes, also where it is part of an error."""
    try:
        return shape(compute())
    except ConvergenceError as error:
        error.result = shape(error.result)
        raise


def _start(key: jax.Array | None) -> jax.Array:
    return jax.random.key(0) if key is None else key
