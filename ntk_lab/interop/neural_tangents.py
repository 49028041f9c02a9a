"""Run neural-tangents 0.6.5 on current JAX without TensorFlow, and use its networks here.

`load` imports the installed neural-tangents, which does not import on current JAX by itself;
`from_neural_tangents` turns its ``(init_fn, apply_fn, kernel_fn)`` into a pair that every tool
here accepts. Install it without its dependencies, which include TensorFlow::

    pip install 'ntk_lab[neural-tangents]'
    pip install --no-deps neural-tangents==0.6.5

What works after `load`, tried on JAX 0.10.2 (Python 3.11) and JAX 0.12.0 (Python 3.13), CPU:

====================================================  ========  ========
neural-tangents                                       JAX 0.10  JAX 0.12
====================================================  ========  ========
``stax`` layers and their infinite-width kernels      yes       yes
``empirical_nngp_fn``, ``empirical_ntk_vp_fn``        yes       yes
``empirical_ntk_fn``, JACOBIAN_CONTRACTION            yes       yes
``empirical_ntk_fn``, NTK_VECTOR_PRODUCTS             yes       yes
``empirical_ntk_fn``, STRUCTURED_DERIVATIVES          repaired  repaired
``empirical_ntk_fn``, AUTO (compiles every mode)      repaired  repaired
``linearize``, ``taylor_expand``                      yes       yes
``monte_carlo_kernel_fn``                             yes       yes
``batch``, serial and over several devices            yes       yes
``predict.gradient_descent_mse``, ``gp_inference``    yes       yes
the same with a kernel that is traced by ``jit``      repaired  repaired
``predict.gradient_descent_mse_ensemble``             yes       yes
``predict.gradient_descent`` (any loss, momentum)     yes       yes
``predict.max_learning_rate``                         repaired  repaired
``experimental`` (TensorFlow models)                  no        no
====================================================  ========  ========

The NTK modes agree with a plain Jacobian product to rounding (1e-15 in float64) on dense,
convolutional, locally connected, residual, layer-normalised and attention networks, save
where a JAX release itself is wrong: see `ntk_lab.empirical`. Nothing is left patched in JAX:
all names put back for the import are taken away after it, and the repairs live in globals of
neural-tangents' own modules. No stand-in for ``tensorflow`` is made, not even for a moment;
`neural_tangents.experimental` is one that explains itself when used.

neural-tangents mixes dtypes in places, such as pooling. Pairs from `from_neural_tangents` work
under ``jax_numpy_dtype_promotion='strict'`` and ``jax_numpy_rank_promotion='raise'``; around
direct calls put ``with relaxed_promotion():``.

Differences in convention, when moving code over:

* **Loss and time.** Its squared loss averages over examples and outputs, so its exponent is
  ``exp(-learning_rate t Theta / (n C))`` for ``C`` outputs. Here outputs are summed:
  ``exp(-t Theta / n)`` with ``t = learning_rate * steps``. Its time ``t`` at learning rate
  ``lr`` is ``lr * t / C`` here, and its largest stable learning rate is ``C`` times ours.
* **Parameterization.** Its ``standard`` layers have the tangent kernel ``n_in q + W_std^2 t``,
  plus 1 for a bias: it grows with the width ``n_in`` that is written in the layer, so the
  kernel of a pair depends on widths there (arXiv:2001.07301).
* **Dropout.** Its ``rate`` is the probability to *keep* a unit.
* **trace_axes.** The kernel along a traced output axis is the *mean* over it, not the sum.
* **Spatial axes.** After an odd number of convolutions its kernels come with the spatial axes
  reversed (``W, W', H, H'``). Pairs from `from_neural_tangents` have them in order.
"""

import importlib
import importlib.metadata
import sys
import threading
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.concrete import is_concrete
from ntk_lab.errors import InputError, NumericalError
from ntk_lab.interop import _neural_tangents_shims as shims
from ntk_lab.interop.models import relaxed_promotion
from ntk_lab.kernel import Kernel
from ntk_lab.nn import FunctionPair

