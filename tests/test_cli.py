import os
import signal
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

import ntk_lab
from ntk_lab import Comparison, __version__, plot
from ntk_lab.cli import main
from ntk_lab.cli_progress import Clock, interruptible
from ntk_lab.compare import report
from ntk_lab.compare.experiment import Experiment

TINY = ["compare", "--train", "24", "--test", "30", "--steps", "5", "--seeds", "2", "--depth", "1"]
WIDTHS = ["--widths", "8", "16"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Folder of a real run, and what its experiments measured, by width."""
    folder = tmp_path_factory.mktemp("cli") / "digits"
    run, measured = Experiment.run, {}

    def noting(self, seeds):
        measured[width_of(self)] = run(self, seeds)
        return measured[width_of(self)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Experiment, "run", noting)
        assert main([*TINY, *WIDTHS, "--output", str(folder)]) == 0
    return folder, measured


@pytest.fixture
def small_figures(monkeypatch):
    monkeypatch.setattr(report, "_draw", lambda *_: Figure((0.5, 0.5)))
    monkeypatch.setattr(plot, "overview", lambda _: Figure((0.5, 0.5)))


def width_of(experiment):
    return experiment.net.layers[1].width


def no_runs(monkeypatch):
    def run(self, seeds):
        raise AssertionError("a finished run was computed again")

    monkeypatch.setattr(Experiment, "run", run)


def same(a, b):
    return all(np.array_equal(a.measures[k], b.measures[k], equal_nan=True) for k in a.measures)


def refused(capsys, *arguments):
    """The paragraph that input which cannot be used is answered with."""
    assert main([*TINY, *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    assert err.startswith("ntk-lab: ")
    assert "\n\n" not in err.strip()
    return " ".join(err.split())


@pytest.mark.parametrize("arguments", [["--help"], ["compare", "--help"]])
def test_help_names_defaults_and_units(arguments, capsys):
    with pytest.raises(SystemExit) as done:
        main(arguments)
    assert done.value.code == 0
    words = " ".join(capsys.readouterr().out.split())
    if "compare" in arguments:
        assert "time = learning rate x steps" in words
        assert "2 / lambda_max" in words
        assert "updates (default: 500)" in words


def test_version(capsys):
    with pytest.raises(SystemExit) as done:
        main(["--version"])
    assert done.value.code == 0
    assert capsys.readouterr().out == f"ntk-lab {__version__}\n"


@pytest.mark.usefixtures("small_figures")
def test_a_run_prints_tables_and_report_and_a_second_one_computes_nothing(
    finished, capsys, monkeypatch
):
    folder, _ = finished
    first = Comparison.load(folder)
    assert first.gap().shape == (2, 2, len(first.steps))
    assert first.measures["gap/total"].dtype == np.float64
    no_runs(monkeypatch)
    assert main([*TINY, *WIDTHS, "--output", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert out == f"{first}\n\nReport: {folder / 'report.html'}\n"
    assert f"Found in {folder}: 100% of the work is finished already." in err
    assert same(first, Comparison.load(folder))
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "ntk-lab compare --train 24" in page


@pytest.mark.usefixtures("small_figures")
def test_an_interrupted_run_goes_on(finished, tmp_path, capsys, monkeypatch):
    (whole, measured), folder, ran = finished, tmp_path / "again", []

    def replay(stop):
        def run(self, seeds):
            if len(ran) == stop:
                raise KeyboardInterrupt
            ran.append(width_of(self))
            return measured[width_of(self)]

        monkeypatch.setattr(Experiment, "run", run)

    command = [*TINY, *WIDTHS, "--output", str(folder)]
    replay(stop=1)
    assert main(command) == 130
    err = " ".join(capsys.readouterr().err.split())
    assert f"Finished runs are kept in {folder}: the same command goes on from there." in err
    assert "0% width 8, seeds 0 to 1 (0:00 elapsed, estimating time left)" in err
    assert "% width 16, seeds 0 to 1 (0:0" in err
    assert "Found in" not in err
    assert not (folder / "report.html").exists()
    replay(stop=2)
    assert main(command) == 0
    assert ran == [8, 16]
    assert f"Found in {folder}: 5" in capsys.readouterr().err
    assert same(Comparison.load(whole), Comparison.load(folder))


def test_other_settings_in_the_same_folder_are_refused(finished, capsys):
    err = refused(capsys, *WIDTHS, "--key", "1", "--output", str(finished[0]))
    assert "another comparison" in err


def test_a_rate_beyond_stability_names_the_limit(tmp_path, capsys):
    err = refused(capsys, *WIDTHS, "--learning-rate", "1000", "--output", str(tmp_path))
    assert "2 / lambda_max =" in err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--widths", "0"], "widths=(0,)"),
        (["--widths", "16", "8"], "must rise"),
        (["--data", "cifar"], "no data set is called 'cifar'; there is digits"),
        (["--depth", "0"], "--depth 0 must be at least 1"),
        (["--train", "0"], "0 training"),
        (["--seeds", "0"], "seeds=0"),
        (["--parameterization", "magic"], "'magic'"),
        (["--tolerance", "2"], "tolerance=2"),
        (["--batch-size", "100"], "batch_size=100"),
        (["--w-std", "-1"], "w_std=-1"),
    ],
)
def test_bad_input_is_answered_with_one_paragraph(arguments, expected, tmp_path, capsys):
    assert expected in refused(capsys, *arguments, "--output", str(tmp_path))


def test_an_unwritable_folder_is_found_before_anything_is_computed(tmp_path, capsys, monkeypatch):
    no_runs(monkeypatch)
    (tmp_path / "file").write_text("")
    err = refused(capsys, *WIDTHS, "--output", str(tmp_path / "file" / "folder"))
    assert "cannot be written" in err
    assert "nothing was computed yet" in err


@pytest.mark.parametrize(("module", "extra"), [("rich", "cli"), ("matplotlib", "report")])
def test_a_missing_extra_is_found_before_anything_is_computed(
    module, extra, tmp_path, capsys, monkeypatch
):
    no_runs(monkeypatch)
    monkeypatch.setitem(sys.modules, module, None)
    err = refused(capsys, *WIDTHS, "--output", str(tmp_path / "none"))
    assert f"pip install 'ntk_lab[{extra}]'" in err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("optimizer", "activation"),
    [("sgd", "erf"), ("momentum", "gelu"), ("adam", "relu"), ("sgd", "tanh")],
)
def test_choices_reach_the_comparison(optimizer, activation, tmp_path, monkeypatch):
    seen = {}

    def compare(net, train, test, **settings):
        seen.update(settings, net=net, x=jnp.asarray(train[0]), test=test)
        raise KeyboardInterrupt

    monkeypatch.setattr(ntk_lab, "compare", compare)
    before = jax.config.jax_enable_x64
    arguments = [
        "--optimizer", optimizer, "--activation", activation, "--batch-size", "8", "--depth", "3",
        "--parameterization", "mean_field", "--x64", "--output", str(tmp_path),
    ]  # fmt: skip
    assert main([*TINY, *WIDTHS, *arguments]) == 130
    assert jax.config.jax_enable_x64 == before
    assert seen["x"].dtype == np.float64
    assert seen["x"].shape == (24, 8, 8, 1)
    assert seen["batch_size"] == 8
    assert seen["parameterization"] == "mean_field"
    assert seen["widths"] == (8, 16)
    assert repr(seen["net"]).count(f"{activation.capitalize()}()") == 3
    assert seen["net"].output_shape((8, 8, 1)) == (10,)
    with jax.numpy_dtype_promotion("standard"):  # optax's adam does not pass the strict rules
        made = seen["optimizer"](0.5)
        updates, _ = made.update(jnp.ones(2), made.init(jnp.ones(2)))
    rates = {"sgd": 0.5, "momentum": 0.05, "adam": 1e-3}
    np.testing.assert_allclose(updates, -rates[optimizer], rtol=1e-5)


def test_time_left_is_unknown_until_a_unit_is_done_and_counts_down():
    now = [100.0]
    clock = Clock(lambda: now[0])
    assert clock.left() == "estimating time left"
    clock.update(20.0, 100.0)  # found finished: says nothing of speed
    now[0] += 5
    assert clock.left() == "estimating time left"
    now[0] += 5
    clock.update(40.0, 100.0)
    assert clock.left() == "0:30 left"
    now[0] += 10
    assert (clock.elapsed(), clock.left()) == ("0:20", "0:20 left")
    now[0] += 4000
    assert (clock.elapsed(), clock.left()) == ("1:07:00", "0:00 left")


def test_control_c_ends_even_what_python_cannot_interrupt(capsys, monkeypatch):
    ended, codes = threading.Event(), []
    monkeypatch.setattr(os, "_exit", lambda code: (codes.append(code), ended.set()))
    before = signal.signal(signal.SIGINT, lambda *_: None)  # as if compiled code were running
    try:
        with interruptible("Interrupted.", 130, patience=0.01):
            signal.raise_signal(signal.SIGINT)
            assert ended.wait(10)
    finally:
        signal.signal(signal.SIGINT, before)
    assert codes == [130]
    assert capsys.readouterr().err == "Interrupted.\n"


def test_control_c_is_an_ordinary_exception_where_python_can_be_interrupted(monkeypatch):
    monkeypatch.setattr(os, "_exit", lambda code: pytest.fail("ended"))
    # A process started in the background may have been told to ignore interrupts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), interruptible("Interrupted.", 130):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert signal.set_wakeup_fd(-1) == -1
