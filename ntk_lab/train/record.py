"""What is recorded of a group of seeds at one step."""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.empirical.ntk import ntk
from ntk_lab.empirical.sketched import sketched_ntk
from ntk_lab.errors import InputError
from ntk_lab.train.program import Program, count
from ntk_lab.train.sharpness import (
    PRODUCTS,
    TOLERANCE,
    hessian_operator,
    ntk_operator,
    top_eigenvalue,
)

Record = dict[str, np.ndarray]


@dataclass(frozen=True)
class Sketch:
    """A kernel to record by random projections: cheaper than exact ones with many outputs.

    Attributes
    ----------
    dimension
        Number of random directions; relative errors are about ``sqrt(2 / dimension)``, and
        ``Trajectory.ntk_error`` holds the standard error of each entry.
    outputs
        ``"trace"``, the mean over outputs ``(m, m)``, or ``"full"``.

    Examples
    --------
    >>> from ntk_lab.train import Sketch
    >>> Sketch(100)
    Sketch(dimension=100, outputs='trace')
    """

    dimension: int
    outputs: Literal["trace", "full"] = "trace"


Kernel = Literal["combined", "trace", "full"] | Sketch


def check_kernel(kernel: Any) -> None:
    """Refuse kernels that cannot be recorded."""
    if not isinstance(kernel, Sketch) and kernel not in ("combined", "trace", "full"):
        raise InputError(
            f"kernel={kernel!r}; choose 'combined', 'trace', 'full' or "
            "ntk_lab.train.Sketch(dimension)."
        )


@dataclass(frozen=True)
class Recorder:
    """Looks at the parameters of a group of seeds; ``key`` decides what is random in it."""

    program: Program
    x: Any
    y: jax.Array
    x_test: Any
    points: Any
    kernel: Kernel
    sharpness: bool
    key: jax.Array
    block: int
    memory: float | None

    def look(self, params: Any, params0: Any, seeds: list[int]) -> Record:
        """Arrays with seeds on the first axis, by name."""
        train = self._outputs(params, params0, self.x)
        loss, motion = self.program.measure(train, params, params0, self.y)
        found = {"train": np.asarray(train), "loss": np.asarray(loss)}
        found["motion"] = np.asarray(motion)
        if self.x_test is not None:
            found["test"] = np.asarray(self._outputs(params, params0, self.x_test))
        if self.points is None and not self.sharpness:
            return found
        each = [
            self._of_one(_one(params, i), _one(params0, i), seed, bool(np.isfinite(loss[i])))
            for i, seed in enumerate(seeds)
        ]
        return found | {name: np.stack([one[name] for one in each]) for name in each[0]}

    def _outputs(self, params: Any, params0: Any, x: Any) -> jax.Array:
        n, block = count(x), self.block
        if n <= block:
            return self.program.outputs(params, params0, x)
        parts = [
            np.asarray(
                self.program.outputs(
                    params, params0, jax.tree.map(lambda a, i=i: a[i : i + block], x)
                )
            )
            for i in range(0, n, block)
        ]
        return jnp.asarray(np.concatenate(parts, axis=1))

    def _of_one(self, params: Any, params0: Any, seed: int, finite: bool) -> Record:
        key = self._key(seed)
        found: Record = {}
        if self.points is not None:
            found |= self._kernel(params0 if self.program.linearized else params, key, finite)
        if self.sharpness:
            found |= self._sharpness(params, params0, key, finite)
        return found

    def kernel_of(self, params: Any, seed: int) -> Record:
        """What is recorded of the kernel of one seed's network."""
        return self._kernel(params, self._key(seed), True)

    def _key(self, seed: int) -> jax.Array:
        return jax.random.fold_in(self.key, jnp.uint32(seed))

    def _kernel(self, params: Any, key: jax.Array, finite: bool) -> Record:
        f, points, outputs, dtype = self.program.f, self.points, self.y.shape[1], self.y.dtype
        if not finite:
            full = self.kernel == "full" or getattr(self.kernel, "outputs", "") == "full"
            shape = (count(points), count(points), *((outputs, outputs) if full else ()))
            lost = np.full(shape, np.nan, dtype)
            return {"ntk": lost} | ({"ntk_error": lost} if isinstance(self.kernel, Sketch) else {})
        if isinstance(self.kernel, Sketch):
            # Apart from the draw below, which has the same key.
            found = sketched_ntk(
                f, params, points, key=jax.random.fold_in(key, 1), memory=self.memory,
                dimension=self.kernel.dimension, outputs=self.kernel.outputs,
            )  # fmt: skip
            return {
                "ntk": np.asarray(found.kernel),
                "ntk_error": np.asarray(found.standard_error),
            }
        if self.kernel != "combined":
            return {
                "ntk": np.asarray(ntk(f, params, points, outputs=self.kernel, memory=self.memory))
            }
        direction = jax.random.normal(key, (outputs,), dtype)
        v = direction / jnp.linalg.norm(direction)
        return {"ntk": np.asarray(ntk(f, params, points, outputs=v, memory=self.memory))}

    def _sharpness(self, params: Any, params0: Any, key: jax.Array, finite: bool) -> Record:
        names = ("sharpness", "sharpness_error", "top_ntk", "top_ntk_error")
        if not finite:
            return {name: np.asarray(np.nan, self.y.dtype) for name in names}
        program = self.program
        hessian = hessian_operator(program.f, program.loss, program.linearized)
        data = (params, params0, self.x, self.y)
        first = top_eigenvalue(
            hessian, params, data, jax.random.fold_in(key, 2), TOLERANCE, PRODUCTS
        )
        at = params0 if program.linearized else params
        second = top_eigenvalue(
            ntk_operator(program.f), self.y, (at, self.x), jax.random.fold_in(key, 3),
            TOLERANCE, PRODUCTS,
        )  # fmt: skip
        values = (first.value, first.residual, second.value, second.residual)
        return {
            name: np.asarray(value, self.y.dtype) for name, value in zip(names, values, strict=True)
        }


def _one(tree: Any, index: int) -> Any:
    return jax.tree.map(lambda a: a[index], tree)
