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
# # 11. Robustness and size
#
# A model with as many parameters as examples can fit any labels. To fit noisy labels *smoothly*,
# it needs far more: Bubeck and Sellke ([arXiv:2105.12806](https://arxiv.org/abs/2105.12806)) prove
# that whatever the model, its Lipschitz constant is at least of order
#
# $$ \sigma^2 \sqrt{\frac{n d}{p}}, $$
#
# with $n$ examples of norm one in $d$ dimensions, $p$ parameters and noise level $\sigma^2$. It is
# a lower bound: their theorem divides it by $2^9$ and the root of a logarithm. Do models come near
# it? Here are three kinds that interpolate noisy labels of handwritten digits: random features, of
# which kernel theory says beforehand how steep they are; kernel predictors, which have infinitely
# many features; and networks trained in all layers.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import ntk_lab as ntk

N, SEEDS = 100, 8
COLOURS = {20: "#0072B2", 40: "#009E73", 80: "#D55E00"}
data = ntk.data.mnist_5k(train=3000, test=1000)
(pixels, classes), (test_pixels, _) = data.train, data.test
flat, test_flat = pixels.reshape(len(pixels), -1), test_pixels.reshape(len(test_pixels), -1)
variances, directions = np.linalg.eigh(np.cov(flat.T))


def whitened(d):
    """Leading `d` principal components, of equal variance; every image of norm sqrt(d)."""
    to_white = directions[:, -d:] / np.sqrt(variances[-d:])
    scores = [(p - flat.mean(0)) @ to_white for p in (flat, test_flat)]
    x, probes = (s * np.sqrt(d) / np.linalg.norm(s, axis=1, keepdims=True) for s in scores)
    return jnp.asarray(x, jnp.float32), jnp.asarray(probes[:100], jnp.float32)


def labels(noise, n=N):
    """Even or odd, and random signs that make up the share `noise` of the variance."""
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(n, 1))
    parity = np.where(classes[:n, None] % 2 == 0, 1.0, -1.0)
    return jnp.asarray(np.sqrt(1 - noise) * parity + np.sqrt(noise) * signs, jnp.float32)


def mean_and_error(values):
    """Over the first axis."""
    return values.mean(0), values.std(0, ddof=1) / len(values) ** 0.5


def power(sizes, values):
    """Power of `sizes` in each row of `values`: mean and standard error over rows."""
    return mean_and_error(np.polyfit(np.log(sizes), np.log(values).T, 1)[0])


# %% [markdown]
# ## Random features
#
# One layer of random Relu features, and the readout of least norm that fits pure noise: random
# signs. Steepness is the gradient at 100 other images, in units of outputs over the norm of an
# image. Kernel theory says (`predicted_sensitivity`)
#
# $$ |\nabla f_p|^2 = |\nabla f_K|^2 + \frac{C}{p - n - 1}, $$
#
# with $f_K$ the kernel predictor that infinitely many features give, and $C$ of order $n d$. So
# there is a part that falls by the law, and one that stays.

# %%
net = ntk.nn.Sequential(ntk.nn.Dense(1, w_std=2**0.5), ntk.nn.Relu(), ntk.nn.Dense(1))
WIDTHS = (160, 300, 600, 1200)


def kernel_predictor(x, y):
    """The function of coefficients and input, and the coefficients that fit."""
    gram = np.asarray(net.kernel(x).nngp, np.float64)
    return ntk.theory.kernel_function(net, x), np.linalg.solve(gram, np.asarray(y, np.float64))


def kernel_steepness(x, y, probes):
    """Root mean square gradient of the kernel predictor, in the same units."""
    f, alpha = kernel_predictor(x, y)
    found = ntk.theory.lipschitz_lower_bound(f, jnp.asarray(alpha, jnp.float32), probes)
    return float(jnp.sqrt(x.shape[1] * jnp.mean(found.at_data**2)))


found, theory, limit = {}, {}, {}
for d in COLOURS:
    x, probes = whitened(d)
    given = net, x[:N], labels(1.0), probes, WIDTHS
    found[d] = ntk.theory.sensitivity_of_size(*given, seeds=SEEDS, key=jax.random.key(0))
    theory[d] = ntk.theory.predicted_sensitivity(*given, key=jax.random.key(1), draws=6)
    limit[d] = kernel_steepness(x[:N], labels(1.0), probes)

# %% [markdown]
# Noise: the same at one size, over shares of noise.

# %%
SHARES, SIZE = (0.0, 0.25, 0.5, 0.75, 1.0), (600,)
x, probes = whitened(80)
noisy, noisy_theory = [], []
for share in SHARES:
    given = net, x[:N], labels(share), probes, SIZE
    measured = ntk.theory.sensitivity_of_size(*given, seeds=SEEDS, key=jax.random.key(0))
    noisy.append(measured.typical[:, 0])
    predicted = ntk.theory.predicted_sensitivity(*given, key=jax.random.key(1), draws=6)
    noisy_theory.append(predicted[0])
