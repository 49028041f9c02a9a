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
# # 8. What depth buys
#
# A deep network can write down in a few neurons what a shallow one needs exponentially many for
# (Telgarsky, [arXiv:1602.04485](https://arxiv.org/abs/1602.04485)). *Can* is not *does*: here
# linear regions of ReLU networks are counted exactly, in networks built by hand, at random
# initialization, and after training, beside what theory says of each.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import ntk_lab as ntk

theory = ntk.theory


def layout(depth, width, w_std=2**0.5, b_std=0.3):
    """A ReLU network of so many hidden layers."""
    layers = [ntk.nn.Dense(width, w_std, b_std), ntk.nn.Relu()] * depth
    return ntk.nn.Sequential(*layers, ntk.nn.Dense(1, w_std))


def mean(values):
    """Mean and standard error over the first axis."""
    values = np.asarray(values, float)
    return values.mean(0), values.std(0, ddof=1) / len(values) ** 0.5


# %% [markdown]
# ## Built by hand
#
# The tent map composed with itself $k$ times has $2^k$ linear pieces on $[0, 1]$; as a network it
# has $2k$ neurons. One hidden layer of $N$ neurons has at most $N + 1$ pieces.

# %%
LEVELS = range(1, 11)
pieces = [theory.regions_on_line(*theory.sawtooth(k), [0.0], [1.0]).pieces() for k in LEVELS]
print("neurons", [2 * k for k in LEVELS])
print("pieces ", pieces)

# %% [markdown]
# ## At random initialization
#
# The same 64 neurons, laid out in 1 to 8 layers, over random weights. Theory: each neuron switches
# along a segment as often as the line's image in its layer turns through a half circle
# (`expected_regions_on_line`; Rice's formula). Depth appears nowhere in it, only the number of
# neurons ([arXiv:1901.09021](https://arxiv.org/abs/1901.09021)).

# %%
LAYOUTS, SEEDS = ((1, 64), (2, 32), (4, 16), (8, 8)), 80
start, end = np.array([-2.0, 1.0]), np.array([2.0, 0.5])
counted, expected = [], []
for depth, width in LAYOUTS:
    net = layout(depth, width)
    keys = jax.random.split(jax.random.key(depth), SEEDS)
    draw = jax.vmap(lambda key, net=net: net.init(key, (2,)))(keys)
    each = [jax.tree.map(lambda p, i=i: p[i], draw) for i in range(SEEDS)]
    counted.append([theory.regions_on_line(net, p, start, end).regions for p in each])
    expected.append(1 + theory.expected_regions_on_line(net, start, end).sum())
on_line = [mean(c) for c in counted]
for (depth, width), (value, error), e in zip(LAYOUTS, on_line, expected, strict=True):
    print(f"{depth} x {width:<2} regions on the line {value:.1f} +- {error:.1f}, expected {e:.1f}")

corner, u, v = np.array([-2.0, -2.0]), np.array([4.0, 0.0]), np.array([0.0, 4.0])
planes = []
for depth, width in (LAYOUTS[0], LAYOUTS[-1]):
    net = layout(depth, width)
    params = net.init(jax.random.key(0), (2,))
    planes.append(theory.regions_in_plane(net, params, corner, u, v))
print("regions in the square, 1 x 64 and 8 x 8:", [p.regions for p in planes])

# %% [markdown]
# ## Lengths of curves
#
# Raghu et al. ([arXiv:1606.05336](https://arxiv.org/abs/1606.05336)) send a circle through random
# networks and measure how long its image becomes. In the limit of large width the length after
# each layer is a sum of kernel distances (`expected_trajectory_lengths`); for ReLU it grows by
# $\sqrt{\sigma_w^2 / 2}$ a layer.

# %%
DEPTH, SCALES = 5, (1.0, 2**0.5, 2.0)
angle = np.linspace(0, 2 * np.pi, 150)
circle = jnp.asarray(np.stack([np.cos(angle), np.sin(angle)], 1), jnp.float32)
lengths = {}
for w_std in SCALES:
    deep = layout(DEPTH, 128, w_std, 0.3)
    found = [
        theory.trajectory_lengths(deep, deep.init(jax.random.key(s), (2,)), circle)
        for s in range(10)
    ]
    dense = slice(1, 2 * DEPTH, 2)  # after each Dense but the readout
    lengths[w_std] = (
        np.array(found)[:, dense],
        theory.expected_trajectory_lengths(deep, circle)[dense],
    )
