"""GlobalSelfAttention agrees with neural-tangents 0.6.5 in every option that it has."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntk_lab import nn
from ntk_lab.interop import neural_tangents as bridge

pytestmark = pytest.mark.x64

EXP, POWER = ("exp", 0.7), ("power", 0.4)
# Spatial sizes and options; the names are those of this library.
CASES = {
    "softmax_sum": ((5,), {"pos_emb": "sum", "w_pos_emb_std": 0.6}),
    "softmax_concat_decay": (
        (3, 2),
        {"pos_emb": "concat", "pos_emb_decay": EXP, "pos_emb_width": 3},
    ),
    "relu_sum_values_decay_plane": (
        (3, 2),
        {"mechanism": "relu", "pos_emb": "sum", "pos_emb_decay": EXP, "val_pos_emb": True},
    ),
    "abs_concat_p_norm": (
        (5,),
        {"mechanism": "abs", "pos_emb": "concat", "pos_emb_decay": POWER, "pos_emb_p_norm": 1},
    ),
    "identity_concat_values": (
        (4,),
        {"mechanism": "identity", "pos_emb": "concat", "pos_emb_width": 5, "val_pos_emb": True},
    ),
    "sqrt": ((5,), {"scaling": "sqrt", "mechanism": "identity", "b_std": None}),
    "sqrt_sum": (
        (4,),
        {"scaling": "sqrt", "mechanism": "identity", "pos_emb": "sum", "pos_emb_decay": POWER},
    ),
    "sqrt_concat_values_plane": (
        (3, 2),
        {"scaling": "sqrt", "mechanism": "identity", "pos_emb": "concat", "val_pos_emb": True},
    ),
}
SCALES = {"w_query_std": 0.9, "w_key_std": 1.2, "w_value_std": 1.1, "w_out_std": 1.3, "b_std": 0.2}


@pytest.fixture(scope="module")
def stax():
    if not bridge.is_available():
        pytest.skip("neural-tangents 0.6.5 is not installed")
    return bridge.load().stax


def reference_layer(stax, options):
    options = SCALES | options
    decay = options.get("pos_emb_decay")
    functions = {"exp": lambda d: jnp.exp(-decay[1] * d), "power": lambda d: 1 / (1 + decay[1] * d)}
    return stax.GlobalSelfAttention(
        6,
        4,
        4,
        2,
        linear_scaling=options.get("scaling", "linear") == "linear",
        W_query_std=options["w_query_std"],
        W_key_std=options["w_key_std"],
        W_value_std=options["w_value_std"],
        W_out_std=options["w_out_std"],
        b_std=options["b_std"],
        attention_mechanism=options.get("mechanism", "softmax").upper(),
        pos_emb_type=options.get("pos_emb", "none").upper(),
        pos_emb_p_norm=options.get("pos_emb_p_norm", 2),
        pos_emb_decay_fn=functions[decay[0]] if decay else None,
        n_chan_pos_emb=options.get("pos_emb_width"),
        W_pos_emb_std=options.get("w_pos_emb_std", 1.0),
        val_pos_emb=options.get("val_pos_emb", False),
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_attention_after_a_convolution(stax, name):
    sizes, options = CASES[name]
    window = (2,) * len(sizes)
    net = nn.Sequential(
        nn.Conv(7, window, padding="CIRCULAR", w_std=1.2, b_std=0.1),
        nn.GlobalSelfAttention(6, 2, 4, 4, **(SCALES | options)),
    )
    rng = np.random.default_rng(len(name))
    x1, x2 = (jnp.asarray(rng.normal(size=(n, *sizes, 2))) for n in (3, 2))
    with warnings.catch_warnings(), jax.numpy_dtype_promotion("standard"):
        warnings.simplefilter("ignore")
        kernel_fn = stax.serial(
            stax.Conv(7, window, padding="CIRCULAR", W_std=1.2, b_std=0.1),
            reference_layer(stax, options),
        )[2]
        references = [kernel_fn(x1, x2), kernel_fn(x1, None)]
    for theirs, ours in zip(references, (net.kernel(x1, x2), net.kernel(x1)), strict=True):
        for which in ("nngp", "ntk"):
            expected = np.asarray(getattr(theirs, which))
            if theirs.is_reversed and len(sizes) == 2:
                expected = expected.transpose(0, 1, 4, 5, 2, 3)
            error = np.abs(np.asarray(getattr(ours, which)) - expected).max()
            assert error <= 1e-12 * np.abs(expected).max(), which
