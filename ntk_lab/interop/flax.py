"""Models of flax, linen and nnx, as functions of their parameters.

Both adapters evaluate the model as in inference: batch statistics as they are stored, dropout
off. Weights that are used in several places are one parameter. Flax models take batches; inputs
of any dtype, such as tokens, go through as they are.
"""

from collections.abc import Mapping
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
)


def from_linen(
    module: Any,
    variables: Mapping[str, Any],
    *,
    output: Output = None,
    method: Method = None,
    rngs: Any = None,
    **arguments: Any,
) -> AdaptedModel:
    """Turn a flax linen module with its variables into ``f, params``.

    ``f(params, x) = module.apply({"params": params, ...}, x)``, all other collections (such as
    ``batch_stats``) frozen at the values given.

    Parameters
    ----------
    module
        A ``flax.linen.Module``, unmodified.
    variables
        What ``module.init`` returned, or training has made of it: ``{"params": ..., ...}``.
        Partitioning metadata is taken off.
    output
        Which output, if the module returns several: a name or number, a list of them (side by
        side, flattened), or a function of what the module returns. By default there must be one.
    method
        Another method than ``__call__``: its name, or a function ``(module, x)``.
    rngs
        Keys for a module that draws random numbers even so, as for ``module.apply``. Every
        example then sees the same draw: the kernel is that of one sampled sub-network.
    arguments
        Handed to every call. Where the call takes ``train``, ``training``, ``is_training``,
        ``deterministic``, ``use_running_average`` or ``inference`` and it is not given here, it
        is set to inference.

    Returns
    -------
    AdaptedModel
        Unpacks as ``f, params``; ``f`` costs what the module does, dtypes are the module's own.

    Raises
    ------
    ImportError
        Without flax (extra ``flax``).
    InputError
        Variables without parameters; when ``f`` is called, a module that would update its
        variables, or that needs random numbers and has none, or several outputs and no choice.

    Notes
    -----
    A kernel is that of a fixed function of one example; batch statistics of the batch itself
    would make outputs of an example depend on the others. arXiv:1806.07572.

    Examples
    --------
    >>> import flax.linen as nn, jax, jax.numpy as jnp, ntk_lab as ntk
    >>> module, x = nn.Dense(2), jnp.eye(3)
    >>> f, params = ntk.interop.from_linen(module, module.init(jax.random.key(0), x))
    >>> ntk.empirical.ntk(f, params, x, outputs="trace")[0, :2]
    Array([2., 1.], dtype=float32)
    """
    load("flax", "flax", "flax")
    from flax import errors
    from flax.core import meta, unfreeze

    if not isinstance(variables, Mapping) or "params" not in variables:
        raise InputError(
            f"variables is {_kind(variables)}, without an entry 'params'. Give what module.init "
            "returned; if you hold the parameters alone, {'params': params}."
        )
    variables = unfreeze(meta.unbox(dict(variables)))
    params = variables.pop("params")
    modes = inference_arguments(_function(module, method), arguments)
    arguments = {**modes, **arguments}

    def apply(params, x):
        collections = {"params": params, **variables}
        try:
            with relaxed_promotion():
                return module.apply(collections, x, method=method, rngs=rngs, **arguments)
        except errors.ModifyScopeVariableError as error:
            raise InputError(
                f"{type(module).__name__} would update its variables, as in training: "
                f"{_said(error)} A kernel is of a fixed function. Ask for inference by the "
                "argument the module has for it, e.g. from_linen(module, variables, train=False), "
                "or module.clone(use_running_average=True)."
            ) from error
        except errors.InvalidRngError as error:
            raise InputError(
                f"{type(module).__name__} draws random numbers: {_said(error)} Switch dropout off "
                "by the argument the module has for it, e.g. from_linen(module, variables, "
                "deterministic=True), or give rngs={'dropout': key} for one sampled sub-network."
            ) from error

    def f(params: Any, x: Any) -> jax.Array:
        result = apply(params, x) if rngs is None else by_examples(partial(apply, params), x)
        return choose_output(result, output)

    frozen = tuple(f"{name} frozen" for name in variables)
    sampled = () if rngs is None else ("one draw of random numbers for all examples",)
    return AdaptedModel(f, params, (*frozen, *sampled, *in_words(modes)))


