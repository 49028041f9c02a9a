"""Which parameterizations have a limit at infinite width, and whether it is a kernel."""

import math
from dataclasses import dataclass
from typing import Any

from ntk_lab.errors import InputError
from ntk_lab.nn import Dense, Sequential
from ntk_lab.nn.module import Module
from ntk_lab.nn.parameterization import ABC
from ntk_lab.theory.layers import unrolled

# Two widths between which the powers of the width are read.
_NARROW, _WIDE = 2**20, 2**40
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Exponents:
    """An abc-parameterization of ``L`` hidden layers (arXiv:2011.14522), ``n`` being the width.

    ``W^l = n^-a_l w^l`` with entries of ``w^l`` of variance ``n^(-2 b_l)``, for ``l = 1`` to
    ``L + 1``, trained at a learning rate proportional to ``n^-c``.
    """

    a: tuple[float, ...]
    b: tuple[float, ...]
    c: float

    def __post_init__(self):
        a, b = (tuple(float(v) for v in values) for values in (self.a, self.b))
        if len(a) != len(b) or len(a) < 2:
            raise InputError(
                f"a={self.a} and b={self.b}; give one exponent for each layer, the readout "
                "included: at least two."
            )
        if not all(math.isfinite(v) for v in (*a, *b, self.c)):
            raise InputError(f"a={self.a}, b={self.b}, c={self.c}; exponents must be finite.")
        object.__setattr__(self, "a", a)
        object.__setattr__(self, "b", b)
        object.__setattr__(self, "c", float(self.c))

    @property
    def r(self) -> float:
        """Features move by ``n^-r`` a coordinate: zero is feature learning (definition 3.2)."""
        hidden = [2 * a + (layer == 0) for layer, a in enumerate(self.a[:-1])]
        return min(self.a[-1] + self.b[-1], 2 * self.a[-1] + self.c) + self.c - 1 + min(hidden)

    @property
    def output(self) -> float:
        """Outputs move by ``n^-output``: of the readout's own motion, and that of the features."""
        return min(2 * self.a[-1] + self.c, self.a[-1] + self.b[-1] + self.r) - 1

    def network(self, activation: Module, width: int, outputs: int = 1) -> Sequential:
        """A network of these exponents, of :class:`ntk_lab.nn.Dense` layers without biases."""
        names = [
            ABC(a, b, self.c, "width" if layer == 0 else "fan_in")
            for layer, (a, b) in enumerate(zip(self.a, self.b, strict=True))
        ]
        hidden = [p for name in names[:-1] for p in (_dense(width, name), activation)]
        return Sequential(*hidden, _dense(outputs, names[-1]))


@dataclass(frozen=True)
class Dichotomy:
    """What the infinitely wide limit of a parameterization is.

    Attributes
    ----------
    exponents
        The parameterization.
    stable
        Whether activations, and outputs during training, stay of order one.
    trivial
        Whether outputs do not move in the limit.
    feature_learning
        Whether the last hidden layer moves by order one a coordinate.
    kernel_limit
        Whether training is kernel gradient descent in the limit.
    reason
        The condition that decides, with its numbers.
    """

    exponents: Exponents
    stable: bool
    trivial: bool
    feature_learning: bool
    kernel_limit: bool
    reason: str

    @property
    def name(self) -> str:
        """``"unstable"``, ``"trivial"``, ``"kernel"`` or ``"feature learning"``."""
        if not self.stable:
            return "unstable"
        if self.trivial:
            return "trivial"
        return "feature learning" if self.feature_learning else "kernel"


def abc_exponents(net: Module, *, c: float | None = None) -> Exponents:
    """The abc-exponents of a fully connected network, read from how its scales go with its width.

    Parameters
    ----------
    net
        ``Dense`` layers, of any parameterizations, and activations between them.
    c
        Exponent of the learning rate; that of ``net.learning_rate_scale()`` unless given.

    Raises
    ------
    InputError
        Layers with weights other than ``Dense``, or no hidden layer.

    Examples
    --------
    >>> import ntk_lab as ntk
    >>> net = ntk.nn.Sequential(ntk.nn.Dense(64), ntk.nn.Erf(), ntk.nn.Dense(1))
    >>> ntk.theory.abc_exponents(net.with_parameterization("mup"))
    Exponents(a=(-0.5, 0.5), b=(0.5, 0.5), c=0.0)
    """
    found = [_powers(net.with_width(width)) for width in (_NARROW, _WIDE)]
    growth = math.log(_WIDE / _NARROW)

    def exponent(narrow: float, wide: float) -> float:
        return round(-math.log(wide / narrow) / growth, 6) + 0.0

    rows = list(zip(*found, strict=True))
    a = tuple(exponent(narrow[0], wide[0]) for narrow, wide in rows)
    b = tuple(exponent(narrow[1], wide[1]) for narrow, wide in rows)
    if c is None:
        rates = (net.with_width(width).learning_rate_scale() for width in (_NARROW, _WIDE))
        c = exponent(*rates)
    return Exponents(a, b, c)


