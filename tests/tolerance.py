"""The one place that says how close is close, for each precision.

``from tests.tolerance import assert_close``
"""

import numpy as np

RTOL = {"float64": 1e-10, "float32": 2e-5, "float16": 5e-3, "bfloat16": 4e-2}


def rtol(*arrays, factor=1.0):
    """Relative tolerance of the least precise floating dtype among arrays or dtypes."""
    names = [np.dtype(getattr(array, "dtype", array)).name for array in arrays]
    return factor * max(RTOL[_real(name)] for name in names)


def assert_close(actual, expected, *, factor=1.0, atol=None):
    """Compare element by element at the precision of ``actual``.

    An element may be off by ``factor`` times the tolerance, relative to itself or, so that sums
    that cancel do not fail, to the root mean square of all expected values. ``atol`` replaces the
    second part; give 0 for a purely relative comparison.
    """
    tolerance = rtol(np.asarray(actual), factor=factor)
    actual, expected = (_widened(array) for array in (actual, expected))
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    if atol is None:
        scale = np.sqrt(np.mean(np.abs(expected) ** 2)) if expected.size else 0.0
        atol = tolerance * scale
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=atol)


def _real(name):
    return {"complex64": "float32", "complex128": "float64"}.get(name, name)


def _widened(array):
    array = np.asarray(array)
    return array.astype(np.complex128 if np.iscomplexobj(array) else np.float64)
