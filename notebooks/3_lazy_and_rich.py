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
# # 3. Lazy and rich
#
# Whether a network follows its kernel is not only a matter of width. Chizat et al.
# ([arXiv:1812.07956](https://arxiv.org/abs/1812.07956)) multiply the output by a number,
#
# $$ F(x) = \alpha\, \bigl(f_\theta(x) - f_{\theta_0}(x)\bigr), $$
#
# and divide the learning rate by $\alpha^2$, so that to first order nothing changes. With a large
# $\alpha$ the parameters hardly need to move and any network is its linearization: *lazy*. With a
# small one they must go far, and features are learnt: *rich*. Geiger et al.
# ([arXiv:1906.08034](https://arxiv.org/abs/1906.08034)) ask where the border lies when the width
# $h$ grows too, and find a single variable for it:
#
# $$ \alpha^* \sim h^{-1/2}, \qquad
#    \text{lazy for } \alpha\sqrt h \gg 1,\quad \text{rich for } \alpha\sqrt h \ll 1 . $$
#
# A mean-field readout is $\alpha = h^{-1/2}$, and so sits on the border at every width. All of this
# is in two phase diagrams, here on MNIST-1D.

# %%
import matplotlib.pyplot as plt
import numpy as np

import ntk_lab as ntk

data = ntk.data.mnist1d(train=50, test=100)
net = ntk.nn.Sequential(
    ntk.nn.Flatten(),
    ntk.nn.Dense(64, w_std=1.5, b_std=0.1),
    ntk.nn.Erf(),
    ntk.nn.Dense(64, w_std=1.5, b_std=0.1),
    ntk.nn.Erf(),
    ntk.nn.Dense(10, w_std=1.5),
)
run = {"seeds": 2, "steps": 100, "record": (100,), "kernel_points": 12}

# %% [markdown]
# ## Width and output scale
#
# Each cell trains networks and asks whether the kernel of infinite width predicts them at the end.

# %%
WIDTHS, ALPHAS = (16, 64, 256), (0.1, 0.3, 1.0, 3.0)
diagram = ntk.phase_diagram(net, *data, x=("width", WIDTHS), y=("alpha", ALPHAS), **run)
print(diagram)

# %% [markdown]
# ## Parameterization and output scale
#
# At one width, the readout of NTK parameterization beside that of the mean-field limit.

# %%
NAMES, WIDTH, MORE = ("ntk", "mean_field"), 64, (0.3, 1.0, 3.0, 10.0)
by_name = ntk.phase_diagram(
    net, *data, x=("parameterization", NAMES), y=("alpha", MORE), widths=(WIDTH,), **run
)
print(by_name)

# %%
figure, ax = plt.subplots(1, 2, figsize=(12, 4.8), layout="constrained")
diagram.plot(ax[0])
by_name.plot(ax[1])
plt.show()

# %% [markdown]
# Left: the boundary falls with the width, as $h^{-1/2}$ does, until it meets the narrow networks
# whose kernel is not yet the limit; those no $\alpha$ can help. Right: the readout of mean-field
# needs a larger $\alpha$ by $\sqrt h = 8$ for the same map.
#
# ## One variable
#
# The sum of all gaps mixes two things. Alone, the gap of *feature learning* (between the network
# and its own linearization) should depend on $\alpha\sqrt h$ only, whatever the width and the
# parameterization, and fall like $1/(\alpha\sqrt h)$ in the lazy phase.

# %%
points = []  # label, alpha * sqrt(h), gap
gaps = diagram.budget["feature learning"]
for j, width in enumerate(WIDTHS):
    points += [(f"width {width}", a * width**0.5, gaps[i, j]) for i, a in enumerate(ALPHAS)]
shift = {"ntk": WIDTH**0.5, "mean_field": 1.0}
for j, name in enumerate(NAMES):
    column = by_name.budget["feature learning"][:, j]
    label = f"{name.replace('_', ' ')}, width {WIDTH}"
    points += [(label, a * shift[name], column[i]) for i, a in enumerate(MORE)]
labels = list(dict.fromkeys(label for label, *_ in points))
scaled, gap = (np.array([p[k] for p in points]) for k in (1, 2))
lazy = scaled > 8
fit, cov = np.polyfit(np.log(scaled[lazy]), np.log(gap[lazy]), 1, cov=True)
slope, slope_error = fit[0], cov[0, 0] ** 0.5
scatter = np.std(np.log(gap[lazy]) - np.polyval(fit, np.log(scaled[lazy])), ddof=2)
alone = np.polyfit(np.log([a for a in ALPHAS for _ in WIDTHS]), np.log(gaps.ravel()), 1)
print(f"lazy phase: feature learning ~ (alpha sqrt(h))^p with p = {slope:.2f} +- {slope_error:.2f}")
print(f"scatter around one curve: a factor of {np.exp(scatter):.2f}")

# %%
figure, ax = plt.subplots(1, 2, figsize=(11.5, 4.4), layout="constrained")
colours = ("#0072B2", "#56B4E9", "#009E73", "#E69F00", "#CC79A7")
for k, label in enumerate(labels):
    chosen = np.array([p[0] == label for p in points])
    look = {"color": colours[k], "marker": "osD^v"[k], "label": label, "linewidth": 1.2}
    root = shift["mean_field"] if "mean" in label else int(label.split()[-1]) ** 0.5
    ax[0].plot(scaled[chosen] / root, gap[chosen], **look)
    ax[1].plot(scaled[chosen], gap[chosen], **look)
across = np.array([scaled[lazy].min(), scaled.max()])
ax[1].plot(across, np.exp(np.polyval(fit, np.log(across))), "k--", label=f"power {slope:.2f}")
for a in ax:
    a.set(xscale="log", yscale="log", ylabel="gap of feature learning")
    a.legend(frameon=False, fontsize=8)
ax[0].set_xlabel(r"$\alpha$")
ax[1].set_xlabel(r"$\alpha \sqrt{h}$ ($\alpha$ alone for mean field)")
ax[0].set_title("Five curves against the output scale", loc="left", fontsize=10, fontweight="bold")
ax[1].set_title("... and one against its product with the root of the width", loc="left",
                fontsize=10, fontweight="bold")  # fmt: skip
plt.show()
