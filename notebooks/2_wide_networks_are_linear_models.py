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
# # 2. Wide networks are linear models
#
# "Wide neural networks of any depth evolve as linear models under gradient descent" is the title of
# Lee, Xiao et al. ([arXiv:1902.06720](https://arxiv.org/abs/1902.06720)). Three of its figures,
# remade here at small size on scikit-learn's digits:
#
# 1. as the width grows, weights and kernel move less and less in training;
# 2. so one network follows its own linearization
#    $f^{\mathrm{lin}}_t = f_0 + \nabla_\theta f_0\,(\theta_t - \theta_0)$;
# 3. and an ensemble of networks is a Gaussian process with a mean and a variance that are known at
#    every time of training.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import ntk_lab as ntk

data = ntk.data.digits(train=64, test=128)
x, x_test = (jnp.asarray(part[0]) for part in data)
y = jnp.asarray(np.eye(10)[data.train[1]] - 0.1, jnp.float32)
net = ntk.nn.Sequential(
    ntk.nn.Flatten(),
    ntk.nn.Dense(64, w_std=2**0.5, b_std=0.1),
    ntk.nn.Relu(),
    ntk.nn.Dense(64, w_std=2**0.5, b_std=0.1),
    ntk.nn.Relu(),
    ntk.nn.Dense(10),
)
learning_rate = 0.2 * float(ntk.predict.max_learning_rate(net.kernel(x).ntk))

# %% [markdown]
# ## Less and less moves
#
# Each width is trained for the same time from three random initializations, and so is its
# linearization: `ensemble` takes the steps, `linearized_descent` has them in closed form. Of the
# trained networks we keep the first and the last parameters, and their kernel on some inputs.

# %%
WIDTHS, SEEDS, STEPS = (32, 80, 200, 512), 3, 200
RECORD = (0, *ntk.train.log_spaced(STEPS, 12))
LAYERS = {"input weights": 1, "hidden weights": 3, "output weights": 5}
moves = {name: np.empty((SEEDS, len(WIDTHS))) for name in (*LAYERS, "kernel", "function")}


def starts(net, seeds, first=0):
    """Initial parameters of several networks, stacked."""
    keys = jax.vmap(jax.random.key)(first + jnp.arange(seeds))
    return jax.jit(jax.vmap(lambda key: net.init(key, x.shape[1:])))(keys)


def relative(change, start):
    """Norm of a change over that of the start, for each seed."""
    axes = tuple(range(1, start.ndim))
    return np.sqrt((change**2).sum(axes) / (start**2).sum(axes))


runs = {}
for j, width in enumerate(WIDTHS):
    wide = net.with_width(width)
    arguments = wide.apply, starts(wide, SEEDS), x, y, x_test
    real = ntk.train.ensemble(
        *arguments, optimizer=optax.sgd(learning_rate), steps=STEPS, record=RECORD,
        kernel_points=x[:24], kernel="trace", keep_params="ends",
    )  # fmt: skip
    linear = ntk.train.linearized_descent(
        *arguments, learning_rate=learning_rate, steps=STEPS, record=RECORD
    )
    for name, place in LAYERS.items():
        w = real.params[place]["w"]
        moves[name][:, j] = relative(w[:, 1] - w[:, 0], w[:, 0])
    moves["kernel"][:, j] = relative(real.ntk[:, -1] - real.ntk[:, 0], real.ntk[:, 0])
    moved = linear.test[:, -1] - linear.test[:, 0]
    moves["function"][:, j] = relative(real.test[:, -1] - linear.test[:, -1], moved)
    runs[width] = real, linear


def power(values):
    """Exponent of the width: mean over seeds and its standard error."""
    each = np.polyfit(np.log(WIDTHS), np.log(values).T, 1)[0]
    return each.mean(), each.std(ddof=1) / len(each) ** 0.5


exponents = {name: power(values) for name, values in moves.items()}
for name, (p, error) in exponents.items():
    print(f"{name:<15} ~ width^p with p = {p:+.2f} +- {error:.2f}")

# %%
figure, ax = plt.subplots(1, 2, figsize=(11.5, 4.4), layout="constrained")
markers = dict(zip(moves, "osD^v", strict=True))
for name, values in moves.items():
    mean, error = values.mean(0), values.std(0, ddof=1) / SEEDS**0.5
    label = f"{name}: width$^{{{exponents[name][0]:.2f}}}$"
    ax[int(name == "function")].errorbar(
        WIDTHS, mean, error, marker=markers[name], capsize=3, label=label, linewidth=1.5,
        color="k" if name == "function" else None,
    )  # fmt: skip
