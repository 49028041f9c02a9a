"""Predictions agree with stored values of neural-tangents 0.6.5."""

import json
from pathlib import Path

import numpy as np
import pytest

from ntk_lab.kernel.result import Kernel
from ntk_lab.predict import gp_posterior, gradient_flow, max_learning_rate

FOLDER = Path(__file__).parents[1] / "golden" / "predict"
PROBLEMS = {p["name"]: p for p in json.loads((FOLDER / "predict.json").read_text())["problems"]}
TOLERANCE = 1e-9

pytestmark = [pytest.mark.x64, pytest.mark.parametrize("name", PROBLEMS)]


@pytest.fixture(scope="module")
def arrays():
    with np.load(FOLDER / "predict.npz") as file:
        return dict(file)


def results(name, *functions):
    return [r for r in PROBLEMS[name]["results"] if r["fn"] in functions]


def ridge(name, kernel):
    problem = PROBLEMS[name]
    if problem["diag_reg_absolute_scale"]:
        return problem["diag_reg"]
    return problem["diag_reg"] * np.trace(kernel) / len(kernel)


def time(name, text):
    """Our time t = learning_rate * t_nt / outputs."""
    problem = PROBLEMS[name]
    t = {"vec": problem["times"], "None": np.inf}.get(text)
    t = float(text) if t is None else np.asarray(t)
    return t * problem["learning_rate"] / problem["n_out"]


def assert_near(actual, expected):
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_means_for_given_initial_outputs_match(name, arrays):
    def get(key):
        return arrays[f"{name}/{key}"]

    kernel = get("ntk_dd")
    for result in results(name, "gradient_descent_mse"):
        f0 = {}
        if result["init"] == "f0":
            f0 = {"f0_train": get("fx_train_0"), "f0_test": get("fx_test_0")}
        fitted = result["what"].startswith("test, with")
        cross = kernel if fitted else get("ntk_td")
        flow = gradient_flow(kernel, get("y_train"), cross, ridge=ridge(name, kernel), **f0)
        prediction = flow.at(time(name, result["t"]))
        moments = prediction.train if result["what"] == "train" else prediction.test
        assert_near(moments.mean, arrays[result["key"]])


def test_means_and_covariances_over_initializations_match(name, arrays):
    dd, td, tt = (
        Kernel(arrays[f"{name}/nngp_{b}"], arrays[f"{name}/ntk_{b}"]) for b in ("dd", "td", "tt")
    )
    flows = {
        which: gradient_flow(
            dd,
            arrays[f"{name}/y_train"],
            td,
            tt,
            ridge=ridge(name, getattr(dd, which)),
            which=which,
        )
        for which in ("nngp", "ntk")
    }
    seen = set()
    for result in results(name, "gradient_descent_mse_ensemble"):
        prediction = flows[result["get"]].at(time(name, result["t"]))
        moments = getattr(prediction, result["what"])
        assert_near(getattr(moments, result["moment"]), arrays[result["key"]])
        seen.add((result["get"], result["what"], result["moment"]))
    assert len(seen) == 8


def test_gaussian_process_inference_matches(name, arrays):
    y = arrays[f"{name}/y_train"]
    for result in results(name, "gp_inference"):
        nngp, ntk = (
            [arrays[f"{name}/{kind}_{b}"] for b in ("dd", "td", "tt")] for kind in ("nngp", "ntk")
        )
        if "with" in result["what"]:
            nngp, ntk = [nngp[0]] * 3, [ntk[0]] * 3
        if result["get"] == "ntk":  # an ensemble of networks trained to the end
            kernels = map(Kernel, nngp, ntk)
            dd, td, tt = kernels
            flow = gradient_flow(dd, y, td, tt, ridge=ridge(name, dd.ntk))
            moments = flow.at(np.inf).test
        else:
            dd, td, tt = nngp if result["get"] == "nngp" else ntk
            moments = gp_posterior(dd, y, td, tt, noise=ridge(name, dd))
        assert_near(getattr(moments, result["moment"]), arrays[result["key"]])


def test_max_learning_rate_matches(name, arrays):
    problem = PROBLEMS[name]
    for setting, expected in problem["max_learning_rate"].items():
        momentum = float(setting.removeprefix("momentum="))
        limit = max_learning_rate(arrays[f"{name}/ntk_dd"], momentum)
        assert limit * problem["n_out"] == pytest.approx(expected, rel=TOLERANCE)
