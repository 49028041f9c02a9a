"""Training with any loss, seen in function space: the outputs and the force that moves them.

In the kernel regime outputs ``f`` obey a closed equation: what a parameter update ``-v`` along
gradients does to them is ``-Theta v`` in example space. Train and test outputs are kept as one
stack of rows, train first, so that both see exactly the same rounding of time.
"""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntk_lab.errors import InputError
from ntk_lab.kernel.result import Kernel
from ntk_lab.losses import Loss, mean_loss
from ntk_lab.predict.decay import DecayTo, read_decay
from ntk_lab.predict.inputs import KernelLike, Which, read_problem, read_ridge
from ntk_lab.predict.result import Moments, Prediction
from ntk_lab.solve import Diagnostics, diagnose


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FunctionSpace:
    """Outputs under training with a loss; rows are train, then test.

    Attributes
    ----------
    kernel
        ``[Theta_train,train + ridge I; Theta_test,train]``, shape ``(rows, n)``, or with output
        axes flattened ``(rows * C, n * C)``.
    targets
        Shape ``(n, C)``.
    start
        Initial outputs, ``(rows, C)``.
    decay, anchor
        Weight decay, and the outputs ``(rows, C)`` it pulls towards.
    diagnostics
        Spectrum of the training kernel.
    loss
        Function of ``(outputs, targets)``, see `ntk_lab.losses`.
    axes
        Whether the kernel has output axes.
    """

    kernel: jax.Array
    targets: jax.Array
    start: jax.Array
    decay: jax.Array
    anchor: jax.Array
    diagnostics: Diagnostics
    loss: Loss = field(metadata={"static": True})
    axes: bool = field(metadata={"static": True})

    @property
    def examples(self) -> int:
        """Number n of training examples."""
        return len(self.targets)

    def slope(self, f: jax.Array) -> jax.Array:
        """Gradient of the mean loss by the training outputs, ``(n, C)``."""
        return jax.grad(lambda f: mean_loss(self.loss, f, self.targets))(f[: self.examples])

    def force(self, f: jax.Array) -> jax.Array:
        """``Theta grad L`` with weight decay on all rows: what gradient flow moves against."""
        return self.push(self.slope(f)) + self.decay * (f - self.anchor)

    def push(self, v: jax.Array) -> jax.Array:
        """``Theta v`` on all rows, for ``v`` of shape ``(n, C)``."""
        if not self.axes:
            return jnp.matmul(self.kernel, v, precision="highest")
        moved = jnp.matmul(self.kernel, v.reshape(-1), precision="highest")
        return moved.reshape(-1, v.shape[1])

    def prediction(self, f: jax.Array) -> Prediction:
        """Outputs ``(..., rows, C)`` as a prediction without covariance."""
        n = self.examples
        train = Moments(f[..., :n, :], None)
        if f.shape[-2] == n:
            return Prediction(train, None)
        return Prediction(train, Moments(f[..., n:, :], None))


def function_space(
    kernel_train_train: KernelLike,
    y_train: ArrayLike,
    kernel_test_train: KernelLike | None,
    kernel_test_test: KernelLike | None,
    *,
    f0_train: ArrayLike | None,
    f0_test: ArrayLike | None,
    ridge: ArrayLike,
    which: Which,
    loss: Loss,
    weight_decay: ArrayLike,
    decay_to: DecayTo,
    jvp_train: ArrayLike | None,
    jvp_test: ArrayLike | None,
) -> FunctionSpace:
    """Check the arguments and stack train and test; see `gradient_flow` for what they are."""
    if isinstance(kernel_train_train, Kernel) and f0_train is None:
        raise InputError(
            "kernel_train_train is a Kernel, for moments over random initial outputs, but with a "
            "loss other than squared error the outputs are not Gaussian. Pass kernel.ntk for "
            "initial outputs of zero, or f0_train and f0_test, or train with squared error."
        )
    problem = read_problem(
        kernel_train_train, y_train, kernel_test_train, kernel_test_test, f0_train, f0_test, which
    )
    theta, columns = problem.theta, problem.outputs or problem.targets.shape[1]
    ridge = read_ridge(ridge, theta.train_train.dtype)
    decay = read_decay(problem, weight_decay, decay_to, jvp_train, jvp_test)
    diagnostics = diagnose(theta.train_train, ridge=ridge)
    kernel = theta.train_train + ridge * jnp.eye(len(theta.train_train), dtype=ridge.dtype)
    starts = [problem.f0_train]
    if theta.test_train is not None and problem.f0_test is not None:
        kernel = jnp.concatenate([kernel, theta.test_train])
        starts.append(problem.f0_test)
    start = jnp.concatenate(starts).reshape(-1, columns)
    pulls = [pull for pull in (decay.train, decay.test) if pull is not None]
    space = FunctionSpace(
        kernel=kernel,
        targets=problem.targets.reshape(-1, columns),
        start=start,
        decay=decay.rate,
        anchor=start - jnp.concatenate(pulls).reshape(-1, columns) if pulls else start,
        diagnostics=diagnostics,
        loss=loss,
        axes=problem.outputs is not None,
    )
    jax.eval_shape(space.slope, start)  # a loss that does not fit is refused here
    return space
