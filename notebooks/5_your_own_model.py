# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 5. Your own model under the lens
#
# The model that you have is written in flax or equinox, has no infinite width, and is trained with
# Adam and cross-entropy. Does a kernel predict what it learns? `compare_model` takes any
# `f(params, x)` and begins with the model's *own* kernel at its initial parameters. Here: a small
# convolutional network of flax nnx and a multilayer perceptron of equinox, both as one would write
# them anyway, on MNIST-1D ([arXiv:2011.14439](https://arxiv.org/abs/2011.14439)), a data set made
# so that small models differ on it.

# %%
import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx

import ntk_lab as ntk

data = ntk.data.mnist1d(train=1000, test=500)
(x, labels), (x_test, labels_test) = data
few = (x[:80], labels[:80]), (x_test[:200], labels_test[:200])


class ConvNet(nnx.Module):
    """Two convolutions and a readout."""

    def __init__(self, rngs):
        self.conv1 = nnx.Conv(1, 16, (5,), strides=2, rngs=rngs)
        self.conv2 = nnx.Conv(16, 32, (3,), strides=2, rngs=rngs)
        self.head = nnx.Linear(320, 10, rngs=rngs)

    def __call__(self, x):
        """Logits ``(n, 10)`` of sequences ``(n, 40, 1)``."""
        x = nnx.relu(self.conv1(x))
        x = nnx.relu(self.conv2(x))
        return self.head(x.reshape(len(x), -1))


def convnet(key):
    """Parameters of a new network."""
    return ntk.interop.from_nnx(ConvNet(nnx.Rngs(key))).params


f_conv = ntk.interop.from_nnx(ConvNet(nnx.Rngs(0))).f
jax.tree.map(lambda p: p.shape, convnet(jax.random.key(0)))

# %% [markdown]
# ## Verdict, cause and horizon
#
# A function that draws parameters gives error bars over initializations. Adam keeps its own pace,
# so each of its steps stands beside the time at which gradient flow with the kernel has the same
# training loss: the comparison is one of paths, not of speeds. (On 80 examples: the kernel of all
# outputs has (80 × 10)² entries.)

# %%
run = {"loss": "cross_entropy", "seeds": 3}
conv = ntk.compare_model(
    f_conv, convnet, *few, **run, optimizer=optax.adam(3e-3), steps=20, record=(1, 2, 4, 8, 14, 20)
)
print(conv.conclusion())

# %%
figure, ax = plt.subplots(1, 3, figsize=(15, 4.6), layout="constrained")
ntk.plot.budget(conv, ax[0])
ntk.plot.kernel(conv, ax[1])
ntk.plot.accuracy(conv, ax[2])
plt.show()

# %% [markdown]
# Left: the gap is there from the first step and is the optimizer's: Adam takes each parameter the
# same way whatever its gradient, which is another kernel. Later the features that the network
# learns become as large. Middle: the kernel's eigenvectors begin to turn. Right: on so few examples
# nobody classifies well, so equal accuracies say little about equal predictions.
#
# ## An equinox model, by plain gradient descent
#
# Models of equinox take one example at a time; this is seen to. Without Adam there is a *horizon*:
# a time until which the perceptron is its linearization.

# %%


def perceptron(key):
    """A multilayer perceptron on flattened sequences."""
    mlp = eqx.nn.MLP(40, 10, width_size=128, depth=2, key=key)
    return eqx.nn.Sequential([eqx.nn.Lambda(jnp.ravel), mlp])


f_mlp = ntk.interop.from_equinox(perceptron(jax.random.key(0))).f
mlp = ntk.compare_model(
    f_mlp, lambda key: ntk.interop.from_equinox(perceptron(key)).params, *few, **run, steps=200,
    record=(1, 3, 8, 20, 50, 100, 200), learning_rate=0.3,
)  # fmt: skip
print(mlp.conclusion())
print(mlp.horizon())

# %%
figure, ax = plt.subplots(1, 3, figsize=(15, 4.6), layout="constrained")
ntk.plot.verdict(mlp, ax[0])
ntk.plot.budget(mlp, ax[1])
ntk.plot.kernel(mlp, ax[2])
plt.show()

# %% [markdown]
# ## Which layers carry the kernel
#
# The trace of the kernel is a sum over parameters, and so is $y^\top \Theta\, y$, the speed at
# which the labels are learnt. Neither is shared out like the parameters are.

# %%
start = convnet(jax.random.key(0))
one_hot = jnp.asarray(np.eye(10)[labels] - 0.1, jnp.float32)
shares = ntk.empirical.kernel_shares(
    f_conv, start, x[:100], one_hot[:100], group=ntk.empirical.by_layer
)
print(shares)

