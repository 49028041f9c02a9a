"""Models of equinox as functions of their parameters."""

from functools import partial
from typing import Any

import jax

from ntk_lab.errors import InputError
from ntk_lab.interop.models import (
    AdaptedModel,
    Method,
    Output,
    by_examples,
    choose_output,
    in_words,
    inference_arguments,
    load,
    relaxed_promotion,
    takes,
)


def from_equinox(
    model: Any,
    state: Any = None,
    *,
    output: Output = None,
    method: Method = None,
    inference: bool = True,
    key: Any = None,
    batched: bool = False,
    **arguments: Any,
) -> AdaptedModel:
    """Turn an equinox model into ``f, params``.

    ``f(params, x)`` is the model, its inexact arrays replaced by ``params``, mapped over the
    examples of ``x``; everything else is frozen as it is now.

    Parameters
    ----------
    model
        An ``equinox.Module`` or any callable pytree; it is copied, not modified.
    state
        The ``equinox.nn.State`` of a model with stateful layers such as ``BatchNorm``, as
        ``equinox.nn.make_with_state`` returned it or training has made of it. The model is called
        as ``model(x, state)`` and returns ``(outputs, state)``.
    output
        Which output, if the model returns several: a name or number, a list of them (side by
        side, flattened), or a function of what the model returns, with an axis of examples in
        front. By default there must be one.
    method
        Another method than ``__call__``: its name, or a function ``(model, x)``, or
        ``(model, x, state)`` with a state.
    inference
        Whether to switch the copy to inference, by ``equinox.nn.inference_mode``. With False
        modes stay as they are: dropout needs a ``key``, BatchNorm is refused.
    key
        Handed to the call, where it takes one, the same for every example: the kernel is that of
        one sampled sub-network. Models that take a ``key`` get None without it.
    batched
        Whether the model takes whole batches ``(n, ...)``; as is usual in equinox, by default it
        takes one example.
    arguments
        Handed to every call; where the call takes ``inference``, ``deterministic``, ``train`` or
        the like and it is not given here, it is set to inference.

    Returns
    -------
    AdaptedModel
        Unpacks as ``f, params``; ``params`` is the model with all else than inexact arrays taken
        out. ``f`` costs what the model does, dtypes are the model's own.

    Raises
    ------
    ImportError
        Without equinox (extra ``equinox``).
    InputError
        No inexact arrays, stateful layers without a state; when ``f`` is called, a model that
        would update its state, or that needs random numbers and has none, or several outputs and
        no choice.

    Notes
    -----
    Weights shared by ``equinox.nn.Shared`` are one parameter. An array that merely sits in two
    places is two parameters, as it is in training with equinox; ``remarks`` names it.
    arXiv:1806.07572.

    Examples
    --------
    >>> import equinox as eqx, jax, jax.numpy as jnp, ntk_lab as ntk
    >>> model = eqx.nn.Linear(3, 2, key=jax.random.key(0))
    >>> f, params = ntk.interop.from_equinox(model)
    >>> ntk.empirical.ntk(f, params, jnp.eye(3), outputs="trace")[0, :2]
    Array([2., 1.], dtype=float32)
    """
    eqx = load("equinox", "equinox", "equinox")
    if inference:
        model = eqx.nn.inference_mode(model)
    _check_state(eqx, model, state)
    params, rest = eqx.partition(model, eqx.is_inexact_array)
    if not jax.tree.leaves(params):
        raise InputError(f"{type(model).__name__} has no inexact arrays to differentiate by.")
    function = getattr(type(model), method) if isinstance(method, str) else method
    function = type(model).__call__ if function is None else function
    modes = inference_arguments(function, arguments) if inference else {}
    arguments = {**modes, **arguments}
    if takes(function, "key"):
        arguments.setdefault("key", key)
    elif key is not None:
        raise InputError("a key is given, but the model's call has no argument 'key'.")
    head = () if state is None else (state,)

    def apply(params, x):
        result = _called(function, eqx.combine(params, rest), (x, *head), arguments)
        if state is None:
            return result
        result, after = _with_state(result)
        _check_unchanged(state, after)
        return result

    def f(params: Any, x: Any) -> jax.Array:
        one = partial(apply, params)
        if not batched:
            result = jax.vmap(one)(x)
        else:
            result = one(x) if key is None else by_examples(one, x)
        return choose_output(result, output)

    remarks = () if state is None else ("state frozen",)
    remarks += ("dropout off, stored statistics",) if inference else ()
    remarks += () if key is None else ("one draw of random numbers for all examples",)
    return AdaptedModel(f, params, (*remarks, *in_words(modes), *_twice(params)))


def _called(function, model, inputs, arguments):
    try:
        with relaxed_promotion():
            return function(model, *inputs, **arguments)
    except RuntimeError as error:
        if "requires a key" not in str(error):
            raise
        raise InputError(
            f"{type(model).__name__} draws random numbers: {error} Adapt it with inference=True, "
            "or give a key for one sampled sub-network."
        ) from error
    except NameError as error:
        if "axis name" not in str(error):
            raise
        raise InputError(
            f"{type(model).__name__} uses statistics of the batch ({error}), as in training. A "
            "kernel is of a function of one example: adapt it with inference=True."
        ) from error


def _check_state(eqx, model, state) -> None:
    def stateful(node):
        return isinstance(node, eqx.nn.StatefulLayer) and node.is_stateful()

    found = [n for n in jax.tree.leaves(model, is_leaf=stateful) if stateful(n)]
    if state is None and found:
        raise InputError(
            f"the model has stateful layers ({type(found[0]).__name__}): give their state, "
            "from_equinox(model, state), with both from equinox.nn.make_with_state."
        )


def _with_state(result: Any) -> tuple[Any, Any]:
    if not isinstance(result, tuple) or len(result) != 2:
        raise InputError(
            f"with a state the model must return (outputs, state), got {type(result).__name__}. "
            "Leave the state out if the model takes none."
        )
    return result


def _check_unchanged(before: Any, after: Any) -> None:
    """Refuse a model that sets its state: what is not set comes back as the same objects."""
    old, new = jax.tree.leaves(before), jax.tree.leaves(after)
    if len(old) != len(new) or any(a is not b for a, b in zip(old, new, strict=True)):
        raise InputError(
            "the model would update its state, as in training. A kernel is of a fixed function: "
            "adapt it with inference=True, or ask the layer for inference."
        )


def _twice(params: Any) -> tuple[str, ...]:
    """Remarks on arrays in several places, which users may take for tied weights."""
    places: dict[int, list[str]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        places.setdefault(id(leaf), []).append(name)
    return tuple(
        f"{' and '.join(names)} are one array, yet several parameters: tie them by "
        "equinox.nn.Shared to count them once"
        for names in places.values()
        if len(names) > 1
    )
