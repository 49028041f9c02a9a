"""What theory says of each parameterization."""

import pytest

import ntk_lab as ntk
from ntk_lab.errors import InputError
from ntk_lab.nn.parameterization import PARAMETERIZATIONS


@pytest.mark.parametrize("name", PARAMETERIZATIONS)
def test_every_parameterization_has_a_theory_of_every_gap_that_width_decides(name):
    theory = ntk.theory.width_theory(name)
    gaps = {"discretization", "finite-width kernel", "feature learning", "total"}
    assert set(theory.exponents) == gaps
    assert "arXiv" in theory.source
    assert theory.exponents["discretization"] == 0
    assert theory.exponents["finite-width kernel"] == -0.5


def test_a_kernel_limit_is_a_total_gap_that_vanishes():
    for name in PARAMETERIZATIONS:
        theory = ntk.theory.width_theory(name)
        assert theory.kernel_limit == (name not in ("mean_field", "mup"))
        assert (theory.exponents["total"] < 0) == theory.kernel_limit
        # What is left of the total is its slowest part that width cures, or does not.
        curable = [theory.exponents[g] for g in ("finite-width kernel", "feature learning")]
        assert theory.exponents["total"] == max(curable)


def test_unknown_parameterizations_are_named():
    with pytest.raises(InputError, match="'abc'"):
        ntk.theory.width_theory("abc")