for a in ax:
    a.set(xscale="log", yscale="log", xlabel="width", ylabel="relative change in training")
    centre = float(np.exp(np.log(a.get_ylim()).mean()))
    for slope, style in ((-0.5, "--"), (-1.0, ":")):
        guide = centre * (np.array(WIDTHS) / 128.0) ** slope
        a.plot(WIDTHS, guide, style, color="#999999", label=f"slope {slope:g}")
    a.set_xticks(WIDTHS, [str(w) for w in WIDTHS])
    a.minorticks_off()
    a.set_yticks((0.01, 0.02, 0.05, 0.1, 0.2, 0.5), ("0.01", "0.02", "0.05", "0.1", "0.2", "0.5"))
    a.legend(frameon=False, fontsize=8, loc="lower left")
ax[0].set_ylim(0.006)
ax[1].set_ylim(0.03)
ax[1].set_ylabel("|network - linearization| / |movement|, test set")
ax[0].set_title("Weights and kernel move less", loc="left", fontsize=10, fontweight="bold")
ax[1].set_title("... and the function becomes that of a linear model", loc="left", fontsize=10,
                fontweight="bold")  # fmt: skip
plt.show()

# %% [markdown]
# Left, figure 1 of the paper. Output weights move like $\text{width}^{-1/2}$ and input weights
# nearly so: their number grows in one direction only. Hidden weights move like $\text{width}^{-1}$,
# lost in a crowd of $\text{width}^2$. The kernel lies between the two, as in the paper, which
# proves $\text{width}^{-1/2}$ as a bound and sees nearly $\text{width}^{-1}$. Right, what this does
# to predictions on images that were not trained on.
#
# ## One network and its linearization
#
# Loss and outputs of a narrow and of a wide network, with their linearizations dashed: the narrow
# one soon goes its own way, the wide one hardly does.

# %%
figure, ax = plt.subplots(1, 2, figsize=(11.5, 3.8), layout="constrained")
for width, colour in ((WIDTHS[0], "#D55E00"), (WIDTHS[-1], "#0072B2")):
    real, linear = runs[width]
    ax[0].plot(real.steps, real.loss[0], color=colour, label=f"width {width}")
    ax[0].plot(real.steps, linear.loss[0], "--", color=colour, label="its linearization")
    for k in range(5):
        ax[1].plot(real.steps, real.test[0, :, k, k], color=colour, linewidth=1.2)
        ax[1].plot(real.steps, linear.test[0, :, k, k], "--", color=colour, linewidth=1.2)
for a in ax:
    a.set_xscale("symlog", linthresh=1)
    a.set_xticks((0, 1, 4, 16, 64), ("0", "1", "4", "16", "64"))
    a.set_xlim(0, STEPS)
    a.set_xlabel("step")
ax[0].set(yscale="log", ylabel="training loss")
ax[0].legend(frameon=False, fontsize=8)
ax[1].set_ylabel("an output on a test image")
ax[0].set_title("The loss", loc="left", fontsize=10, fontweight="bold")
ax[1].set_title("Five outputs, one a test image", loc="left", fontsize=10, fontweight="bold")
plt.show()

# %% [markdown]
# ## An ensemble is a Gaussian process
#
# Over initializations the outputs of the linear model are Gaussian at every time, with mean and
# covariance in closed form (equations 13 to 16 of the paper). They need no training at all, only
# the two kernels of infinite width. Beside them, 48 networks of width 256 that are trained to tell
# a 4 from a 9.

# %%
MEMBERS, WIDTH = 48, 256


def fours_and_nines(part, n):
    """Two classes that look alike, with targets -1 and 1."""
    images, labels = part
    chosen = np.flatnonzero((labels == 4) | (labels == 9))[:n]
    return jnp.asarray(images[chosen]), jnp.asarray(
        np.where(labels[chosen] == 9, 1.0, -1.0)[:, None], jnp.float32
    )


