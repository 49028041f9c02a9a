"""LayerNorm and Dropout agree with neural-tangents 0.6.5 where no stored case reaches."""

import jax.numpy as jnp
import numpy as np
import pytest

from ntk_lab import nn
from ntk_lab.interop import neural_tangents as bridge

pytestmark = pytest.mark.x64


@pytest.fixture(scope="module")
def stax():
    if not bridge.is_available():
        pytest.skip("neural-tangents 0.6.5 is not installed")
    return bridge.load().stax


def batches(*shape):
    rng = np.random.default_rng(len(shape))
    return (jnp.asarray(rng.normal(size=(n, *shape))) for n in (4, 3))


def assert_same_kernels(net, reference, shape):
    x1, x2 = batches(*shape)
    kernel_fn = reference[2]
    for pair in ((x1, x2), (x1, None)):
        ours, theirs = net.kernel(*pair), kernel_fn(*pair)
        for name in ("nngp", "ntk"):
            expected = np.asarray(getattr(theirs, name))
            if theirs.is_reversed and expected.ndim == 6:
                expected = expected.transpose(0, 1, 4, 5, 2, 3)
            error = np.abs(np.asarray(getattr(ours, name)) - expected).max()
            # Its kinked layers lose half of the digits on a diagonal.
            assert error <= (1e-12 if pair[1] is not None else 2e-7) * np.abs(expected).max(), name


READOUTS = {
    "flatten": lambda m: [m.Flatten(), m.Dense(1)],
    "pool": lambda m: [m.GlobalAvgPool(), m.Dense(1)],
    "positions": lambda m: [],
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("axis", "readout"), [((-1,), "pool"), ((3, 1), "flatten"), ((1, 2, 3), "positions")]
)
def test_layer_norm_over_positions(stax, axis, readout):
    def layers(m, conv, norm):
        first, second = conv(1.3, 0.2), conv(0.9, 0.1)
        return [first, norm, m.Relu(), second, norm, m.Erf(), *READOUTS[readout](m)]

    net = nn.Sequential(
        *layers(
            nn,
            lambda w, b: nn.Conv(8, (3, 2), padding="SAME", w_std=w, b_std=b),
            nn.LayerNorm(axis, 1e-2),
        )
    )
    reference = stax.serial(
        *layers(
            stax,
            lambda w, b: stax.Conv(8, (3, 2), padding="SAME", W_std=w, b_std=b),
            stax.LayerNorm(axis, 1e-2),
        )
    )
    assert_same_kernels(net, reference, (4, 3, 2))


@pytest.mark.slow
@pytest.mark.parametrize("readout", ["flatten", "positions"])
def test_dropout_of_positions(stax, readout):
    def layers(m, conv, dropout):
        first, second = conv(1.3, 0.2), conv(0.9, 0.1)
        pool = m.SumPool((2, 2))
        return [first, m.Relu(), dropout, pool, second, m.Erf(), dropout, *READOUTS[readout](m)]

    net = nn.Sequential(
        *layers(
            nn,
            lambda w, b: nn.Conv(8, (2, 2), padding="CIRCULAR", w_std=w, b_std=b),
            nn.Dropout(0.7),
        )
    )
    reference = stax.serial(
        *layers(
            stax,
            lambda w, b: stax.Conv(8, (2, 2), padding="CIRCULAR", W_std=w, b_std=b),
            stax.Dropout(0.7),
        )
    )
    assert_same_kernels(net, reference, (4, 3, 2))
