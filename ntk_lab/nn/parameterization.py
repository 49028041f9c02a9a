"""Where the scale of a weight sits: in front of it, or in its initial distribution.

Each parameterization writes a layer as ``y = weight_scale x W + bias_scale b`` with entries of
``W`` of standard deviation ``weight_init`` and of ``b`` of ``bias_init``. All give the same kind
of function at initialization; they differ in how fast each parameter moves under gradient
descent (arXiv:2011.14522). With ``n`` inputs and ``m`` outputs of a layer (times the size of the
window, for convolutions), and ``s = sqrt(m / n)``:

============== ================= ================= =================== =================
name           weight_scale      weight_init       bias_scale          bias_init
============== ================= ================= =================== =================
``ntk``        w_std / sqrt(n)   1                 b_std               1
``standard``   1                 w_std/sqrt(n)     1                   b_std
``mean_field`` w_std / n         1                 b_std / sqrt(n)     1
``mup``        w_std s           min(1,s)/sqrt(m)  b_std sqrt(m)       min(1,s)/sqrt(m)
============== ================= ================= =================== =================

``mean_field`` is meant for the readout: it is the ``ntk`` layer times ``1/sqrt(n)``, with a
learning rate ``n`` times larger (arXiv:1906.08034). ``mup`` is the maximal update
parametrization (arXiv:2011.14522) in a form that is the same for all layers (arXiv:2310.17813):
at equal hidden widths and one output it trains as the former does, at a learning rate that does
not depend on the width. :class:`Standard` and :class:`ABC` are parameterizations with numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ntk_lab.errors import InputError

PARAMETERIZATIONS = ("ntk", "standard", "mean_field", "mup")


@dataclass(frozen=True)
class Standard:
    """``standard`` with widths in two factors, as in arXiv:2001.07301.

    A layer has ``width * s_out`` outputs, ``weight_scale = 1 / sqrt(s_in)`` and ``weight_init =
    w_std / sqrt(n / s_in)``; biases are as in ``standard``. As ``s`` grows the NTK stays of the
    order that it has at ``width``, and layers keep their shares of it.

    Parameters
    ----------
    s
        ``(s_in, s_out)``; ``s_in`` is the ``s_out`` of the layer before, and 1 for the first.

    Examples
    --------
    >>> import ntk_lab as ntk
    >>> layer = ntk.nn.Dense(8, parameterization=ntk.nn.Standard((1, 4)))
    >>> layer.output_shape((3,))
    (32,)
    """

    s: tuple[int, int] = (1, 1)

    def __post_init__(self):
        s = tuple(self.s)
        if len(s) != 2 or any(not isinstance(v, int) or v < 1 for v in s):
            raise InputError(f"Standard got s={self.s!r}; it must be (s_in, s_out), both above 0.")
        object.__setattr__(self, "s", s)


@dataclass(frozen=True)
class ABC:
    """One layer of an abc-parametrization (arXiv:2011.14522): powers of the width ``n``.

    ``W = w_std n^-a w`` with entries of ``w`` of standard deviation ``n^-b``, trained at a
    learning rate proportional to ``n^-c``. Biases scale as weights from ``n`` ones: multiplier
    ``b_std n^(1/2 - a)`` and standard deviation ``n^-b``.

    Parameters
    ----------
    a, b, c
        The exponents. ``c`` must be the same in all layers; only
        ``net.learning_rate_scale()`` reads it.
    size
        What ``n`` is: ``"fan_in"``, or for layers on data ``"width"``, that of the layer itself.
        Then weights have a further factor ``1 / sqrt(fan_in)``, and biases the multiplier
        ``b_std n^-a``.

    Examples
    --------
    NTK parameterization is ``ABC(0.5, 0)``, a mean-field readout ``ABC(1, 0, -1)``. The maximal
    update parametrization:

    >>> import ntk_lab as ntk
    >>> net = ntk.nn.Sequential(
    ...     ntk.nn.Dense(64, parameterization=ntk.nn.ABC(-0.5, 0.5, size="width")),
    ...     ntk.nn.Relu(),
    ...     ntk.nn.Dense(64, parameterization=ntk.nn.ABC(0, 0.5)),
    ...     ntk.nn.Relu(),
    ...     ntk.nn.Dense(1, parameterization=ntk.nn.ABC(0.5, 0.5)),
    ... )
    >>> net.learning_rate_scale()
    1.0
    """

    a: float
    b: float
    c: float = 0.0
    size: str = "fan_in"

    def __post_init__(self):
        for name in ("a", "b", "c"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or value - value != 0:
                raise InputError(f"ABC got {name}={value!r}; exponents are finite numbers.")
        if self.size not in ("fan_in", "width"):
            raise InputError(f"ABC got size={self.size!r}; choose 'fan_in' or 'width'.")


Parameterization = str | Standard | ABC


class Scales(NamedTuple):
    """Scales of one layer; see the table above. Bias scales are zero where there is no bias."""

    weight_scale: Any
    weight_init: Any
    bias_scale: Any
    bias_init: Any

    def signal(self, fan_in: int) -> Any:
        """Factor on the variance of the signal passing through."""
        return fan_in * (self.weight_scale * self.weight_init) ** 2

    def constant(self) -> Any:
        """Variance that the bias adds."""
        return (self.bias_scale * self.bias_init) ** 2

    def weight_tangent(self, fan_in: int) -> Any:
        """Factor on the incoming variance in this layer's own share of the NTK."""
        return fan_in * self.weight_scale**2

    def bias_tangent(self) -> Any:
        """Share of the NTK that the bias contributes."""
        return self.bias_scale**2