pair = ntk.data.digits(train=400, test=500, seed=1)
(a, b), (a_test, b_test) = fours_and_nines(pair.train, 32), fours_and_nines(pair.test, 64)
single = ntk.nn.Sequential(
    ntk.nn.Flatten(),
    ntk.nn.Dense(WIDTH, w_std=1.5, b_std=0.1),
    ntk.nn.Erf(),
    ntk.nn.Dense(1, w_std=1.5),
)
kernels = single.kernel(a), single.kernel(a_test, a), single.kernel(a_test)
rate = 0.25 * float(ntk.predict.max_learning_rate(kernels[0].ntk))
record = (0, *ntk.train.log_spaced(100, 10))
theory = (
    ntk.predict.gradient_descent(kernels[0], b, *kernels[1:], learning_rate=rate)
    .at(np.array(record))
    .test
)
members = ntk.train.ensemble(
    single.apply, starts(single, MEMBERS, first=1000), a, b, a_test, optimizer=optax.sgd(rate),
    steps=100, record=record,
)  # fmt: skip

# %%
mean = np.asarray(theory.mean)[:, :, 0]
spread = np.sqrt(np.diagonal(np.asarray(theory.covariance), axis1=1, axis2=2))
outputs = members.test[..., 0]
shown = np.argsort(mean[-1])[[2, 40, 61]]
figure, ax = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained", sharey=True)
for panel, k in zip(ax, shown, strict=True):
    panel.plot(record, outputs[:, :, k].T, color="#AAAAAA", linewidth=0.4)
    panel.plot([], [], color="#AAAAAA", linewidth=1, label=f"{MEMBERS} networks")
    for sign in (-1, 1):
        edge = outputs[:, :, k].mean(0) + sign * 2 * outputs[:, :, k].std(0, ddof=1)
        panel.plot(record, edge, color="k", linewidth=1.4)
        panel.plot(
            record, mean[:, k] + sign * 2 * spread[:, k], "--", color="#D55E00", linewidth=1.8
        )
    panel.plot(
        record, outputs[:, :, k].mean(0), "k", linewidth=2, label="their mean ± 2 deviations"
    )
    panel.plot(record, mean[:, k], "--", color="#D55E00", linewidth=2, label="theory")
    panel.set_xscale("symlog", linthresh=1)
    panel.set_xlim(0, record[-1])
    panel.set_xticks((0, 1, 10, 100), ("0", "1", "10", "100"))
    panel.set_xlabel("step")
    title = f"A test image of a {9 if float(b_test[k, 0]) > 0 else 4}"
    panel.set_title(title, loc="left", fontsize=10, fontweight="bold")
ax[0].set_ylabel("output: -1 for a 4, 1 for a 9")
figure.legend(
    *ax[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False
)
plt.show()

# %% [markdown]
# Black is measured, orange is theory, and there was nothing to adjust. With 48 networks the mean of
# an output is known to a seventh of its deviation, and the deviation to a tenth, so what can be
# said is said in standard errors:
#
# ## The claims, checked

# %%
errors = spread[-1] / MEMBERS**0.5
z = (outputs[:, -1].mean(0) - mean[-1]) / errors
ratio = outputs[:, -1].var(0, ddof=1) / spread[-1] ** 2
covariance = np.asarray(theory.covariance)[-1]
# Outputs of one network are correlated: the variance of their mean square comes from theory too.
correlation = covariance / np.outer(spread[-1], spread[-1])
ratio_error = np.sqrt(2 / (MEMBERS - 1) * (correlation**2).mean())
inside = (np.abs(outputs[:, -1] - mean[-1]) < 1.645 * spread[-1]).mean()
print(f"mean outputs: root mean square of z over {len(z)} test images {np.sqrt((z**2).mean()):.2f}")
print(f"variance over theory's: {ratio.mean():.2f} +- {ratio_error:.2f}")
print(f"inside their 90% intervals: {inside:.0%} of outputs")
assert (z**2).mean() < 1 + 4 * np.sqrt(2 * (correlation**2).mean()), "means are those of theory"
assert abs(ratio.mean() - 1) < 4 * ratio_error, "variances are those of theory"
assert 0.8 < inside < 0.97

for name, expected in (("input weights", -0.5), ("hidden weights", -1), ("output weights", -0.5)):
    p, error = exponents[name]
    print(f"{name}: p = {p:+.3f} +- {error:.3f}, the paper says {expected:g}")
    assert abs(p - expected) < 0.12 + 2 * error, name
assert -1.3 < exponents["kernel"][0] < -0.4, "between a bound of -1/2 and an expansion's -1"
p, error = exponents["function"]
assert p < -4 * error, "the wider a network, the nearer to its linearization"
