"""What `regress` is given: checks that explain."""

from typing import Any, Literal, get_args

import numpy as np

from ntk_lab.errors import InputError
from ntk_lab.kernel.computed import blocks

Method = Literal["auto", "cholesky", "cg", "nystrom", "features", "lanczos"]


def check_arguments(
    which: str, method: str, ridge: float, store: Any, mesh: Any, checkpoint: Any
) -> None:
    """Refuse what does not fit together."""
    if which not in ("ntk", "nngp"):
        raise InputError(f'which is {which!r}; it must be "ntk" or "nngp".')
    if method not in get_args(Method):
        raise InputError(f"method={method!r}; expected one of {', '.join(get_args(Method))}.")
    if not 0 <= float(ridge) < float("inf"):
        raise InputError(f"ridge={ridge}; expected a number, 0 <= ridge < inf.")
    if method in ("nystrom", "features") and store is not None:
        raise InputError(f'method="{method}" keeps no kernel; leave out store.')
    if method == "cholesky" and checkpoint is not None:
        raise InputError(
            'a factor ("cholesky") is not computed in pieces that a checkpoint could keep; leave '
            'checkpoint out, or take method="cg". A store keeps the kernel.'
        )
    if mesh is not None and (method not in ("auto", "cg", "lanczos") or store is not None):
        raise InputError(
            'mesh computes the kernel anew for each product of "cg" and "lanczos"; leave out store.'
        )


def check_start(start: Any, chosen: str) -> None:
    """Coefficients to start from are for iterations on all examples."""
    if start is not None and chosen != "cg":
        raise InputError(
            f'start was given, but the method is "{chosen}", which starts from nothing. Pass '
            'method="cg", or leave start out.'
        )


def read_training_times(time: Any, method: str, start: Any, checkpoint: Any) -> np.ndarray | None:
    """Training times; None for training to the end."""
    if time is None:
        if method == "lanczos":
            raise InputError('method="lanczos" trains for some time; give time, or "cg".')
        return None
    times = np.asarray(time)
    if times.dtype.kind not in "fiu" or times.size == 0 or not (times >= 0).all():
        raise InputError(
            f"time={time!r}; expected one or more numbers >= 0 (learning rate x steps)."
        )
    if method not in ("auto", "lanczos") or start is not None or checkpoint is not None:
        raise InputError(
            'with time the method is "lanczos", which has no start and no checkpoint (a store '
            "keeps the kernel); leave these out."
        )
    return times.astype(np.float64)


def read_targets(y: Any, n: int) -> np.ndarray:
    """Targets in double precision."""
    y = np.asarray(y)
    if y.dtype.kind not in "fiu" or y.ndim != 2 or len(y) != n or y.shape[1] == 0:
        raise InputError(
            f"y is {y.dtype} of shape {y.shape}; expected numbers of shape ({n}, outputs). Reshape "
            "one output by y[:, None]; for classes take one column each."
        )
    if not np.isfinite(y).all():
        rows = np.flatnonzero(~np.isfinite(y).all(axis=1))
        raise InputError(
            f"y has NaN or infinite values in {len(rows)} of {n} examples, the first of them "
            f"number {rows[0]}. Remove or repair these examples first."
        )
    return y.astype(np.float64)


def refuse_duplicates(x: Any) -> None:
    """Without a ridge, examples must differ."""
    seen: dict[bytes, int] = {}
    if not hasattr(x, "__array__"):
        return
    for first, block in blocks(x):
        for i, row in enumerate(np.ascontiguousarray(block).reshape(block.shape[0], -1)):
            earlier = seen.setdefault((row + 0).tobytes(), first + i)
            if earlier != first + i:
                raise InputError(
                    f"examples {earlier} and {first + i} are the same input, so that the kernel is "
                    "singular. Remove duplicates, or give a ridge > 0."
                )


def pick_centres(centres: Any, n: int, seed: int) -> np.ndarray:
    """Numbers of the examples that are centres."""
    if centres is None or isinstance(centres, int | np.integer):
        m = min(4096, n) if centres is None else int(centres)
        if not 1 <= m <= n:
            raise InputError(f"centres={m}; expected between 1 and {n}, or numbers of examples.")
        return np.sort(np.random.default_rng(seed).choice(n, m, replace=False))
    picked = np.asarray(centres)
    good = picked.ndim == 1 and picked.dtype.kind in "iu" and picked.size > 0
    if not good or len(np.unique(picked)) < len(picked) or picked.min() < 0 or picked.max() >= n:
        raise InputError(
            f"centres has shape {picked.shape} and dtype {picked.dtype}; expected different "
            f"numbers of examples, from 0 to {n - 1}."
        )
    return picked