noisy, noisy_theory = np.array(noisy).T, np.array(noisy_theory)

# %% [markdown]
# ## Kernel predictors
#
# The law says nothing of them, as $p = \infty$. How steep are they? From below: the largest
# gradient that ascent finds within half the norm of an image. From above: the norm of the predictor
# in the kernel's space times the Lipschitz constant of the map into it.

# %%
EXAMPLES = (25, 50, 100, 200, 400)
x, _ = whitened(20)
norm = 20**0.5
kernel_bounds = []
for n in EXAMPLES:
    f, alpha = kernel_predictor(x[:n], labels(1.0, n))
    lower = ntk.theory.lipschitz_lower_bound(
        f, jnp.asarray(alpha, jnp.float32), x[:n], radius=norm / 2
    )
    upper = ntk.theory.kernel_lipschitz_bound(net, x[:n], alpha)
    kernel_bounds.append((norm * lower.value, norm * upper))
kernel_bounds = np.array(kernel_bounds)

# %% [markdown]
# ## Networks trained in all layers
#
# Two layers with biases, 100 examples in 20 dimensions, Adam until they interpolate. Now
# $p = k (d + 2)$ for $k$ neurons. The lower bound is found as before; the product of spectral norms
# bounds it from above.

# %%
HIDDEN, NETWORKS, STEPS = (16, 32, 64, 128, 256), 4, 1500
y = labels(1.0)
trained = []
for k in HIDDEN:
    mlp = ntk.nn.Sequential(
        ntk.nn.Dense(k, w_std=2**0.5, b_std=0.1), ntk.nn.Relu(), ntk.nn.Dense(1)
    )
    keys = jax.random.split(jax.random.key(2), NETWORKS)
    run = ntk.train.ensemble(
        mlp.apply, jax.vmap(lambda key, mlp=mlp: mlp.init(key, (20,)))(keys), x[:N], y,
        optimizer=optax.adam(optax.cosine_decay_schedule(0.03, STEPS)), steps=STEPS,
        record=(0, STEPS), keep_params="ends",
    )  # fmt: skip
    for seed in range(NETWORKS):
        params = jax.tree.map(lambda p, seed=seed: jnp.asarray(p[seed, -1]), run.params)
        lower = ntk.theory.lipschitz_lower_bound(mlp.apply, params, x[:N], radius=norm / 2)
        upper = ntk.theory.lipschitz_upper_bound(mlp, params, (20,))
        trained.append((2 * run.loss[seed, -1], norm * lower.value, norm * upper.value))
errors, lowers, uppers = np.moveaxis(np.array(trained).reshape(len(HIDDEN), NETWORKS, 3), -1, 0)
sizes = np.array(HIDDEN) * 22
print("largest mean squared training error by size:")
print({int(p): f"{e:.1e}" for p, e in zip(sizes, errors.max(1), strict=True)})

# %%
figure, ax = plt.subplots(2, 2, figsize=(11.5, 8.4), layout="constrained")
features, noise, kernels, networks = ax.ravel()
for d, colour in COLOURS.items():
    mean, error = mean_and_error(found[d].typical)
    features.errorbar(WIDTHS, mean, 2 * error, fmt="o", color=colour, capsize=3, markersize=4,
                      label=f"measured, d = {d}")  # fmt: skip
    features.plot(WIDTHS, theory[d], color=colour)
    features.plot(WIDTHS, ntk.theory.robustness_law(N, d, WIDTHS), ":", color=colour)
features.plot([], [], color="black", label="kernel theory")
features.plot([], [], ":", color="black", label=r"law $\sqrt{nd/p}$")
features.set(xscale="log", yscale="log", xlabel="parameters p",
             ylabel="gradient × norm of an image", ylim=(0.9, 40))  # fmt: skip
mean, error = mean_and_error(noisy**2)
noise.errorbar(SHARES, mean, 2 * error, fmt="o", capsize=3, color=COLOURS[80], label="measured")
noise.plot(SHARES, noisy_theory**2, color=COLOURS[80], label="kernel theory")
noise.set(xlabel="share of noise", ylabel="(gradient × norm of an image)²", ylim=(0, None))
kernels.plot(EXAMPLES, kernel_bounds[:, 1], "o-", color="#999999", label="upper bound")
kernels.plot(EXAMPLES, kernel_bounds[:, 0], "o-", color="#009E73", label="lower bound")
kernels.set(xscale="log", yscale="log", xlabel="examples n", ylabel="Lipschitz constant × norm")
kernels.set_xticks(EXAMPLES, [str(n) for n in EXAMPLES])
for values, colour, label in ((uppers, "#999999", "upper bound"),
                              (lowers, "#009E73", "lower bound")):  # fmt: skip
    mean, error = mean_and_error(values.T)
    networks.errorbar(sizes, mean, 2 * error, fmt="o-", color=colour, capsize=3, label=label)
