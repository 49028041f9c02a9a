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
# # 4. The catapult
#
# Gradient descent on a quadratic with curvature $\lambda$ is stable up to the learning rate $\eta =
# 2/\lambda$. A wide network is nearly quadratic, with $\lambda$ the top eigenvalue of its kernel
# over $n$, so beyond $2/\lambda_0$ it should diverge. It does not. The loss shoots up, and in doing
# so throws the parameters to a place where $\lambda < 2/\eta$; then it falls again. This is the
# *catapult* of Lewkowycz et al. ([arXiv:2003.02218](https://arxiv.org/abs/2003.02218)), and nothing
# that a fixed kernel could do. Here it is on real digits, with the three things the paper says of
# it: where it begins and ends, how long it takes, and that it finds flatter places.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import ntk_lab as ntk

COLOURS = {"lazy": "#009E73", "catapult": "#E69F00", "divergent": "#D55E00", "undecided": "#999999"}


def threes_and_eights(part, n):
    """Two classes that look alike, with targets -1 and 1."""
    x, y = part
    chosen = np.flatnonzero((y == 3) | (y == 8))[:n]
    return jnp.asarray(x[chosen]), jnp.asarray(
        np.where(y[chosen] == 8, 1.0, -1.0)[:, None], x.dtype
    )


data = ntk.data.digits(train=500, test=1250)
train, test = threes_and_eights(data.train, 48), threes_and_eights(data.test, 240)


def two_layers(width, activation, w_std):
    """One hidden layer in NTK parameterization, without biases."""
    return ntk.nn.Sequential(
        ntk.nn.Flatten(), ntk.nn.Dense(width, w_std=w_std), activation, ntk.nn.Dense(1, w_std=w_std)
    )


# %% [markdown]
# ## Three phases
#
# The paper solves two linear layers: with one example, $f = u \cdot v\, x/\sqrt{m}$, and one step
# does
#
# $$ f \to f\,\bigl(1 - \eta\lambda + \tfrac{\eta^2 f^2}{m}\bigr), \qquad
#    \lambda \to \lambda + \tfrac{\eta f^2}{m}\,(\eta\lambda - 4) . $$
#
# At $\eta\lambda > 2$ the output grows until $f^2 \sim m$, and then the second equation acts: below
# 4 the curvature falls, above 4 it rises for ever. So *lazy* up to 2, *catapult* from 2 to 4,
# *divergent* beyond. `learning_rate_phases` trains one network at many learning rates and tells the
# phases apart by loss and curvature alone, knowing nothing of the 4.

# %%
RATIOS = (0.5, 1.0, 1.5, 1.9, 2.2, 2.6, 3.0, 3.4, 3.7, 4.5)
linear = two_layers(512, ntk.nn.Identity(), 1.0)
params = linear.init(jax.random.key(0), (8, 8, 1))
phases = ntk.train.learning_rate_phases(
    linear.apply, params, *train, steps=100, ratios=RATIOS, record=2, test=test
)
print(phases)

# %%
figure, ax = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
shown = (1.0, 1.9, 2.2, 2.6, 3.4, 4.5)
for ratio, shade in zip(shown, np.linspace(0, 0.9, len(shown)), strict=True):
    loss = phases.loss[RATIOS.index(ratio)]
    label = f"{ratio:g}, {phases.phases[RATIOS.index(ratio)].name}"
    colour = plt.get_cmap("plasma")(shade)
    ax[0].plot(np.where(loss < 1e4, loss, np.nan), color=colour, linewidth=1.7, label=label)
ax[0].set(yscale="log", xlabel="step", ylabel="training loss", xlim=(0, 60))
ax[0].legend(title="learning rate × curvature", frameon=False)
ax[0].set_title("The loss at six learning rates", loc="left", fontsize=10, fontweight="bold")
ntk.plot.learning_rate_phases(phases, ax[1])
plt.show()
print(phases.phases[6])

