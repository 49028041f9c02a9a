"""Phase diagrams: cells are comparisons, lazy where theory says so, resumable, drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray

import ntk_lab as ntk
from ntk_lab.compare import phase as phases
from ntk_lab.compare.cells import with_label_noise
from ntk_lab.compare.centred import Centred
from ntk_lab.errors import InputError, NumericalError, StabilityError
from tests.compare.problems import FLOAT, hidden, regression
from tests.tolerance import assert_close

pytestmark = pytest.mark.slow

OPTIONS = {"seeds": 2, "steps": 30, "learning_rate": 0.15}
X, Y = ("width", (8, 64)), ("alpha", (0.3, 30.0))


@pytest.fixture(scope="module")
def diagram():
    return ntk.phase_diagram(hidden(), *regression(), x=X, y=Y, **OPTIONS)


def test_a_cell_is_the_comparison_it_names(diagram):
    c = ntk.compare(hidden(), *regression(), widths=(64,), alpha=30.0, **OPTIONS)
    assert diagram.gap[1, 1] == c.gap()[0, :, -1].mean()
    assert diagram.names()[1, 1] == c.verdicts[64, 30].status
    assert diagram.causes[1, 1] == c.dominant(64, 30)
    assert diagram.horizon[1, 1] == c.horizon().value
    assert list(diagram.budget) == list(c.gaps)
    for name in c.gaps:
        assert diagram.budget[name][1, 1] == c.gap(name)[0, :, -1].mean()


def test_a_large_output_scale_makes_training_lazy_at_any_width():
    c = [
        ntk.compare(hidden(), *regression(), widths=(8,), alpha=a, **OPTIONS) for a in (1.0, 100.0)
    ]
    features = [one.gap("feature learning").mean() for one in c]
    # The leading correction is of order 1/alpha (arXiv:1812.07956) or smaller.
    assert features[1] < features[0] / 50
    drifts = [one.measures["drift"].mean() for one in c]
    assert drifts[1] < drifts[0] / 50
    assert_close(c[0].times, c[1].times)
    assert c[0].ensemble() is None


def test_a_centred_network_starts_at_zero_with_the_kernel_scaled():
    import jax

    x = jnp.asarray(regression()[0][0])
    net, centred = hidden(), Centred(hidden(), 3.0)
    params = centred.init(jax.random.key(0), (3,), FLOAT)
    assert (centred.apply(params, x) == 0).all()
    assert_close(centred.kernel(x).ntk, 9 * np.asarray(net.kernel(x).ntk))
    assert (centred.kernel(x).nngp == 0).all()
    own = ntk.empirical.ntk(net.apply, params["plus"], x)
    assert_close(ntk.empirical.ntk(centred.apply, params, x), 9 * np.asarray(own), factor=10)
    assert centred.learning_rate_scale() == pytest.approx(1 / 9)


def test_interrupted_diagrams_go_on_with_what_is_missing(tmp_path, diagram, monkeypatch):
    calls, real = [], phases.compare

    def counted(net, *args, **options):
        calls.append(options["widths"])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(net, *args, **options)

    monkeypatch.setattr(phases, "compare", counted)
    with pytest.raises(KeyboardInterrupt):
        ntk.phase_diagram(hidden(), *regression(), x=X, y=Y, folder=tmp_path, **OPTIONS)
    again = ntk.phase_diagram(hidden(), *regression(), x=X, y=Y, folder=tmp_path, **OPTIONS)
    assert len(calls) == 3 + 2
    np.testing.assert_allclose(again.gap, diagram.gap, rtol=1e-12)
    assert (again.causes == diagram.causes).all()
    assert list(again.budget) == list(diagram.budget)
    for name, values in diagram.budget.items():
        np.testing.assert_allclose(again.budget[name], values, rtol=1e-12)
    assert str(again) == str(diagram)
    with pytest.raises(InputError, match="another phase diagram"):
        ntk.phase_diagram(hidden(2), *regression(2), x=X, y=Y, folder=tmp_path, **OPTIONS)


def test_a_folder_belongs_to_one_key_loss_and_optimizer(tmp_path, monkeypatch):
    def stamp(key=0, **options):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        cell = {"x": ("width", (8,)), "y": ("alpha", (1.0,)), "folder": folder}
        ntk.phase_diagram(hidden(), *regression(), key=key, steps=3, **cell, **options)
        with xarray.open_dataset(folder / "phase.nc", engine="scipy") as found:
            return found.attrs["settings"]

    def diverge(*args, **options):
        raise StabilityError("at once")

    monkeypatch.setattr(phases, "compare", diverge)
    choices = [
        {}, {"key": 1}, {"loss": "huber"}, {"loss": ntk.losses.Huber(2.0)}, {"record": [3]},
        {"optimizer": optax.adam(1e-2)}, {"optimizer": optax.adam(1e-3)}, {"optimizer": optax.adam},
    ]  # fmt: skip
    with jax.numpy_dtype_promotion("standard"):
        stamps = [stamp(**choice) for choice in choices]
        assert len(set(stamps)) == len(choices)
        assert stamp(optimizer=optax.adam(1e-2)) == stamps[5]
        assert stamp(loss="squared") != stamp(loss="logistic")


def test_what_is_no_divergence_is_not_called_one(monkeypatch):
    def still(*args, **options):
        raise NumericalError("did not move")

    monkeypatch.setattr(phases, "compare", still)
    with pytest.raises(NumericalError, match="did not move"):
        ntk.phase_diagram(hidden(), *regression(), x=X, y=Y, **OPTIONS)


def test_depth_learning_rate_and_divergence():
    nn = ntk.nn

    def net(depth):
        return nn.Sequential(*[nn.Dense(8, b_std=0.3), nn.Erf()] * depth, nn.Dense(1))

    d = ntk.phase_diagram(
        net, *regression(), x=("depth", (1, 2)), y=("learning_rate", (0.1, 1e4)), widths=(32,),
        seeds=2, steps=5,
    )  # fmt: skip
    assert (d.names()[1] == "diverges").all()
    assert np.isfinite(d.gap[0]).all()
    assert np.isnan(d.gap[1]).all()
    assert "2 'diverges'" in d.conclusion()


def test_figures_show_every_cell_and_the_boundary(diagram):
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    artists = diagram.plot(ax)
    texts = [t.get_text() for t in ax.texts]
    assert len(texts) == 4
    assert ax.get_ylabel() == r"output scale $\alpha$"
    crossing = (diagram.gap < 0.15).any() and (diagram.gap > 0.15).any()
    assert len(artists) == 1 + 4 + crossing
    assert diagram.plot()._repr_png_()[:4] == b"\x89PNG"


def test_label_noise_draws_anew_the_share_it_says():
    y = np.arange(4000) % 10
    noisy = with_label_noise(y, 0.3, 0)
    assert 0.24 < (noisy != y).mean() < 0.30  # a tenth of the draws repeat the label
    assert (with_label_noise(y, 0.0, 0) == y).all()
    real = np.sin(np.arange(5000.0))
    added = with_label_noise(real, 0.5, 0) - real
    assert added.std() == pytest.approx(0.5 * real.std(), rel=0.05)
    with pytest.raises(InputError, match="a share of labels"):
        with_label_noise(y, 1.5, 0)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"x": ("heads", (1, 2))}, "cannot be swept"),
        ({"x": Y}, "choose two settings"),
        ({"x": ("width", ())}, "no values of width"),
        ({"x": ("depth", (1, 2))}, "function from the depth"),
        ({"x": ("train_size", (1, 5))}, "train_size=1"),
        ({"x": ("train_size", (5,)), "widths": (8, 16)}, "a single one"),
    ],
)
def test_bad_settings_are_explained(change, match):
    with pytest.raises(InputError, match=match):
        ntk.phase_diagram(hidden(), *regression(), **{"x": X, "y": Y, **OPTIONS, **change})
