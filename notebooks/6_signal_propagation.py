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
# # 6. Signal propagation: which deep networks can be trained
#
# "Deep information propagation" ([arXiv:1611.01232](https://arxiv.org/abs/1611.01232)): two inputs
# on their way through a wide random network have a variance $q$ and a correlation $c$ that go to
# fixed points, $c - c^*$ falling by $e$ every $\xi_c$ layers. In the *ordered* phase all inputs
# become one, in the *chaotic* phase all become strangers; on the border, $\chi_1 = 1$, $\xi_c$
# is infinite. A network much deeper than $\xi_c$ no longer knows its input, so it cannot be
# trained: the paper sees training fail at about $6\,\xi_c$.
#
# Theory first, then networks trained on scikit-learn's digits.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import ntk_lab as ntk

B_STD, ACTIVATION = 0.05**0.5, ntk.nn.Erf()
critical = ntk.theory.critical_initialization(ACTIVATION, B_STD)
print(f"critical: w_std^2 = {critical.w_std**2:.4f} at b_std^2 = {B_STD**2:.2f}, "
      f"q* = {critical.variance:.3f}")  # fmt: skip

# %% [markdown]
# ## The phase diagram
#
# For any activation, from the kernel half of its layer: the border is $\chi_1 = 1$.

# %%
w, b = np.linspace(0.4, 2.2, 37), np.linspace(0.0, 1.0, 26)
diagram = ntk.theory.phase_diagram(ACTIVATION, w, b)
figure, ax = plt.subplots(1, 2, figsize=(11.5, 4.2), layout="constrained")
shown = ax[0].pcolormesh(w**2, b**2, diagram.correlation, cmap="viridis", shading="nearest")
figure.colorbar(shown, ax=ax[0], label="$c^*$")
line_w, line_b = ntk.theory.critical_line(ACTIVATION, np.geomspace(1e-3, 5, 60))
ax[0].plot(line_w**2, line_b**2, "r", linewidth=2, label="$\\chi_1 = 1$")
ax[0].plot(critical.w_std**2, B_STD**2, "wo", markeredgecolor="k", label="critical_initialization")
ax[0].set(xlabel="$w_{std}^2$", ylabel="$b_{std}^2$", xlim=(0.16, 4.8), ylim=(0, 1))
ax[0].legend(fontsize=8)
ax[0].set_title("Order (left) and chaos (right), erf networks", loc="left", fontsize=10,
                fontweight="bold")  # fmt: skip

x2 = ntk.theory.signal_inputs((64,), 1.0, 0.5)
checks = []
for scale, colour in ((0.9, "#0072B2"), (critical.w_std**2, "#009E73"), (2.5, "#D55E00")):
    layer = ntk.nn.Dense(400, scale**0.5, B_STD)
    net = ntk.nn.Sequential(layer, ntk.nn.Repeat(ntk.nn.Sequential(ACTIVATION, layer), 14))
    theory = ntk.theory.signal_propagation(net, x2)
    found = ntk.theory.measure_signal(net, x2, jax.random.key(0), seeds=12)
    at = theory.after("Dense")
    z = (found.covariance - theory.covariance)[at] / found.error[at]
    checks.append(z[:, 0, 1])
    own = np.sqrt(theory.variance[at, 0] * theory.variance[at, 1])
    ax[1].plot(range(1, len(at) + 1), theory.correlation[at, 0, 1], color=colour,
               label=f"$w_{{std}}^2$ = {scale:.2f}")  # fmt: skip
    points, bars = (v[at, 0, 1] / own for v in (found.covariance, 2 * found.error))
    ax[1].errorbar(range(1, len(at) + 1), points, bars, fmt="o", color=colour, markersize=4)
ax[1].set(xlabel="layer", ylabel="covariance of two inputs / predicted variance")
ax[1].legend(frameon=False, fontsize=8)
ax[1].set_title("Lines: theory; points: 12 networks of width 400", loc="left", fontsize=10,
                fontweight="bold")  # fmt: skip
