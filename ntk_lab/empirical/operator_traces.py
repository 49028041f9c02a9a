"""Methods of the operator that estimate from random vectors: traces and spectra."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntk_lab.concrete import is_concrete
from ntk_lab.empirical.operator_base import Products, not_negative, whole
from ntk_lab.errors import InputError
from ntk_lab.solve.estimate import Estimate, from_samples
from ntk_lab.solve.quadrature import Rules, lanczos, log_bounds, probes, smoothed


class Traces(Products):
    """Traces of functions of the kernel."""

    def trace(
        self, key: jax.Array | None = None, samples: int | None = None, *, rank: int = 8
    ) -> Estimate:
        """Trace of the kernel: the sum of its eigenvalues.

        Parameters
        ----------
        key
            Of the random vectors. Without one, the trace is exact: the sum of :meth:`diagonal`.
        samples
            Number of random vectors, at least 2; default 32.
        rank
            Dimension of the space of large eigenvalues on which the trace is taken exactly.

        Returns
        -------
        Estimate
            ``tr(Q^T Theta Q)`` plus the mean of ``z^T Theta z`` over random signs ``z`` projected
            off ``Q``, which has no bias (Hutch++, arXiv:2010.09649). Exact, with a standard error
            of zero, without a key.

        Raises
        ------
        InputError
            Samples without a key or too few, a kernel of two batches.

        Notes
        -----
        Exactly: a backward pass an output, and no Jacobian. Estimated: ``samples + 2 rank``
        products, which pays where an example has many more outputs than that. The variance of one
        sample is twice the sum of squares of the off-diagonal entries of what is left.

        Examples
        --------
        >>> import jax.numpy as jnp, ntk_lab as ntk
        >>> k = ntk.empirical.operator(lambda w, x: x @ w, jnp.ones((3, 2)), jnp.eye(3))
        >>> print(k.trace().value)
        6.0
        """
        n = self._sized("trace")
        if key is None:
            if samples is not None:
                raise InputError(f"samples={samples} need a key; without both, trace is exact.")
            value = self.diagonal().sum()
            return Estimate(value, jnp.zeros_like(value), 0)
        count = whole("samples", 32 if samples is None else samples, 2)
        space, products, key = self._dominant(rank, key)

        def left(z: jax.Array) -> jax.Array:
            z = _outside(space, z)
            return (z * (self @ z)).sum(axis=0)

        found = from_samples(self._sampled(key, n, count, left))
        return found._replace(value=found.value + (space * products).sum())

    def frobenius_norm(self, key: jax.Array, samples: int = 32, *, rank: int = 8) -> Estimate:
        """Frobenius norm of the kernel, also of one of two batches.

        Parameters
        ----------
        key, samples
            Of the random vectors, at least 2 of them.
        rank
            Dimension of the space of large singular values on which the norm is taken exactly.

        Returns
        -------
        Estimate
            The root of ``|Theta Q|^2`` plus the mean of ``|Theta z|^2`` over random signs ``z``
            projected off ``Q``. The square has no bias; the root has one of order
            ``standard_error^2 / value``.

        Raises
        ------
        InputError
            Too few samples.

        Notes
        -----
        Costs ``samples + 2 rank`` products. Without the space ``Q`` one large eigenvalue would
        make the samples so skewed that their spread says little. arXiv:2010.09649.

        Examples
        --------
        >>> import jax, jax.numpy as jnp, ntk_lab as ntk
        >>> k = ntk.empirical.operator(lambda w, x: x @ w, jnp.ones((3, 1)), jnp.eye(3))
        >>> print(k.frobenius_norm(jax.random.key(0)).value.round(1))
        1.7
        """
        if 0 in self.shape:
            raise InputError(f"frobenius_norm needs examples; the shape is {self.shape}.")
        count = whole("samples", samples, 2)
        space, products, key = self._dominant(rank, key)

        def left(z: jax.Array) -> jax.Array:
            return ((self @ _outside(space, z)) ** 2).sum(axis=0)

        squared = from_samples(self._sampled(key, self.shape[1], count, left))
        value = jnp.sqrt(squared.value + (products**2).sum())
        error = squared.standard_error / jnp.where(value > 0, 2 * value, 1)
        return Estimate(value, error, count)

    def logdet(
        self, ridge: float, key: jax.Array, *, samples: int = 32, depth: int | None = None
    ) -> Estimate:
        """``log det(Theta + ridge I)``, by stochastic Lanczos quadrature.

        Parameters
        ----------
        ridge
            Positive: without one the smallest eigenvalues, which no estimate sees, decide.
        key, samples
            Of the random vectors, at least 2 of them.
        depth
            Lanczos steps of each; default 50, or the size of the kernel if that is less.

        Returns
        -------
        Estimate
            ``truncation`` bounds the error of too small a ``depth``, beside rounding: for each
            random vector the Gauss rule is an upper bound and the Gauss-Radau rule a lower one,
            and the value is halfway between.

        Raises
        ------
        InputError
            Arguments out of range, a kernel of two batches.

        Notes
        -----
        Costs ``samples x depth`` products and memory for as many vectors, as many at a time as
        ``memory`` allows. The term ``log det`` of a GP's marginal likelihood.

        Examples
        --------
        >>> import jax, jax.numpy as jnp, ntk_lab as ntk
        >>> k = ntk.empirical.operator(lambda w, x: x @ w, jnp.ones((3, 1)), jnp.eye(3))
        >>> print(k.logdet(1.0, jax.random.key(0)).value.round(4))
        2.0794
        """
        n = self._sized("logdet")
        ridge = not_negative("ridge", ridge, positive=True)
        count = whole("samples", samples, 2)
        use = partial(log_bounds, ridge=ridge)
        found = n * self._quadrature(key, n, count, depth, use)
        return from_samples(found.mean(axis=1), jnp.abs(found[:, 0] - found[:, 1]).mean() / 2)

    def spectral_density(
        self,
        grid: ArrayLike,
        key: jax.Array,
        *,
        width: float | None = None,
        log: bool = False,
        samples: int = 32,
        depth: int | None = None,
    ) -> Estimate:
        """Density of the eigenvalues, smoothed, by stochastic Lanczos quadrature.

        Parameters
        ----------
        grid
            Where to evaluate it, ascending, shape ``(g,)``.
        key, samples
            Of the random vectors, at least 2 of them.
        width
            Standard deviation of the Gaussian that each eigenvalue is smoothed by, in the units of
            the axis (of ``log(grid)`` if ``log``); default twice the largest step of the grid.
        log
            Density per unit of the logarithm of the eigenvalue, which is what to look at for
            power laws. Eigenvalues that are zero to rounding then lie off the axis, and the
            density adds up to the share of the others.
        depth
            Lanczos steps of each vector; default 50, or the size of the kernel if that is less.

        Returns
        -------
        Estimate
            ``value[i] = 1/N sum_j g(grid[i] - eigenvalue_j)`` for the Gaussian ``g``, and its
            standard error, each of shape ``(g,)``; it integrates to one. ``truncation`` is how far
            it moves at most from three quarters of the depth to all of it: a measure of what a
            greater depth would change, no bound.

        Raises
        ------
        InputError
            Arguments out of range, a kernel of two batches.

        Notes
        -----
        Costs as :meth:`logdet`. Bulks far below the largest eigenvalue need a greater depth than
        the outliers above them. At a single outlier each sample is a squared normal variable, whose
        skewness takes more samples than usual: 64 or more, or :meth:`eigsh`.

        Examples
        --------
        >>> import jax, jax.numpy as jnp, ntk_lab as ntk
        >>> k = ntk.empirical.operator(lambda w, x: x @ w, jnp.ones((3, 1)), jnp.eye(3))
        >>> density = k.spectral_density(jnp.array([0.9, 1.0, 1.1]), jax.random.key(0), width=0.1)
        >>> print(density.value.round(1))
        [2.4 4.  2.4]
        """
        n = self._sized("spectral_density")
        count = whole("samples", samples, 2)
        grid = _grid(grid, log, self.dtype)
        width = float(jnp.diff(grid).max()) * 2 if width is None else width
        width = not_negative("width", width, positive=True)
        use = partial(smoothed, grid=grid, width=width, log=log)
        found = self._quadrature(key, n, count, depth, use)
        moved = jnp.abs((found[:, 0] - found[:, 1]).mean(axis=0)).max()
        return from_samples(found[:, 0], moved)

    def _dominant(self, rank: int, key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Orthonormal basis ``(N2, rank)`` of about the largest right singular vectors.

        Beside it its products, and a key that is independent of both.
        """
        rank = min(whole("rank", rank, 0), *self.shape)
        first, rest = jax.random.split(key)
        start = probes(first, self.shape[0], range(rank), self.dtype)
        space, _ = jnp.linalg.qr(self.T @ start)
        return space, self @ space, rest

    def _quadrature(
        self, key: jax.Array, n: int, samples: int, depth: int | None, use: Callable[[Rules], Any]
    ) -> jax.Array:
        """What ``use`` makes of the rules of each random vector."""
        steps = min(50, n) if depth is None else whole("depth", depth, 1, n)
        held = (steps + 2) * n * jnp.dtype(self.dtype).itemsize
        return self._sampled(
            key, n, samples, lambda z: use(lanczos(self.__matmul__, z, steps)), held
        )

    def _sampled(
        self, key: jax.Array, n: int, samples: int, measure: Callable[[Any], Any], held: float = 0
    ) -> jax.Array:
        """Measurements of random vectors, as many at a time as the limit lets be held."""
        each = held + 2 * n * jnp.dtype(self.dtype).itemsize
        most = max(1, min(samples, int(self.net.memory // each)))
        size = -(-samples // -(-samples // most))
        found = [
            measure(probes(key, n, range(i, min(i + size, samples)), self.dtype))
            for i in range(0, samples, size)
        ]
        return jnp.concatenate(found)


def _outside(space: jax.Array, z: jax.Array) -> jax.Array:
    inside = jnp.matmul(space.T, z, precision="highest")
    return z - jnp.matmul(space, inside, precision="highest")


def _grid(grid: ArrayLike, log: bool, dtype: Any) -> jax.Array:
    grid = jnp.asarray(grid).astype(dtype)
    if grid.ndim != 1 or len(grid) < 2:
        raise InputError(f"grid has shape {grid.shape}; expected at least two points (g,).")
    if is_concrete(grid) and not bool((jnp.diff(grid) > 0).all()):
        raise InputError("grid must be ascending and finite.")
    if log and is_concrete(grid) and float(grid[0]) <= 0:
        raise InputError(f"grid starts at {float(grid[0])}; with log=True it must be positive.")
    return jnp.log(grid) if log else grid