# %% [markdown]
# Left: the loss at some of the rates. Below 2 it only falls; above, it first climbs by one or two
# orders of magnitude; from 4 on it does not come back. Right: where the curvature ends. On the
# dotted line it has not moved, and that is where lazy training stays. Catapults land below the
# limit, most of them far below: the curvature itself falls to a quarter.
#
# This network sees 48 images, not one, and its end is still the 4 of one example: the top
# eigenvector of the kernel takes nearly all of the flight.
#
# ## How long the flight takes
#
# The output multiplies by $\eta\lambda - 1$ in each step, and the flight ends when $f^2 \sim m$. So
# it takes $\log m \,/\, 2\log(\eta\lambda - 1)$ steps, and the peak of the loss is proportional to
# the width: in the limit it never comes back. That is how the theory of infinite width and the
# catapult live together. (Networks start at different heights; steps are counted from the first
# loss above 2, to compare the flight only.)

# %%
WIDTHS, SEEDS, RATIO = (1024, 4096, 16384), 8, 2.5
rate = RATIO * float(ntk.predict.max_learning_rate(linear.kernel(train[0]).ntk)) / 2
peaks, peak_steps = (np.empty((SEEDS, len(WIDTHS))) for _ in range(2))
for j, width in enumerate(WIDTHS):
    net = two_layers(width, ntk.nn.Identity(), 1.0)
    keys = jax.random.split(jax.random.key(1), SEEDS)
    flight = ntk.train.ensemble(
        net.apply, jax.jit(jax.vmap(lambda key, net=net: net.init(key, (8, 8, 1))))(keys), *train,
        optimizer=optax.sgd(rate), steps=30, record=tuple(range(31)),
    )  # fmt: skip
    peaks[:, j] = flight.loss.max(1)
    peak_steps[:, j] = flight.loss.argmax(1) - (flight.loss > 2).argmax(1)


def slope(values):
    """Mean over seeds of the slope against the logarithm of the width, and its standard error."""
    each = np.polyfit(np.log(WIDTHS), values.T, 1)[0]
    return each.mean(), each.std(ddof=1) / SEEDS**0.5


growth, growth_error = slope(np.log(peaks))
delay, delay_error = slope(peak_steps)
theory = 1 / (2 * np.log(RATIO - 1))
print(f"peak loss ~ width^p, p = {growth:.2f} +- {growth_error:.2f} (theory 1)")
print(f"steps of flight for each e-fold of width: {delay:.2f} +- {delay_error:.2f} "
      f"(theory {theory:.2f})")  # fmt: skip

# %%
figure, ax = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
for a, values, label in (
    (ax[0], peaks, "peak of the loss"),
    (ax[1], peak_steps, "steps from a loss of 2 to the peak"),
):
    mean, error = values.mean(0), values.std(0, ddof=1) / SEEDS**0.5
    a.errorbar(WIDTHS, mean, error, marker="o", capsize=3, label=f"{SEEDS} networks")
    a.set(xscale="log", xlabel="width", ylabel=label)
    a.set_xticks(WIDTHS, [str(w) for w in WIDTHS])
    a.minorticks_off()
relative = np.array(WIDTHS) / WIDTHS[0]
ax[0].plot(WIDTHS, peaks[:, 0].mean() * relative, "k--", label="proportional to the width")
ax[0].set_yscale("log")
ax[0].set_yticks((10, 30, 100), ("10", "30", "100"))
ax[0].minorticks_off()
ax[1].plot(WIDTHS, peak_steps.mean() + theory * (np.log(relative) - np.log(relative).mean()),
           "k--", label=f"slope of theory at {RATIO:g}")  # fmt: skip
for a in ax:
    a.legend(frameon=False)
ax[0].set_title("A wider network flies higher", loc="left", fontsize=10, fontweight="bold")
ax[1].set_title("... and longer, by the logarithm", loc="left", fontsize=10, fontweight="bold")
plt.show()

# %% [markdown]
# ## Relu networks fly further
#
# For Relu networks the paper finds catapults beyond 4, up to $\eta\lambda_0 \approx 12$ in its
# experiments. How far is a matter of data and of initialization, so it is measured:

# %%
relu = two_layers(512, ntk.nn.Relu(), 2**0.5)
params = relu.init(jax.random.key(0), (8, 8, 1))
far = ntk.train.learning_rate_phases(
    relu.apply, params, *train, steps=100, ratios=(1.0, 3.0, 4.5, 6.0, 9.0, 13.0),
    record=2, test=test,
)  # fmt: skip
print(far)

# %% [markdown]
# ## What lies between start and end
#
# Two runs of the Relu network for the same time $\eta \times$ steps: one lazy, one a catapult.
# Beside the loss and the sharpness (top eigenvalue of the Hessian) along each run, the loss on the
# straight line from its start to its end.

