"""neural-tangents 0.6.5 runs on current JAX, and its networks are pairs like any other."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_lab
from ntk_lab.errors import InputError, NumericalError
from ntk_lab.interop import neural_tangents as bridge
from ntk_lab.nn import FunctionPair
from tests.tolerance import assert_close

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def nt():
    """The module; importing it directly fails, so ask the bridge whether it is there."""
    if not bridge.is_available():
        pytest.skip("neural-tangents 0.6.5 is not installed")
    return bridge.load()


def build(stax, net):
    """A neural-tangents network from the description in the golden files."""
    options = {k: v for k, v in net.items() if k not in ("layer", "layers", "width", "degree")}
    if net["layer"] == "Serial":
        return stax.serial(*(build(stax, layer) for layer in net["layers"]))
    if net["layer"] in ("Dense", "Conv"):
        return getattr(stax, net["layer"])(net["width"], **options)
    if net["layer"] == "Aggregate":
        implementation = stax.AggregateImplementation[options["implementation"]]
        return stax.Aggregate(options["aggregate_axis"], implementation=implementation)
    return getattr(stax, net["layer"])(**options)


def golden(folder, file):
    """Descriptions and arrays; the arrays in the precision of the run."""
    arrays = np.load(GOLDEN / folder / f"{file}.npz")
    text = (GOLDEN / folder / f"{file}.json").read_text()
    return json.loads(text), lambda name: jnp.asarray(arrays[name], dtype=float)


def erf_network(nt, width=8, outputs=2):
    layers = nt.stax.Dense(width, 1.3, 0.2), nt.stax.Erf(), nt.stax.Dense(outputs, 1.1, 0.1)
    return nt.stax.serial(*layers)


def points(key, n=4, d=3):
    return jax.random.normal(key, (n, d))


def test_load_leaves_nothing_behind_in_other_libraries(nt):
    """In a fresh process, with warnings as errors and strict promotion."""
    program = """
import sys, jax, jax.core, importlib.util
from jax.interpreters import ad
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
before = set(sys.modules), set(vars(jax)), set(vars(jax.core)), set(vars(ad))
probed = importlib.util.find_spec("tensorflow")
from ntk_lab.interop import neural_tangents as bridge
nt = bridge.load()
assert nt is bridge.load() and nt.__version__ == "0.6.5"
import neural_tangents
assert neural_tangents is nt
assert importlib.util.find_spec("tensorflow") == probed
gone = ("tensorflow", "tf2jax", "jax.util", "jax.experimental.jax2tf")
assert not [name for name in gone if name in sys.modules]
assert "zeros_like_p" not in vars(ad)
assert set(vars(jax.core)) == before[2], set(vars(jax.core)) - before[2]
assert "util" not in vars(jax)
try:
    nt.experimental.empirical_ntk_fn_tf
except AttributeError as error:
    assert "TensorFlow" in str(error)
else:
    raise AssertionError
