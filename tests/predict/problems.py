"""Regression problems with chosen spectra, in float64 NumPy."""

from typing import NamedTuple

import numpy as np

from ntk_lab.kernel.result import Kernel


class Problem(NamedTuple):
    train_train: Kernel
    test_train: Kernel
    test_test: Kernel
    y: np.ndarray
    f0_train: np.ndarray
    f0_test: np.ndarray


def random_problem(n=8, n_test=5, outputs=2, seed=0, condition=50.0, scale=1.0):
    """Two random positive definite kernels on n + n_test points, of known condition number."""
    rng = np.random.default_rng(seed)

    def kernel():
        total = n + n_test
        basis = np.linalg.qr(rng.normal(size=(total, total)))[0]
        return scale * (basis * np.geomspace(1 / condition, 1, total)) @ basis.T

    nngp, ntk = kernel(), kernel()
    ntk = ntk + 0.5 * nngp
    (d, t) = (slice(None, n), slice(n, None))
    blocks = (Kernel(nngp[a, b], ntk[a, b]) for a, b in ((d, d), (t, d), (t, t)))
    shapes = (n, n, n_test)
    return Problem(*blocks, *(rng.normal(size=(rows, outputs)) for rows in shapes))


def means(prediction):
    """Train and test means as NumPy arrays."""
    return np.asarray(prediction.train.mean), np.asarray(prediction.test.mean)
