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
    ax[1].errorbar(range(1, len(at) + 1), found.covariance[at, 0, 1] / own,
                   2 * found.error[at, 0, 1] / own, fmt="o", color=colour, markersize=4)  # fmt: skip
ax[1].set(xlabel="layer", ylabel="covariance of two inputs / predicted variance")
ax[1].legend(frameon=False, fontsize=8)
ax[1].set_title("Lines: theory; points: 12 networks of width 400", loc="left", fontsize=10,
                fontweight="bold")  # fmt: skip
plt.show()

# %% [markdown]
# ## Trained networks
#
# Networks of width 64 and many depths and scales are trained by Adam, all scales of one depth at
# once. What counts is the accuracy on digits that were not trained on.

# %%
data = ntk.data.digits(train=1000, test=300)
x, x_test = (jnp.asarray(part[0]) for part in data)
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
        network(1.0, depth).apply, jax.tree.map(lambda *p: jnp.stack(p), *starts), x, y, x_test,
        optimizer=optax.adam(1e-3), steps=STEPS, record=(STEPS,), batch_size=64,
        key=jax.random.key(0),
    )  # fmt: skip
    accuracy[i] = (run.test[:, -1].argmax(-1) == data.test[1]).mean(1)

# %%
theory = ntk.theory.phase_diagram(ACTIVATION, SCALES**0.5, (B_STD,))
depths_c = theory.correlation_depth[0]
fine = np.geomspace(0.25, 7, 200)
fine_c = ntk.theory.phase_diagram(ACTIVATION, fine**0.5, (B_STD,)).correlation_depth[0]
figure, ax = plt.subplots(figsize=(7.5, 4.6), layout="constrained")
shown = ax.pcolormesh(SCALES, DEPTHS, accuracy, cmap="magma", shading="nearest", vmin=0.1, vmax=1)
figure.colorbar(shown, label=f"test accuracy after {STEPS} steps")
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