networks.plot(sizes, ntk.theory.robustness_law(N, 20, sizes), "k:", label=r"law $\sqrt{nd/p}$")
networks.set(xscale="log", yscale="log", xlabel="parameters p", ylabel="Lipschitz constant × norm")
networks.set_xticks(sizes, [str(p) for p in sizes])
features.set_xticks(WIDTHS, [str(p) for p in WIDTHS])
for a, title in zip(
    ax.ravel(),
    ("Random features that fit noise", "Random features, d = 80, p = 600",
     "Kernel predictors that fit noise, d = 20", "Trained networks that fit noise, d = 20"),
    strict=True,
):  # fmt: skip
    a.set_title(title, loc="left", fontsize=10, fontweight="bold")
    a.legend(frameon=False, fontsize=8)
    if a is not noise:
        a.minorticks_off()
        low, high = a.get_ylim()
        ticks = [t for t in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if low <= t <= high]
        a.set_yticks(ticks, [str(t) for t in ticks])
plt.show()

# %% [markdown]
# Random features do what kernel theory says, within a few per cent and with nothing fitted. They
# are a few times steeper than the law, and their falling part falls by its power of $p$ (a
# half in the gradient, one in its square). They do not follow it further: beyond some size the
# kernel predictor is left, whose steepness no number of features takes away, and the dimension
# enters less than by $\sqrt d$ among these few images, as theory knows. Noise costs little more
# than parity itself, which is nearly as irregular to 100 examples. Networks trained in all layers
# interpolate just as well and hardly become flatter with size: more than the law asks for, by a
# factor that grows. The law says what is possible; gradient descent is not made to find it.
#
# ## The claims, checked


# %%
def say(what, predicted, value, error):
    """One claim; the relative difference and standard errors."""
    z, off = (value - predicted) / error, value / predicted - 1
    print(f"{what}: predicted {predicted:.3f}, measured {value:.3f} +- {error:.3f}, "
          f"agreement in standard errors {z:+.1f} ({off:+.1%})")  # fmt: skip
    return off


off = []
for d in COLOURS:
    for p, expected, mean, error in zip(
        WIDTHS, theory[d], *mean_and_error(found[d].typical), strict=True
    ):
        off.append(say(f"steepness, d = {d}, p = {p}", expected, mean, error))
off += [
    say(f"share of noise {share}, squared steepness", expected, mean, error)
    for share, expected, mean, error in zip(
        SHARES, noisy_theory**2, *mean_and_error(noisy**2), strict=True
    )
]
above = np.array(WIDTHS) - N - 1
for d in COLOURS:
    excess = found[d].typical ** 2 - limit[d] ** 2
    say(f"power of p - n - 1 in what falls of the square, d = {d}", -1.0, *power(above, excess))
# How the falling part grows with dimension, at the smallest size, where it is nearly the whole.
excess = np.stack([found[d].typical[:, 0] ** 2 - limit[d] ** 2 for d in COLOURS], 1)
expected = np.log([theory[d][0] ** 2 - limit[d] ** 2 for d in COLOURS])
by_dimension = np.polyfit(np.log(list(COLOURS)), expected, 1)[0]
say("power of d in it (the law: 1)", by_dimension, *power(list(COLOURS), excess))
ratio = min(
    float((found[d].largest / ntk.theory.robustness_law(N, d, WIDTHS)).min()) for d in COLOURS
)
ratio_trained = float((lowers / ntk.theory.robustness_law(N, 20, sizes)[:, None]).min())
print(f"least ratio of a lower bound to the law: random features {ratio:.1f}, trained networks "
      f"{ratio_trained:.1f}; the theorem asks for less than 1/512")  # fmt: skip
slope, slope_error = power(sizes, lowers.T)
print(f"power of p in the lower bounds of trained networks: the law -0.5, measured {slope:.2f} "
      f"+- {slope_error:.2f}, in standard errors {(slope + 0.5) / slope_error:+.1f}")  # fmt: skip
gap, gap_trained = kernel_bounds[:, 1] / kernel_bounds[:, 0], uppers / lowers
print(f"upper over lower bounds: kernel predictors {gap.min():.1f} to {gap.max():.1f}, trained "
      f"networks {gap_trained.min():.1f} to {gap_trained.max():.1f}")  # fmt: skip
assert np.abs(off).max() < 0.3, "kernel theory says how steep random features are"
assert errors.max() < 1e-2, "networks interpolate"
assert (lowers < uppers).all()
assert (kernel_bounds[:, 0] < kernel_bounds[:, 1]).all()
assert min(ratio, ratio_trained) > 1 / 512, "no model is below the law"
assert all(found[d].typical[:, 0].min() > found[d].typical[:, -1].max() for d in COLOURS)