growth = {
    w: mean((found[:, -1] / found[:, 0]) ** (1 / (DEPTH - 1))) for w, (found, _) in lengths.items()
}
for w, (value, error) in growth.items():
    print(f"w_std {w:.2f}: growth a layer {value:.3f} +- {error:.3f}, theory {w / 2**0.5:.3f}")

# %%
BLUE, GREEN, ORANGE, PINK = "#0072B2", "#009E73", "#E69F00", "#CC79A7"
figure, ax = plt.subplots(1, 4, figsize=(15, 3.9), layout="constrained")
for a, plane, name in zip(ax, planes, ("1 x 64 neurons", "8 x 8 neurons"), strict=False):
    shade = plane.gradients[:, :, 0]
    colour = plt.get_cmap("twilight")(np.arctan2(shade[:, 1], shade[:, 0]) / (2 * np.pi) + 0.5)
    for polygon, c in zip(plane.polygons, colour, strict=True):
        a.fill(*polygon.T, facecolor=c, edgecolor="white", linewidth=0.3)
    a.set(xticks=[], yticks=[], aspect="equal")
    a.set_title(f"{name}: {plane.regions} regions", loc="left", fontsize=10, fontweight="bold")
depths = [d for d, _ in LAYOUTS]
ax[2].errorbar(depths, [v for v, _ in on_line], [2 * e for _, e in on_line], fmt="o", color=BLUE,
               label="64 random neurons")  # fmt: skip
ax[2].plot(depths, expected, color=BLUE, label="theory")
ax[2].plot(LEVELS, pieces, "s-", color=ORANGE, label="sawtooth, 2 neurons a layer")
ax[2].set(xscale="log", yscale="log", xlabel="hidden layers", ylabel="regions on a line")
ax[2].set_xticks(depths, depths)
ax[2].legend(frameon=False, fontsize=8)
for (w, (found, curve)), c in zip(lengths.items(), (GREEN, BLUE, PINK), strict=True):
    layers = np.arange(1, DEPTH + 1)
    ax[3].errorbar(layers, *mean(found), fmt="o", ms=3, color=c)
    ax[3].plot(layers, curve, color=c, label=f"$\\sigma_w$ = {w:.2f}")
ax[3].set(yscale="log", xlabel="layer", ylabel="length of the circle's image")
ax[3].legend(frameon=False, fontsize=8)
plt.show()

# %% [markdown]
# Left: the directions of the gradient in every linear region of a square. Many neurons in one layer
# make an arrangement of straight lines; in eight layers the lines bend at one another, but there
# are not more pieces. Third: exponential growth is what depth *can* do, and random networks do not.
#
# ## Trained on sawtooths
#
# Shallow and deep networks of nearly equal numbers of parameters are fitted to 128 noise-free
# points of sawtooths of more and more teeth. Beside them, regression with the NTK of either
# architecture, and with none of the parameters fitted by hand.

# %%
TEETH, TRAIN, ADAM = (1, 2, 3, 4), 128, optax.adam(2e-2)
NETS = {"shallow": layout(1, 300, b_std=1.0), "deep": layout(5, 14, b_std=1.0)}
rng = np.random.default_rng(0)
x = jnp.asarray(np.sort(rng.uniform(-1, 1, (TRAIN, 1)), axis=0), jnp.float32)
new = jnp.linspace(-1, 1, 501)[:, None]
size = {n: sum(p.size for p in jax.tree.leaves(net.init(jax.random.key(0), (1,))))
        for n, net in NETS.items()}  # fmt: skip
print("parameters", size)
trained, kernels, after = {}, {}, {}
for name, net in NETS.items():
    params = jax.vmap(lambda key, net=net: net.init(key, (1,)))(
        jax.random.split(jax.random.key(0), 3)
    )
    k, cross = net.kernel(x).ntk, net.kernel(new, x).ntk
    for teeth in TEETH:
        target = theory.sawtooth(teeth)
        y, y_new = (target[0].apply(target[1], (a + 1) / 2) - 0.5 for a in (x, new))
        run = ntk.train.ensemble(
            net.apply, params, x, y, new, optimizer=ADAM, steps=1000, record=(1000,),
            keep_params="ends",
        )  # fmt: skip
        variance = float(jnp.mean(y_new**2))
        errors = ((run.test[:, -1] - np.asarray(y_new)) ** 2).mean((1, 2)) / variance
        trained[name, teeth] = errors
        flow = ntk.predict.gradient_flow(k, y, cross, ridge=1e-4).at(jnp.inf)
        kernels[name, teeth] = float(jnp.mean((flow.test.mean - y_new) ** 2)) / variance
        last = [jax.tree.map(lambda p, i=i: p[i, -1], run.params) for i in range(3)]
        after[name, teeth] = [
            theory.regions_on_line(net, p, [-1.0], [1.0]).pieces(1e-3) for p in last
        ]
