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
# # 7. Depth against width
#
# Infinite width takes width to infinity first: depth then costs nothing. In a finite network depth
# and width fight. Hanin and Nica ([arXiv:1909.05989](https://arxiv.org/abs/1909.05989)) show that
# the NTK of a Relu network is random, with $E[K^2]/E[K]^2$ of order $\exp(5 \sum_l 1/n_l)$, and
# that it moves in training by order depth/width. Roberts, Yaida and Hanin
# ([arXiv:2106.10165](https://arxiv.org/abs/2106.10165)) build a theory on the ratio of the two.
#
# At one input all of this is known exactly, at every depth and width: `finite_width_moments`.
# Here it stands beside ensembles of networks, on an image of a handwritten digit.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import ntk_lab as ntk

x = jnp.asarray(ntk.data.digits(train=64, test=8).train[0][:1])
# A mean square of one: outputs of the networks below then have E[f^2] = 1.
x = x / jnp.sqrt((x**2).mean())


def network(width, depth):
    """Relu network with that many hidden layers, critical, without biases."""
    hidden = [p for _ in range(depth) for p in (ntk.nn.Dense(width, 2**0.5), ntk.nn.Relu())]
    return ntk.nn.Sequential(ntk.nn.Flatten(), *hidden, ntk.nn.Dense(1, 1.0))


# %% [markdown]
# ## How random the kernel is
#
# Depth by width, 4000 networks each; nothing is fitted.

# %%
WIDTHS, DEPTHS, SEEDS = (8, 16, 32, 64), (1, 2, 4, 8), 4000
cells = []
for width in WIDTHS:
    for depth in DEPTHS:
        net = network(width, depth)
        exact = ntk.theory.finite_width_moments(net, x)
        sample = ntk.theory.measure_moments(net, x, jax.random.key(depth), seeds=SEEDS)
        ratio, error = (float(v[0]) for v in sample.ntk_ratio)
        fourth, fourth_error = (float(v[0]) for v in sample.mean("output_fourth"))
        scale = float(exact.output_fourth[0]) / float(exact.output_kurtosis[0])
        cells.append(
            (width, depth, float(exact.ntk_ratio[0]), ratio, error,
             float(exact.output_kurtosis[0]), fourth / scale, fourth_error / scale)
        )  # fmt: skip
cells = np.array(cells)
print("width depth  E[K^2]/E[K]^2: exact  measured        kurtosis of outputs: exact  measured")
for width, depth, *rest in cells:
    print("{:5.0f} {:5.0f} {:21.3f} {:7.3f} +- {:.3f} {:24.2f} {:7.2f} +- {:.2f}".format(
        width, depth, *rest))  # fmt: skip

# %%
figure, ax = plt.subplots(1, 2, figsize=(11.5, 4.4), layout="constrained")
colours = dict(zip(WIDTHS, ("#D55E00", "#E69F00", "#009E73", "#0072B2"), strict=True))
fine = np.arange(1, 9)
for width in WIDTHS:
    mine = cells[cells[:, 0] == width]
    exact = [ntk.theory.finite_width_moments(network(width, int(d)), x) for d in fine]
    curves = ([e.ntk_ratio[0] for e in exact], [e.output_kurtosis[0] / 3 for e in exact])
    for a, curve, column, over in ((ax[0], curves[0], 3, 1), (ax[1], curves[1], 6, 3)):
        a.plot(fine / width, curve, color=colours[width], linewidth=1.5)
        a.errorbar(
            mine[:, 1] / width, mine[:, column] / over, 2 * mine[:, column + 1] / over, fmt="o",
            color=colours[width], capsize=3, markersize=5, label=f"width {width}",
        )  # fmt: skip
ratios = np.geomspace(1 / 64, 1, 50)
for a in ax:
    a.plot(ratios, np.exp(5 * ratios), "k:", label="exp(5 depth / width)")
    a.set(xscale="log", yscale="log", xlabel="depth / width", ylim=(0.9, 60))
    a.set_yticks((1, 2, 5, 10, 20, 50), ("1", "2", "5", "10", "20", "50"))
    a.minorticks_off()
ax[0].set_ylabel("E[K²] / E[K]²")
ax[1].set_ylabel("E[f⁴] / 3 E[f²]²")
ax[0].legend(frameon=False, fontsize=8)
ax[0].set_title("The kernel is random by depth / width", loc="left", fontsize=10,
                fontweight="bold")  # fmt: skip
ax[1].set_title("... and so are outputs less and less Gaussian", loc="left", fontsize=10,
                fontweight="bold")  # fmt: skip
plt.show()

# %% [markdown]
# Lines are exact, points measured with two standard errors. The kernel falls on one curve as a
# function of depth/width; the outputs follow the exponential closely, as their fourth moment grows
# by exactly $1 + 5/n$ a layer. Far to the right the mean is carried by networks that are rarer than
# one in a sample, which misses them, and its own error bar does not know: points lie low there.
#
# ## How the kernel moves
#
# One network, one example, gradient flow. For linear networks the mean velocity of the kernel is
# exactly $E[K^2] - L\,E[K f^2]$ at the start, and its whole way is known to order 1/width
# (`ntk_change`): with a small target it shrinks, with a large one it grows, and the border is at
# $y^2 = E[f^2] = 1$.
#
# With Relu this fails, by more the wider the network. The reason is the kink: a neuron that is
# switched off gets no gradient that could switch it on again. In a network with one hidden layer
# what these neurons take with them can be counted (`switching_change`): it is of order
# $\text{width}^{-1/2}$, and more than all that happens without a kink.

