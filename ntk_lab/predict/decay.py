"""Weight decay, seen in function space."""

from typing import Any, Literal, NamedTuple, get_args

import jax
import numpy as np
from jax.typing import ArrayLike

from ntk_lab.concrete import is_concrete
from ntk_lab.errors import InputError
from ntk_lab.predict.inputs import Problem, read_non_negative, read_outputs

DecayTo = Literal["zero", "initial"]


class Decay(NamedTuple):
    """Weight decay of ``rate``, towards parameters whose linearized outputs are ``f0 - pull``.

    Attributes
    ----------
    rate
        The weight decay, one number.
    train, test
        ``J theta_0`` on each set, in flat form; None where decay is towards ``theta_0``, which
        pulls towards ``f0`` itself.
    """

    rate: jax.Array
    train: jax.Array | None
    test: jax.Array | None


def read_decay(
    problem: Problem,
    weight_decay: ArrayLike,
    decay_to: DecayTo,
    jvp_train: ArrayLike | None,
    jvp_test: ArrayLike | None,
) -> Decay:
    """Check what was given on weight decay; see `gradient_flow` for what it is."""
    known = is_concrete(weight_decay)  # under jit, a number becomes an array that is not
    rate = read_rate(weight_decay, decay_to, problem.targets.dtype)
    given = jvp_train is not None or jvp_test is not None
    if known and float(np.asarray(weight_decay)) == 0:
        if given:
            raise InputError("jvp_train or jvp_test is given, but weight_decay is zero.")
        return Decay(rate, None, None)
    if decay_to == "initial":
        if given:
            raise InputError(
                "jvp_train and jvp_test are for decay towards zero, but decay_to is 'initial'."
            )
        return Decay(rate, None, None)
    return _towards_zero(problem, rate, jvp_train, jvp_test)


def read_rate(weight_decay: ArrayLike, decay_to: str, dtype: Any) -> jax.Array:
    """One finite number that is not negative, and a known place to decay to."""
    rate = read_non_negative("weight_decay", weight_decay, dtype)
    if rate.ndim or (is_concrete(weight_decay) and float(np.asarray(weight_decay)) == np.inf):
        raise InputError(f"weight_decay is {weight_decay}; one finite number is needed.")
    if decay_to not in get_args(DecayTo):
        raise InputError(f"decay_to is {decay_to!r}; it must be 'zero' or 'initial'.")
    return rate


def _towards_zero(
    problem: Problem, rate: jax.Array, jvp_train: ArrayLike | None, jvp_test: ArrayLike | None
) -> Decay:
    if problem.nngp is not None:
        raise InputError(
            "decay towards zero depends on the initial parameters, so there is no formula for "
            "random ones: pass arrays (kernel.ntk) with f0 and jvp, or decay_to='initial'."
        )
    if jvp_train is None or (jvp_test is None) != (problem.f0_test is None):
        raise InputError(
            "decay towards zero moves outputs along J theta_0, the derivative of the network in "
            "the direction of its initial parameters: pass jvp_train (and jvp_test with a test "
            "set) = jax.jvp(lambda p: f(p, x), (params,), (params,))[1], or decay_to='initial' "
            "for decay towards the initial parameters."
        )

    def read(name: str, jvp: Any, f0: Any) -> jax.Array:
        outputs = problem.outputs
        n = len(f0) // (outputs or 1)
        found = read_outputs(name, jvp, n, outputs or f0.shape[1], f0.dtype)
        return found.reshape(f0.shape)

    test = None if jvp_test is None else read("jvp_test", jvp_test, problem.f0_test)
    return Decay(rate, read("jvp_train", jvp_train, problem.f0_train), test)
