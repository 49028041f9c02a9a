"""What neural-tangents 0.6.5 expects of JAX and current JAX lacks, kept in one place.

Two kinds of repair, and nothing of either kind stays behind in JAX:

* `during_import` puts names that left JAX back for the length of one import and takes them
  away again; neural-tangents binds them by ``from ... import``, so it keeps its own reference.
* `repair` changes a few globals of neural-tangents' own modules: some become a view of the
  JAX or scipy module with the missing names added, some private helpers are replaced. They
  are needed at call time, and only neural-tangents sees them.
"""

import contextlib
import contextvars
import functools
import importlib
import math
import sys
import types

import jax
import jax.core
import jax.extend.core as extend_core
import jax.numpy as jnp
import scipy
from jax.interpreters import ad

from ntk_lab.concrete import is_concrete

PACKAGE = "neural_tangents"
_ABSENT = object()
_REPAIRED = "_ntk_lab_repaired"
_LEFT_JAX_CORE = ("Jaxpr", "JaxprEqn", "ClosedJaxpr", "Literal", "Var", "Primitive")


def _safe_map(function, *sequences):
    return [function(*items) for items in zip(*sequences, strict=True)]


def _safe_zip(*sequences):
    return list(zip(*sequences, strict=True))


class _NoExperimental(types.ModuleType):
    """Stands in for `neural_tangents.experimental`, which is TensorFlow from its first line."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(
            f"neural_tangents.experimental.{name} needs TensorFlow and tf2jax, which the bridge "
            "does not load. For an NTK of a TensorFlow model, convert it to a JAX function first "
            "and use ntk_lab.empirical."
        )


@contextlib.contextmanager
def _attribute(owner, name, value):
    before = getattr(owner, name, _ABSENT)
    if before is not _ABSENT:
        yield
        return
    setattr(owner, name, value)
    try:
        yield
    finally:
        delattr(owner, name)


@contextlib.contextmanager
def _module(name, module):
    if name in sys.modules:
        yield
        return
    sys.modules[name] = module
    try:
        yield
    finally:
        sys.modules.pop(name, None)


@contextlib.contextmanager
def during_import():
    """Put back what the import needs, and take it away again on leaving.

    Attributes that JAX still has are left alone, so that on an older JAX nothing is patched.
    The TensorFlow corner of neural-tangents is replaced as a whole by a stand-in for its own
    `neural_tangents.experimental` (the one thing that stays in `sys.modules`, beside
    neural-tangents itself): so there is never a fake `tensorflow` for anybody to find.
    A failed import leaves no half-loaded neural-tangents behind.
    """
    util = types.ModuleType("jax.util")
    vars(util).update(safe_map=_safe_map, safe_zip=_safe_zip)
    experimental = f"{PACKAGE}.experimental"
    sys.modules[experimental] = _NoExperimental(experimental)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_module("jax.util", util))
        for name in _LEFT_JAX_CORE:
            stack.enter_context(_attribute(jax.core, name, getattr(extend_core, name)))
        # Only a key in a table of rules: no program of current JAX contains it.
        zeros_like = extend_core.Primitive("zeros_like")
        stack.enter_context(_attribute(ad, "zeros_like_p", zeros_like))
        try:
            yield
        except BaseException:
            for name in [m for m in sys.modules if m.split(".")[0] == PACKAGE]:
                del sys.modules[name]
            raise


class _View:
    """A module seen with some names added; everything else is looked up in the module."""

    def __init__(self, module, **added):
        self.__dict__.update(added)
        self._module = module

    def __getattr__(self, name):
        return getattr(self._module, name)


def _cotangents_of_operands(eqn, cotangent, *operands):
    """Turn the cotangent of one linear operation's output into those of its operands.

    JAX has moved the rules of several primitives into a private table of another format; for
    those, transpose the operation itself through the public `jax.linear_transpose`.
    """
    if eqn is None:  # the identity
        return (cotangent,)
    primitive, params = eqn.primitive, eqn.params
    if primitive in ad.primitive_transposes:
        return ad.primitive_transposes[primitive](cotangent, *operands, **params)
    linear = [i for i, x in enumerate(operands) if isinstance(x, ad.UndefinedPrimal)]
    if isinstance(cotangent, ad.Zero):
        return [ad.Zero(x.aval) if i in linear else None for i, x in enumerate(operands)]

    def bind(*free):
        values = list(operands)
        for i, x in zip(linear, free, strict=True):
            values[i] = x
        return primitive.bind(*values, **params)

    avals = [operands[i].aval for i in linear]
    shapes = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in avals]
    found = dict(zip(linear, jax.linear_transpose(bind, *shapes)(cotangent), strict=True))
    return [found.get(i) for i in range(len(operands))]


def _primals_out_and_pullback(empirical, fn, mode, j_rules, s_rules, forward, *primals_in):
    """Outputs of `fn`, and neural-tangents' backward pass over its linearization.

    The linear program is had from `jax.linearize` and `jax.make_jaxpr`, in place of the
    private call whose signature changed. Without `jit`, so that it is flat.
    """
    leaves, in_tree = jax.tree.flatten(primals_in)
    out_tree = None

    def flat(*args):
        nonlocal out_tree
        out, out_tree = jax.tree.flatten(fn(*jax.tree.unflatten(in_tree, args)))
        return out

    with jax.disable_jit():
        out, tangent_map = jax.linearize(flat, *leaves)
        closed = jax.make_jaxpr(tangent_map)(*leaves)

    def pullback(*cotangents):
        found = empirical._backward_pass(
            closed.jaxpr,
            mode=mode,
            consts=closed.consts,
            primals_in=[ad.UndefinedPrimal(v.aval) for v in closed.jaxpr.invars],
            cotangents_in=tuple(jax.tree.leaves(cotangents)),
            _j_rules=j_rules,
            _s_rules=s_rules,
            _fwd=forward,
        )
        return jax.tree.unflatten(in_tree, found)

    return jax.tree.unflatten(out_tree, out), pullback


def _flops(function, optimize, *args, **kwargs):
    """Operation count of `function` by XLA, whose answer is a mapping now and was a list."""
    lowered = jax.jit(function).lower(*args, **kwargs)
    analysis = (lowered.compile() if optimize else lowered).cost_analysis()
    if isinstance(analysis, list | tuple):
        analysis = analysis[0]
    if analysis is None:
        raise ValueError("this backend does not count operations, which mode AUTO needs")
    return analysis["flops"]


def _repair_empirical(empirical):
    """Make the structured NTK modes of neural-tangents' `_src.empirical` module run again."""

    class DynamicShape:
        """A kind of array that JAX has given up: nothing is an instance of it."""

    left = {name: getattr(extend_core, name) for name in _LEFT_JAX_CORE}
    empirical.core = _View(jax.core, DShapedArray=DynamicShape, **left)
    empirical.ad = _View(
        ad,
        config=types.SimpleNamespace(jax_enable_checks=False),
        source_info_util=types.SimpleNamespace(
            # Name stacks only label operations for profilers.
            transform_name_stack=lambda name: contextlib.nullcontext(),
        ),
    )
    # Both warn of deprecation when asked about an abstract array, which has a shape all the same.
    empirical.jnp = _View(
        jnp,
        size=lambda x: math.prod(x.shape) if hasattr(x, "shape") else jnp.size(x),
        shape=lambda x: tuple(x.shape) if hasattr(x, "shape") else jnp.shape(x),
    )
    empirical._get_primals_out_and_pullback = functools.partial(
        _primals_out_and_pullback, empirical
    )
    empirical._eqn_vjp_fn = _cotangents_of_operands
    empirical._get_flops = _flops