def from_nnx(
    model: Any,
    *,
    output: Output = None,
    method: Method = None,
    trainable: Any = None,
    inference: bool = True,
    **arguments: Any,
) -> AdaptedModel:
    """Turn a flax nnx model into ``f, params``.

    ``f(params, x) = model(x)`` with the parameters replaced by ``params`` and everything else
    (batch statistics, generator states) frozen as it is now.

    Parameters
    ----------
    model
        A ``flax.nnx.Module``; it is copied, not modified.
    output, method
        As for :func:`from_linen`.
    trainable
        An nnx filter for the variables that are parameters; by default ``nnx.Param``.
    inference
        Whether to switch the copy to inference, as ``model.eval()`` does. With False modes stay
        as they are: a model that draws random numbers is one sampled sub-network, the same for
        every example, and one that would update batch statistics is refused.
    arguments
        Handed to every call; inference is asked for as in :func:`from_linen`.

    Returns
    -------
    AdaptedModel
        Unpacks as ``f, params``; ``params`` are nested dicts of arrays, ``f`` costs what the
        model does, dtypes are the model's own.

    Raises
    ------
    ImportError
        Without flax (extra ``flax``).
    InputError
        No parameters; when ``f`` is called, a model that would update its variables or draws
        random numbers in spite of inference, or several outputs and no choice.

    Notes
    -----
    A variable that several modules share is one parameter, under the first of its paths.
    arXiv:1806.07572.

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> from flax import nnx
    >>> f, params = ntk.interop.from_nnx(nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
    >>> ntk.empirical.ntk(f, params, jnp.eye(3), outputs="trace")[0, :2]
    Array([2., 1.], dtype=float32)
    """
    load("flax", "flax", "flax")
    from flax import nnx

    wanted = nnx.Param if trainable is None else trainable
    model = nnx.merge(*nnx.split(model))
    if inference:
        model.eval()
    graph, state, rest = nnx.split(model, wanted, ...)
    params = nnx.to_pure_dict(state)
    if not jax.tree.leaves(params):
        raise InputError(
            f"{type(model).__name__} has no variables of kind {wanted}; name those to "
            "differentiate by as trainable=."
        )
    kinds = dict(nnx.to_flat_state(rest))
    random = any(isinstance(v, nnx.RngState) for v in kinds.values())
    function = _function(model, method)
    modes = inference_arguments(function, arguments) if inference else {}
    arguments = {**modes, **arguments}

    def apply(params, x):
        # Variables can be written to only at the level of tracing where they were made.
        filled, others = jax.tree.map(lambda v: v, (state, rest))
        nnx.replace_by_pure_dict(filled, params)
        copy = nnx.merge(graph, filled, others)
        before = _values(nnx, copy, wanted)
        with relaxed_promotion():
            result = function(copy, x, **arguments)
        _check_unchanged(nnx, before, _values(nnx, copy, wanted), kinds, inference)
        return result

    def f(params: Any, x: Any) -> jax.Array:
        whole = inference or not random
        result = apply(params, x) if whole else by_examples(partial(apply, params), x)
        return choose_output(result, output)

    return AdaptedModel(f, params, _nnx_remarks(nnx, kinds, inference, modes))


def _nnx_remarks(nnx, kinds, inference, modes) -> tuple[str, ...]:
    generators = any(isinstance(v, nnx.RngState) for v in kinds.values())
    names = {type(v).__name__ for v in kinds.values() if not isinstance(v, nnx.RngState)}
    frozen = tuple(f"{name} frozen" for name in sorted(names))
    if inference:
        return (*frozen, "dropout off, stored statistics", *in_words(modes))
    return (*frozen, "one draw of random numbers for all examples") if generators else frozen


def _values(nnx, model, wanted) -> dict[tuple[Any, ...], Any]:
    """Values of all variables that are not parameters."""
    flat = nnx.to_flat_state(nnx.state(model, nnx.Not(nnx.Any(wanted, nnx.Intermediate))))
    return {path: v.get_value() if isinstance(v, nnx.Variable) else v for path, v in flat}


def _check_unchanged(nnx, before, after, kinds, inference) -> None:
    changed = [p for p, value in after.items() if p in before and value is not before[p]]
    drawn = [p for p in changed if isinstance(kinds.get(p), nnx.RngState)]
    updated = [p for p in changed if p not in drawn]
    if updated:
        path = "/".join(map(str, updated[0]))
        raise InputError(
            f"the model would update {path} ({type(kinds.get(updated[0])).__name__}), as in "
            "training. A kernel is of a fixed function. "
            + (
                "The part of the model it belongs to does not follow model.eval(): give the "
                "argument that asks it for inference."
                if inference
                else "Adapt it with inference=True."
            )
        )
    if drawn and inference:
        path = "/".join(map(str, drawn[0]))
        raise InputError(
            f"the model draws random numbers from {path} though it is in inference mode. Give the "
            "argument that switches them off, or inference=False for one sampled sub-network."
        )


def _function(module: Any, method: Method) -> Any:
    """What is called, for its signature."""
    if method is None:
        return type(module).__call__
    return getattr(type(module), method) if isinstance(method, str) else method


def _kind(variables: Any) -> str:
    if isinstance(variables, Mapping):
        return f"a mapping with entries {', '.join(map(repr, variables)) or '(none)'}"
    return type(variables).__name__


def _said(error: Exception) -> str:
    """What flax says, without the address of its documentation."""
    return str(error).split(" (https:")[0].rstrip(". ") + "."
