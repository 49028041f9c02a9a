"""The average gradient outer product against closed forms and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab.empirical import agop as module
from ntk_lab.errors import InputError, NumericalError
from tests.tolerance import assert_close

agop = ntk.empirical.average_gradient_outer_product


def test_linear_functions_of_several_outputs_have_their_matrix(key):
    w = jax.random.normal(key, (5, 3))
    x = jax.random.normal(key, (7, 5))
    assert_close(agop(lambda w, x: x @ w, w, x), w @ w.T, factor=10)


def test_it_is_the_mean_of_outer_products_of_gradients_also_in_blocks(key, monkeypatch):
    net = ntk.nn.Sequential(ntk.nn.Dense(16), ntk.nn.Erf(), ntk.nn.Dense(2))
    params = net.init(key, (4,))
    x = jax.random.normal(key, (6, 4))
    step = 1e-5 if x.dtype == jnp.float64 else 1e-2
    moved = (x[:, None] + step * jnp.eye(4, dtype=x.dtype)[None]).reshape(-1, 4)
    back = (x[:, None] - step * jnp.eye(4, dtype=x.dtype)[None]).reshape(-1, 4)
    slopes = (net.apply(params, moved) - net.apply(params, back)) / (2 * step)
    slopes = np.asarray(slopes).reshape(6, 4, 2)
    expected = np.einsum("nic,njc->ij", slopes, slopes) / 6
    # Central differences: error of order step^2 in float64 and of rounding / step in float32.
    found = agop(net.apply, params, x)
    np.testing.assert_allclose(found, expected, atol=3e-4 * float(jnp.linalg.norm(found)))
    monkeypatch.setattr(module, "_NUMBERS", 16)
    assert_close(agop(net.apply, params, x), found, factor=10)


def test_images_are_flattened_and_single_outputs_need_no_axis(key):
    x = jax.random.normal(key, (3, 2, 2, 1))
    found = agop(lambda w, x: jnp.sum(w[None] * x, axis=(1, 2, 3)) ** 3 / 3, jnp.ones((2, 2, 1)), x)
    slope = jnp.mean(x.sum((1, 2, 3)) ** 4)
    assert_close(found, slope * jnp.ones((4, 4)), factor=10)


def test_what_cannot_be_differentiated_is_refused(key):
    with pytest.raises(InputError, match="real inputs"):
        agop(lambda w, x: x, 0.0, jnp.ones((3, 2), int))
    with pytest.raises(NumericalError, match="NaN or infinite"):
        agop(lambda w, x: jnp.sqrt(x), 0.0, jnp.zeros((3, 2)))