# %%
NETS, RATE, STEPS = 500, 0.02, 80
RECORD = tuple(range(0, STEPS + 1, 16))
TARGETS, RELU_WIDTHS = (0.0, 1.0, 2.0), (64, 256, 1024)


def kernel_changes(net, target):
    """Relative change of the kernel in training: mean over networks, and standard error."""
    keys = jax.random.split(jax.random.key(5), NETS)
    run = ntk.train.ensemble(
        net.apply, jax.vmap(lambda k: net.init(k, x.shape[1:]))(keys), x, jnp.full((1, 1), target),
        optimizer=optax.sgd(RATE), steps=STEPS, record=RECORD, kernel_points=x, kernel="trace",
    )  # fmt: skip
    limit = float(net.kernel(x).ntk[0, 0])
    change = (run.ntk - run.ntk[:, :1])[..., 0, 0] / limit
    return change.mean(0), change.std(0, ddof=1) / NETS**0.5, limit


linear = ntk.nn.Sequential(ntk.nn.Flatten(), ntk.nn.Dense(48), ntk.nn.Dense(48), ntk.nn.Dense(1))
times, fine = RATE * np.array(RECORD), np.linspace(0, RATE * STEPS, 100)
figure, ax = plt.subplots(1, 2, figsize=(11.5, 4.2), layout="constrained")
ends = {}
for target, colour in zip(TARGETS, ("#0072B2", "#009E73", "#D55E00"), strict=True):
    mean, error, limit = kernel_changes(linear, target)
    theory = ntk.theory.finite_width_moments(linear, x).ntk_change(fine, target)[:, 0] / limit
    ax[0].plot(fine, theory, color=colour)
    ax[0].errorbar(times, mean, 2 * error, fmt="o", color=colour, capsize=3, markersize=4,
                   label=f"target {target:g}")  # fmt: skip
    ends[f"linear, target {target:g}"] = theory[-1], mean[-1], error[-1]
for width, colour in zip(RELU_WIDTHS, ("#E69F00", "#CC79A7", "#56B4E9"), strict=True):
    net = network(width, 1)
    mean, error, limit = kernel_changes(net, 0.0)
    theory = ntk.theory.switching_change(net, x, fine)[:, 0] / limit
    ax[1].plot(fine, theory, color=colour)
    ax[1].errorbar(times, mean, 2 * error, fmt="o", color=colour, capsize=3, markersize=4,
                   label=f"width {width}")  # fmt: skip
    ends[f"Relu, width {width}"] = theory[-1], mean[-1], error[-1]
for a in ax:
    a.axhline(0, color="#999999", linewidth=0.8)
    a.set(xlabel="time = learning rate × steps", ylabel="mean relative change of the kernel")
    a.legend(frameon=False, fontsize=8)
ax[0].set_title("Linear, three layers of width 48: order 1/width", loc="left", fontsize=10,
                fontweight="bold")  # fmt: skip
ax[1].set_title("Relu, one hidden layer, target 0: order 1/√width", loc="left", fontsize=10,
                fontweight="bold")  # fmt: skip
plt.show()

# %% [markdown]
# ## The claims, checked

# %%
sampled = cells[cells[:, 1] / cells[:, 0] <= 1 / 8]
z_kernel = (sampled[:, 3] - sampled[:, 2]) / sampled[:, 4]
z_fourth = (sampled[:, 6] - sampled[:, 5]) / sampled[:, 7]
wide = cells[(cells[:, 0] == 64) & (cells[:, 1] == 8)][0]
print(
    f"E[K^2]/E[K]^2 at depth 8, width 64: predicted {wide[2]:.3f}, measured {wide[3]:.3f} +- "
    f"{wide[4]:.3f}, agreement in standard errors {(wide[3] - wide[2]) / wide[4]:+.1f}"
)
print(
    f"all {len(sampled)} cells with depth/width <= 1/8: root mean square z of the kernel "
    f"{np.sqrt((z_kernel**2).mean()):.2f}, of the fourth moment {np.sqrt((z_fourth**2).mean()):.2f}"
)
for name, (p, m, e) in ends.items():
    print(
        f"change of the kernel, {name}: predicted {p:+.4f}, measured {m:+.4f} +- {e:.4f}, "
        f"agreement in standard errors {(m - p) / e:+.1f}"
    )
    # Leading orders: the next is smaller by 1/width or 1/sqrt(width), times numbers of order one.
    assert abs(m - p) < 4 * e + 0.3 * abs(p) + 0.005, "the kernel moves as predicted"
assert np.abs(z_kernel).max() < 5, "the kernel's second moment is the exact one"
assert np.abs(z_fourth).max() < 5, "so is the fourth moment of outputs"
assert ends["linear, target 0"][1] < 0 < ends["linear, target 2"][1], "it shrinks, or grows"
