"""Large learning rates: lazy training, the catapult, divergence, and the evidence for each."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from ntk_lab.errors import InputError

PhaseName = Literal["lazy", "catapult", "divergent", "undecided"]

_EDGE = 2.0  # learning rate x curvature at which gradient descent on a quadratic turns unstable
_FAR = 4.0  # where a wide two-layer linear network under squared error diverges
_RISE = 1.01  # a loss above this multiple of its start has risen


@dataclass(frozen=True)
class Phase:
    """What a training run did at its learning rate; made by :func:`phase_of`.

    Attributes
    ----------
    name
        ``"lazy"``: the loss only fell, below the stability limit. ``"catapult"``: it started
        beyond the limit, and training went on to where the curvature is below it.
        ``"divergent"``: it grew without bound. ``"undecided"``: the record does not tell.
    initial
        Learning rate times curvature at the start; the limit is 2.
    final
        The same at the last time it is known.
    peak
        Largest loss over that at the start; infinite where it overflows.
    peak_step
        Where that was.
    remaining
        Loss at the end over that at the start.
    evidence
        Sentences, what was seen.
    """

    name: PhaseName
    initial: float
    final: float
    peak: float
    peak_step: int
    remaining: float
    evidence: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([self.name, *(f"- {line}" for line in self.evidence)])


def phase_of(
    loss: ArrayLike,
    curvature: ArrayLike,
    learning_rate: float,
    *,
    steps: ArrayLike | None = None,
) -> Phase:
    """Whether a run of gradient descent was lazy, a catapult or divergent, and why.

    With ``lambda`` the largest curvature at the start: below ``eta lambda = 2`` the loss falls and
    the curvature hardly changes (lazy). Beyond it the loss rises at first; from 2 to about 4 for
    wide two-layer linear networks under squared error, and to about 12 for ReLU networks, this
    drives the parameters to where the curvature is below ``2 / eta``, and the loss falls again
    (catapult). Beyond that it grows without bound (arXiv:2003.02218).

    Parameters
    ----------
    loss
        Training loss, ``(T,)``, from before the first step on; it may end in NaN or infinity.
    curvature
        Largest eigenvalue of the Hessian, or of the NTK over ``n`` for squared error ``1/(2n) sum
        |f - y|^2``, at any of these times from the first to the last, ``(K,)``: first and last
        count, and the largest between. What is not known may be NaN.
    learning_rate
        Of plain full-batch gradient descent.
    steps
        Numbers of the steps of ``loss``; by default 0, 1, 2, ...

    Returns
    -------
    Phase
        ``print`` shows it with the evidence. The loss and the curvature decide, not the thresholds
        of a theory: 4 is named in the evidence only.

    Raises
    ------
    InputError
        Shapes that do not fit, a first loss or curvature that is not positive and finite.

    Examples
    --------
    >>> from ntk_lab.train import phase_of
    >>> print(phase_of([1.0, 2.5, 6.0, 0.5, 0.01], [10.0, 6.0], 0.3))
    catapult
    - learning rate x curvature starts at 3, above the limit of 2
    - the loss rises to 6 times its start (step 2)
    - at the end it is 0.01 of its start
    - learning rate x curvature ends at 1.8, below the limit of 2
    """
    losses, curvatures, numbers = _read(loss, curvature, learning_rate, steps)
    ratios = learning_rate * curvatures
    known = ratios[np.isfinite(ratios)]
    bad = ~np.isfinite(losses)
    end = len(losses) if not bad.any() else int(np.argmax(bad))
    relative = losses[:end] / losses[0]
    peak_at = end if bad.any() else int(np.argmax(relative))
    peak = np.inf if bad.any() else float(relative.max())
    remaining = np.inf if bad.any() else float(relative[-1])
    name, reasons = _decided(relative, known, bool(bad.any()))
    lines = _evidence(known, peak, int(numbers[peak_at]), remaining)
    return Phase(
        name=name,
        initial=float(ratios[0]),
        final=float(known[-1]),
        peak=peak,
        peak_step=int(numbers[peak_at]),
        remaining=remaining,
        evidence=(*lines, *reasons),
    )


def _decided(
    relative: np.ndarray, ratios: np.ndarray, overflow: bool
) -> tuple[PhaseName, list[str]]:
    """The phase, and what is to be said beyond the numbers."""
    start, end, largest = ratios[0], ratios[-1], ratios.max()
    rose, fell = relative.max() > _RISE, relative[-1] < 1
    if overflow:
        far = [f"for wide two-layer linear networks divergence is expected from {_FAR:g} on"]
        return "divergent", far if start > _EDGE else []
    if rose and not fell:
        rising = relative[-1] >= 0.999 * relative.max()
        if rising and end > max(start, _EDGE):
            return "divergent", ["loss and curvature still grow together at the end"]
        return "undecided", ["the loss has not come back below its start: train for longer"]
    if not fell:
        return "undecided", ["the loss has hardly changed: train for longer"]
    if end >= _EDGE:
        return "undecided", [
            "the loss falls though the curvature is at its limit, the edge of stability "
            "(arXiv:2103.00065), or training has not yet settled"
        ]
    if largest > _EDGE:
        late, unseen = [], []
        if start <= _EDGE:
            late = ["the curvature passed the limit on the way, not at the start"]
        if not rose:
            unseen = ["the loss was not seen to rise: little of it lies along the top eigenvector"]
        return "catapult", late + unseen
    if rose:
        return "undecided", [
            "the loss rose though no curvature above the limit was recorded: record it more often, "
            "or look for mini-batches or momentum, which this limit is not for"
        ]
    return "lazy", []


def _evidence(ratios: np.ndarray, peak: float, step: int, remaining: float) -> list[str]:
    def beside(value: float) -> str:
        return "above" if value > _EDGE else "below"

    start, end = ratios[0], ratios[-1]
    lines = [f"learning rate x curvature starts at {start:.3g}, {beside(start)} the limit of 2"]
    if not np.isfinite(peak):
        return [*lines, f"the loss is not finite from step {step} on"]
    if peak > _RISE:
        lines.append(f"the loss rises to {peak:.3g} times its start (step {step})")
    else:
        lines.append("the loss never rises above its start")
    lines.append(f"at the end it is {remaining:.2g} of its start")
    if len(ratios) > 1:
        lines.append(f"learning rate x curvature ends at {end:.3g}, {beside(end)} the limit of 2")
    return lines


def _read(loss, curvature, learning_rate, steps) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    losses, curvatures = np.asarray(loss, np.float64), np.asarray(curvature, np.float64)
    if losses.ndim != 1 or len(losses) < 2 or curvatures.ndim != 1 or not len(curvatures):
        raise InputError(
            f"loss has shape {losses.shape} and curvature {curvatures.shape}; expected vectors, of "
            "at least 2 and 1 numbers."
        )
    numbers = np.arange(len(losses)) if steps is None else np.asarray(steps)
    if numbers.shape != losses.shape:
        raise InputError(f"steps have shape {numbers.shape} and losses {losses.shape}.")
    for name, value in (("loss", losses[0]), ("curvature", curvatures[0]),
                        ("learning_rate", learning_rate)):  # fmt: skip
        if not 0 < value < np.inf:
            where = "" if name == "learning_rate" else " at the start"
            raise InputError(f"{name}{where} is {value}; it must be positive and finite.")
    return losses, curvatures, numbers