plt.show()

# %% [markdown]
# ## Trained networks
#
# Networks of width 64 and many depths and scales are trained by Adam, all scales of one depth at
# once. As in figure 5 of the paper what counts is whether they fit the images they are trained on.

# %%
data = ntk.data.digits(train=1000, test=8)
x = jnp.asarray(data.train[0])
y = jnp.asarray(np.eye(10)[data.train[1]] - 0.1, jnp.float32)
SCALES = np.array([0.3, 0.5, 0.7, 0.9, 1.1, 1.4, 1.8, 2.4, 3.2, 4.4, 6.0])
DEPTHS = (5, 10, 20, 40, 80)
STEPS = 200


def network(scale, depth):
    """Standard parameterization: scales sit in the initial parameters, not in the function."""
    dense = [
        ntk.nn.Dense(n, s, B_STD, parameterization="standard")
        for n, s in ((64, scale**0.5), (10, 1.0))
    ]
    body = ntk.nn.Sequential(ACTIVATION, dense[0])
    return ntk.nn.Sequential(
        ntk.nn.Flatten(), dense[0], ntk.nn.Repeat(body, depth - 1), ACTIVATION, dense[1]
    )


accuracy = np.empty((len(DEPTHS), len(SCALES)))
for i, depth in enumerate(DEPTHS):
    starts = [network(float(s), depth).init(jax.random.key(depth), (8, 8, 1)) for s in SCALES]
    run = ntk.train.ensemble(
        network(1.0, depth).apply, jax.tree.map(lambda *p: jnp.stack(p), *starts), x, y, x[:400],
        optimizer=optax.adam(1e-3), steps=STEPS, record=(STEPS,), batch_size=64,
        key=jax.random.key(0),
    )  # fmt: skip
    accuracy[i] = (run.test[:, -1].argmax(-1) == data.train[1][:400]).mean(1)

# %%
theory = ntk.theory.phase_diagram(ACTIVATION, SCALES**0.5, (B_STD,))
depths_c = theory.correlation_depth[0]
fine = np.geomspace(0.25, 7, 200)
fine_c = ntk.theory.phase_diagram(ACTIVATION, fine**0.5, (B_STD,)).correlation_depth[0]
figure, ax = plt.subplots(figsize=(7.5, 4.6), layout="constrained")
shown = ax.pcolormesh(SCALES, DEPTHS, accuracy, cmap="magma", shading="nearest", vmin=0.1, vmax=1)
figure.colorbar(shown, label=f"training accuracy after {STEPS} steps")
for factor, style in ((1, ":"), (3, "--"), (6, "-")):
    ax.plot(fine, factor * fine_c, "c", linestyle=style, label=f"{factor} $\\xi_c$")
ax.set(xscale="log", yscale="log", xlabel="$w_{std}^2$", ylabel="depth", ylim=(3.6, 110))
ax.set_xticks((0.3, 0.5, 1, 2, 4), ("0.3", "0.5", "1", "2", "4"))
ax.set_yticks(DEPTHS, [str(d) for d in DEPTHS])
ax.minorticks_off()
ax.legend(loc="upper right", fontsize=8)
ax.set_title("Predicted depth scale over measured training success", loc="left", fontsize=10,
             fontweight="bold")  # fmt: skip
plt.show()

# %% [markdown]
# The picture of the paper: networks fail on either side of the border, and the deeper they are the
# nearer to it they have to be. The factor 6 is an average and no constant: it is larger where
# $\xi_c$ is smallest in the ordered phase. There inputs are still told apart by $e^{-L/\xi_c}$,
# which Adam, blind to the size of gradients, makes use of until it is lost in rounding: in float32
# that is $16\,\xi_c$. In the chaotic phase it is smaller: gradients explode as well.
#
# ## Conditioning
#
# Why so? In the ordered phase the kernel of the digits becomes singular by a factor $1/\chi_1$ a
# layer; in the chaotic phase it becomes the identity, which trains but does not generalize
# ([arXiv:1912.13053](https://arxiv.org/abs/1912.13053)).

