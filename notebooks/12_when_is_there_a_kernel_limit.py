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
# # 12. When is there a kernel limit at all?
#
# Write each layer as $W^l = n^{-a_l} w^l$ with $w^l \sim N(0, n^{-2b_l})$, and the learning rate as
# $\eta n^{-c}$, $n$ being the width. Yang and Hu
# ([arXiv:2011.14522](https://arxiv.org/abs/2011.14522)) show that every such parameterization is
# unstable, or trivial, or a kernel, or learns features, and never two of these:
# the *dynamical dichotomy*. Which of them is decided by a few numbers. The central one is $r$:
# the last hidden layer moves by $n^{-r}$ a coordinate.
#
# `dynamical_dichotomy` computes it; `coordinate_check` trains networks and measures it.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import ntk_lab as ntk

Exponents = ntk.theory.Exponents
PARAMETERIZATIONS = {
    "NTK": Exponents((0, 0.5, 0.5), (0, 0, 0), 0),
    "standard, rate 1/n": Exponents((0, 0, 0), (0, 0.5, 0.5), 1),
    "maximal update": Exponents((-0.5, 0, 0.5), (0.5, 0.5, 0.5), 0),
    "mean-field readout": Exponents((0, 0.5, 1), (0, 0, 0), -1),
    "r = 1/4": Exponents((-0.25, 0.25, 0.5), (0.25, 0.25, 0.25), 0),
    "r = 1/8": Exponents((-0.375, 0.125, 0.5), (0.375, 0.375, 0.375), 0),
    "NTK, rate n^-1/2": Exponents((0, 0.5, 0.5), (0, 0, 0), 0.5),
    "standard, rate 1": Exponents((0, 0, 0), (0, 0.5, 0.5), 0),
}
verdicts = {name: ntk.theory.dynamical_dichotomy(e) for name, e in PARAMETERIZATIONS.items()}
for name, verdict in verdicts.items():
    print(f"{name:<19} {verdict.name:<17} {verdict.reason}")

# %% [markdown]
# The same function takes a network. The library's own parameterizations:

# %%
small = ntk.nn.Sequential(
    ntk.nn.Dense(64), ntk.nn.Erf(), ntk.nn.Dense(64), ntk.nn.Erf(), ntk.nn.Dense(1)
)
for name in ("ntk", "standard", "mean_field", "mup"):
    print(f"{name:<11}", ntk.theory.dynamical_dichotomy(small.with_parameterization(name)).name)

# %% [markdown]
# ## The coordinate check
#
# Each parameterization is trained for three steps on digits, 4 against 9, at two widths with eight
# seeds: how far do the last hidden layer and the output move? Powers of the width are fitted for
# each seed.

# %%
data = ntk.data.digits(train=600, test=64)
chosen = np.isin(data.train[1], (4, 9))
x = jnp.asarray(data.train[0][chosen].reshape(-1, 64))
y = jnp.asarray(np.where(data.train[1][chosen] == 9, 1.0, -1.0)[:, None], jnp.float32)
WIDTHS, LAST_HIDDEN, OUTPUT = (96, 768), 3, 4
measured = {}
for name, exponents in PARAMETERIZATIONS.items():
    check = ntk.theory.coordinate_check(
        exponents.network(ntk.nn.Erf(), 64), x[:32], y[:32], jax.random.key(0), widths=WIDTHS,
        learning_rate=0.5, steps=3, seeds=8,
    )  # fmt: skip
    power, error = check.exponents()
    measured[name] = check, power, error

# %%
figure, ax = plt.subplots(1, 2, figsize=(12.5, 4.6), layout="constrained")
colours = {
    "kernel": "#0072B2", "feature learning": "#D55E00", "trivial": "#999999", "unstable": "#000000"
}  # fmt: skip
for name, (check, power, error) in measured.items():
    kind = verdicts[name].name
    moves = check.moves[LAST_HIDDEN]
    ax[0].errorbar(
        WIDTHS, moves.mean(1), moves.std(1, ddof=1) / 8**0.5, color=colours[kind], marker="o",
        markersize=4, capsize=2,
    )  # fmt: skip
    ax[0].annotate(name, (WIDTHS[-1] * 1.1, moves[-1].mean()), fontsize=7.5, va="center",
                   color=colours[kind])  # fmt: skip
    if kind != "unstable":
        e = PARAMETERIZATIONS[name]
        for layer, predicted, marker in ((LAST_HIDDEN, -e.r, "o"), (OUTPUT, -e.output, "s")):
            ax[1].errorbar(predicted, power[layer], 2 * error[layer], color=colours[kind],
                           marker=marker, capsize=3)  # fmt: skip
ax[0].set(xscale="log", yscale="log", xlabel="width", xlim=(80, 5000),
          ylabel="motion of a coordinate of the last hidden layer")  # fmt: skip
ax[0].set_xticks(WIDTHS, [str(w) for w in WIDTHS])
ax[0].minorticks_off()
ax[1].plot((-1.1, 0.1), (-1.1, 0.1), "--", color="#999999")
for kind in ("feature learning", "kernel", "trivial"):
    ax[1].plot([], [], "o", color=colours[kind], label=kind)