# %% [markdown]
# ## What training puts into the kernel
#
# Kernels of trained networks do better than those of untrained ones
# ([arXiv:2010.15110](https://arxiv.org/abs/2010.15110),
# [arXiv:2105.14301](https://arxiv.org/abs/2105.14301)): whatever features a network learns end up
# in its kernel. So take the kernel of the *trained* network, forget the network, and fit the same
# labels by kernel regression.

# %%
steps = 500
trained = ntk.train.ensemble(
    f_conv, jax.tree.map(lambda p: p[None], start), x, one_hot, x_test,
    optimizer=optax.adam(3e-3), loss="cross_entropy", batch_size=100, key=jax.random.key(1),
    steps=steps, record=(0, 5, 20, 100, steps), keep_params=True,
)  # fmt: skip
checkpoints = {
    int(step): jax.tree.map(lambda p, i=i: p[0, i], trained.params)
    for i, step in enumerate(trained.steps)
}
after = ntk.after_kernel_regression(
    f_conv, start, checkpoints[steps], *data, outputs="trace", start="zero"
)
evolution = ntk.empirical.kernel_evolution(
    ntk.empirical.after_kernels(f_conv, checkpoints, x[:200]), targets=one_hot[:200], k=10
)
for name, share in after.accuracy.items():
    print(f"{name}: {share.value:.1%} +- {share.standard_error:.1%} of test sequences are right")

# %%
figure, ax = plt.subplots(1, 3, figsize=(15, 4.4), layout="constrained")
ntk.plot.shares(shares, ax[0])
look = {"marker": "o", "markersize": 4}
ax[1].plot(
    evolution.times, evolution.overlap[0], color="#0072B2", label="top 10 eigenvectors", **look
)
ax[1].plot(evolution.times, evolution.cka[0], color="#009E73", label="kernel (CKA)", **look)
ax[1].plot(evolution.times, evolution.alignment, color="#E69F00", label="labels", **look)
ax[1].set_xscale("symlog", linthresh=5)
ax[1].set_xticks((0, 5, 20, 100, 500), ("0", "5", "20", "100", "500"))
ax[1].set(xlabel="step", ylabel="alignment of the kernel", ylim=(0, 1.05))
ax[1].legend(title="with", frameon=False, loc="center left")
ax[1].set_title(f"The kernel grows by {evolution.drift[-1]:.0f} times and turns to the labels",
                loc="left", fontsize=10, fontweight="bold")  # fmt: skip
names = ("initial kernel", "after kernel", "network")
colours = ("#0072B2", "#CC79A7", "#E69F00")
values = [float(after.accuracy[name].value) for name in names]
errors = [float(after.accuracy[name].standard_error) for name in names]
ax[2].bar(names, values, yerr=errors, color=colours, capsize=4, width=0.6)
ax[2].axhline(0.1, color="k", linestyle=":", label="chance")
ax[2].set(ylabel="test accuracy", ylim=(0, 0.9))
ax[2].set_title("Kernel regression before and after training", loc="left", fontsize=10,
                fontweight="bold")  # fmt: skip
ax[2].legend(frameon=False)
plt.show()

# %% [markdown]
# Left: the readout has most of the kernel; the first layer, which sees every feature first, hardly
# any. Middle: the kernel grows many times over and turns towards the labels. Right: at the start
# the kernel is worth about as much as the trained network. The after-kernel does better than
# either, though nothing but labels of the same training set has gone into it.
#
# ## The claims, checked

# %%
for name, c in (("convolutions", conv), ("perceptron", mlp)):
    verdict = c.verdicts[1, c.steps[-1]]
    cause = c.dominant(1, c.steps[-1])
    gap = f"{verdict.mean:.2f} +- {verdict.standard_error:.2f}"
    until = f"{c.horizon().value:.2g} of {c.times[-1]:.2g}"
    print(f"{name}: {verdict.status}, total gap {gap}, mainly {cause}; horizon {until}")
    assert verdict.status == "fails", "neither is predicted to its end by its own kernel"
assert conv.dominant(1, conv.steps[0]) == "optimizer", "Adam follows another kernel"
assert mlp.verdicts[1, mlp.steps[0]].status == "predicts", "gradient descent begins in the kernel"
assert 0 < mlp.horizon().lower <= mlp.horizon().value < mlp.times[-1]
right = {name: f.argmax(1) == labels_test for name, f in after.outputs.items()}
for other in ("initial kernel", "network"):
    difference = right["after kernel"].astype(float) - right[other]
    gain, error = difference.mean(), difference.std(ddof=1) / len(difference) ** 0.5
    print(f"after kernel over {other}: {gain:+.1%} +- {error:.1%}")
    assert gain > 3 * error, f"the after-kernel predicts better than the {other}"
assert evolution.alignment[-1] > evolution.alignment[0], "the kernel turns towards the labels"
assert shares.trace[-1] > shares.parameters[-1] / shares.parameters.sum()
