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
# # 10. Learning curves from the spectrum
#
# How many examples does a wide network need? Its kernel's eigenvalues $\lambda_i$ and the target's
# coefficients $v_i$ say it before any training (Bordelon, Canatar, Pehlevan,
# [arXiv:2006.13198](https://arxiv.org/abs/2006.13198); Simon et al.,
# [arXiv:2110.03922](https://arxiv.org/abs/2110.03922)). With $\kappa$ from
# $n = \sum_i \frac{\lambda_i}{\lambda_i+\kappa} + \frac{\delta}{\kappa}$, ridge $\delta$, noise
# $\sigma^2$ and learnabilities $L_i = \frac{\lambda_i}{\lambda_i+\kappa}$,
# $$E = \mathcal{E}_0 \left(\sum_i (1-L_i)^2 v_i^2 + \sigma^2\right),
# \qquad \mathcal{E}_0 = \frac{n}{n - \sum_i L_i^2}.$$
# The theory takes eigenfunctions for Gaussian variables. Is that good enough for images?

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import ntk_lab as ntk

net = ntk.nn.Sequential(
    ntk.nn.Flatten(), ntk.nn.Dense(1024, w_std=2**0.5, b_std=0.1), ntk.nn.Relu(), ntk.nn.Dense(10)
)


def population(data):
    """Images, centred one-hot targets and kernel."""
    x = np.concatenate([data.train[0], data.test[0]])
    y = np.eye(10)[np.concatenate([data.train[1], data.test[1]])] - 0.1
    return x, y, np.asarray(net.kernel(jnp.asarray(x)).ntk, np.float64)


digits = population(ntk.data.digits(train=1297, test=500))
mnist = population(ntk.data.mnist_5k(train=1000, test=800))
D = 10
rng = np.random.default_rng(0)
sphere_x = rng.standard_normal((1800, D))
sphere_x *= (D / (sphere_x**2).sum(1, keepdims=True)) ** 0.5
# A linear and a quadratic harmonic, each of mean square 1.
sphere_y = sphere_x[:, :1] + sphere_x[:, :1] * sphere_x[:, 1:2] * ((D + 2) / D) ** 0.5
sphere_kernel = np.asarray(net.kernel(jnp.asarray(sphere_x, jnp.float32)).ntk, np.float64)

# %% [markdown]
# ## The kernel: three data sets
#
# For digits and 1800 images of MNIST-5k the images themselves are the whole population: modes are
# those of their kernel matrix, training sets random subsets, and the error that over everything.
# On the sphere nothing is estimated: eigenvalues by quadrature, multiplicities of the harmonics.


# %%
def on_circle(t):
    """The kernel of two points of the sphere at cosine ``t``."""
    pairs = np.zeros((len(t), D), np.float32)
    pairs[:, 0], pairs[:, 1] = t, np.sqrt(1 - t**2)
    pairs *= D**0.5
    return np.asarray(net.kernel(jnp.asarray(D**0.5 * np.eye(D, dtype=np.float32)[:1]), pairs).ntk)[
        0
    ]


def as_arrays(*values):
    """In the default precision."""
    return [jnp.asarray(v, jnp.float32) for v in values]


SIZES = (8, 16, 32, 64, 128, 256)
FINE = np.geomspace(6, 340, 40)
sphere = ntk.theory.sphere_spectrum(on_circle, D, 60)
sphere_power = np.zeros(60)
sphere_power[1:3] = 1
spectra = {
    "digits": (*ntk.theory.kernel_modes(*digits[:0:-1]), None),
    "MNIST-5k": (*ntk.theory.kernel_modes(*mnist[:0:-1]), None),
    "sphere": (np.maximum(sphere.eigenvalues, 0), sphere_power, sphere.multiplicity),
}
problems = {
    "digits": digits[:0:-1],
    "MNIST-5k": mnist[:0:-1],
    "sphere": (sphere_kernel, sphere_y),
}


def theory(name, n, **settings):
    """Predicted curve."""
    values, power, counts = spectra[name]
    return ntk.theory.learning_curve(*as_arrays(values, power, n), multiplicity=counts, **settings)


def measure(name, sizes, seed, **settings):
    """Measured curve."""
    return ntk.theory.measured_learning_curve(
        *problems[name], sizes, key=jax.random.key(seed), repeats=10, **settings
    )


