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
# # 1. Quick start: does kernel regression predict this network?
#
# A wide network trained by gradient descent is close to kernel regression with its neural tangent
# kernel $\Theta(x, x') = \nabla_\theta f(x) \cdot \nabla_\theta f(x')$
# ([arXiv:1806.07572](https://arxiv.org/abs/1806.07572)). *How* close, until when, and what the
# rest is made of, can be measured. Here: a Relu network on handwritten digits, first where the
# theory holds, then where it does not.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np

import ntk_lab as ntk

data = ntk.data.digits(train=128, test=256)
(x, labels), (x_test, labels_test) = data
net = ntk.nn.Sequential(
    ntk.nn.Flatten(),
    ntk.nn.Dense(64, w_std=2**0.5, b_std=0.1),
    ntk.nn.Relu(),
    ntk.nn.Dense(64, w_std=2**0.5, b_std=0.1),
    ntk.nn.Relu(),
    ntk.nn.Dense(10),
)
net

# %% [markdown]
# ## One description, two halves
#
# `net.kernel` is the infinite-width limit, `net.init` and `net.apply` are the finite network. The
# finite network has a kernel too, a random one, and it tends to the limit as the network widens.
# Random sums over the width fluctuate like $\text{width}^{-1/2}$, and so should the kernel:

# %%
limit = np.asarray(net.kernel(x).ntk)
widths, seeds = (32, 128, 512), 5


def distance(width, seed):
    """Relative distance of the kernel of one random network from the limit."""
    wide = net.with_width(width)
    params = wide.init(jax.random.key(seed), x.shape[1:])
    own = np.asarray(ntk.empirical.ntk(wide.apply, params, x, outputs="trace"))
    return np.linalg.norm(own - limit) / np.linalg.norm(limit)


distances = np.array([[distance(w, s) for w in widths] for s in range(seeds)])
slopes = np.polyfit(np.log(widths), np.log(distances).T, 1)[0]
slope, slope_error = slopes.mean(), slopes.std(ddof=1) / seeds**0.5
print(f"|own kernel - limit| / |limit| ~ width^p with p = {slope:.3f} +- {slope_error:.3f}")

# %%
figure, ax = plt.subplots(figsize=(5.5, 3.8), layout="constrained")
mean, error = distances.mean(0), distances.std(0, ddof=1) / seeds**0.5
ax.errorbar(widths, mean, error, marker="o", capsize=3, label=f"mean of {seeds} networks")
ax.plot(widths, mean[0] * (np.array(widths) / widths[0]) ** -0.5, "k--", label="width$^{-1/2}$")
ax.set(xscale="log", yscale="log", xlabel="width", ylabel="distance from the limit, relative")
ax.set_xticks(widths, [str(w) for w in widths], minor=False)
ax.minorticks_off()
ax.set_yticks((0.1, 0.2, 0.4), ("0.1", "0.2", "0.4"))
ax.set_title("A network's kernel at initialization tends to its limit")
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# ## A prediction without training
#
# For gradient flow on the squared loss the limit says everything in closed form: with targets $y$,
#
# $$ f_t(x) = \Theta(x, X)\, \Theta^{-1} \left(1 - e^{-t\, \Theta / n}\right) y , $$
#
# on average over initializations. Time is learning rate $\times$ steps.

# %%
y = np.eye(10, dtype=np.float32)[labels] - 0.1
flow = ntk.predict.gradient_flow(limit, y, net.kernel(x_test, x).ntk)
stable = float(ntk.predict.max_learning_rate(limit))
slowest, fastest = (float(flow.time_scales[i]) for i in (0, -1))
predicted = np.asarray(flow.at(np.inf).test.mean)
accuracy = (predicted.argmax(1) == labels_test).mean()
print(f"learning rates up to {stable:.3g} are stable")
print(f"the modes of the kernel are learnt in times from {fastest:.2g} to {slowest:.2g}")
print(f"at the end {accuracy:.1%} of {len(x_test)} test digits are right")

# %% [markdown]
# ## Where the theory holds
#
# `ntk.compare` trains real networks of several widths and walks from the kernel's prediction to
# the network one approximation at a time, all else being equal. Each gap is relative to how far the
# function has moved, so that "nothing happened" cannot pass for agreement.

# %%
run = {"seeds": 3, "steps": 200, "learning_rate": 0.05 * stable}
lazy = ntk.compare(net, *data, widths=(32, 96, 288), **run)
print(lazy.table())
print(lazy.conclusion())

# %%
figure, ax = plt.subplots(1, 3, figsize=(15, 4.6), layout="constrained")
ntk.plot.verdict(lazy, ax[0])
ntk.plot.budget(lazy, ax[1])
ntk.plot.scaling(lazy, ax[2])
plt.show()

# %% [markdown]
# Left: the verdict at each width and time; a number is the mean total gap. Middle: what the gap of
# the widest network is made of. Nearly all of it is there before the first step, because this
# network's kernel is not the limit; the motion of the kernel (feature learning) adds little. Right:
# the total falls like the distance of the kernels above, so a wanted accuracy can be turned into a
# width, with an interval.
#
# ## Where it does not
#
# Divide the readout by the width instead of its square root, and raise the learning rate by the
# width to make up for it. The kernel at the start is as before, but now the hidden layers move by
# order one however wide they are: the mean-field limit
# ([arXiv:1906.08034](https://arxiv.org/abs/1906.08034),
# [arXiv:2011.14522](https://arxiv.org/abs/2011.14522)).

# %%
rich = ntk.compare(net, *data, widths=(32, 288), **run, parameterization="mean_field")
print(rich.conclusion())

# %%
figure, ax = plt.subplots(1, 3, figsize=(15, 4.6), layout="constrained")
ntk.plot.verdict(rich, ax[0])
ntk.plot.budget(rich, ax[1])
ntk.plot.drift(rich, ax[2])
plt.show()

# %% [markdown]
# The kernel of the widest network ends far from where it began (right), so that its feature
# learning stays when the network widens, and no width brings kernel regression within tolerance.
#
# ## The claims, checked

# %%
end = {name: c.exponents()["total"] for name, c in (("ntk", lazy), ("mean-field", rich))}
for name, exponent in end.items():
    print(f"{name}: total gap ~ width^{exponent.value:.2f}, 95% in {exponent.lower:.2f} to "
          f"{exponent.upper:.2f}")  # fmt: skip
z = (slope + 0.5) / slope_error
print(f"exponent of the kernel at initialization: {z:+.1f} standard errors from -1/2")
assert abs(z) < 4, "kernels tend to the limit like width^(-1/2)"
assert accuracy > 0.85, "the kernel of a network that was never trained classifies digits"
assert end["ntk"].upper < -0.3, "in NTK parameterization the gap falls with width"
assert end["mean-field"].lower > end["ntk"].upper, (
    "under mean field it falls more slowly, if at all"
)
assert lazy.measures["drift"][-1, :, -1].max() < rich.measures["drift"][-1, :, -1].min()
assert rich.verdicts[288, 200].status == "fails"