"""
    command = [sys.executable, "-W", "error", "-c", program]
    root = Path(ntk_lab.__file__).parents[1]
    run = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("found", [None, "0.6.2"])
def test_a_missing_or_other_version_is_one_clear_error(monkeypatch, found):
    def version(name):
        assert name == "neural-tangents"
        if found is None:
            raise bridge.importlib.metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(bridge.importlib.metadata, "version", version)
    assert not bridge.is_available()
    with pytest.raises(ImportError) as caught:
        bridge.load()
    message = str(caught.value)
    assert "pip install 'ntk_lab[neural-tangents]'" in message
    assert "pip install --no-deps neural-tangents==0.6.5" in message
    assert "\n" not in message
    assert ("is not installed" if found is None else "0.6.2 is installed") in message


@pytest.mark.parametrize(
    "case",
    [
        "fc_relu_d3_he",
        "fc_erf_d2",
        "fc_relu_standard_param",
        "fc_relu_tiny_1e-8",
        "conv1d_same_flatten",
        "graph_aggregate_d1",
    ],
)
def test_kernels_of_a_pair_are_the_golden_values(nt, case):
    description, array = golden("public", "cases")
    case = next(c for c in description["cases"] if c["id"] == case)
    pair = bridge.from_neural_tangents(build(nt.stax, case["net"]))
    x1, x2 = (array(f"{case['id']}/{name}") for name in ("x1", "x2"))
    for tag, second in (("12", x2), ("11", None)):
        options = {}
        if case["has_pattern"]:
            other = "pattern2" if tag == "12" else "pattern1"
            options["pattern"] = tuple(array(f"{case['id']}/{p}") for p in ("pattern1", other))
        got = pair.kernel(x1, second, **options)
        for name in ("nngp", "ntk"):
            # Half the digits are lost on the diagonal of a ReLU tangent kernel, by its formula.
            tolerance = case["rtol"][f"{name}_{tag}"] if x1.dtype == np.float64 else 5e-4
            expected = array(f"{case['id']}/{name}_{tag}")
            error = np.abs(getattr(got, name) - expected).max() / np.abs(expected).max()
            assert error <= tolerance, (name, tag)


def test_reversed_spatial_axes_are_put_in_order(nt):
    """After one convolution the kernel is a sum of input covariances over the filter."""
    h, w, fh, fw, w_std, b_std = 4, 3, 2, 3, 1.3, 0.4
    triple = nt.stax.serial(nt.stax.Conv(1, (fh, fw), padding="VALID", W_std=w_std, b_std=b_std))
    x = np.random.default_rng(0).normal(size=(2, h, w, 3))
    x1 = jnp.asarray(x, dtype=float)
    with bridge.relaxed_promotion():
        assert triple[2](x1, None).is_reversed
    q = np.einsum("aijc,bklc->abikjl", x, x) / 3  # n1, n2, H, H', W, W'
    oh, ow = h - fh + 1, w - fw + 1
    windows = [q[:, :, i : i + oh, i : i + oh, j : j + ow, j : j + ow]
               for i in range(fh) for j in range(fw)]  # fmt: skip
    expected = w_std**2 * np.mean(windows, axis=0) + b_std**2
    assert expected.shape == (2, 2, 3, 3, 1, 1)
    got = bridge.from_neural_tangents(triple).kernel(x1)
    assert_close(got.nngp, expected)
    assert_close(got.ntk, expected)

    pair = bridge.from_neural_tangents(triple, kernel_kwargs={"diagonal_spatial": True})
    assert_close(pair.kernel(x1).nngp, np.einsum("abiijj->abij", expected))


def test_a_pair_initialises_and_applies_one_example_shape(nt, key):
    pair = bridge.from_neural_tangents(erf_network(nt))
    assert isinstance(pair, FunctionPair)
    init, apply, kernel = pair
    x = points(key)
    params = init(key, x.shape[1:])
    assert apply(params, x).shape == (4, 2)
    assert kernel(x, x[:3]).ntk.shape == kernel(x, x[:3]).nngp.shape == (4, 3)
    half = init(key, x.shape[1:], dtype=jnp.float16)
    assert {leaf.dtype for leaf in jax.tree.leaves(half)} == {jnp.dtype("float16")}


def test_pairs_transform_under_strict_promotion(nt, key):
    """The setting of every test here, under which neural-tangents alone cannot pool."""
    stax = nt.stax
    triple = stax.serial(stax.Conv(3, (3,)), stax.AvgPool((2,), padding="SAME"), stax.Flatten())
    pair = bridge.from_neural_tangents(triple)
    x = jax.random.normal(key, (4, 5, 2))
    with pytest.raises(ValueError, match="dtype_promotion=strict"):
        triple[2](x, None)
    params = pair.init(key, (5, 2))
    gradient = jax.jit(jax.grad(lambda p: pair.apply(p, x).sum()))(params)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    expected = pair.kernel(x, x[:2]).ntk
    rows = jax.jit(jax.vmap(lambda row: pair.kernel(row[None], x[:2]).ntk[0]))(x)
    assert_close(rows, expected)


def test_keyword_arguments_reach_the_network(nt, key):
    layers = nt.stax.Dense(64), nt.stax.Dropout(0.5), nt.stax.Dense(1)
    triple = nt.stax.serial(*layers)
    bound = bridge.from_neural_tangents(triple, apply_kwargs={"rng": jax.random.key(1)})
    free = bridge.from_neural_tangents(triple)
    x = points(key)
    params = free.init(key, (3,))
    assert_close(bound.apply(params, x), free.apply(params, x, rng=jax.random.key(1)))
    other = bound.apply(params, x, rng=jax.random.key(2))
    assert not np.allclose(other, bound.apply(params, x))


def test_finite_networks_agree_with_the_kernels_by_z_score(nt, key):
    """With one hidden layer both kernels are exact expectations at any width."""
    pair = bridge.from_neural_tangents(erf_network(nt, width=64, outputs=1))
    x = points(key)

    def sample(key):
        params = pair.init(key, x.shape[1:])
        f = pair.apply(params, x)[:, 0]
        jacobian = jax.jacobian(lambda p: pair.apply(p, x)[:, 0])(params)
        flat = jnp.concatenate([j.reshape(4, -1) for j in jax.tree.leaves(jacobian)], axis=1)
        return f[:, None] * f[None, :], flat @ flat.T

    samples = jax.jit(jax.vmap(sample))(jax.random.split(key, 1000))
    upper = np.triu_indices(4)
    for drawn, expected in zip(samples, pair.kernel(x), strict=True):
        drawn = np.asarray(drawn)[:, upper[0], upper[1]]
        standard_error = drawn.std(axis=0, ddof=1) / np.sqrt(len(drawn))
        exact = np.asarray(expected)[upper]
        assert np.all(standard_error < 0.08 * np.abs(exact).max())
        assert np.abs((drawn.mean(axis=0) - exact) / standard_error).max() < 4


def test_predictions_reproduce_the_golden_dynamics(nt):
    description, array = golden("predict", "predict")
    name = "p2_erf_3out_reg"
    problem = next(p for p in description["problems"] if p["name"] == name)
    (dd, td, y, f0_train, f0_test) = (
        array(f"{name}/{k}") for k in ("ntk_dd", "ntk_td", "y_train", "fx_train_0", "fx_test_0")
    )
    options = {k: problem[k] for k in ("diag_reg", "diag_reg_absolute_scale", "trace_axes")}

    def predict(dd, t):
        run = nt.predict.gradient_descent_mse(dd, y, problem["learning_rate"], **options)
        return run(t, f0_train, f0_test, td)

    with bridge.relaxed_promotion():
        for t in (1.0, 10.0):
            for values in (predict(dd, t), jax.jit(predict, static_argnums=1)(dd, t)):
                for part, value in zip(("train", "test"), values, strict=True):
                    expected = array(f"{name}/gdmse/f0/t={t:g}/{part}")
                    assert_close(value, expected, factor=10)
        rate = nt.predict.max_learning_rate(dd, y.size, eps=0.0)
    assert_close(np.asarray(rate, dd.dtype), problem["max_learning_rate"]["momentum=0.0"])


@pytest.mark.parametrize("mode", ["STRUCTURED_DERIVATIVES", "AUTO", "NTK_VECTOR_PRODUCTS"])
def test_empirical_modes_agree_with_the_jacobian_product(nt, key, mode):
    layers = nt.stax.Conv(2, (3,), b_std=0.1), nt.stax.Relu(), nt.stax.Flatten(), nt.stax.Dense(2)
    init, apply, _ = bridge.from_neural_tangents(nt.stax.serial(*layers))
    x = jax.random.normal(key, (3, 5, 2))
    params = init(key, (5, 2))
    jacobian = jax.tree.leaves(jax.jacobian(lambda p: apply(p, x))(params))
    flat = np.concatenate([np.asarray(j).reshape(3, 2, -1) for j in jacobian], axis=2)
    expected = np.einsum("nap,mbp->nmab", flat, flat)
    with bridge.relaxed_promotion():
        ntk = nt.empirical_ntk_fn(
            apply, trace_axes=(), vmap_axes=0, implementation=nt.NtkImplementation[mode]
        )
        assert_close(jax.jit(ntk)(x, None, params), expected)


def test_linearization_is_the_tangent_plane(nt, key):
    init, apply, _ = bridge.from_neural_tangents(erf_network(nt))
    x = points(key)
    params = init(key, (3,))
    step = jax.tree.map(jnp.ones_like, params)
    moved = jax.tree.map(jnp.add, params, step)
    f, df = jax.jvp(lambda p: apply(p, x), (params,), (step,))
    assert_close(nt.linearize(apply, params)(moved, x), f + df)
    assert_close(nt.taylor_expand(apply, params, 1)(moved, x), f + df)


def test_infinities_of_finite_inputs_are_named_and_counted(nt):
    layers = nt.stax.Dense(1), nt.stax.Polynomial([0.0, 1.0]), nt.stax.Dense(1)
    triple = nt.stax.serial(*layers)
    x = jnp.zeros((2, 3))
    with pytest.raises(NumericalError, match=r"4 of 4 n.* entries.*Polynomial") as caught:
        bridge.from_neural_tangents(triple).kernel(x)
    assert "finite inputs" in str(caught.value)
    raw = bridge.from_neural_tangents(triple, check_finite=False).kernel(x)
    assert not np.isfinite(raw.ntk).any()
    passed_on = bridge.from_neural_tangents(triple).kernel(x * jnp.nan)
    assert np.isnan(passed_on.nngp).all()


def test_what_is_not_a_network_is_refused(nt, key):
    with pytest.raises(InputError, match=r"three functions \(init_fn, apply_fn, kernel_fn\)"):
        bridge.from_neural_tangents((erf_network(nt)[0], erf_network(nt)[1]))
    ends = nt.stax.parallel(nt.stax.Dense(1), nt.stax.Dense(1))
    branches = nt.stax.serial(nt.stax.FanOut(2), ends)
    with pytest.raises(InputError, match=r"several outputs.*FanInSum"):
        bridge.from_neural_tangents(branches).kernel(points(key))
