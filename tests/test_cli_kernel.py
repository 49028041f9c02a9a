"""The commands for kernels and regressions of any size: files in, files out, exit codes."""

import json

import jax
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab.cli import main
from ntk_lab.cli_data import read, size, targets, time_text
from ntk_lab.errors import InputError
from ntk_lab.kernel.computed import Computed
from ntk_lab.kernel.folder import data_fingerprint

RNG = np.random.default_rng(0)
X, X_TEST = (RNG.normal(size=(n, 3)).astype(np.float32) for n in (40, 10))
Y = np.sin(X[:, :1])
LABELS = (X[:, 0] > 0).astype(int)
SHALLOW = ["--depth", "1", "--b-std", "0.5"]
NET = ntk.nn.Sequential(ntk.nn.Dense(1, w_std=2**0.5, b_std=0.5), ntk.nn.Relu(), ntk.nn.Dense(1))


@pytest.fixture
def files(tmp_path):
    np.save(tmp_path / "x.npy", X)
    np.savez(tmp_path / "data.npz", x=X, y=Y, labels=LABELS, x_test=X_TEST)
    (tmp_path / "net.json").write_text(NET.to_json())
    return tmp_path


def run(*arguments):
    return main([str(a) for a in arguments])


def refused(capsys, *arguments):
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    return " ".join(err.split())


def test_a_kernel_of_a_file_is_written_and_gone_on_with(files, capsys, monkeypatch):
    pytest.importorskip("zarr")
    monkeypatch.setattr("ntk_lab.kernel.computed._LARGEST", 8)
    command = ["kernel", files / "x.npy", *SHALLOW, "--output", files / "k.zarr"]
    tile, calls = Computed.tile, []

    def interrupted(self, i, j):
        calls.append((i, j))
        if len(calls) == 6:
            raise KeyboardInterrupt
        return tile(self, i, j)

    with monkeypatch.context() as patch:
        patch.setattr(Computed, "tile", interrupted)
        assert run(*command) == 130
    assert "--resume goes on from there" in capsys.readouterr().err
    assert "exists already. Go on with it by --resume" in refused(capsys, *command)
    assert run(*command, "--resume") == 0
    out, err = capsys.readouterr()
    assert "ntk: (40, 40), float32" in out
    assert "15 of 15 tiles" in err
    found = ntk.kernel.open_store(files / "k.zarr")
    np.testing.assert_allclose(np.asarray(found.ntk), NET.kernel(X).ntk, rtol=1e-5)
    assert json.loads(NET.to_json()) == found.manifest["architecture"]
    other = ["kernel", files / "x.npy", "--network", files / "net.json", "--output"]
    assert run(*other, files / "k.zarr", "--resume") == 0  # the same network


def test_a_rectangle_of_zarr_and_npz(files, capsys):
    zarr = pytest.importorskip("zarr")
    zarr.save_array(files / "x.zarr", X)
    command = ["kernel", files / "x.zarr", "--x2", f"{files / 'data.npz'}:x_test", *SHALLOW]
    assert run(*command, "--which", "both", "--output", files / "k") == 0
    found = ntk.kernel.open_store(files / "k")
    np.testing.assert_allclose(found.nngp, NET.kernel(X, X_TEST).nngp, rtol=1e-5)
    assert data_fingerprint(read(str(files / "x.zarr"))) == data_fingerprint(X)


def regress(files, *more, y="y", output="fit"):
    data = files / "data.npz"
    return run("regress", data, f"{data}:{y}", *SHALLOW, "--output", files / output, *more)


def test_a_regression_writes_coefficients_and_predictions(files, capsys):
    np.save(files / "y_test.npy", np.sin(X_TEST[:, :1]))
    test = ["--test", f"{files / 'data.npz'}:x_test", "--test-targets", files / "y_test.npy"]
    assert regress(files, "--ridge", "0.01", *test) == 0
    out = capsys.readouterr().out
    assert "by cholesky (40 examples" in out
    assert "root mean square error: 0." in out
    k = np.asarray(NET.kernel(X).ntk, np.float64)
    expected = np.linalg.solve(k + 0.01 * np.eye(40), Y)
    with np.load(files / "fit" / "coefficients.npz") as found:
        np.testing.assert_allclose(found["coefficients"], expected, rtol=2e-3, atol=2e-3)
    predicted = np.asarray(NET.kernel(X_TEST, X).ntk) @ expected
    np.testing.assert_allclose(np.load(files / "fit" / "predictions.npy"), predicted, atol=1e-3)
    assert regress(files, "--ridge", "0.01") == 2
    assert "exists already" in capsys.readouterr().err