RIDGE = 1.0
settings = {
    "no ridge": {},
    "no ridge, noise": {"noise": 0.5},
    "ridge, noise": {"noise": 0.5, "ridge": RIDGE},
}
measured = {
    (name, label): measure(name, SIZES, i, **s)
    for i, (label, s) in enumerate(settings.items())
    for name in problems
}

# %% [markdown]
# ## The network
#
# The same architecture at width 1024, trained on subsets of digits by gradient descent with
# momentum until it stands still. Ridge is weight decay towards the initial parameters, and each
# network's initial outputs are taken away, so that it starts at zero as the kernel does.


# %%
def moved(params, x):
    """A network as a function of how far its parameters moved."""
    start = jax.lax.stop_gradient(params["start"])
    end = jax.tree.map(jnp.add, start, params["move"])
    return net.apply(end, x) - net.apply(start, x)


NETWORK_SIZES, SEEDS = (16, 64, 256), 4
network_errors = np.empty((len(NETWORK_SIZES), SEEDS))
x_all, y_all = as_arrays(*digits[:2])
for i, n in enumerate(NETWORK_SIZES):
    for seed in range(SEEDS):
        chosen = rng.choice(len(x_all), n, replace=False)
        start = net.init(jax.random.key(seed), x_all.shape[1:])
        params = {"start": start, "move": jax.tree.map(jnp.zeros_like, start)}
        top = np.linalg.eigvalsh(digits[2][np.ix_(chosen, chosen)])[-1]
        decay = optax.add_decayed_weights(RIDGE / n, mask={"start": False, "move": True})
        run = ntk.train.ensemble(
            moved, jax.tree.map(lambda p: p[None], params), x_all[chosen], y_all[chosen], x_all,
            optimizer=optax.chain(decay, optax.sgd(float(n / (top + RIDGE)), momentum=0.9)),
            steps=300, record=(0, 300),
        )  # fmt: skip
        network_errors[i, seed] = ((run.test[0, -1] - y_all) ** 2).sum(1).mean()
network = network_errors.mean(1), network_errors.std(1, ddof=1) / SEEDS**0.5

# %%
figure, ax = plt.subplots(1, 3, figsize=(14, 4.4), layout="constrained")
colours = dict(zip(settings, ("#0072B2", "#D55E00", "#009E73"), strict=True))
for a, name in zip(ax, problems, strict=True):
    for label, s in settings.items():
        curve = theory(name, FINE, **s).test_error - s.get("noise", 0)
        a.plot(FINE, curve, color=colours[label], linewidth=1.5)
        m = measured[name, label]
        a.errorbar(m.n, m.mean, 2 * m.standard_error, fmt="o", color=colours[label], capsize=3,
                   markersize=4, label=label)  # fmt: skip
    a.set(xscale="log", yscale="log", xlabel="training examples n")
    a.set_xticks(SIZES, [str(n) for n in SIZES])
    a.minorticks_off()
    a.set_title(name, loc="left", fontsize=10, fontweight="bold")
clean = theory("digits", FINE, ridge=RIDGE).test_error
ax[0].plot(FINE, clean, "k", linewidth=1.2)
ax[0].errorbar(NETWORK_SIZES, network[0], 2 * network[1], fmt="ks", capsize=3, markersize=5,
               label="networks (ridge, no noise)")  # fmt: skip
ax[0].set_ylabel("mean squared error on all inputs")
ax[0].legend(frameon=False, fontsize=8, title="lines: theory; bars: 2 standard errors")
plt.show()

# %% [markdown]
# ## Mode by mode, and how far the law reaches
#
# Eigenmodes compete for examples: the learnabilities of all modes add up to $n$. Right: a power
# law through measured errors at up to 128 examples of MNIST (those on images not trained on),
# extrapolated eight times further, with its 95% interval, beside what was measured there.

# %%
kernel, _ = digits[:0:-1]
values, vectors = np.linalg.eigh(kernel)
values, vectors = values[::-1][:300], vectors[:, ::-1][:, :300]
MODES_N, REPEATS = 64, 10
learnt = np.empty((REPEATS, 300))
for r in range(REPEATS):
    chosen = rng.choice(len(kernel), MODES_N, replace=False)
    part = vectors[chosen]
    learnt[r] = values * (part * np.linalg.solve(kernel[np.ix_(chosen, chosen)], part)).sum(0)