# %%
few = x[:12].reshape(12, -1)
few = few / jnp.sqrt((few**2).mean(1, keepdims=True))
figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
growth = {}
for scale, colour in ((0.9, "#0072B2"), (critical.w_std**2, "#009E73"), (2.5, "#D55E00")):
    layer = ntk.nn.Dense(64, scale**0.5, B_STD)
    body = ntk.nn.Sequential(ACTIVATION, layer)
    along = ntk.theory.signal_propagation(ntk.nn.Sequential(layer, ntk.nn.Repeat(body, 29)), few)
    condition = along.condition("ntk")[along.after("Dense")]
    growth[scale] = condition
    ax.plot(range(1, 31), condition, color=colour, label=f"NTK, $w_{{std}}^2$ = {scale:.2f}")
    nngp = along.condition("nngp")[along.after("Dense")]
    ax.plot(range(1, 31), nngp, "--", color=colour)
ax.set(yscale="log", xlabel="layer", ylabel="condition number (dashed: NNGP)")
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# ## The claims, checked

# %%
z = np.concatenate(checks)
half = np.full(len(SCALES), np.nan)
for j in range(len(SCALES)):
    above = accuracy[:, j] > 0.5
    if above[0] and not above[-1]:
        i = int(np.flatnonzero(above).max())
        share = (accuracy[i, j] - 0.5) / (accuracy[i, j] - accuracy[i + 1, j])
        half[j] = np.exp(np.interp(share, (0, 1), np.log(DEPTHS[i : i + 2])))
seen = np.isfinite(half)
factors = np.log(half[seen] / depths_c[seen])
factor, error = factors.mean(), factors.std(ddof=1) / seen.sum() ** 0.5
rank = np.corrcoef(np.log(half[seen]), np.log(depths_c[seen]))[0, 1]
for s, h, xi in zip(SCALES, half, depths_c, strict=True):
    print(f"w_std^2 = {s:.1f}: xi_c = {xi:5.1f}, depth of half the accuracy {h:5.1f}, "
          f"ratio {h / xi:.1f}")  # fmt: skip
print(
    f"depth at which training fails, in xi_c: predicted 6, measured {np.exp(factor):.1f} "
    f"(x/ {np.exp(error):.2f}), agreement in standard errors {(factor - np.log(6)) / error:+.1f}; "
    f"correlation of its logarithm with that of xi_c {rank:.2f}"
)
point = ntk.theory.signal_fixed_point(
    ntk.nn.Sequential(ACTIVATION, ntk.nn.Dense(1, 0.9**0.5, B_STD))
)
rate = np.log(growth[0.9][-1] * 30 / (growth[0.9][-5] * 26)) / 4
print(f"condition number of the NTK in order: predicted growth {-np.log(point.chi_1):.4f} a layer, "
      f"measured {rate:.4f} after the factor 1/depth")  # fmt: skip
print(f"covariances of {len(z)} layers: root mean square z {np.sqrt((z**2).mean()):.2f}, "
      f"largest {np.abs(z).max():.1f}")  # fmt: skip
deepest = SCALES[accuracy[-2].argmax()]
assert np.sqrt((z**2).mean()) < 2.5, "finite networks follow the recursion"
assert abs(rate + np.log(point.chi_1)) < 0.05, "the kernel becomes singular by 1/chi_1 a layer"
assert 2 < np.exp(factor) < 18, "training fails at several xi_c"
assert 0.6 < deepest / critical.w_std**2 < 1.7, "deep networks train near the border only"
assert accuracy[-2, [0, -1]].max() < 0.5 < accuracy[-2].max(), "and far from it they do not"
