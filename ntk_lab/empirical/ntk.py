"""Empirical kernels of any function: the whole, and the part of each parameter."""

import os
from collections.abc import Callable
from typing import Any, Literal, overload

import jax
import numpy as np

from ntk_lab.empirical import engine, repeated
from ntk_lab.empirical.arguments import Select, arguments, check_method, cotangents
from ntk_lab.empirical.checks import check_examples, check_finite
from ntk_lab.empirical.on_disk import on_disk
from ntk_lab.empirical.structured.build import build
from ntk_lab.empirical.tiles import default_memory
from ntk_lab.empirical.vector_products import by_vector_products, cheaper
from ntk_lab.errors import InputError

Params = Any
Model = Callable[[Params, Any], jax.Array]
Outputs = Literal["full", "trace", "diagonal"]
Method = Literal["auto", "jacobian", "vector-products", "structured"]
Progress = Callable[[int, int], Any]


@overload
def ntk(
    f: Model,
    params: Params,
    x1: Any,
    x2: Any = None,
    *,
    outputs: Outputs | jax.Array | np.ndarray = "full",
    method: Method = "auto",
    memory: float | None = None,
    progress: Progress | None = None,
    select: Select | None = None,
    path: None = None,
) -> jax.Array: ...
@overload
def ntk(
    f: Model,
    params: Params,
    x1: Any,
    x2: Any = None,
    *,
    outputs: Outputs | jax.Array | np.ndarray = "full",
    method: Method = "auto",
    memory: float | None = None,
    progress: Progress | None = None,
    select: Select | None = None,
    path: str | os.PathLike,
) -> np.ndarray: ...
def ntk(
    f: Model,
    params: Params,
    x1: Any,
    x2: Any = None,
    *,
    outputs: Outputs | jax.Array | np.ndarray = "full",
    method: Method = "auto",
    memory: float | None = None,
    progress: Progress | None = None,
    select: Select | None = None,
    path: str | os.PathLike | None = None,
) -> jax.Array | np.ndarray:
    """Empirical (finite-width) neural tangent kernel, ``Theta = J(x1) J(x2)^T``.

    Parameters
    ----------
    f
        Any ``f(params, x)`` from a batch of ``n`` examples to outputs ``(n, ...)``, each row a
        function of its own example only. Outputs are flattened to ``(n, C)``; those of shape
        ``(n,)`` have ``C = 1``. Functions that can be hashed are traced and compiled once.
    params
        Pytree of arrays. Those that are not floating point are held constant.
    x1, x2
        Batches ``(n1, *shape)`` and ``(n2, *shape)``, or pytrees of them, of any dtype;
        ``x2=None`` means ``x1`` and costs half.
    outputs
        ``"full"``: ``Theta[i, j, a, b] = <df_a(x1_i), df_b(x2_j)>``, shape ``(n1, n2, C, C)``.
        ``"diagonal"``: only ``a = b``, shape ``(n1, n2, C)``. ``"trace"``: the mean of the
        diagonal over outputs, shape ``(n1, n2)``, which estimates the infinite-width NTK. An
        array ``(C, k)``: the full kernel of the ``k`` outputs ``f @ array``, shape
        ``(n1, n2, k, k)``; an array ``(C,)``: the kernel of ``f @ array``, shape ``(n1, n2)``.
    method
        ``"structured"``, which ``"auto"`` chooses nearly always: one backward pass to every use of
        a parameter, then for each parameter the cheaper of matrix products of gradients and
        products of Gram matrices; an exact general rule where a use is not recognised (see
        :func:`plan`). ``"jacobian"``: the general rule for all. ``"vector-products"``: a backward
        and a forward pass a column, without Jacobians, which ``"auto"`` chooses where it takes
        less than an eighth of the operations: many outputs, and long weights that are, for
        instance, normalized first. All give the same kernel.
    memory
        Bytes that may be used beside parameters, inputs and the result; default a quarter of
        what is free. The result is the same, to rounding, for every limit.
    progress
        Called after each tile as ``progress(done, total)``.
    select
        Parameters to differentiate by, all others held constant: a function of the path of a
        parameter (``"layers/0/w"``) that returns whether to, or a pytree of booleans that is a
        prefix of ``params``.
    path
        A folder that the kernel is written to, as ``kernel.npy``, tile by tile: it may be larger
        than memory. The same call with the same folder goes on where an earlier one stopped, or
        returns what is there. A process that is killed loses the last second; no other end loses
        a finished tile.

    Returns
    -------
    jax.Array or numpy.ndarray
        In the dtype of the parameters. Without examples, an empty kernel. With ``path``, a NumPy
        array with the same values that is read from disk where it is looked at
        (``numpy.load(folder / "kernel.npy", mmap_mode="r")``).

    Raises
    ------
    InputError
        Batches or outputs of unsuitable shape or dtype, a function that mixes examples (such as
        BatchNorm in training mode; tried on three examples), a limit that is too small; a folder
        that cannot be used, or that holds the kernel of another ``f``, ``params``, ``x1``, ...
    NumericalError
        Kernel values that are not finite.

    Notes
    -----
    The gradient of a weight that maps ``A`` to ``A W``, at cotangents ``D``, is ``A^T D``, so its
    part of the kernel is ``(A1 A2^T) * (D1 D2^T)``, summed over pairs of positions where the
    weight is shared (arXiv:2206.08720). Operations: ``n C`` backward passes and, for a dense
    layer, ``2 n1 n2 C^2`` times its outputs rather than its parameters (``C`` instead of ``C^2``
    for trace and diagonal); ``x2=None`` takes three quarters of that in one tile, half in many.
    Under ``jit``, ``grad`` or ``vmap`` values cannot be looked at, and neither mixing nor values
    that are not finite are found. arXiv:1806.07572.

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> ntk.empirical.ntk(lambda w, x: x @ w, jnp.ones((3, 2)), jnp.eye(3), outputs="trace")[0, 0]
    Array(1., dtype=float32)
    """
    check_method(method)
    plain = isinstance(outputs, str) and select is None and path is None and progress is None
    call = repeated.call(f, params, x1, x2, outputs, method) if plain and callable(f) else None
    if call is not None and (kernel := repeated.again(call, memory)) is not None:
        return kernel
    args = arguments(f, params, x1, x2, select)
    mode, basis, squeeze = cotangents(outputs, args)
    limit = default_memory() if memory is None else memory
    program = build(f, args.signature(method in ("auto", "structured"), merge=True))
    check_examples(program, args)
    if method == "vector-products" and path is not None:
        raise InputError(
            "method='vector-products' computes columns rather than tiles, which are not "
            "written to disk. Choose 'auto', or leave path out."
        )
    job = None if method == "vector-products" else engine.job(args, program, mode, basis, limit)
    if job is None or (method == "auto" and path is None and cheaper(job, limit)):
        kernel = by_vector_products(args, program, mode, basis, limit, progress)
    elif path is not None:
        kernel = on_disk(job, path, method, memory, progress)
        return kernel[:, :, 0, 0] if squeeze else kernel
    else:
        groups = (tuple(range(len(job.parts))),)
        (kernel,) = engine.kernels(job, groups, progress)
        if call is not None and program.checked:
            repeated.remember(call, job, groups)
    check_finite(kernel, args)
    return kernel[:, :, 0, 0] if squeeze else kernel