def scales(
    name: Parameterization, fan_in: int, fan_out: int, width: int, w_std: Any, b_std: Any
) -> Scales:
    """Scales of a layer.

    ``fan_in`` inputs add up to one output, ``fan_out`` outputs read one input, and there are
    ``width`` channels; ``b_std=None`` means no bias.
    """
    check_parameterization(name)
    bias = 0.0 if b_std is None else b_std
    root = fan_in**0.5
    if isinstance(name, ABC):
        n = fan_in if name.size == "fan_in" else width
        growth = n**-name.a if name.size == "width" else n ** (0.5 - name.a)
        return Scales(w_std / root * growth, n**-name.b, bias * growth, n**-name.b)
    if isinstance(name, Standard):
        root_s = name.s[0] ** 0.5
        unit = 0.0 if b_std is None else 1.0
        return Scales(1 / root_s, w_std / (root / root_s), unit, bias)
    if name == "ntk":
        return Scales(w_std / root, 1.0, bias, 1.0)
    if name == "standard":
        return Scales(1.0, w_std / root, 0.0 if b_std is None else 1.0, bias)
    if name == "mup":
        ratio, root_out = (fan_out / fan_in) ** 0.5, fan_out**0.5
        init = min(1.0, ratio) / root_out
        return Scales(w_std * ratio, init, bias * root_out, init)
    return Scales(w_std / fan_in, 1.0, bias / root, 1.0)


def outputs(name: Parameterization, width: int) -> int:
    """Number of channels of a layer of that width."""
    return width * name.s[1] if isinstance(name, Standard) else width


def check_parameterization(name: Any) -> None:
    """Raises InputError for a parameterization that does not exist."""
    known = isinstance(name, str) and name in PARAMETERIZATIONS
    if not known and not isinstance(name, Standard | ABC):
        raise InputError(
            f"parameterization {name!r} is unknown; choose one of {', '.join(PARAMETERIZATIONS)}, "
            "or ntk.nn.ABC(a, b, c), or ntk.nn.Standard(s)."
        )


def common_parameterization(layers: Sequence[tuple[Any, bool]]) -> str:
    """Name for a network of these layers, each with whether it belongs to the readout.

    Raises InputError for mixtures; see :meth:`ntk_lab.nn.Module.common_parameterization`.
    """
    readouts = {_family(layer.parameterization) for layer, readout in layers if readout}
    hidden = {_family(layer.parameterization) for layer, readout in layers if not readout}
    if readouts == {"mean_field"} and hidden <= {"ntk"}:
        return "mean_field"
    if "mean_field" not in hidden and len(hidden | readouts) <= 1:
        return (hidden | readouts or {"ntk"}).pop()
    raise InputError(
        f"hidden layers have parameterization {sorted(hidden)} and the readout "
        f"{sorted(readouts)}, which have no common scale of training time (mean_field is for "
        "readouts). Make them agree with net.with_parameterization(name)."
    )


def learning_rate_scale(layers: Sequence[tuple[Any, bool]]) -> float:
    """Factor on the learning rate; see :meth:`ntk_lab.nn.Module.learning_rate_scale`."""
    widths = [layer.width for layer, readout in layers if not readout]
    if not widths:
        return 1.0
    name, width = common_parameterization(layers), widths[-1]
    if name != "abc":
        exponents = {"ntk": 0, "mup": 0, "standard": -1, "mean_field": 1}
        return float(width ** exponents[name])
    rates = {float(layer.parameterization.c) for layer, _ in layers}
    if len(rates) > 1:
        raise InputError(
            f"layers have ABC parameterizations with c of {sorted(rates)}: the learning rate is "
            "one for all layers. Bring them to one c by adding x to a, -x to b and -2x to c, "
            "which changes nothing else."
        )
    return float(width ** -rates.pop())


def _family(name: Parameterization) -> str:
    return {Standard: "standard", ABC: "abc"}.get(type(name), str(name))