# %%
stack = jax.tree.map(lambda p: p[None], params)
runs, lines = {}, {}
for name, ratio, steps in (("lazy", 0.8, 120), ("catapult", 3.2, 30)):
    rate = ratio / far.curvature0
    record = tuple(range(0, steps + 1, steps // 15))
    runs[name] = rate, ntk.train.ensemble(
        relu.apply, stack, *train, test[0], optimizer=optax.sgd(rate), steps=steps, record=record,
        sharpness=True, keep_params="ends",
    )  # fmt: skip
    end = jax.tree.map(lambda p: p[0, 1], runs[name][1].params)
    lines[name] = ntk.train.loss_along_line(relu.apply, params, end, *train, points=31, test=test)

# %%
figure, ax = plt.subplots(1, 3, figsize=(14, 4), layout="constrained")
for name, (rate, found) in runs.items():
    time = rate * found.steps
    ax[0].plot(time, found.loss[0], color=COLOURS[name], marker="o", markersize=3, label=name)
    sharp = rate * found.sharpness[0]
    ax[1].plot(time, sharp, color=COLOURS[name], marker="o", markersize=3, label=name)
    line = lines[name]
    ax[2].plot(line.positions, line.train, color=COLOURS[name], label=f"{name}, training")
    ax[2].plot(line.positions, line.test, ":", color=COLOURS[name], label=f"{name}, test")
ax[1].axhline(2, color="#777777", linestyle="--", label="limit of stability")
for a, ylabel, title in (
    (ax[0], "training loss", "Loss along training"),
    (ax[1], "learning rate × sharpness", "Sharpness along training"),
    (ax[2], "loss", "Loss between start and end"),
):
    a.set_title(title, loc="left", fontsize=10, fontweight="bold")
    a.set(xlabel="time = learning rate × steps", ylabel=ylabel)
    a.legend(frameon=False, fontsize=8)
ax[2].set_xlabel("position between start (0) and end (1)")
ax[0].set_yscale("log")
ax[1].set_ylim(bottom=0)
ax[2].set_ylim(bottom=0)
plt.show()
for name, line in lines.items():
    print(f"{name}: the straight line climbs by {line.rise():.2g}")

# %% [markdown]
# The lazy run keeps its sharpness. The catapult starts above the limit and is thrown below it in a
# few steps: its learning rate is four times larger, so it ends in a place four times flatter. Seen
# from a distance nothing dramatic lies between start and end: on the straight line the loss only
# falls. The peak was on the way that the run took, from wall to wall across a valley, and it comes
# down where the valley is wider. After the same time it fits the training images less well than the
# lazy run, and the test images better.
#
# ## The claims, checked

# %%
by_name = {name: [p for p in phases.phases if p.name == name] for name in COLOURS}
expected = ["lazy" if r < 2 else "catapult" if r < 4 else "divergent" for r in RATIOS]
assert [phase.name for phase in phases.phases] == expected, "2 and 4 are the borders"
assert all(abs(p.final / p.initial - 1) < 0.05 for p in by_name["lazy"]), "lazy: same curvature"
assert all(p.final < 2 for p in by_name["catapult"]), "catapults land where it is flatter"
assert abs(growth - 1) < 4 * growth_error, "the peak is proportional to the width"
assert delay > 3 * delay_error, "the flight takes longer in wider networks"
assert abs(delay - theory) < 4 * delay_error, "by the logarithm that theory says"
assert far.trains_until[0] > 2, "Relu networks train beyond the limit too"
sharpness = {name: rate * found.sharpness[0] for name, (rate, found) in runs.items()}
assert abs(sharpness["lazy"][-1] / sharpness["lazy"][0] - 1) < 0.2
assert sharpness["catapult"][0] > 2 > sharpness["catapult"][-1]

each = {name: (found.test[0, -1] - test[1])[:, 0] ** 2 / 2 for name, (_, found) in runs.items()}
better = each["lazy"] - each["catapult"]
gain, gain_error = better.mean(), better.std(ddof=1) / len(better) ** 0.5
print(
    f"test loss of the catapult: lower by {gain:.3f} +- {gain_error:.3f}, over {len(better)} images"
)
assert gain > 3 * gain_error, "the flatter place generalizes better"
