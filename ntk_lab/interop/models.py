"""What the adapters of other libraries' models have in common."""

import contextlib
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from ntk_lab.errors import InputError

Output = int | str | Sequence[int | str] | Callable[[Any], jax.Array] | None
Method = str | Callable[..., Any] | None

# What libraries call the argument that tells training from inference, and its value in inference.
_MODES = {
    "train": False,
    "training": False,
    "is_training": False,
    "deterministic": True,
    "use_running_average": True,
    "inference": True,
}


@dataclass(frozen=True)
class AdaptedModel:
    """A model of another library as a function of its parameters: ``f, params = adapted``.

    Attributes
    ----------
    f
        ``f(params, x)`` from a batch ``(n, ...)`` to outputs ``(n, ...)``, a pure function.
    params
        Pytree of the trainable arrays, each shared one once.
    remarks
        What was held constant or switched off, in words.

    Examples
    --------
    >>> from ntk_lab.interop import AdaptedModel
    >>> adapted = AdaptedModel(lambda w, x: w * x, jnp.ones(3), ("dropout off",))
    >>> f, params = adapted
    >>> adapted
    AdaptedModel: 3 parameters in 1 array; dropout off
    """

    f: Callable[[Any, Any], jax.Array]
    params: Any
    remarks: tuple[str, ...] = field(default=())

    def __iter__(self) -> Iterator[Any]:
        return iter((self.f, self.params))

    def __repr__(self) -> str:
        leaves = jax.tree.leaves(self.params)
        count, arrays = sum(leaf.size for leaf in leaves), len(leaves)
        size = f"{count:,} parameters in {arrays} array{'s' if arrays != 1 else ''}"
        return f"AdaptedModel: {'; '.join((size, *self.remarks))}"


def load(module: str, package: str, extra: str) -> Any:
    """Import an optional library, or say how to install it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise
        raise ImportError(
            f"this adapter needs {package}, which is not installed: pip install 'ntk_lab[{extra}]'"
        ) from error


@contextlib.contextmanager
def relaxed_promotion() -> Iterator[None]:
    """Let JAX mix dtypes and ranks inside the ``with``, as layers of other libraries rely on.

    Overrides ``jax_numpy_dtype_promotion='strict'`` and ``jax_numpy_rank_promotion='raise'``
    for this thread. Without effect where neither is set.
    """
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def inference_arguments(function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by which a call is told that this is inference, where it takes them by name."""
    named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return {}
    taken = [p.name for p in parameters if p.kind in named]
    return {name: _MODES[name] for name in taken if name in _MODES and name not in given}


def takes(function: Callable[..., Any], name: str) -> bool:
    """Whether a function has an argument of this name."""
    try:
        return name in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False


def in_words(arguments: Mapping[str, Any]) -> tuple[str, ...]:
    """A remark on the arguments that were set, if there are any."""
    words = ", ".join(f"{name}={value}" for name, value in arguments.items())
    return (f"called with {words}",) if words else ()


def by_examples(f: Callable[[Any], Any], x: Any) -> Any:
    """A batch through a function of batches, one example at a time.

    So that random numbers, drawn for a batch, are the same for every example.
    """

    def one(example):
        result = f(jax.tree.map(lambda leaf: leaf[None], example))
        return jax.tree.map(lambda leaf: leaf[0], result)

    return jax.vmap(one)(x)


def choose_output(result: Any, output: Output) -> jax.Array:
    """The one array that ``f`` returns, of all that a model returns."""
    if output is None:
        if hasattr(result, "shape"):
            return result
        leaves = jax.tree.leaves(result)
        if len(leaves) == 1:
            return leaves[0]
        raise InputError(
            f"the model returns {type(result).__name__} of {len(leaves)} arrays"
            f"{_choices(result)}. Choose one of them, as output={_first(result)!r}; several, "
            "side by side, as a list of them; or give a function of what the model returns."
        )
    if callable(output):
        return output(result)
    if isinstance(output, int | str):
        return _entry(result, output)
    parts = [_entry(result, name) for name in output]
    if not parts:
        raise InputError(f"output is empty; name at least one{_choices(result)}.")
    dtype = jnp.result_type(*(jnp.promote_types(p.dtype, parts[0].dtype) for p in parts))
    flat = [p.reshape(len(p), -1).astype(dtype) for p in parts]
    return jnp.concatenate(flat, axis=1)


def _names(result: Any) -> list[int | str]:
    if isinstance(result, Mapping):
        return list(result)
    if isinstance(result, tuple | list) and not hasattr(result, "_fields"):
        return list(range(len(result)))
    names = getattr(result, "_fields", None) or getattr(result, "__dataclass_fields__", ())
    return list(names)


def _choices(result: Any) -> str:
    names = _names(result)
    return f": {', '.join(map(repr, names))}" if names else ""


def _first(result: Any) -> int | str:
    return next(iter(_names(result)), 0)


def _entry(result: Any, name: int | str) -> jax.Array:
    try:
        if isinstance(name, str) and not isinstance(result, Mapping):
            found = getattr(result, name)
        elif hasattr(result, "shape"):
            raise KeyError(name)
        else:
            found = result[name]
    except (AttributeError, IndexError, KeyError, TypeError):
        raise InputError(
            f"output={name!r}, but the model returns {type(result).__name__}"
            f"{_choices(result)}; choose among these."
        ) from None
    if not hasattr(found, "shape"):
        raise InputError(
            f"output={name!r} is {type(found).__name__}; expected one array. Give a function of "
            "what the model returns."
        )
    return found
