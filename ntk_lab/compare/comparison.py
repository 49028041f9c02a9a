"""The result of a comparison: numbers, verdicts, exponents, and ways to keep and show them."""

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ntk_lab.compare.budget import GAPS, INCURABLE, TOTAL
from ntk_lab.compare.horizon import THEORY as HORIZON_THEORY
from ntk_lab.compare.horizon import Horizon, horizon, horizon_exponent, horizon_of_one
from ntk_lab.compare.process import EnsembleFit, fit_of_ensemble
from ntk_lab.compare.scaling import Exponent, RequiredWidth, fit_exponent, required_width
from ntk_lab.compare.statistics import Verdict, judge, judge_mean
from ntk_lab.errors import InputError
from ntk_lab.theory import WidthTheory, width_theory

if TYPE_CHECKING:
    import xarray

_FILE = "comparison.nc"
_AXES = {
    "gap": "cause",
    "error": "cause",
    "ensemble": "statistic",
    "kernel": "change",
    "sharpness": "curvature",
}
_ROUNDINGS = 1000  # gaps below so many roundings of their dtype are noise


@dataclass(frozen=True, eq=False)
class Comparison:
    """What separates kernel theory from trained networks, over widths, seeds and time.

    Attributes
    ----------
    measures
        Arrays ``(widths, seeds, steps)`` by name: ``gap/<name>`` for each gap of the budget and
        ``gap/total``, relative to the displacement of the function; ``error/<name>``, their
        standard errors from the finite number of test examples; ``displacement``; ``drift``
        (relative change of the empirical NTK); ``alignment`` of the NTK with the targets;
        ``kernel/<name>``, how else it changed (:func:`ntk_lab.empirical.kernel_evolution`);
        ``sharpness/<name>``, if asked for;
        ``motion`` of the parameters; ``ensemble/<name>``, what :meth:`ensemble` summarises;
        ``train_loss``; ``test_loss/<predictor>`` and, for classes,
        ``accuracy/<predictor>``.
    widths, seeds, steps, times
        Coordinates; ``times`` are learning rate x steps in units of NTK parameterization.
    settings
        What was compared: network, parameterization, learning rates, sizes of the data.
    tolerance, confidence
        For the verdict: the relative gap that counts as agreement, and the confidence level.
    """

    measures: dict[str, np.ndarray]
    widths: tuple[int, ...]
    seeds: tuple[int, ...]
    steps: tuple[int, ...]
    times: np.ndarray
    settings: dict[str, Any]
    tolerance: float
    confidence: float

    @property
    def gaps(self) -> tuple[str, ...]:
        """Names of the gaps that were measured, in the order of the budget."""
        return tuple(g for g in GAPS if f"gap/{g}" in self.measures)

    def gap(self, name: str = TOTAL) -> np.ndarray:
        """One relative gap, shape ``(widths, seeds, steps)``."""
        if f"gap/{name}" not in self.measures:
            raise InputError(f"no gap is called {name!r}; there are {(*self.gaps, TOTAL)}.")
        return self.measures[f"gap/{name}"]

    @property
    def one_run(self) -> bool:
        """Whether this is about a single run, with error bars over test examples, not seeds."""
        return self.settings.get("error_bars") == "test examples"

    def name(self, width: int) -> str:
        """What to call one of the networks: by its width, unless it is a model without one."""
        return "the model" if self.settings.get("model") else f"width {width}"

    @cached_property
    def verdicts(self) -> dict[tuple[int, int], Verdict]:
        """Verdict by ``(width, step)``."""
        return {
            (w, s): self._judge(i, j)
            for i, w in enumerate(self.widths)
            for j, s in enumerate(self.steps)
        }

    def _judge(self, i: int, j: int) -> Verdict:
        gaps = self.gap()[i, :, j]
        if self.one_run:
            error = float(self.measures[f"error/{TOTAL}"][i, 0, j])
            examples = int(self.settings["test"])
            return judge_mean(float(gaps[0]), error, examples, self.tolerance, self.confidence)
        return judge(gaps, self.tolerance, self.confidence)

    def dominant(self, width: int, step: int) -> str:
        """Gap with the largest mean at a width and step: the main cause of the total."""
        i, j = self._width(width), self._step(step)
        return max(self.gaps, key=lambda g: self.gap(g)[i, :, j].mean())

    def exponents(self, step: int | None = None) -> dict[str, Exponent | None]:
        """Fitted power of the width in each gap at a step (default the last).

        None where there is no power law to fit: one width, or gaps that are zero to rounding.
        Theory's power of the total is left out where its main cause at the largest width is one
        that no width cures, discretization or the optimizer, or the optimizer differs at all.
        """
        j = self._step(step)
        theory = {} if self.theory is None else dict(self.theory.exponents)
        if "optimizer" in self.gaps or self.dominant(self.widths[-1], self.steps[j]) in INCURABLE:
            theory.pop(TOTAL, None)
        rounding = _ROUNDINGS * float(np.finfo(self.settings.get("dtype", "float32")).eps)
        widths = np.asarray(self.widths)
        return {
            g: fit_exponent(widths, self.gap(g)[:, :, j], self.confidence, theory.get(g), rounding)
            for g in (*self.gaps, TOTAL)
        }

    @property
    def theory(self) -> WidthTheory | None:
        """What theory says of the parameterization; None for a model that has none."""
        name = self.settings["parameterization"]
        return None if name is None else width_theory(name)

    def required_width(self, step: int | None = None) -> RequiredWidth:
        """Width at which the total gap would come within the tolerance at a step."""
        j = self._step(step)
        if self.theory is None:
            unknown = float("nan")
            return RequiredWidth(unknown, unknown, unknown, "a single model has no other width")
        incurable = [self.gap(g)[:, :, j] for g in INCURABLE if g in self.gaps]
        return required_width(
            np.asarray(self.widths),
            self.gap()[:, :, j],
            np.max(incurable, axis=0),
            self.tolerance,
            self.confidence,
            self.theory.kernel_limit,
        )

    def ensemble(self, width: int | None = None, step: int | None = None) -> EnsembleFit | None:
        """The networks as an ensemble, against the predicted distribution over initializations.

        Mean and covariance of arXiv:1902.06720 at a width (default the largest) and step (default
        the last). None with one seed, a loss other than squared error, or a single model.
        """
        if "ensemble/z" not in self.measures:
            return None
        i = len(self.widths) - 1 if width is None else self._width(width)
        j = self._step(step)
        names = ("z", "spread", "coverage")
        return fit_of_ensemble(*(self.measures[f"ensemble/{n}"][i, :, j] for n in names))

    def horizon(self, width: int | None = None, gap: str = TOTAL) -> Horizon:
        """Training time up to which a gap stays within the tolerance, with an interval.

        ``width`` defaults to the largest. Of one run the interval is that of its verdicts, over
        test examples.
        """
        i = len(self.widths) - 1 if width is None else self._width(width)
        gaps = self.gap(gap)[i]
        if not self.one_run:
            return horizon(self.times, gaps, self.tolerance, self.confidence)
        error = self.measures[f"error/{gap}"][i, 0]
        return horizon_of_one(
            self.times, gaps[0], error, self.settings["test"], self.tolerance, self.confidence
        )

    def horizon_exponent(self, gap: str = TOTAL) -> Exponent | None:
        """Fitted power of the width in the horizon, beside theory's (arXiv:2305.13141).

        None where fewer than two widths have a horizon inside the run. Theory's is what the
        motion of the kernel allows, and given where it is the cause: for ``feature learning``.
        """
        lasts = self.theory is not None and self.theory.kernel_limit and gap == "feature learning"
        found = [self.horizon(w, gap) for w in self.widths]
        theory = HORIZON_THEORY if lasts else None
        return horizon_exponent(np.asarray(self.widths), found, self.confidence, theory)

    def predicts_until(self, width: int) -> float:
        """Last time of the unbroken run of recorded times, from the first, that are predicted."""
        self._width(width)
        until = 0.0
        for step, time in zip(self.steps, self.times, strict=True):
            if self.verdicts[width, step].status != "predicts":
                break
            until = float(time)
        return until

    def _step(self, step: int | None) -> int:
        if step is None:
            return len(self.steps) - 1
        if step not in self.steps:
            raise InputError(f"step {step} was not recorded; recorded are {self.steps}.")
        return self.steps.index(step)

    def _width(self, width: int) -> int:
        if width not in self.widths:
            raise InputError(f"width {width} was not compared; compared are {self.widths}.")
        return self.widths.index(width)

    @cached_property
    def dataset(self) -> "xarray.Dataset":
        """All numbers with named axes, as an xarray Dataset (extra ``report``)."""
        xarray = _xarray()
        groups: dict[str, dict[str, np.ndarray]] = {}
        for key, value in self.measures.items():
            name, _, label = key.partition("/")
            groups.setdefault(name, {})[label] = value
        axes = ("width", "seed", "step")
        variables = {}
        coordinates: dict[str, Any] = {
            "width": list(self.widths),
            "seed": list(self.seeds),
            "step": list(self.steps),
            "time": ("step", self.times),
        }
        for name, parts in groups.items():
            if "" in parts:
                variables[name] = (axes, parts[""])
                continue
            axis = _AXES.get(name, "predictor")
            coordinates.setdefault(axis, list(parts))
            variables[name] = ((axis, *axes), np.stack(list(parts.values())))
        attributes = {
            "settings": json.dumps(self.settings),
            "tolerance": self.tolerance,
            "confidence": self.confidence,
        }
        return xarray.Dataset(variables, coordinates, attributes)

    def save(self, folder: str | os.PathLike) -> Path:
        """Write ``comparison.nc`` (netCDF, readable by xarray) into a folder; returns its path."""
        path = Path(folder) / _FILE
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.dataset.to_netcdf(path, engine="scipy")
        except OSError as error:
            raise InputError(f"{os.fspath(path)!r} cannot be written: {error.strerror}.") from error
        return path

    @classmethod
    def load(cls, folder: str | os.PathLike) -> "Comparison":
        """Read what :meth:`save` wrote; ``folder`` is the folder or the file in it."""
        path = Path(folder)
        path = path / _FILE if path.is_dir() else path
        if not path.exists():
            raise InputError(f"there is no comparison at {os.fspath(path)!r}; save one first.")
        with _xarray().open_dataset(path, engine="scipy") as stored:
            data = stored.load()
        measures = {}
        for name, variable in data.data_vars.items():
            first = variable.dims[0]
            if first == "width":
                measures[str(name)] = variable.values
                continue
            for label in data[first].values:
                measures[f"{name}/{label}"] = variable.sel({first: label}).values
        widths, seeds, steps = (
            tuple(int(v) for v in data[axis].values) for axis in ("width", "seed", "step")
        )
        return cls(
            measures,
            widths,
            seeds,
            steps,
            data["time"].values,
            json.loads(data.attrs["settings"]),
            float(data.attrs["tolerance"]),
            float(data.attrs["confidence"]),
        )

    def table(self, step: int | None = None) -> str:
        """Error budget and verdict by width at a step (default the last), as text."""
        from ntk_lab.compare.text import table

        return table(self, self.steps[self._step(step)])

    def conclusion(self) -> str:
        """What the comparison says, in a few sentences."""
        from ntk_lab.compare.text import conclusion

        return conclusion(self)

    def __str__(self) -> str:
        from ntk_lab.compare.text import full_text

        return full_text(self)

    def __repr__(self) -> str:
        if self.settings.get("model"):
            what = self.settings["model"]
            return f"Comparison({what}, seeds={len(self.seeds)}, steps={self.steps[-1]})"
        return (
            f"Comparison(widths={self.widths}, seeds={len(self.seeds)}, steps={self.steps[-1]}, "
            f"parameterization={self.settings['parameterization']!r})"
        )

    def plot(self) -> Any:
        """Error budget, width scaling and drift in one matplotlib figure (extra ``report``)."""
        from ntk_lab.plot import overview

        return overview(self)

    def report(self, folder: str | os.PathLike) -> Path:
        """Write numbers, figures and a self-contained HTML page to a folder; returns the page."""
        from ntk_lab.compare.report import write_report

        return write_report(self, folder)


def _xarray() -> Any:
    try:
        import xarray
    except ImportError as error:
        raise ImportError("this needs xarray: pip install 'ntk_lab[report]'.") from error
    return xarray