def dynamical_dichotomy(parameterization: Module | Exponents) -> Dichotomy:
    """Stable or not, trivial or not, kernel or feature learning: theorems 3.3 to 3.8 in one.

    With ``r`` of :class:`Exponents`, a parameterization of ``L`` hidden layers is *stable* if and
    only if ``a_1 + b_1 = 0``, ``a_l + b_l = 1/2`` for the other hidden layers and at least 1/2 for
    the readout, ``r >= 0``, ``2 a_{L+1} + c >= 1`` and ``a_{L+1} + b_{L+1} + r >= 1``. It is
    *trivial* unless one of the last two is an equality. Otherwise it learns features if ``r = 0``,
    and is a kernel if ``r > 0``: never both.

    Parameters
    ----------
    parameterization
        A fully connected network, read by :func:`abc_exponents`, or :class:`Exponents`.

    Returns
    -------
    Dichotomy
        With the reason.

    Notes
    -----
    arXiv:2011.14522, for gradient descent at one learning rate and activations such as tanh and a
    smooth Relu. What is only marginally stable is told with a tolerance of 1e-6 on the exponents.

    Examples
    --------
    >>> import ntk_lab as ntk
    >>> net = ntk.nn.Sequential(ntk.nn.Dense(64), ntk.nn.Erf(), ntk.nn.Dense(1))
    >>> ntk.theory.dynamical_dichotomy(net).name
    'kernel'
    >>> ntk.theory.dynamical_dichotomy(net.with_parameterization("mup")).name
    'feature learning'
    """
    e = parameterization if isinstance(parameterization, Exponents) else None
    if e is None:
        e = abc_exponents(parameterization)  # type: ignore[arg-type]
    broken = _instability(e)
    if broken:
        return Dichotomy(e, False, False, False, False, broken)
    if e.output > _TOLERANCE:
        return Dichotomy(
            e, True, True, False, False,
            f"outputs move by n^-{e.output:g}: 2a + c = {2 * e.a[-1] + e.c:g} and a + b + r = "
            f"{e.a[-1] + e.b[-1] + e.r:g} of the readout are both above 1",
        )  # fmt: skip
    if e.r <= _TOLERANCE:
        reason = "r = 0: every coordinate of the last hidden layer moves by order one"
        return Dichotomy(e, True, False, True, False, reason)
    reason = f"r = {e.r:g} > 0: features move by n^-{e.r:g} a coordinate, outputs by order one"
    return Dichotomy(e, True, False, False, True, reason)


def _instability(e: Exponents) -> str:
    """The first condition of stability that is broken, in words; empty if there is none."""
    first, *middle, last = (a + b for a, b in zip(e.a, e.b, strict=True))
    conditions: list[tuple[bool, str]] = [
        (abs(first) < _TOLERANCE, f"a + b = {first:g} in the first layer must be 0"),
        *(
            (abs(v - 0.5) < _TOLERANCE, f"a + b = {v:g} in layer {i} must be 1/2")
            for i, v in enumerate(middle, start=2)
        ),
        (last > 0.5 - _TOLERANCE, f"a + b = {last:g} of the readout is below 1/2"),
        (e.r > -_TOLERANCE, f"r = {e.r:g} < 0: features move by n^{-e.r:g}, without bound"),
        (
            2 * e.a[-1] + e.c > 1 - _TOLERANCE,
            f"2a + c = {2 * e.a[-1] + e.c:g} of the readout is below 1: its motion moves outputs "
            f"by n^{1 - 2 * e.a[-1] - e.c:g}",
        ),
        (last + e.r > 1 - _TOLERANCE, f"a + b + r = {last + e.r:g} of the readout is below 1"),
    ]
    return next((text for holds, text in conditions if not holds), "")


def _dense(width: int, name: ABC) -> Dense:
    return Dense(width, parameterization=name)


def _powers(net: Module) -> list[tuple[float, float]]:
    """Scale in front of the weights and standard deviation of their entries, layer by layer."""
    found: list[tuple[float, float]] = []
    channels = 1
    for layer in unrolled(net):
        if not isinstance(layer, Dense):
            if layer.has_width():
                raise InputError(f"{layer!r}: abc-exponents are those of Dense layers.")
            continue
        scales: Any = layer._scales(channels)
        found.append((float(scales.weight_scale), float(scales.weight_init)))
        channels = layer.outputs
    if len(found) < 2:
        raise InputError("a parameterization has at least one hidden layer and a readout.")
    return found