learnability = np.asarray(theory("digits", MODES_N).learnability)[:300]
N = len(mnist[0])
FAR = (256, 512, 1024)
near = measure("MNIST-5k", (16, 32, 64, 128), 7)
far = measure("MNIST-5k", FAR, 8)
held_out = N / (N - near.n)
law = ntk.theory.fit_power_law(near.n, near.mean * held_out, near.standard_error * held_out)
figure, ax = plt.subplots(1, 2, figsize=(11.5, 4.2), layout="constrained")
index = np.arange(1, 301)
ax[0].errorbar(index, learnt.mean(0), 2 * learnt.std(0, ddof=1) / REPEATS**0.5, fmt="o",
               markersize=2.5, color="#999999", linewidth=0.7, label="measured")  # fmt: skip
ax[0].plot(index, learnability, color="#D55E00", linewidth=2, label="theory")
ax[0].set(xscale="log", xlabel="mode", ylabel=f"learnability from {MODES_N} digits")
ax[0].legend(frameon=False)
grid = np.geomspace(14, 1100, 40)
line, low, high = law.at(grid)
ax[1].fill_between(grid, low, high, color="#0072B2", alpha=0.2, linewidth=0)
ax[1].plot(grid, line, color="#0072B2", label=f"power law $n^{{{law.exponent:.2f}}}$, 95%")
curve = np.asarray(theory("MNIST-5k", grid).test_error) * N / (N - grid)
ax[1].plot(grid, curve, color="#D55E00", label="spectrum")
for m, style in ((near, "o"), (far, "s")):
    factor = N / (N - m.n)
    ax[1].errorbar(m.n, m.mean * factor, 2 * m.standard_error * factor, fmt="k" + style,
                   capsize=3, markersize=4, label=None if m is near else "not in the fit")  # fmt: skip
ax[1].set(xscale="log", yscale="log", xlabel="training examples n", ylabel="held-out error")
ax[1].set_xticks((16, 64, 256, 1024), ("16", "64", "256", "1024"))
ax[1].minorticks_off()
ax[1].legend(frameon=False)
ax[0].set_title("Digits: what each mode learns", loc="left", fontsize=10, fontweight="bold")
ax[1].set_title("MNIST-5k: extrapolation", loc="left", fontsize=10, fontweight="bold")
plt.show()

# %% [markdown]
# ## The claims, checked
#
# Where measured errors are known to a per cent, so small a difference from the theory shows in
# standard errors: on real images eigenfunctions are not Gaussian. What counts is then its size.


# %%
def say(what, predicted, value, error):
    """One claim; the relative difference."""
    z, off = (value - predicted) / error, value / predicted - 1
    print(f"{what}: predicted {predicted:.3f}, measured {value:.3f} +- {error:.3f}, "
          f"agreement in standard errors {z:+.1f} ({off:+.1%})")  # fmt: skip
    return off


off = {}
for (name, label), m in measured.items():
    s = settings[label]
    expected = np.asarray(theory(name, SIZES, **s).test_error) - s.get("noise", 0)
    off[name, label] = [
        say(f"{name}, {label}, n = {n}", expected[i], m.mean[i], m.standard_error[i])
        for i, n in enumerate(SIZES) if n in (32, 256)
    ]  # fmt: skip
expected = np.asarray(theory("digits", NETWORK_SIZES, ridge=RIDGE).test_error)
network_off = [
    say(f"networks on digits, n = {n}", expected[i], network[0][i], network[1][i])
    for i, n in enumerate(NETWORK_SIZES)
]
line, low, high = law.at(FAR)
for i, n in enumerate(FAR):
    inside = bool(low[i] <= far.mean[i] * N / (N - n) <= high[i])
    print(f"power law at n = {n}: {line[i]:.3f} in ({low[i]:.3f}, {high[i]:.3f}), measured "
          f"{far.mean[i] * N / (N - n):.3f} +- {far.standard_error[i] * N / (N - n):.3f}, "
          f"{'inside' if inside else 'outside'}")  # fmt: skip
total = learnt.mean(0)[:10].mean()
say("learnability of the first ten modes", learnability[:10].mean(), total,
    learnt[:, :10].mean(1).std(ddof=1) / REPEATS**0.5)  # fmt: skip
assert max(abs(o) for part in off.values() for o in part) < 0.35, "the spectrum predicts errors"
assert np.abs(learnt.mean(0) - learnability).mean() < 0.05, "mode by mode"
assert max(map(abs, network_off)) < 0.3, "wide networks have the kernel's learning curve"
assert law.exponent < 0
