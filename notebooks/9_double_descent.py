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
# # 9. More parameters than data
#
# Classical statistics: with more parameters bias falls, variance grows, and beyond as many
# parameters as data there is only overfitting. Random features, NTK regression and networks do that
# up to a peak, and then get better again: *double descent*
# ([arXiv:2008.06786](https://arxiv.org/abs/2008.06786)). Here the whole curve is predicted from
# the eigenvalues of a kernel on scikit-learn's digits (odd against even, labels with Gaussian noise
# of variance 0.5), for random features
# ([arXiv:2311.14646](https://arxiv.org/abs/2311.14646)), and measured beside it: with the parts
# of the variance that come of the choice of data, of their noise, and of the random features
# ([arXiv:2011.03321](https://arxiv.org/abs/2011.03321)).

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import ntk_lab as ntk

jax.config.update("jax_enable_x64", True)  # near the peak systems of equations are ill-conditioned
theory, NOISE, KEY = ntk.theory, 0.5, jax.random.key(0)
images, classes = ntk.data.digits(train=1700, test=97).train
x = np.asarray(images, np.float64).reshape(len(images), -1)
y = np.where(classes % 2 == 1, 1.0, -1.0)[:, None]

# %% [markdown]
# ## Random features
#
# One hidden layer of $p$ ReLU neurons stays as it is drawn; its readout is fitted to $n$ images by
# ridge regression. Theory knows the kernel of infinitely many neurons alone: its eigenvalues on all
# 1700 images, and how much of the labels each mode carries.


# %%
def neurons(p):
    """Random features."""
    return ntk.nn.Sequential(ntk.nn.Dense(p, 2**0.5), ntk.nn.Relu())


N, RIDGE = 100, 1e-3
nngp = np.asarray(neurons(8).kernel(jnp.asarray(x)).nngp)
modes = theory.kernel_modes(nngp, y)


def predicted(n, p, ridge):
    """Of random features."""
    return theory.random_feature_curve(*modes, n, p, ridge=ridge, noise=NOISE)


def measured(regressor, n, inputs=x, repeats=15, draws=(2, 2, 2)):
    """Against labels without noise of all images."""
    data = jnp.asarray(inputs), jnp.asarray(y)
    return theory.measured_bias_variance(
        regressor, data, data, n, key=KEY, repeats=repeats, draws=draws, noise=NOISE
    )


WIDTHS, SIZES = (10, 30, 60, 80, 100, 125, 200, 400, 1000), (30, 60, 160, 300)
in_p = {p: measured(theory.RandomFeatureRidge(neurons(p), RIDGE), N) for p in WIDTHS}
in_n = {n: measured(theory.RandomFeatureRidge(neurons(N), RIDGE), n) for n in SIZES} | {N: in_p[N]}
best = {p: float(theory.optimal_ridge(*modes, N, p, noise=NOISE)) for p in (30, 100, 400)}
at_best = {p: measured(theory.RandomFeatureRidge(neurons(p), r), N) for p, r in best.items()}


def measured_kernel(matrix, n, ridge):
    """Regression with the kernel of infinitely many features: mean and standard error."""
    found = theory.measured_learning_curve(
        matrix, y, [n], key=KEY, repeats=60, ridge=ridge, noise=NOISE
    )
    return float(found.mean[0]), float(found.standard_error[0])


# %%
line = np.sort(np.concatenate([np.geomspace(8, 1200, 60), np.linspace(85, 118, 34)]))
by_p, by_n = predicted(N, line, RIDGE), predicted(line, N, RIDGE)
coarse = np.geomspace(8, 1200, 16)
ridge_p = theory.optimal_ridge(*modes, N, coarse, noise=NOISE)
ridge_n = theory.optimal_ridge(*modes, coarse, N, noise=NOISE)
best_p, best_n = predicted(N, coarse, ridge_p), predicted(coarse, N, ridge_n)
kernel = theory.learning_curve(*modes, float(N), ridge=RIDGE, noise=NOISE).test_error - NOISE
wide = measured_kernel(nngp, N, RIDGE)

BLUE, GREEN, ORANGE, PINK, GREY = "#0072B2", "#009E73", "#E69F00", "#CC79A7", "#777777"
figure, ax = plt.subplots(1, 3, figsize=(15, 4.4), layout="constrained")


def points(a, found, colour, marker="o"):
    """Measured errors with two standard errors."""
    value, error = np.array([m.error for m in found.values()]).T
    a.errorbar(list(found), value, 2 * error, fmt=marker, color=colour, ms=4)


ax[0].plot(line, by_p.parts.error, color=BLUE, label=f"ridge {RIDGE}")
ax[0].plot(coarse, best_p.parts.error, color=GREEN, label="best ridge for each $p$")
ax[0].axhline(float(kernel), color=GREY, linestyle=":", label="$p = \\infty$: the kernel")
points(ax[0], in_p, BLUE)
ax[0].errorbar(2000, wide[0], 2 * wide[1], fmt="D", color=GREY, ms=4)
points(ax[0], at_best, GREEN)
ax[0].set(xlabel="random features $p$", ylabel="test error", title=f"$n$ = {N} images",
          ylim=(0.25, 5))  # fmt: skip
