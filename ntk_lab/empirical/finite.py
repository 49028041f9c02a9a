"""Kernels of a finite network wherever those of an architecture go: stores, regressions, meshes."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.empirical.arguments import Select, arguments
from ntk_lab.empirical.fingerprint import constants, digest, gradient_program, program_text
from ntk_lab.empirical.nngp import nngp
from ntk_lab.empirical.ntk import Method, Model, Params, ntk
from ntk_lab.empirical.plan import plan
from ntk_lab.kernel import Kernel

# Examples on each side by which operations are counted.
_COUNTED = 64


@dataclass(frozen=True, eq=False)
class FiniteKernel:
    """Empirical kernels of any function, in place of an architecture where kernels are large.

    `ntk_lab.kernel.to_store` and `ntk_lab.predict.regress` take it as they take an architecture:
    tiles under a memory limit, on disk, anew for each product, or over the devices of a mesh.

    Parameters
    ----------
    f, params
        As for :func:`ntk_lab.empirical.ntk`.
    outputs
        ``"trace"``: kernels are means over outputs, ``(n1, n2)``. An array ``(C,)``: those of the
        one output ``f @ array``. ``"full"``: ``(n1, n2, C, C)``, for stores only.
    select, method
        As for :func:`ntk_lab.empirical.ntk`.

    Notes
    -----
    Kernel regression from this kernel predicts what training adds to the outputs at
    initialization: regress on ``y - f(params, x)`` and add ``f(params, x_test)``. For several
    outputs ``"trace"`` leaves out what couples them, which wide networks do not
    have. In the dtype of the parameters. A store is refused if ``f``, ``params`` or data have
    changed since. Cost: that of :func:`ntk_lab.empirical.ntk`, with backward passes for the rows
    and columns of each tile.

    Examples
    --------
    >>> import jax, numpy as np, ntk_lab as ntk
    >>> net = ntk.nn.Sequential(ntk.nn.Dense(64), ntk.nn.Relu(), ntk.nn.Dense(1))
    >>> x = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    >>> params = net.init(jax.random.key(0), (4,))
    >>> kernel = ntk.empirical.FiniteKernel(net.apply, params)
    >>> fitted = ntk.predict.regress(kernel, x, x[:, :1] - net.apply(params, x), ridge=1e-3)
    >>> (fitted.predict(x) + net.apply(params, x)).shape
    (20, 1)
    """

    f: Model
    params: Params
    outputs: Any = "trace"
    select: Select | None = None
    method: Method = "auto"

    def kernel(self, x1: Any, x2: Any = None, *, memory: float | None = None) -> Kernel:
        """Both kernels, as ``net.kernel`` gives those of an architecture."""
        first, second = jnp.asarray(x1), None if x2 is None else jnp.asarray(x2)
        theta = ntk(
            self.f, self.params, first, second, outputs=self.outputs, method=self.method,
            memory=memory, select=self.select,
        )  # fmt: skip
        values = nngp(self.f, self.params, first, second, outputs=self.outputs, memory=memory)
        return Kernel(values.astype(theta.dtype), theta)

    def compute(self, x1: Any, x2: Any, memory: float) -> Kernel:
        """As :meth:`kernel`, for tiles."""
        return self.kernel(x1, x2, memory=memory)

    @property
    def arrays(self) -> Params:
        """The parameters."""
        return self.params

    def traced(self, arrays: Params, which: str, x1: jax.Array, x2: jax.Array) -> jax.Array:
        """One kernel, inside a compiled program."""
        if which == "nngp":
            return nngp(self.f, arrays, x1, x2, outputs=self.outputs)
        return ntk(
            self.f, arrays, x1, x2, outputs=self.outputs, method=self.method, select=self.select
        )

    def operations(self, x: Any) -> float:
        """Operations for a pair of examples, about."""
        few = jnp.asarray(np.zeros((_COUNTED, *x.shape[1:]), x.dtype))
        found = plan(
            self.f, self.params, few, few, outputs=self.outputs, method=self.method,
            select=self.select,
        )  # fmt: skip
        return found.operations / _COUNTED**2

    def identity(self, x: Any) -> dict[str, Any]:
        """What decides the numbers, as short texts."""
        args = arguments(self.f, self.params, jnp.asarray(x[:1]), None, self.select)
        programs = jax.make_jaxpr(self.f)(self.params, args.x1), gradient_program(args)
        held = [c for p in programs for c in (*p.consts, *constants(p.jaxpr))]
        outputs = self.outputs if isinstance(self.outputs, str) else digest([], [self.outputs])
        return {
            "f": digest([program_text(p.jaxpr) for p in programs], held),
            "params": digest([*map(str, args.paths)], args.leaves),
            "outputs": outputs,
            "select": digest([str(args.selected)], []),
            "NTK method": self.method,
            "precision": args.signature(structured=True, merge=True).precision,
        }