def test_classes_have_an_accuracy(files, capsys):
    test = ["--test", files / "x.npy", "--test-targets", f"{files / 'data.npz'}:labels"]
    options = ["--method", "nystrom", "--centres", "20", "--ridge", "0.01"]
    assert regress(files, *options, *test, y="labels") == 0
    found = capsys.readouterr().out
    assert "accuracy: 0.9" in found or "accuracy: 1.0" in found
    y, classes = targets(LABELS)
    assert classes
    np.testing.assert_allclose(y.sum(axis=1), 0, atol=1e-12)
    assert y.shape == (40, 2)


def test_random_features_and_training_for_some_time(files, capsys):
    test = ["--test", files / "x.npy", "--test-targets", f"{files / 'data.npz'}:y"]
    options = ["--method", "features", "--features", "300", "--ridge", "0.1"]
    assert regress(files, *options, *test) == 0
    assert "RandomFeatures(300 of the ntk, relative error 0." in capsys.readouterr().out
    with np.load(files / "fit" / "coefficients.npz") as found:
        assert found["coefficients"].shape == (300, 1)
        assert found["examples"].shape == (0,)
        assert float(found["time"]) == np.inf
        phi = ntk.kernel.random_features(
            ntk.nn.from_json(str(found["network"])), X, which=str(found["which"]),
            count=int(found["features"]), key=jax.random.key(int(found["seed"])),
        )  # fmt: skip
        again = np.asarray(phi(X), np.float64) @ found["coefficients"]
    np.testing.assert_allclose(again, np.load(files / "fit" / "predictions.npy"), atol=1e-5)
    assert regress(files, "--resume", "--time", "50", "--ridge", "0", *test) == 0
    assert "by lanczos" in capsys.readouterr().out
    flow = ntk.predict.gradient_flow(NET.kernel(X).ntk, Y, NET.kernel(X).ntk)
    expected, found = flow.at(50.0).test.mean, np.load(files / "fit" / "predictions.npy")
    np.testing.assert_allclose(found, expected, atol=1e-4)
    with np.load(files / "fit" / "coefficients.npz") as stored:
        assert (float(stored["time"]), int(stored["features"])) == (50.0, 0)
        k = ntk.nn.from_json(str(stored["network"])).kernel(X, X[stored["examples"]]).ntk
        again = np.asarray(k, np.float64) @ stored["coefficients"]
    np.testing.assert_allclose(again, found, atol=1e-5)
    assert regress(files, "--resume", "--method", "cholesky", "--ridge", "0.1") == 0


def test_a_regression_that_is_not_solved_has_its_own_exit_code(files, capsys):
    linear = ntk.nn.Sequential(ntk.nn.Dense(1)).to_json()
    (files / "linear.json").write_text(linear)
    options = ["--network", files / "linear.json", "--method", "cg", "--ridge", "0"]
    assert regress(files, *options) == 3
    assert "the relative residual is" in capsys.readouterr().err


def test_a_plan_names_time_memory_disk_and_method(files, capsys, monkeypatch):
    assert run("plan", files / "x.npy", *SHALLOW, "--memory", "100MB") == 0
    out = capsys.readouterr().out
    for words in ("kernel: 40 x 40 in float32, one half", "time: about", "100 MB allowed",
                  "disk: 6.4 kB of", "regression: cholesky (40 examples"):  # fmt: skip
        assert words in out
    assert run("plan", files / "x.npy", "--x2", files / "x.npy") == 0
    assert "regression" not in capsys.readouterr().out


BAD = {
    "cannot be read": ["kernel", "missing.npy"],
    "expected a file .npy": ["kernel", "setup.cfg"],
    "--network": ["kernel", "x.npy", "--network", "missing.json"],
    "but no z": ["kernel", "data.npz:z"],
    "--depth 0": ["kernel", "x.npy", "--depth", "0"],
    "needs --test": ["regress", "x.npy", "data.npz:y", "--ridge", "1", "--test-targets", "y"],
    "expected numbers of shape (40": ["regress", "x.npy", "data.npz:x_test", "--ridge", "1"],
    "0 <= ridge": ["regress", "x.npy", "data.npz:y", "--ridge", "-1"],
}


@pytest.mark.parametrize("words", BAD)
def test_bad_input_is_answered_with_one_paragraph(words, files, capsys, monkeypatch):
    monkeypatch.chdir(files)
    (files / "setup.cfg").write_text("")
    assert words in refused(capsys, *BAD[words], "--output", "out")


def test_sizes_and_times():
    assert (size("8GB"), size("500 mb"), size("1000")) == (8e9, 5e8, 1e3)
    assert (time_text(12), time_text(600), time_text(7200)) == ("12 s", "10 min", "2 h")
    with pytest.raises(SystemExit):
        run("plan", "x.npy", "--memory", "plenty")
    with pytest.raises(InputError):
        read("nothing.npz:x")