ax[1].plot(line, by_n.parts.error, color=BLUE, label=f"ridge {RIDGE}")
ax[1].plot(coarse, best_n.parts.error, color=GREEN, label="best ridge for each $n$")
points(ax[1], in_n, BLUE)
points(ax[1], {N: at_best[N]}, GREEN)
ax[1].set(xlabel="images $n$", ylabel="test error", title=f"$p$ = {N} random features",
          ylim=(0.25, 5))  # fmt: skip
NAMES = {
    "bias": ("bias$^2$", GREY), "data": ("variance: images", PINK),
    "initialization": ("features", ORANGE), "data_initialization": ("images x features", BLUE),
    "noise": ("noise", GREEN), "noise_initialization": ("noise x features", "#D55E00"),
}  # fmt: skip
for name, (label, colour) in NAMES.items():
    ax[2].plot(line, getattr(by_p.parts, name), color=colour, label=label)
    value = np.array([getattr(m.mean, name) for m in in_p.values()])
    error = np.array([getattr(m.standard_error, name) for m in in_p.values()])
    ax[2].errorbar(WIDTHS, value, 2 * error, fmt="o", color=colour, ms=4)
ax[2].set(xlabel="random features $p$", ylabel="part of the test error", ylim=(1e-3, 300),
          title=f"its parts, ridge {RIDGE}")  # fmt: skip
ax[2].legend(frameon=False, fontsize=8, ncols=2, loc="upper left")
for a in ax:
    a.set(xscale="log", yscale="log")
for a in ax[:2]:
    a.set_yticks((0.3, 0.5, 1, 2, 4), ("0.3", "0.5", "1", "2", "4"))
    a.tick_params(axis="y", which="minor", labelleft=False)
    a.axvline(N, color="k", linewidth=0.5)
    a.legend(frameon=False, fontsize=8)
plt.show()

# %% [markdown]
# Lines are theory, points are measured (two standard errors). The peak is at $p = n$ from either
# side: more *data* hurt as well, if the model is as large. It is no bias: that falls all the way.
# It is variance, and most of it interactions, of features with noise and with the choice of images:
# what an ensemble over features would average away. The best ridge takes the peak away, and then
# more of either is better. The grey diamond is regression with the kernel itself.
#
# ## NTK regression
#
# The linearization of a finite network: its gradients are the features. Where is the peak now? At
# as many *independent* gradients as examples. To make that happen at small $n$, inputs are the six
# leading principal components, whitened. A ReLU network of width $m$ has $7m$ parameters; scaling a
# neuron's input weights up and its output weight down changes nothing, which leaves $6m$.

# %%
D, FEW, TINY, COMPONENTS = 6, 60, 1e-6, np.linalg.svd(x - x.mean(0), full_matrices=False)[0]
inputs = COMPONENTS[:, :D] * len(x) ** 0.5


def network(m):
    """One hidden layer."""
    return ntk.nn.Sequential(ntk.nn.Dense(m, 2**0.5), ntk.nn.Relu(), ntk.nn.Dense(1))


def independent(m):
    """Rank of the gradients on all images."""
    net = network(m)
    params = net.init(KEY, (D,))
    jacobian = jax.vmap(jax.grad(lambda p, x: net.apply(p, x[None])[0, 0]), (None, 0))
    gradients = jacobian(params, jnp.asarray(inputs))
    flat = [np.asarray(g).reshape(len(x), -1) for g in jax.tree.leaves(gradients)]
    return int(np.linalg.matrix_rank(np.concatenate(flat, 1)))


NTK_WIDTHS, NET_WIDTHS = (3, 6, 8, 10, 12, 15, 30, 100), (2, 4, 7, 10, 14, 20, 50)
ranks = {m: independent(m) for m in (3, 10)}
print("width: independent gradients", ranks)
by_ntk = {
    D * m: measured(theory.GradientFeatures(network(m), TINY), FEW, inputs) for m in NTK_WIDTHS
}
limit = np.asarray(network(8).kernel(jnp.asarray(inputs)).ntk)
ntk_modes, wide_ntk = theory.kernel_modes(limit, y), measured_kernel(limit, FEW, TINY)
as_if = theory.random_feature_curve(
    *ntk_modes, FEW, np.append(line * 0.6, np.inf), ridge=TINY, noise=NOISE
)

# %% [markdown]
# ## Trained networks
#
# The same networks with all parameters trained by Adam for 2000 steps on the full batch.

# %%
STEPS = 2000
adam = optax.adam(optax.cosine_decay_schedule(0.02, STEPS))
trained = {
    (D + 1) * m: measured(theory.TrainedNetwork(network(m), adam, STEPS), FEW, inputs, 4, (3, 1, 3))
    for m in NET_WIDTHS
}