VERSION = "0.6.5"
_lock = threading.RLock()


def _installed_version() -> str | None:
    try:
        return importlib.metadata.version("neural-tangents")
    except importlib.metadata.PackageNotFoundError:
        return None


def is_available() -> bool:
    """Whether neural-tangents 0.6.5 is installed, so that `load` can be expected to work.

    Reads package metadata only: nothing is imported.

    Returns
    -------
    bool
        False if it is missing or of another version.
    """
    return _installed_version() == VERSION


def load() -> ModuleType:
    """Import the installed neural-tangents 0.6.5 on the JAX that is running.

    May be called any number of times, from any thread; ``import neural_tangents`` works in
    the same process afterwards. The module docstring lists what works.

    Returns
    -------
    types.ModuleType
        The module ``neural_tangents``, with ``stax`` and ``predict`` imported.

    Raises
    ------
    ImportError
        If neural-tangents is not installed, or is of another version than 0.6.5.

    Examples
    --------
    >>> from ntk_lab.interop import neural_tangents  # doctest: +SKIP
    >>> nt = neural_tangents.load()  # doctest: +SKIP
    >>> triple = nt.stax.serial(nt.stax.Dense(512), nt.stax.Relu(), nt.stax.Dense(1))
    ... # doctest: +SKIP
    >>> net = neural_tangents.from_neural_tangents(triple)  # doctest: +SKIP
    """
    version = _installed_version()
    if version != VERSION:
        found = "is not installed" if version is None else f"{version} is installed"
        raise ImportError(
            f"This bridge needs neural-tangents {VERSION}, but neural-tangents {found}. "
            "Its declared dependencies include TensorFlow, which is not needed, so install it "
            "in two steps: pip install 'ntk_lab[neural-tangents]' and then "
            f"pip install --no-deps neural-tangents=={VERSION}"
        )
    with _lock:
        if shims.PACKAGE not in sys.modules:
            with warnings.catch_warnings(), relaxed_promotion():
                warnings.simplefilter("ignore", DeprecationWarning)
                with shims.during_import():
                    importlib.import_module(shims.PACKAGE)
        shims.repair()
        return sys.modules[shims.PACKAGE]


