"""Where the scale of a weight sits: in front of it, or in its initial distribution.

Each parameterization writes a layer as ``y = weight_scale x W + bias_scale b`` with entries of
``W`` of standard deviation ``weight_init`` and of ``b`` of ``bias_init``. All give the same kind
of function at initialization; they differ in how fast each parameter moves under gradient
descent (arXiv:2011.14522). With fan-in ``n``:

============== ================= ============== =================== =========
name           weight_scale      weight_init    bias_scale          bias_init
============== ================= ============== =================== =========
``ntk``        w_std / sqrt(n)   1              b_std               1
``standard``   1                 w_std/sqrt(n)  1                   b_std
``mean_field`` w_std / n         1              b_std / sqrt(n)     1
============== ================= ============== =================== =========

``mean_field`` is meant for the readout: it is the ``ntk`` layer times ``1/sqrt(n)``, with a
learning rate ``n`` times larger (arXiv:1906.08034).
"""

from typing import Any, NamedTuple

from ntk_lab.errors import InputError

PARAMETERIZATIONS = ("ntk", "standard", "mean_field")


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


def scales(name: str, fan_in: int, w_std: Any, b_std: Any) -> Scales:
    """Scales of a layer with ``fan_in`` inputs per output; ``b_std=None`` means no bias."""
    biased = b_std is not None
    root = fan_in**0.5
    if name == "ntk":
        return Scales(w_std / root, 1.0, b_std if biased else 0.0, 1.0)
    if name == "standard":
        return Scales(1.0, w_std / root, 1.0 if biased else 0.0, b_std if biased else 0.0)
    if name == "mean_field":
        return Scales(w_std / fan_in, 1.0, b_std / root if biased else 0.0, 1.0)
    raise InputError(unknown(name))


def unknown(name: str) -> str:
    """Error text for a parameterization that does not exist."""
    return f"parameterization {name!r} is unknown; choose one of {', '.join(PARAMETERIZATIONS)}."
