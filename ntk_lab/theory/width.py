"""Which parameterizations have a kernel limit, and how fast networks approach it."""

from typing import NamedTuple

from ntk_lab.errors import InputError


class WidthTheory(NamedTuple):
    """Leading power of the width in each gap between kernel theory and one trained network.

    Attributes
    ----------
    kernel_limit
        Whether the infinitely wide network trains as kernel regression.
    exponents
        Exponent by name of the gap, as ``ntk.compare`` names them; relative gaps.
    source
        Where it comes from.
    """

    kernel_limit: bool
    exponents: dict[str, float]
    source: str


_FINITE_WIDTH = "finite-width kernel"
_FEATURES = "feature learning"


def width_theory(parameterization: str) -> WidthTheory:
    """Expected scaling of the gaps with width ``n``, at fixed time in comparable units.

    In ``ntk`` and ``standard`` parameterization (the latter with learning rate over ``n``) the
    NTK at initialization fluctuates by ``n^(-1/2)`` around its limit, a central limit theorem,
    and its motion in training is of order ``1/n`` for smooth activations (arXiv:1909.11304; the
    proven bound is ``n^(-1/2)``, arXiv:1902.06720; kinks of Relu make it slightly slower), so
    that the total falls as ``n^(-1/2)``. Under a ``mean_field`` readout features move by order
    one at every width and there is no kernel limit (arXiv:2011.14522, arXiv:1906.08034); ``mup``
    is the same training at another learning rate.

    Examples
    --------
    >>> import ntk_lab as ntk
    >>> ntk.theory.width_theory("ntk").exponents["total"]
    -0.5
    >>> ntk.theory.width_theory("mean_field").kernel_limit
    False
    """
    if parameterization in ("ntk", "standard"):
        exponents = {"discretization": 0.0, _FINITE_WIDTH: -0.5, _FEATURES: -1.0, "total": -0.5}
        return WidthTheory(True, exponents, "arXiv:1902.06720, arXiv:1909.11304")
    if parameterization in ("mean_field", "mup"):
        exponents = {"discretization": 0.0, _FINITE_WIDTH: -0.5, _FEATURES: 0.0, "total": 0.0}
        return WidthTheory(False, exponents, "arXiv:2011.14522, arXiv:1906.08034")
    raise InputError(
        f"no theory of parameterization {parameterization!r} is known here (what ntk.nn.ABC does "
        "depends on its exponents in all layers: see arXiv:2011.14522, section 3)."
    )
