"""Infinitely wide networks as scikit-learn estimators, and their kernels for any kernel machine.

``from ntk_lab.interop.scikit_learn import NeuralKernelClassifier, NeuralKernelRegressor, Gram``.
Everything here computes in float64, as scikit-learn does, whatever JAX's default is.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from ntk_lab.compiled import compiled
from ntk_lab.errors import InputError, NumericalError
from ntk_lab.nn import Dense, Erf, Gelu, Relu, Sequential
from ntk_lab.nn.module import Pair

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.preprocessing import LabelBinarizer
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        "these are estimators of scikit-learn: pip install 'scikit-learn'."
    ) from error

_ACTIVATIONS = {"relu": Relu, "erf": Erf, "gelu": Gelu}


@dataclass(frozen=True)
class Gram:
    """Kernel of an infinitely wide network as a function, such as ``SVC(kernel=Gram(net))``.

    Parameters
    ----------
    net
        A pair of `ntk_lab.nn` that takes vectors.
    kernel
        ``"ntk"``, all layers trained, or ``"nngp"``, a Bayesian network or its readout alone.
    cosine
        Divide by the root of both diagonal entries, so that each input has length one.

    Notes
    -----
    ``gram(x1, x2)`` is a float64 array ``(n1, n2)``; ``x2=None`` means ``x1``. Comparable and
    picklable. Row counts are rounded up inside, so that folds of cross-validation share compiled
    programs. The NTK in a support vector machine is the recipe of arXiv:1910.01663.

    Examples
    --------
    >>> import ntk_lab as ntk
    >>> from ntk_lab.interop.scikit_learn import Gram
    >>> from sklearn.svm import SVC
    >>> net = ntk.nn.Sequential(ntk.nn.Dense(1, 2**0.5), ntk.nn.Relu(), ntk.nn.Dense(1))
    >>> machine = SVC(kernel=Gram(net)).fit([[0, 0], [0, 1], [1, 0], [1, 1]], [0, 1, 1, 0])
    >>> machine.predict([[1, 1]])
    array([0])
    """

    net: Pair
    kernel: str = "ntk"
    cosine: bool = False

    def __call__(self, x1: ArrayLike, x2: ArrayLike | None = None) -> np.ndarray:
        """Kernel matrix."""
        if self.kernel not in ("ntk", "nngp"):
            raise InputError(f"kernel is {self.kernel!r}; choose 'ntk' or 'nngp'.")
        first = np.asarray(x1, np.float64)
        second = first if x2 is None else np.asarray(x2, np.float64)
        with jax.enable_x64(True):
            same = x2 is None or x2 is x1
            matrix = self._matrix(first, None if same else second)
            if self.cosine:
                roots = [np.sqrt(self._diagonal(x)) for x in (first, second)]
                if min(root.min() for root in roots) <= 0:
                    raise NumericalError(
                        "some inputs have kernel zero with themselves, and no direction; give the "
                        "network a bias (b_std), or cosine=False."
                    )
                matrix = matrix / roots[0][:, None] / roots[1]
        return matrix

    def _matrix(self, x1: np.ndarray, x2: np.ndarray | None) -> np.ndarray:
        padded = jnp.asarray(_padded(x1)), None if x2 is None else jnp.asarray(_padded(x2))
        matrix = np.asarray(getattr(_kernel(self.net, *padded), self.kernel))
        return matrix[: len(x1), : len(x1 if x2 is None else x2)].copy()

    def _diagonal(self, x: np.ndarray) -> np.ndarray:
        # Blocks: the diagonal costs as much as matrices of this side.
        blocks = (x[start : start + 32] for start in range(0, len(x), 32))
        return np.concatenate([np.diagonal(self._matrix(block, None)) for block in blocks])


# Compiled as a whole: `enable_x64` holds in this thread only, not in those of compiled loops.
@compiled(static_argnums=0)
def _kernel(net: Pair, x1: jax.Array, x2: jax.Array | None) -> Any:
    return net.kernel(x1, x2)


def _padded(x: np.ndarray) -> np.ndarray:
    """With copies of the first row, up to a round number of rows, about a quarter more at most.

    A program is compiled for each shape: folds of cross-validation, whose sizes differ by one,
    then share theirs.
    """
    unit = max(32, 2 ** max(len(x).bit_length() - 3, 0))
    rows = -(-len(x) // unit) * unit
    return np.concatenate([x, np.broadcast_to(x[:1], (rows - len(x), x.shape[1]))])


class _NeuralKernel(BaseEstimator):
    """What both estimators share: the network, the solve, the evaluation."""

    def __init__(
        self,
        depth=1,
        *,
        kernel="ntk",
        activation="relu",
        w_std=2**0.5,
        b_std=0.1,
        ridge=1e-3,
        net=None,
    ):
        self.depth = depth
        self.kernel = kernel
        self.activation = activation
        self.w_std = w_std
        self.b_std = b_std
        self.ridge = ridge
        self.net = net

    def _network(self) -> Pair:
        if self.net is not None:
            return self.net
        if self.activation not in _ACTIVATIONS:
            raise InputError(
                f"activation is {self.activation!r}; choose one of {sorted(_ACTIVATIONS)}, or give "
                "a net."
            )
        hidden = [Dense(1, self.w_std, self.b_std), _ACTIVATIONS[self.activation]()]
        return Sequential(*(hidden * self.depth), Dense(1, self.w_std))

    def _solve(self, x: Any, y: np.ndarray) -> None:
        """Coefficients of kernel ridge regression on centred targets ``(n, outputs)``."""
        if not (isinstance(self.ridge, int | float | np.number) and self.ridge >= 0):
            raise InputError(f"ridge is {self.ridge!r}; it must be a number >= 0.")
        self.gram_ = Gram(self._network(), self.kernel)
        matrix = self.gram_(x)
        shift = self.ridge * np.trace(matrix) / len(x)
        self.intercept_ = y.mean(0)
        try:
            factor = cho_factor(matrix + shift * np.eye(len(x)), lower=True)
        except LinAlgError as error:
            raise NumericalError(
                f"the kernel matrix with ridge={self.ridge} is singular: inputs that repeat need "
                "a ridge above 0."
            ) from error
        self.dual_coef_ = cho_solve(factor, y - self.intercept_)
        self.X_fit_ = x

    def _evaluate(self, x: Any) -> np.ndarray:
        check_is_fitted(self)
        x = validate_data(self, x, dtype=np.float64, reset=False)
        return self.gram_(x, self.X_fit_) @ self.dual_coef_ + self.intercept_


class NeuralKernelRegressor(RegressorMixin, _NeuralKernel):
    """Regression with an infinitely wide network: kernel ridge regression on its NTK or NNGP.

    With the NTK and a small ridge, the mean of an ensemble of wide networks trained to the end on
    squared error (arXiv:1806.07572); with the NNGP, the mean of a Gaussian process, ``ridge`` its
    noise (arXiv:1711.00165). Standardize the inputs, as for any network.

    Parameters
    ----------
    depth
        Number of hidden layers; 0 is a linear model.
    kernel
        ``"ntk"`` or ``"nngp"``.
    activation
        ``"relu"``, ``"erf"`` or ``"gelu"``.
    w_std, b_std
        Scales of weights and biases (`ntk_lab.nn.Dense`).
    ridge
        Added to the diagonal of the kernel matrix, in units of its mean: the same number means
        about the same at all depths.
    net
        Any pair of `ntk_lab.nn` in place of these layers.

    Attributes
    ----------
    dual_coef_, intercept_, X_fit_
        Coefficients ``(n, outputs)``, mean of the targets, training inputs.
    gram_
        The kernel, a :class:`Gram`.
    n_features_in_
        Number of features.

    Notes
    -----
    ``n^3 / 3`` multiply-adds and ``n^2`` numbers, float64.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_lab.interop.scikit_learn import NeuralKernelRegressor
    >>> x = np.linspace(-1, 1, 21)[:, None]
    >>> model = NeuralKernelRegressor(ridge=1e-6).fit(x, x[:, 0] ** 2)
    >>> bool(abs(model.predict([[0.5]])[0] - 0.25) < 0.01)
    True
    """

    def fit(self, X, y):
        """Fit inputs ``(n, features)`` and targets ``(n,)`` or ``(n, outputs)``."""
        x, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True, multi_output=True)
        y = np.asarray(y, np.float64)
        self._single = y.ndim == 1
        self._solve(x, y.reshape(len(y), -1))
        return self

    def predict(self, X) -> np.ndarray:
        """Means, of the shape of the targets."""
        values = self._evaluate(X)
        return values[:, 0] if self._single else values

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


class NeuralKernelClassifier(ClassifierMixin, _NeuralKernel):
    """Classification with an infinitely wide network trained on squared error.

    Kernel ridge regression on centred one-hot targets (on -1 and 1 for two classes), the largest
    output being the class. For a support vector machine use ``SVC(kernel=Gram(net))``.

    Parameters
    ----------
    depth, kernel, activation, w_std, b_std, ridge, net
        As for :class:`NeuralKernelRegressor`.

    Attributes
    ----------
    classes_
        Labels in sorted order.
    dual_coef_, intercept_, X_fit_, gram_, n_features_in_
        As there.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from ntk_lab.interop.scikit_learn import NeuralKernelClassifier
    >>> x, y = load_iris(return_X_y=True)
    >>> bool(NeuralKernelClassifier(depth=2).fit(x[::2], y[::2]).score(x[1::2], y[1::2]) > 0.9)
    True
    """

    def fit(self, X, y):
        """Fit inputs ``(n, features)`` and labels ``(n,)`` of at least two classes."""
        x, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        binary = LabelBinarizer(neg_label=-1).fit(y)
        self.classes_ = binary.classes_
        if len(self.classes_) < 2:
            raise ValueError(
                f"NeuralKernelClassifier needs at least 2 classes; there is only one class, "
                f"{self.classes_[0]!r}."
            )
        self._solve(x, binary.transform(y).astype(np.float64))
        return self

    def decision_function(self, X) -> np.ndarray:
        """Outputs: ``(n,)``, positive for the second class, or ``(n, classes)``."""
        values = self._evaluate(X)
        return values[:, 0] if len(self.classes_) == 2 else values

    def predict(self, X) -> np.ndarray:
        """Labels ``(n,)``."""
        values = self.decision_function(X)
        index = values.argmax(1) if values.ndim == 2 else (values > 0).astype(int)
        return self.classes_[index]