# %%
figure, ax = plt.subplots(1, 2, figsize=(11.5, 4.4), layout="constrained")
ax[0].plot(
    line * 0.6, as_if.parts.error[:-1], color=ORANGE, label="as if gradients were independent"
)
ax[0].axhline(float(as_if.parts.error[-1]), color=GREY, linestyle=":", label="infinite width")
points(ax[0], by_ntk, BLUE)
ax[0].errorbar(1200, wide_ntk[0], 2 * wide_ntk[1], fmt="D", color=GREY, ms=4)
ax[0].set(xlabel="independent gradients, $6m$", ylabel="test error", title="NTK regression")
points(ax[1], trained, BLUE)
ax[1].plot(list(trained), [m.error[0] for m in trained.values()], color=BLUE, label="test error")
ax[1].plot(list(trained), [m.train_error.mean() for m in trained.values()], "s--", color=PINK,
           label="training error")  # fmt: skip
ax[1].plot(list(trained), [float(m.mean.bias) for m in trained.values()], "^:", color=GREY,
           label="bias$^2$")  # fmt: skip
ax[1].set(xlabel="parameters, $7m$", ylabel="error", ylim=(1e-3, None), title="trained networks")
for a in ax:
    a.axvline(FEW, color="k", linewidth=0.5, label=f"$n$ = {FEW}")
    a.set(xscale="log", yscale="log")
    a.set_xticks((10, 30, 100, 300, 1000)[: 5 if a is ax[0] else 4])
    a.xaxis.set_major_formatter("{x:.0f}")
    a.tick_params(axis="x", which="minor", labelbottom=False)
    a.legend(frameon=False, fontsize=8)
plt.show()

# %% [markdown]
# The peak of NTK regression is where *independent* gradients are as many as examples, not
# parameters. Around it, theory for as many independent features is far too low, by up to seven
# times. A likely reason: the six gradients of one neuron share its gate, so there are many
# gradients but few independent draws. Even at infinite width (grey) theory is a quarter too low:
# eigenfunctions of six inputs are not Gaussian either. It says where the peak is, not how wide.
#
# Trained networks: the error of training goes through the noise level (0.5) before there are as
# many parameters as examples, but is gone only well beyond, and there the peak is: broader, lower
# and at more parameters than counting predicts. That a finite number of steps does not reach the
# ill-conditioned directions, which make the peak of regression so high, may be why; this was not
# measured. Bias changes little: what rises and falls is variance.
#
# ## The claims, checked
#
# Features of real images are not Gaussian: errors agree to about a tenth, which is up to four
# standard errors, and single parts of the variance to a quarter.


# %%
def report(claim, predicted, found):
    """One line; the relative distance."""
    value, error = (float(v) for v in found)
    off = value / predicted - 1
    z = (value - predicted) / error
    print(f"{claim}: predicted {predicted:.3g}, measured {value:.3g} +- {error:.2g}, "
          f"agreement in standard errors {z:+.1f} ({off:+.0%})")  # fmt: skip
    return off


def peak(found):
    """Size of the largest error."""
    return max(found, key=lambda size: found[size].error[0])


off = []
for p in WIDTHS:
    off.append(
        report(f"error at p = {p}", float(predicted(N, p, RIDGE).parts.error), in_p[p].error)
    )
off.append(report("error at p = infinity", float(kernel), wide))
for n in SIZES:
    off.append(
        report(f"error at n = {n}", float(predicted(n, N, RIDGE).parts.error), in_n[n].error)
    )
for p, r in best.items():
    at = float(predicted(N, p, r).parts.error)
    off.append(report(f"error under the best ridge, p = {p}", at, at_best[p].error))
for p in (30, 100, 400):
    parts, found = predicted(N, p, RIDGE).parts, in_p[p]
    for name in ("bias", "noise", "noise_initialization"):
        pair = getattr(found.mean, name), getattr(found.standard_error, name)
        report(f"{name} at p = {p}", float(getattr(parts, name)), pair)
for size, found in by_ntk.items():
    at = theory.random_feature_curve(*ntk_modes, FEW, size, ridge=TINY, noise=NOISE)
    report(f"NTK of {size} gradients, as if independent", float(at.parts.error), found.error)
report("NTK of infinite width", float(as_if.parts.error[-1]), wide_ntk)
print(f"peak of random features: predicted p = {N}, measured {peak(in_p)}; "
      f"n = {N}, measured {peak(in_n)}")  # fmt: skip
print(f"peak of NTK regression: predicted {FEW} independent gradients, measured {peak(by_ntk)}")
print(f"peak of trained networks: predicted {FEW} parameters, measured {peak(trained)}")
falling = np.array([at_best[p].error[0] for p in best])
print("error under the best ridge, p =", list(best), falling.round(3))
assert np.median(np.abs(off)) < 0.15, "errors of random features are those predicted"
assert peak(in_p) == peak(in_n) == N, "and their peak is where features are as many as images"
assert (np.diff(best_p.parts.error) < 0).all(), "the best ridge takes it away"
assert (np.diff(falling) < 0).all(), "in measurement too"
assert ranks == {3: 3 * D, 10: 10 * D}, "independent gradients"
assert 0.8 <= peak(by_ntk) / FEW <= 1.25, "the peak of NTK regression"
ends = [trained[size].error[0] for size in (min(trained), max(trained))]
assert max(ends) < trained[peak(trained)].error[0], "networks descend twice"
