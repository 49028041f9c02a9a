"""Transformed functions of dm-haiku as functions of their parameters."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax

from ntk_lab.errors import InputError
from ntk_lab.interop.models import (
    AdaptedModel,
    Output,
    by_examples,
    choose_output,
    in_words,
    inference_arguments,
    load,
    relaxed_promotion,
    takes,
)


def from_haiku(
    transformed: Any,
    params: Mapping[str, Any],
    state: Mapping[str, Any] | None = None,
    *,
    output: Output = None,
    rng: Any = None,
    **arguments: Any,
) -> AdaptedModel:
    """Turn a function transformed by haiku into ``f, params``.

    ``f(params, x) = transformed.apply(params, state, rng, x)``, the state frozen as given.

    Parameters
    ----------
    transformed
        What ``hk.transform``, ``hk.transform_with_state`` or ``hk.without_apply_rng`` returned.
    params, state
        What ``transformed.init`` returned, or training has made of it.
    output
        Which output, if the function returns several: a name or number, a list of them (side by
        side, flattened), or a function of what is returned. By default there must be one.
    rng
        A key for a function that draws random numbers even so. Every example then sees the same
        draw: the kernel is that of one sampled sub-network.
    arguments
        Handed to every call. Where the function takes ``is_training``, ``train``, ``training``,
        ``deterministic``, ``use_running_average`` or ``inference`` and it is not given here, it
        is set to inference.

    Returns
    -------
    AdaptedModel
        Unpacks as ``f, params``; ``f`` costs what the function does, dtypes are its own.

    Raises
    ------
    ImportError
        Without dm-haiku (extra ``haiku``).
    InputError
        A state that is missing or too much; when ``f`` is called, a function that would update
        its state, or that needs random numbers and has none, or several outputs and no choice.

    Notes
    -----
    A module that is used several times has one set of parameters. arXiv:1806.07572.

    Examples
    --------
    >>> import haiku as hk, jax, jax.numpy as jnp, ntk_lab as ntk
    >>> net, x = hk.transform(lambda x: hk.Linear(2)(x)), jnp.eye(3)
    >>> f, params = ntk.interop.from_haiku(net, net.init(jax.random.key(0), x))
    >>> ntk.empirical.ntk(f, params, x, outputs="trace")[0, :2]
    Array([2., 1.], dtype=float32)
    """
    hk = load("haiku", "dm-haiku", "haiku")
    with_state = isinstance(transformed, hk.TransformedWithState)
    if not with_state and not isinstance(transformed, hk.Transformed):
        raise InputError(
            f"transformed is {type(transformed).__name__}; expected what hk.transform or "
            "hk.transform_with_state returns."
        )
    _check_state(with_state, state)
    modes = inference_arguments(transformed.apply, arguments)
    arguments = {**modes, **arguments}
    keyed = takes(transformed.apply, "rng")
    if rng is not None and not keyed:
        raise InputError("rng is given, but hk.without_apply_rng made a function that takes none.")

    def apply(params, x):
        head = (params, state) if with_state else (params,)
        try:
            with relaxed_promotion():
                result = transformed.apply(*head, *((rng,) if keyed else ()), x, **arguments)
        except ValueError as error:
            if type(error).__name__ != "MissingRNGError":
                raise
            raise InputError(
                "the function draws random numbers. Switch dropout off by the argument it has for "
                "that, e.g. from_haiku(net, params, is_training=False), or give rng=key for one "
                "sampled sub-network."
            ) from error
        if not with_state:
            return result
        result, after = result
        _check_unchanged(state, after)
        return result

    def f(params: Any, x: Any) -> jax.Array:
        result = apply(params, x) if rng is None else by_examples(partial(apply, params), x)
        return choose_output(result, output)

    frozen = ("state frozen",) if with_state and jax.tree.leaves(state) else ()
    sampled = () if rng is None else ("one draw of random numbers for all examples",)
    return AdaptedModel(f, params, (*frozen, *sampled, *in_words(modes)))


def _check_state(with_state: bool, state: Any) -> None:
    if with_state and state is None:
        raise InputError(
            "the function has a state: give it, from_haiku(net, params, state), as "
            "net.init(key, x) returned (params, state)."
        )
    if not with_state and state is not None:
        raise InputError(
            "a state is given, but hk.transform made a function without one; leave it out, or "
            "transform with hk.transform_with_state."
        )


def _check_unchanged(before: Any, after: Any) -> None:
    """Refuse a function that sets its state: what is not set comes back as the same objects."""
    old = {jax.tree_util.keystr(p): v for p, v in jax.tree_util.tree_leaves_with_path(before)}
    new = {jax.tree_util.keystr(p): v for p, v in jax.tree_util.tree_leaves_with_path(after)}
    changed = [p for p, value in new.items() if value is not old.get(p)]
    if changed:
        raise InputError(
            f"the function would update its state{changed[0]}, as in training. A kernel is of a "
            "fixed function. Ask for inference by the argument it has for that, e.g. "
            "from_haiku(net, params, state, is_training=False)."
        )