def from_neural_tangents(
    triple: tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]],
    *,
    apply_kwargs: dict[str, Any] | None = None,
    kernel_kwargs: dict[str, Any] | None = None,
    check_finite: bool = True,
) -> FunctionPair:
    """Turn a neural-tangents network into a pair that every tool here accepts.

    With ``init_fn, apply_fn, kernel_fn = triple``, the pair has

    * ``init(key, shape)``: the parameters from ``init_fn(key, (-1, *shape))``, for one example
      of shape ``shape``; its ``dtype`` argument converts them;
    * ``apply(params, x)``: ``apply_fn(params, x)``, of shape ``(n, outputs)``;
    * ``kernel(x1, x2=None)``: ``nngp`` and ``ntk`` of ``kernel_fn(x1, x2)``, each ``(n1, n2)``,
      or ``(n1, n2, H, H', W, W', ...)`` for a network that ends with spatial axes, which are
      put in this order where neural-tangents returns them reversed.

    Further keyword arguments of ``apply`` and ``kernel`` are handed on. All three work under
    strict promotion, ``jit``, ``vmap`` and ``grad``. The values are those of neural-tangents,
    with its accuracy: on the diagonal of a ReLU tangent kernel, about half the digits.

    Parameters
    ----------
    triple
        ``(init_fn, apply_fn, kernel_fn)`` of ``neural_tangents.stax``. ``kernel_fn`` may be
        wrapped by ``neural_tangents.batch`` or come from ``monte_carlo_kernel_fn``.
    apply_kwargs
        Handed to every ``apply_fn`` call, such as ``rng`` for dropout. Arguments of the call
        itself win.
    kernel_kwargs
        Handed to every ``kernel_fn`` call, such as ``pattern`` for ``Aggregate``.
    check_finite
        Whether ``kernel`` raises on NaN or infinity. Checked only outside ``jit``, where
        values can be seen, and only for inputs that are finite themselves.

    Returns
    -------
    ntk_lab.nn.FunctionPair
        The pair ``(init, apply, kernel)``.

    Raises
    ------
    InputError
        If ``triple`` is not three functions; by ``kernel``, if ``kernel_fn`` returns several
        kernels (a network with several outputs).
    NumericalError
        By ``kernel``, if neural-tangents returns NaN or infinity for finite inputs.
    """
    parts = tuple(triple)
    if len(parts) != 3 or not all(map(callable, parts)):
        kinds = ", ".join(type(part).__name__ for part in parts)
        raise InputError(
            "from_neural_tangents needs the three functions (init_fn, apply_fn, kernel_fn) that "
            f"a layer of neural_tangents.stax returns, got ({kinds})."
        )
    init_fn, apply_fn, kernel_fn = parts

    def init(key, shape, dtype=None):
        with relaxed_promotion():
            _, params = init_fn(key, (-1, *shape))
        return params if dtype is None else jax.tree.map(lambda a: a.astype(dtype), params)

    def apply(params, x, **kwargs):
        with relaxed_promotion():
            return apply_fn(params, x, **{**(apply_kwargs or {}), **kwargs})

    def kernel(x1, x2=None, **kwargs):
        with relaxed_promotion():
            result = kernel_fn(x1, x2, **{**(kernel_kwargs or {}), **kwargs})
            kernels = _ordered(result)
        if check_finite:
            _require_finite(kernels, x1, x2)
        return kernels

    return FunctionPair(init=init, apply=apply, kernel=kernel)


def _ordered(result: Any) -> Kernel:
    """Take both kernels from what ``kernel_fn`` returned, spatial axes in the order of inputs."""
    if not (hasattr(result, "nngp") and hasattr(result, "ntk")):
        raise InputError(
            "kernel_fn must return one kernel with nngp and ntk, got "
            f"{type(result).__name__}. A network with several outputs gives a list of kernels: "
            "end it with FanInSum or FanInConcat, or make one pair for each output."
        )
    nngp = result.nngp
    ntk = jnp.broadcast_to(result.ntk, nngp.shape)  # a scalar 0 if no layer has parameters
    if getattr(result, "is_reversed", False):
        doubled = 1 if result.diagonal_spatial else 2
        axes = range(2, nngp.ndim, doubled)
        order = (0, 1, *(a + i for a in reversed(axes) for i in range(doubled)))
        nngp, ntk = nngp.transpose(order), ntk.transpose(order)
    return Kernel(nngp=nngp, ntk=ntk)


def _require_finite(kernels: Kernel, *inputs: Any) -> None:
    if not is_concrete(kernels, inputs):
        return
    counts = {
        name: int(value.size - np.isfinite(value).sum())
        for name, value in kernels._asdict().items()
    }
    if not any(counts.values()):
        return
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(inputs)):
        return
    found = " and ".join(
        f"{count} of {getattr(kernels, name).size} {name} entries"
        for name, count in counts.items()
        if count
    )
    raise NumericalError(
        f"neural-tangents returned NaN or infinity for finite inputs: {found}. Known causes: "
        "zero inputs without biases under ElementwiseNumerical or Polynomial; coincident or "
        "colinear inputs under RectifiedMonomial; in float32, Gelu above a pre-activation "
        "variance of 2e7, the diagonal of an Erf tangent kernel above 1e10, and inputs or depths "
        "at which the kernel itself leaves the range (jax_enable_x64 moves these away). Use the "
        "layer of ntk_lab.nn where there is one, or get the values as they are with "
        "check_finite=False."
    )
