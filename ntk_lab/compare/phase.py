"""Phase diagrams: where in two settings kernel regression predicts training, and where it fails."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
import optax

from ntk_lab.compare.cells import AXES, Cell, prepare_cell
from ntk_lab.compare.checkpoint import fingerprint, loss_fingerprint, optimizer_fingerprint
from ntk_lab.compare.execute import Progress, Report
from ntk_lab.compare.run import compare
from ntk_lab.errors import InputError, StabilityError
from ntk_lab.losses import read_loss
from ntk_lab.nn import Module

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

STATUSES = ("predicts", "undecided", "fails", "diverges", "not run")
_FILE = "phase.nc"
_UNRUN = STATUSES.index("not run")
Axis = tuple[str, Sequence[Any]]


@dataclass(frozen=True, eq=False)
class PhaseDiagram:
    """Verdicts at the last step over two settings.

    Attributes
    ----------
    x, y
        ``(name, values)`` of the two settings.
    status
        Number in ``STATUSES`` of each cell, ``(len(y), len(x))``.
    gap, error
        Mean total gap and its standard error over seeds; NaN where training diverged.
    horizon
        Training time up to which the mean gap is within the tolerance; infinity where it always is.
    causes
        Name of the largest gap of each cell.
    tolerance
        Of the verdicts.
    budget
        Mean of each gap of the budget by its name, ``(len(y), len(x))``: one cause over the map.
    """

    x: Axis
    y: Axis
    status: np.ndarray
    gap: np.ndarray
    error: np.ndarray
    horizon: np.ndarray
    causes: np.ndarray
    tolerance: float
    budget: dict[str, np.ndarray]

    @property
    def dataset(self) -> "xarray.Dataset":
        """All numbers with named axes (extra ``report``)."""
        import xarray

        axes = (self.y[0], self.x[0])
        arrays = {
            "status": self.status, "gap": self.gap, "error": self.error,
            "horizon": self.horizon, "cause": self.causes.astype(str),
        }  # fmt: skip
        variables: dict[str, Any] = {k: (axes, v) for k, v in arrays.items()}
        coordinates = {name: list(values) for name, values in (self.y, self.x)}
        if self.budget:
            coordinates["of"] = list(self.budget)
            variables["budget"] = (("of", *axes), np.stack(list(self.budget.values())))
        attributes = {"tolerance": self.tolerance, "statuses": json.dumps(STATUSES)}
        return xarray.Dataset(variables, coordinates, attributes)

    def names(self) -> np.ndarray:
        """Statuses in words, ``(len(y), len(x))``."""
        return np.asarray(STATUSES)[self.status]

    def plot(self, ax: "Axes | None" = None) -> Any:
        """The map with its boundary (extra ``report``); the figure, or what was drawn on ``ax``."""
        from ntk_lab.plot import phase
        from ntk_lab.plot.style import new_figure

        if ax is not None:
            return phase(self, ax)
        figure = new_figure(6.4, 4.8)
        phase(self, figure.subplots())
        return figure

    def __str__(self) -> str:
        width = max(len(s) for s in STATUSES) + 7
        head = f"{self.y[0]} \\ {self.x[0]}"
        side = max(len(head), *(len(_text(v)) for v in self.y[1]))
        lines = [head.ljust(side) + "".join(_text(v).rjust(width) for v in self.x[1])]
        for i, value in enumerate(self.y[1]):
            cells = "".join(
                f"{name} {_gap(gap)}".rjust(width)
                for name, gap in zip(self.names()[i], self.gap[i], strict=True)
            )
            lines.append(_text(value).ljust(side) + cells)
        return "\n".join([*lines, self.conclusion()])

    def conclusion(self) -> str:
        """The map in a few sentences."""
        names, ran = self.names(), self.status != _UNRUN
        parts = [f"{int((names == s).sum())} '{s}'" for s in STATUSES if (names == s).any()]
        lines = [
            f"Of {names.size} cells: {', '.join(parts)} (tolerance {self.tolerance:g}; numbers are "
            "mean total gaps at the last step)."
        ]
        failing = self.causes[(names == "fails") & ran]
        if failing.size:
            causes, counts = np.unique(failing.astype(str), return_counts=True)
            lines.append(f"Where it fails the largest gap is mostly {causes[counts.argmax()]}.")
        return "\n".join(lines)


def phase_diagram(
    net: Module | Callable[[int], Module],
    train: tuple[Any, Any],
    test: tuple[Any, Any],
    *,
    x: Axis,
    y: Axis,
    folder: str | os.PathLike | None = None,
    progress: Report = None,
    key: int = 0,
    **options: Any,
) -> PhaseDiagram:
    """Map over two settings of where kernel regression predicts training.

    Parameters
    ----------
    net
        Architecture; or, where ``"depth"`` is swept, a function from the depth to it.
    train, test, key
        As in :func:`ntk_lab.compare`.
    x, y
        Two settings and their values: ``"width"``, ``"depth"``, ``"learning_rate"`` (in units of
        NTK parameterization; beyond the limit of stability the cell ``diverges``), ``"alpha"``
        (output scale of arXiv:1812.07956), ``"parameterization"``, ``"train_size"`` (the first
        examples of ``train``), ``"label_noise"`` (share of class numbers drawn anew, or standard
        deviation added to real targets in units of their own).
    folder
        Keeps one dataset, ``phase.nc``, written after every cell, and goes on from it.
    progress
        Called with :class:`ntk_lab.compare.Progress` before each cell.
    **options
        All else is for :func:`ntk_lab.compare`: ``seeds``, ``steps``, ``widths=(w,)`` where width
        is not swept, ``tolerance``, ``loss``, ``optimizer`` and so on.

    Returns
    -------
    PhaseDiagram

    Raises
    ------
    InputError
        Unknown settings, or values that cannot be; a folder of another diagram.
    NumericalError
        Numbers that cannot be trusted in a cell, for another reason than training that diverges.

    Notes
    -----
    Cost: one comparison a cell.

    Examples
    --------
    >>> import jax, ntk_lab as ntk
    >>> z = jax.random.normal(jax.random.key(0), (20, 3))
    >>> net = ntk.nn.Sequential(ntk.nn.Dense(8), ntk.nn.Relu(), ntk.nn.Dense(1))
    >>> train, test = (z[:12], z[:12, 0]), (z[12:], z[12:, 0])
    >>> d = ntk.phase_diagram(net, train, test, x=("width", (8, 64)), y=("alpha", (1.0, 10.0)),
    ...                       seeds=2, steps=5)
    >>> d.status.shape
    (2, 2)
    """
    cells = _cells(net, train, test, x, y, key, options)
    path = None if folder is None else Path(folder) / _FILE
    settings = "" if path is None else _fingerprint(cells, train, test, x, y, key, options)
    diagram = _load(path, settings, x, y, float(options.get("tolerance", 0.15)))
    total = len(cells)
    for done, ((i, j), cell) in enumerate(cells.items()):
        if diagram.status[i, j] != _UNRUN:
            continue
        if progress is not None:
            progress(Progress(done, total, f"{y[0]} {_text(y[1][i])}, {x[0]} {_text(x[1][j])}"))
        _run(diagram, i, j, cell, test, key)
        if path is not None:
            _save(diagram, path, settings)
    if progress is not None:
        progress(Progress(total, total, "done"))
    return diagram


def _cells(net, train, test, x: Axis, y: Axis, key: int, options) -> dict[tuple[int, int], Cell]:
    for name, values in (x, y):
        if name not in AXES:
            raise InputError(f"the setting {name!r} cannot be swept; choose {', '.join(AXES)}.")
        if not len(values):
            raise InputError(f"there are no values of {name}.")
    if x[0] == y[0]:
        raise InputError(f"both axes are {x[0]}; choose two settings.")
    return {
        (i, j): prepare_cell(net, train, {x[0]: a, y[0]: b}, key, options)
        for i, b in enumerate(y[1])
        for j, a in enumerate(x[1])
    }


def _run(d: PhaseDiagram, i: int, j: int, cell: Cell, test: Any, key: int) -> None:
    try:
        c = compare(cell.net, cell.train, test, key=key, **cell.options)
    except StabilityError:
        d.status[i, j] = STATUSES.index("diverges")
        return
    verdict = c.verdicts[c.widths[0], c.steps[-1]]
    d.status[i, j] = STATUSES.index(verdict.status)
    d.gap[i, j], d.error[i, j] = verdict.mean, verdict.standard_error
    d.horizon[i, j] = c.horizon().value
    d.causes[i, j] = c.dominant(c.widths[0], c.steps[-1])
    for name in c.gaps:
        values = d.budget.setdefault(name, np.full(d.status.shape, np.nan))
        values[i, j] = c.gap(name)[0, :, -1].mean()


def _fingerprint(cells, train, test, x, y, key, options) -> str:
    """Of everything that decides the numbers: functions are known by the values they take."""
    nets = [cell.net.to_json() for cell in cells.values()]
    others = ("loss", "optimizer", "progress")
    settings = {k: repr(np.asarray(v).tolist()) for k, v in options.items() if k not in others}
    settings |= {"nets": nets, "x": repr(x), "y": repr(y), "key": key}
    settings |= {name: version(name) for name in ("ntk_lab", "jax", "jaxlib")}
    if "loss" in options:
        outputs = next(iter(cells.values())).net.output_shape(np.shape(train[0])[1:])
        settings["loss"] = loss_fingerprint(read_loss(options["loss"]), *outputs)
    if options.get("optimizer") is not None:
        made, like = options["optimizer"], {"w": jnp.ones((3, 2)), "b": jnp.ones(2)}
        made = made if isinstance(made, optax.GradientTransformation) else made(1.0)
        settings["optimizer"] = optimizer_fingerprint(made, like, options.get("steps", 500))
    text = json.dumps(settings, sort_keys=True)
    return fingerprint(np.frombuffer(text.encode(), np.uint8), *train, *test)


def _load(path: Path | None, settings: str, x: Axis, y: Axis, tolerance: float) -> PhaseDiagram:
    shape = (len(y[1]), len(x[1]))
    numbers = [np.full(shape, np.nan) for _ in range(3)]
    empty = PhaseDiagram(
        x, y, np.full(shape, _UNRUN), numbers[0], numbers[1], numbers[2],
        np.full(shape, "", dtype="U24"), tolerance, {},
    )  # fmt: skip
    if path is None or not path.exists():
        return empty
    import xarray

    with xarray.open_dataset(path, engine="scipy") as stored:
        found = stored.load()
    if found.attrs.get("settings") != settings:
        raise InputError(
            f"{os.fspath(path)!r} holds another phase diagram: the data, the network or a setting "
            "differs. Give another folder, or delete it."
        )
    for name in ("status", "gap", "error", "horizon"):
        getattr(empty, name)[...] = found[name].values
    empty.causes[...] = found["cause"].values.astype(str)
    if "budget" in found:
        for name in found["of"].values:
            empty.budget[str(name)] = np.array(found["budget"].sel(of=name).values)
    return empty


def _save(diagram: PhaseDiagram, path: Path, settings: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    diagram.dataset.assign_attrs(settings=settings).to_netcdf(part, engine="scipy")
    part.replace(path)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _gap(value: float) -> str:
    return "     " if np.isnan(value) else f"{value:5.2f}"
