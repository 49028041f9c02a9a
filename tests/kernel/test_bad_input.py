"""Kernels refuse what they cannot compute, and say what to do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab.errors import InputError, NumericalError

NET = ntk.nn.Sequential(ntk.nn.Dense(8), ntk.nn.Relu(), ntk.nn.Dense(1))
X = np.ones((4, 3), np.float32)


def with_nan(row):
    x = X.copy()
    x[row, 1] = np.nan
    return x


@pytest.mark.parametrize(
    ("x1", "x2", "says"),
    [
        (with_nan(2), None, r"x1 has NaN or infinite values in 1 of 4 .* number 2.*Remove"),
        (X, with_nan(3), r"x2 has NaN.* number 3"),
        (X * np.float32(np.inf), None, r"in 4 of 4"),
        (X[0], None, r"shape \(3,\).*x\[None\]"),
        (X[:0], None, r"at least one example"),
        (X[:, :0], None, r"channel"),
        (X, X[:, :2], r"examples of shape \(3,\) and x2 of \(2,\)"),
        (X, X.astype(np.float16), r"float16.*float32 or float64"),
        (X + 1j, None, r"complex.*real"),
        (np.array([["a"]]), None, r"dtype <U1.*numbers"),
        (np.array([[None]]), None, r"dtype object"),
        (jnp.asarray(X, jnp.bfloat16), None, r"bfloat16"),
    ],
)
def test_unusable_inputs_are_refused(x1, x2, says):
    with pytest.raises(InputError, match=says):
        NET.kernel(x1, x2)


@pytest.mark.x64
def test_two_precisions_are_refused():
    with pytest.raises(InputError, match=r"x1 is float32 and x2 is float64.*astype"):
        NET.kernel(X, X.astype(np.float64))


def test_overflow_is_reported_with_what_to_do():
    net = ntk.nn.Sequential(*[ntk.nn.Dense(8, 1e6), ntk.nn.Erf()] * 1, ntk.nn.Dense(1, 1e16))
    with pytest.raises(NumericalError, match=r"of 16 entries of the .* not finite.*w_std"):
        net.kernel(X * np.float32(1e15))


def test_inputs_under_jit_are_not_looked_at():
    """A traced NaN goes through: errors on values belong outside of compiled code."""
    kernel = jax.jit(NET.kernel)(with_nan(1))
    assert jnp.isnan(kernel.ntk[1]).all()


def test_a_bad_shape_is_refused_under_jit_too():
    with pytest.raises(InputError, match=r"x\[None\]"):
        jax.jit(NET.kernel)(X[0])