ax[1].plot([], [], "s", color="w", markeredgecolor="k", label="outputs (squares)")
ax[1].legend(frameon=False, fontsize=8)
ax[1].set(xlabel="predicted power of the width", ylabel="measured power of the width")
ax[0].set_title("How far features move", loc="left", fontsize=10, fontweight="bold")
ax[1].set_title("... by the power that theory says", loc="left", fontsize=10, fontweight="bold")
plt.show()

# %% [markdown]
# Of the unstable one (black) theory says only that it moves without bound; a bounded activation
# stops it once everything has flipped, so that its features cannot show their power, but its
# outputs do.
#
# ## Learning rates that transfer
#
# Where features move by order one at every width, and by gradients of order one, the best learning
# rate does not depend on the width: it can be found on a small network
# ([arXiv:2203.03466](https://arxiv.org/abs/2203.03466)). In standard parameterization at a plain
# learning rate it falls as 1/n in the limit, and more slowly at widths of the order of 64 pixels,
# where the first layer, whose part of the kernel does not grow with the width, has a large share.
# Loss after 60 steps, of all digits:

# %%
RATES, SWEEP, SEEDS, STEPS = 2.0 ** np.arange(-11, 5.1, 0.5), (32, 128, 512), 3, 60
images = jnp.asarray(data.train[0].reshape(-1, 64)[:128])
targets = jnp.asarray(np.eye(10)[data.train[1][:128]] - 0.1, jnp.float32)


def final_losses(net, params):
    """Loss after training at each rate; infinite where it diverges."""

    def loss(p):
        return ((net.apply(p, images) - targets) ** 2).sum(1).mean() / 2

    def train(rate):
        def step(p, _):
            return jax.tree.map(lambda v, g: v - rate * g, p, jax.grad(loss)(p)), None

        return loss(jax.lax.scan(step, params, None, length=STEPS)[0])

    return jax.lax.map(train, jnp.asarray(RATES, jnp.float32))


best = {}
figure, ax = plt.subplots(1, 2, figsize=(11.5, 4), layout="constrained", sharey=True)
for a, name in zip(ax, ("standard", "mup"), strict=True):
    best[name] = np.empty((SEEDS, len(SWEEP)))
    for j, width in enumerate(SWEEP):
        hidden = [p for _ in range(2) for p in (ntk.nn.Dense(width, 1.4), ntk.nn.Erf())]
        net = ntk.nn.Sequential(*hidden, ntk.nn.Dense(10)).with_parameterization(name)
        run = jax.jit(lambda key, net=net: final_losses(net, net.init(key, (64,))))
        losses = np.stack([run(jax.random.key(seed)) for seed in range(SEEDS)])
        losses = np.where(np.isfinite(losses), losses, np.inf)
        best[name][:, j] = RATES[losses.argmin(1)]
        a.plot(RATES, np.clip(losses.mean(0), 0, 10), marker="o", markersize=3,
               label=f"width {width}")  # fmt: skip
    a.set(xscale="log", xlabel="learning rate", ylim=(0, 0.6), title=name)
    a.legend(frameon=False, fontsize=8)
ax[0].set_ylabel(f"training loss after {STEPS} steps")
plt.show()


def slope(rates):
    """Power of the width in the best rate: mean over seeds and standard error."""
    each = np.polyfit(np.log(SWEEP), np.log(rates).T, 1)[0]
    # The grid of rates has steps of a factor sqrt(2): no slope is known better than that.
    grid = np.log(2) / 2 / 12**0.5 / np.log(SWEEP[-1] / SWEEP[0]) * 2**0.5
    return each.mean(), np.hypot(each.std(ddof=1), grid) / SEEDS**0.5


# %% [markdown]
# ## The claims, checked

# %%
tests = []
for name, (_, power, error) in measured.items():
    e, kind = PARAMETERIZATIONS[name], verdicts[name].name
    if kind == "unstable":
        print(f"{name}: predicted to blow up, outputs move by n^{power[OUTPUT]:+.2f} "
              f"+- {error[OUTPUT]:.2f}")  # fmt: skip
        assert power[OUTPUT] > 3 * error[OUTPUT] + 0.2, "the unstable one blows up"
        continue
    for what, layer, predicted in (("features", LAST_HIDDEN, -e.r), ("outputs", OUTPUT, -e.output)):
        m, s = power[layer], error[layer]
        print(
            f"{name}, {what}: predicted n^{predicted:+.3f}, measured n^{m:+.3f} +- {s:.3f}, "
            f"agreement in standard errors {(m - predicted) / s:+.1f}"
        )
        # Powers of two finite widths are not yet those of the limit.
        assert abs(m - predicted) < 4 * s + 0.1, f"{name}: {what} move by the predicted power"
for name, predicted in (("standard", -1.0), ("mup", 0.0)):
    m, s = slope(best[name])
    print(
        f"best learning rate in {name}: predicted n^{predicted:+.0f}, measured n^{m:+.2f} +- "
        f"{s:.2f}, agreement in standard errors {(m - predicted) / s:+.1f}"
    )
    assert abs(m - predicted) < 4 * s + 0.25, "the best rate goes with the width as predicted"
assert sum(v.kernel_limit for v in verdicts.values()) == 4
