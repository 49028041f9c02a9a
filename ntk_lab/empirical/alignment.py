"""How much of a kernel points at the targets."""

import numpy as np

_ROUNDINGS = 100  # a kernel of which less is left by centring has no direction


def alignment(a: np.ndarray, b: np.ndarray) -> float:
    """Centred kernel alignment ``<HaH, b> / (|HaH| |HbH|)``, in [-1, 1] (arXiv:1203.0550).

    NaN where nothing but rounding is left of a kernel when it is centred.
    """
    (a, a_constant), (b, b_constant) = _centred(a), _centred(b)
    if a_constant or b_constant:
        return float("nan")
    return float((a * b).sum() / (np.linalg.norm(a) * np.linalg.norm(b)))


def _centred(k: np.ndarray) -> tuple[np.ndarray, bool]:
    noise = _ROUNDINGS * np.finfo(k.dtype).eps * np.linalg.norm(k)
    k = k.astype(np.float64)
    k = k - k.mean(0, keepdims=True)
    k = k - k.mean(1, keepdims=True)
    return k, bool(np.linalg.norm(k) <= noise)
