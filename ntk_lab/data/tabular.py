"""Every real table of cases that ships inside scikit-learn and statsmodels."""

from typing import Any, Literal, NamedTuple

import numpy as np

from ntk_lab.errors import InputError

Task = Literal["classification", "regression"]

# Tables of scikit-learn, and of statsmodels by target. Left out are time series and tables of
# counts (china_smoking, co2, danish_data, elnino, interest_inflation, macrodata, nile, sunspots),
# and fertility, whose rows are curves with gaps.
_SKLEARN: dict[str, Task] = {
    "breast_cancer": "classification",
    "diabetes": "regression",
    "digits": "classification",
    "iris": "classification",
    "linnerud": "regression",
    "wine": "classification",
}
_STATSMODELS: dict[str, tuple[Task, str, tuple[str, ...]]] = {
    # name: task, target, columns that are no inputs (numbers of cases, or parts of the target)
    "anes96": ("classification", "vote", ()),
    "cancer": ("regression", "cancer", ()),
    "ccard": ("regression", "AVGEXP", ()),
    "committee": ("regression", "BILLS104", ()),
    "copper": ("regression", "WORLDCONSUMPTION", ()),
    "cpunish": ("regression", "EXECUTIONS", ()),
    "engel": ("regression", "foodexp", ()),
    "fair": ("classification", "affairs", ()),
    "grunfeld": ("regression", "invest", ()),
    "heart": ("regression", "survival", ()),
    "longley": ("regression", "TOTEMP", ()),
    "modechoice": ("classification", "choice", ("individual",)),
    "randhie": ("regression", "mdvis", ()),
    "scotland": ("regression", "YES", ()),
    "spector": ("classification", "GRADE", ()),
    "stackloss": ("regression", "STACKLOSS", ()),
    "star98": ("regression", "NABOVE", ("NBELOW",)),
    "statecrime": ("regression", "murder", ()),
    "strikes": ("regression", "duration", ()),
}
_SKEWED = ("AVGEXP", "EXECUTIONS", "cancer", "duration", "invest", "mdvis", "survival")

TABLES = tuple(sorted([*_SKLEARN, *_STATSMODELS]))


class Table(NamedTuple):
    """Inputs ``(n, d)`` in float64, standardized, and class numbers or targets ``(n,)``."""

    x: np.ndarray
    y: np.ndarray
    task: Task


def tabular(name: str, rows: int | None = None, *, seed: int = 0) -> Table:
    """A small real table, by name; ``ntk_lab.data.TABLES`` lists all 25.

    Columns of names become one column for each name, constant columns go, and each input is
    standardized over the whole table (no target enters that). Targets of regression are
    standardized, after ``log(1 + y)`` for counts and amounts with long tails. ``linnerud`` is its
    first target; ``fair`` asks whether there were affairs, ``star98`` for
    the share of pupils above the median.

    Parameters
    ----------
    name
        One of ``TABLES``.
    rows
        About so many, drawn at random: the same share of each class, at least 5. Default all.
    seed
        Of the draw, and of the order of rows, which is always shuffled.

    Returns
    -------
    Table
        Classes with fewer than 10 rows are left out.

    Raises
    ------
    ImportError
        The package that ships the table is missing (extra ``data``).
    InputError
        An unknown name, or fewer than 10 rows asked for.

    Examples
    --------
    >>> import ntk_lab as ntk
    >>> table = ntk.data.tabular("iris")
    >>> table.x.shape, table.task
    ((150, 4), 'classification')
    """
    if name not in TABLES:
        raise InputError(f"there is no table {name!r}; known are {', '.join(TABLES)}.")
    if rows is not None and rows < 10:
        raise InputError(f"rows is {rows}; give at least 10.")
    x, y, task = _from_sklearn(name) if name in _SKLEARN else _from_statsmodels(name)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(x))
    if task == "classification":
        y = np.unique(y, return_inverse=True)[1]
        common = np.bincount(y) >= 10
        order = order[common[y[order]]]
    x, y = x[order], y[order]
    if rows is not None and rows < len(x):
        chosen = np.sort(_draw(y, rows, task))
        x, y = x[chosen], y[chosen]
    x = x[:, x.std(0) > 0]
    x = (x - x.mean(0)) / x.std(0)
    y = np.unique(y, return_inverse=True)[1] if task == "classification" else _standard(y)
    return Table(x, y, task)


def _standard(y: np.ndarray) -> np.ndarray:
    return (y - y.mean()) / y.std()


def _draw(y: np.ndarray, rows: int, task: Task) -> np.ndarray:
    """Indices of shuffled rows to keep: the first, or the first of each class."""
    if task == "regression":
        return np.arange(rows)
    share = rows / len(y)
    parts = [np.flatnonzero(y == c) for c in np.unique(y)]
    return np.concatenate([part[: max(5, round(share * len(part)))] for part in parts])


def _from_sklearn(name: str) -> tuple[np.ndarray, np.ndarray, Task]:
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ImportError(
            f"{name} ships with scikit-learn: pip install 'ntk_lab[data]'."
        ) from error
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    y = y[:, 0] if y.ndim == 2 else y
    return np.asarray(x, np.float64), y, _SKLEARN[name]


def _from_statsmodels(name: str) -> tuple[np.ndarray, np.ndarray, Task]:
    try:
        import statsmodels.datasets as datasets
    except ImportError as error:
        raise ImportError(f"{name} ships with statsmodels: pip install 'ntk_lab[data]'.") from error
    task, target, others = _STATSMODELS[name]
    table: Any = getattr(datasets, name).load_pandas().data
    y = np.asarray(table[target], np.float64)
    if name == "star98":
        y = y / (y + np.asarray(table["NBELOW"], np.float64))
    if name == "fair":
        y = (y > 0).astype(np.float64)
    if target in _SKEWED:
        y = np.log1p(y)
    columns = []
    for column in table.columns:
        values = np.asarray(table[column])
        if column in (target, *others):
            continue
        if values.dtype.kind == "f" or values.dtype.kind in "iu":
            columns.append(values.astype(np.float64))
        else:
            columns += [(values == v).astype(np.float64) for v in np.unique(values.astype(str))]
    return np.stack(columns, axis=1), y, task