def _repair_predict(predict, public):
    """Make `predict.max_learning_rate` run, and `predict.gradient_descent_mse` under `jit`.

    The second decomposes the kernel in an "evaluate now" context, so that it may cache the
    result across traces. JAX used to let a traced kernel through; now that context is entered
    only for a kernel that has values.
    """
    traced = contextvars.ContextVar("traced", default=False)
    original = predict.gradient_descent_mse

    def eval_context():
        return contextlib.nullcontext() if traced.get() else jax.core.eval_context()

    @functools.wraps(original)
    def gradient_descent_mse(k_train_train, *args, **kwargs):
        predict_fn = original(k_train_train, *args, **kwargs)
        if is_concrete(k_train_train):
            return predict_fn

        @functools.wraps(predict_fn)
        def predict_traced(*args, **kwargs):
            token = traced.set(True)
            try:
                return predict_fn(*args, **kwargs)
            finally:
                traced.reset(token)

        return predict_traced

    def eigvalsh(matrix, eigvals):
        return scipy.linalg.eigvalsh(matrix, subset_by_index=eigvals)

    predict.jax = _View(jax, core=_View(jax.core, eval_context=eval_context))
    predict.sp = _View(scipy, linalg=_View(scipy.linalg, eigvalsh=eigvalsh))
    predict.gradient_descent_mse = public.gradient_descent_mse = gradient_descent_mse


def repair():
    """Repair an imported neural-tangents, once."""
    package = sys.modules[PACKAGE]
    if getattr(package, _REPAIRED, False):
        return
    _repair_empirical(importlib.import_module(f"{PACKAGE}._src.empirical"))
    _repair_predict(importlib.import_module(f"{PACKAGE}._src.predict"), package.predict)
    setattr(package, _REPAIRED, True)