for teeth in TEETH:
    print(f"{2 ** (teeth - 1):>2} teeth: " + ";  ".join(
        "{} network {:.3f} +- {:.3f}, kernel {:.3f}, pieces {:.0f}".format(
            name, *mean(trained[name, teeth]), kernels[name, teeth], mean(after[name, teeth])[0])
        for name in NETS))  # fmt: skip

# %%
figure, ax = plt.subplots(1, 2, figsize=(10.5, 3.8), layout="constrained")
teeth = 2.0 ** (np.array(TEETH) - 1)
for name, colour in zip(NETS, (BLUE, ORANGE), strict=True):
    values = np.array([mean(trained[name, t]) for t in TEETH])
    ax[0].errorbar(teeth, values[:, 0], values[:, 1], fmt="o-", color=colour,
                   label=f"{name} network")  # fmt: skip
    ax[0].plot(teeth, [kernels[name, t] for t in TEETH], "--", color=colour, label=f"{name} NTK")
    counts = np.array([mean(after[name, t]) for t in TEETH])
    ax[1].errorbar(teeth, counts[:, 0], counts[:, 1], fmt="o-", color=colour, label=name)
ax[0].set(xscale="log", yscale="log", xlabel="teeth", ylabel="test error / variance")
ax[1].plot(teeth, 2 * teeth, "k:", label="pieces of the target")
ax[1].set(xscale="log", yscale="log", xlabel="teeth", ylabel="linear pieces after training")
for a in ax:
    a.legend(frameon=False, fontsize=8)
plt.show()

# %% [markdown]
# On one and two teeth both do well. On more, the kernels of infinite width and these networks part,
# in a surprising direction: regression with the kernel fits eight teeth, and the networks do not,
# the deep ones least. The exact sawtooth is among the functions of the deep one (which has 70
# neurons where 8 are enough), but a thousand steps of Adam do not find it: it keeps some 20 linear
# pieces whatever the target, as the shallow one keeps 160. What depth can express it does not learn
# by itself; networks as narrow as these are far from their kernels, which are wide.
#
# ## The claims, checked
#
# Where theory takes layers to be wide, 8 x 8 neurons are outside it: a quarter fewer regions than
# expected, since narrow layers correlate neurons. Lengths grow a percent or two less than
# $\sqrt{\sigma_w^2/2}$ a layer, by chords in place of arcs and by finite width.


# %%
def report(claim, predicted, measured, error):
    """One line, and the distance in standard errors."""
    z = (measured - predicted) / error
    print(f"{claim}: predicted {predicted:.3g}, measured {measured:.3g} +- {error:.2g}, "
          f"{z:+.1f} standard errors")  # fmt: skip
    return z


assert pieces == [2**k for k in LEVELS], "sawtooths have 2^k pieces"
print(f"pieces of the sawtooth of 20 neurons: predicted {2**10}, measured {pieces[-1]} +- 0, exact")
for (depth, width), (value, error), e in zip(LAYOUTS, on_line, expected, strict=True):
    report(f"regions on a line, {depth} x {width}", e, value, error)
for w, (value, error) in growth.items():
    report(f"growth of lengths, w_std {w:.2f}", w / 2**0.5, value, error)
for name in NETS:
    for t in (2, 4):
        report(f"error of the {name} network, {2 ** (t - 1)} teeth, against its kernel's",
               kernels[name, t], *mean(trained[name, t]))  # fmt: skip
wide = [(v, error, e) for (v, error), e in zip(on_line[:3], expected, strict=False)]
assert all(abs(v - e) < 4 * error + 0.1 * e for v, error, e in wide), "regions, as Rice has them"
assert all(abs(v / (w / 2**0.5) - 1) < 0.05 for w, (v, _) in growth.items()), "lengths, as kernels"
assert kernels["shallow", 4] < 0.1 < trained["shallow", 4].mean(), "kernels fit eight teeth"
