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
    ntk.nn.Dense(10, w_std=1.5),
)
stable = float(ntk.predict.max_learning_rate(net.kernel(data.train[0]).ntk))
run = {"seeds": 2, "steps": 50, "record": (50,), "learning_rate": 0.1 * stable, "tolerance": 0.25,
       "kernel_points": 12}  # fmt: skip

# %% [markdown]
# ## Width and output scale
#
# Each cell trains networks and asks whether the kernel of infinite width predicts them at the end.

# %%
WIDTHS, ALPHAS = (64, 256, 1024), (0.002, 0.01, 0.05, 0.25)
diagram = ntk.phase_diagram(net, *data, x=("width", WIDTHS), y=("alpha", ALPHAS), **run)
print(diagram)

# %% [markdown]
# ## Parameterization and output scale
#
# At one width, the readout of NTK parameterization beside that of the mean-field limit.

# %%
NAMES, WIDTH, MORE = ("ntk", "mean_field"), 1024, (0.1, 0.4, 1.6)
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
# Left: no $\alpha$ makes the narrow networks predictable, since their kernel is not yet the limit.
# Wider ones are predicted above a certain $\alpha$, which falls as the width grows. Right: a
# mean-field readout needs an $\alpha$ that is $\sqrt h = 32$ times larger for the same verdict.
#
# ## One variable
#
# The total mixes two things. Alone, the gap of *feature learning* (between a network and its own
# linearization) should depend on $\alpha\sqrt h$ only, whatever the width and the parameterization.
# In the lazy phase parameters move by $\delta \sim 1/(\alpha\sqrt h)$, and in general the first
# correction is of that order. Here it is smaller: so that $F$ starts at zero, `compare` trains
# $\alpha\,(f_\theta - f_{\theta'})/\sqrt 2$ with two copies that begin equal and move opposite
# ways. Their quadratic terms cancel, and $\delta^2 \sim (\alpha\sqrt h)^{-2}$ is left.

# %%
points = []  # label, alpha * sqrt(h), gap
gaps = diagram.budget["feature learning"]
for j, width in enumerate(WIDTHS):
    points += [(f"width {width}", a * width**0.5, gaps[i, j]) for i, a in enumerate(ALPHAS)]
shift = {"ntk": WIDTH**0.5, "mean_field": 1.0}  # a mean-field readout is alpha = 1 / sqrt(h)
for j, name in enumerate(NAMES):
    column = by_name.budget["feature learning"][:, j]
    label = f"{name.replace('_', ' ')}, width {WIDTH}"
    points += [(label, a * shift[name], column[i]) for i, a in enumerate(MORE)]
labels = list(dict.fromkeys(label for label, *_ in points))
scaled, gap = (np.array([p[k] for p in points]) for k in (1, 2))
lazy = scaled > 1.5
fit, cov = np.polyfit(np.log(scaled[lazy]), np.log(gap[lazy]), 1, cov=True)
slope, slope_error = fit[0], cov[0, 0] ** 0.5
scatter = np.std(np.log(gap[lazy]) - np.polyval(fit, np.log(scaled[lazy])), ddof=2)
apart = float(np.exp(np.ptp(np.log(gaps), axis=1).max()))
print(f"lazy phase: feature learning ~ (alpha sqrt(h))^p with p = {slope:.2f} +- {slope_error:.2f}")
print(f"scatter around one curve: a factor of {np.exp(scatter):.2f}, "
      f"where widths at one alpha differ by up to {apart:.0f}")  # fmt: skip

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

# %% [markdown]
# Left, curves that have nothing in common but their shape. Right, nearly one curve over three
# orders of magnitude (the narrowest network lies above it, by corrections of finite width): at
# $\alpha\sqrt h \approx 1$ it leaves the straight line of the lazy phase and bends into the rich
# one. That NTK and mean-field points lie on it too is the point of arXiv:1906.08034: these are not
# two theories, but two places on one axis.
#
# ## The claims, checked

# %%
status = {(w, a): diagram.names()[i, j] for i, a in enumerate(ALPHAS) for j, w in enumerate(WIDTHS)}
assert status[1024, 0.25] == "predicts", "wide and lazy: kernel regression predicts"
assert status[1024, 0.002] == "fails", "as wide, but rich: it fails"
assert status[64, 0.25] == "fails", "as lazy, but narrow: it fails"
assert diagram.causes[0, -1] == "feature learning"
assert diagram.causes[-1, 0] == "finite-width kernel"
assert set(by_name.names()[:, 0]) == {"predicts"}
assert by_name.names()[0, 1] == "fails", "mean field is richer at the same alpha"
print(f"power of the lazy phase: {(slope + 2) / slope_error:+.1f} standard errors from -2")
assert abs(slope + 2) < 0.1 + 3 * slope_error, "the gap falls as (alpha sqrt(h))^-2"
assert np.exp(scatter) < 2.2 < 10 < apart, "one variable, not two"
