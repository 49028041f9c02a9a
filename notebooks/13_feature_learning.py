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
# # 13. Feature learning made visible
#
# The kernel of an infinitely wide network never moves, so it cannot find out which directions of
# the input matter. Networks can. What they find is visible in the *average gradient outer product*
#
# $$ M = \frac1n \sum_i \nabla f(x_i)\, \nabla f(x_i)^\top, $$
#
# and Radhakrishnan et al. ([arXiv:2212.13881](https://arxiv.org/abs/2212.13881)) claim that this
# is all there is to it: a kernel that stretches its inputs by $M^{1/2}$, in turns with regression
# (the *recursive feature machine*), learns what a network learns. Here both stand beside the
# kernels that do not move, and beside the network's own kernel after training.

# %%
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import ntk_lab as ntk

D, TRAIN, TEST, DRAWS = 30, 300, 1000, 3
DESCENT = optax.sgd(5.0)
SUBSET = {  # as functions of +-1 variables of which only the first few matter
    "single index": lambda x: jnp.sign(x[:, :3].sum(1, keepdims=True)),
    "parity of two": lambda x: x[:, :1] * x[:, 1:2],
    "staircase": lambda x: (x[:, :1] * (1 + x[:, 1:2] * (1 + x[:, 2:3]))) / 3**0.5,
}
MATTER = {"single index": 3, "parity of two": 2, "staircase": 3}


def draw(seed, rows):
    """Uniform on the corners of the cube."""
    return jax.random.rademacher(jax.random.key(seed), (rows, D), jnp.float32)


# %% [markdown]
# ## Six learners of targets that hide in three of thirty coordinates
#
# Kernels: Laplace, and the NTK of a network with one hidden layer. Each once as it is and once as a
# recursive feature machine. The network is trained by gradient descent from 0.03 times
# its usual initial parameters, so that it must move far (rich, see notebook 3); its *after-kernel*
# is its NTK at the end. Errors are relative to the variance of the target, with standard errors
# over three draws of the data.

# %%
laplace = partial(ntk.predict.laplace_kernel, bandwidth=6.0)
wide = ntk.nn.Sequential(ntk.nn.Dense(256, 2**0.5, 0.3), ntk.nn.Relu(), ntk.nn.Dense(1))


def six(target, seed):
    """Test predictions of every learner, the final metric, and the trained network."""
    x, new = draw(2 * seed, TRAIN), draw(2 * seed + 1, TEST)
    y, y_new = target(x), target(new)
    found, metrics, ridge = {}, {}, 1e-3
    for name, kernel in (("Laplace", laplace), ("NTK", wide)):
        machine = ntk.predict.recursive_feature_machine(kernel, x, y, iterations=4, ridge=ridge)
        found[name], found[f"{name} machine"] = (machine.predict(new, i) for i in (0, -1))
        metrics[name] = machine.metrics[-1]
    first = jax.tree.map(lambda p: 0.03 * p, wide.init(jax.random.key(seed), (D,)))
    run = ntk.train.ensemble(
        wide.apply, jax.tree.map(lambda p: p[None], first), x, y, optimizer=DESCENT,
        steps=1000, record=(1000,), keep_params="ends",
    )  # fmt: skip
    last = jax.tree.map(lambda p: jnp.asarray(p[0, -1]), run.params)
    after = ntk.after_kernel_regression(
        wide.apply, first, last, (x, y), (new, y_new), ridge=ridge, start="zero"
    )
    found |= {"network": after.outputs["network"], "after-kernel": after.outputs["after kernel"]}
    variance = float(jnp.mean(y_new**2))
    errors = {n: float(jnp.mean((f - y_new) ** 2)) / variance for n, f in found.items()}
    return errors, metrics["Laplace"], (last, x)


table, metrics, trained = {}, {}, {}
for name, target in SUBSET.items():
    runs = [six(target, seed) for seed in range(DRAWS)]
    table[name] = {k: np.array([r[0][k] for r in runs]) for k in runs[0][0]}
    metrics[name] = [r[1] for r in runs]
    trained[name] = [r[2] for r in runs]
LEARNERS = ("Laplace", "NTK", "Laplace machine", "NTK machine", "after-kernel", "network")


def mean(values):
    """Mean and its standard error."""
    values = np.asarray(values)
    return values.mean(), values.std(ddof=1) / len(values) ** 0.5


print(f"{'test error':<16}" + "".join(f"{name:>19}" for name in SUBSET))
for learner in LEARNERS:
    cells = ["{:>10.2f} +- {:.2f}".format(*mean(table[name][learner])) for name in SUBSET]
    print(f"{learner:<16}" + "".join(f"{cell:>19}" for cell in cells))

# %% [markdown]
# The two kernels that do not move are invariant under rotations. With many more examples than
# dimensions but fewer than pairs of them, $d \ll n \ll d^2$, such a kernel learns the linear part
# of a target and nothing else ([arXiv:1904.12191](https://arxiv.org/abs/1904.12191)): 2/3 of the
# staircase and all of the parity should stay unlearnt. Here $n = 300 < d^2/2 = 450$ is near the end
# of that range, so that the parity is half learnt already. The machines and the network do not
# have this limit, since they find out which coordinates matter.
#
# ## What was found
#
# For the last draw of each target: the share that each coordinate has in the metric of the Laplace
# machine, in the gradients of the network, and in the weights of its first layer, which by the
# *neural feature ansatz* are proportional to the gradients.

# %%
ansatz = {
    name: [ntk.theory.feature_ansatz(wide, params, x)[0] for params, x in trained[name]]
    for name in SUBSET
}
start = ntk.theory.feature_ansatz(wide, wide.init(jax.random.key(0), (D,)), draw(0, TRAIN))[0]


def share(m):
    """Of each coordinate in the trace."""
    return np.diag(m) / np.trace(m)


def cosine(a, b):
    """Between matrices."""
    return float((a * b).sum() / (np.linalg.norm(a) * np.linalg.norm(b)))


correlation = {n: mean([a.correlation for a in ansatz[n]]) for n in SUBSET}
together = {
    n: mean([cosine(a.gradients, m) for a, m in zip(ansatz[n], metrics[n], strict=True)])
    for n in SUBSET
}
on_target = {n: mean([share(m)[: MATTER[n]].sum() for m in metrics[n]]) for n in SUBSET}
print(f"weights against gradients before training: {start.correlation:.2f}")
for n in SUBSET:
    print("{}: weights against gradients {:.3f} +- {:.3f}, ".format(n, *correlation[n])
          + "network against machine {:.2f} +- {:.2f}, ".format(*together[n])
          + "machine on what matters {:.3f} +- {:.3f}".format(*on_target[n]))  # fmt: skip

# %%
BLUE, SKY, GREEN, ORANGE, PINK, GREY = "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#CC79A7", "#777"
figure, ax = plt.subplots(2, 3, figsize=(12, 6), layout="constrained")
for j, name in enumerate(SUBSET):
    values = np.array([mean(table[name][k]) for k in LEARNERS])
    ax[0, j].barh(range(6), values[:, 0], xerr=values[:, 1],
                  color=[GREY, GREY, BLUE, SKY, ORANGE, GREEN])  # fmt: skip
    ax[0, j].set(yticks=range(6), yticklabels=LEARNERS if j == 0 else [""] * 6, xlim=(0, 1.1),
                 xlabel="test error / variance")  # fmt: skip
    ax[0, j].invert_yaxis()
    ax[0, j].set_title(name, loc="left", fontsize=10, fontweight="bold")
    rows = {"machine": metrics[name][-1], "gradients": ansatz[name][-1].gradients,
            "weights": ansatz[name][-1].weights}  # fmt: skip
    for k, (label, m) in enumerate(rows.items()):
        ax[1, j].plot(share(m)[:10], "o^s"[k] + "-", color=(BLUE, GREEN, ORANGE)[k], label=label)
    ax[1, j].set(xlabel="coordinate", ylabel="share of the trace" if j == 0 else "",
                 xticks=range(10))  # fmt: skip
ax[1, 0].legend(frameon=False)
plt.show()

# %% [markdown]
# ## On MNIST
#
# The Laplace machine on 800 images, with one iteration of the full metric $M$ and of the milder
# $M^{1/2}$, and the average gradient outer product of a network. What they look at can be drawn:
# the diagonal of $M$ is an image.

# %%
(x, labels), (new, labels_new) = ntk.data.mnist_5k(train=800, test=2000)
x, new = (jnp.asarray(a.reshape(len(a), -1)) for a in (x, new))
y = jnp.asarray(np.eye(10)[labels] - 0.1, jnp.float32)
mlp = ntk.nn.Sequential(ntk.nn.Dense(256, 2**0.5, 0.1), ntk.nn.Relu(), ntk.nn.Dense(10))
right, metric = {}, {}
for power in (1.0, 0.5):
    machine = ntk.predict.recursive_feature_machine(
        partial(ntk.predict.laplace_kernel, bandwidth=28.0), x, y, iterations=1, ridge=1e-3,
        power=power,
    )  # fmt: skip
    metric[power] = machine.metrics[-1]
    right[f"machine, power {power:g}"] = np.asarray(machine.predict(new)).argmax(1) == labels_new
right["Laplace"] = np.asarray(machine.predict(new, 0)).argmax(1) == labels_new
first = jax.tree.map(lambda p: 0.1 * p[None], mlp.init(jax.random.key(0), (784,)))
run = ntk.train.ensemble(
    mlp.apply, first, x, y, new, optimizer=optax.sgd(20.0), steps=200, record=(200,),
    keep_params="ends",
)  # fmt: skip
last = jax.tree.map(lambda p: jnp.asarray(p[0, -1]), run.params)
right["network"] = run.test[0, -1].argmax(1) == labels_new
agop = np.asarray(ntk.empirical.average_gradient_outer_product(mlp.apply, last, x))
gain = {}
for power in metric:
    difference = right[f"machine, power {power:g}"].astype(float) - right["Laplace"]
    gain[power] = difference.mean(), difference.std(ddof=1) / len(new) ** 0.5
for name, hits in right.items():
    print(f"{name:<18} accuracy {hits.mean():.3f} +- {hits.std() / len(hits) ** 0.5:.3f}")
for power in gain:
    print("power {:g}: machine less its kernel {:+.3f} +- {:.3f} (paired)".format(
        power, *gain[power]))  # fmt: skip
print(f"metric of the machine against that of the network: {cosine(metric[1.0], agop):.2f}")

# %% [markdown]
# ## Silent alignment
#
# When does the kernel turn? For a network from a small start, *before* the loss falls
# ([arXiv:2111.00034](https://arxiv.org/abs/2111.00034)): while the parameters still grow out of
# nearly nothing, the outputs stay small but the directions are settled. For two linear layers on
# white inputs all of it has a closed form in the limit of large width; the theory is that of
# `ntk.theory.silent_alignment`, with nothing fitted.

# %%
N, DIM, WIDTH, RATE, SEEDS = 64, 10, 1500, 4e-3, 5
SCALES, STEPS = (1e-1, 1e-3), (400, 1000)
white = np.linalg.qr(np.random.default_rng(0).normal(size=(N, DIM)))[0] * N**0.5
white = jnp.asarray(white, jnp.float32)
line = white[:, :1]


def layers(scale, key):
    """Two small linear layers."""
    a, b = jax.random.split(key)
    std = (scale / WIDTH) ** 0.5
    return std * jax.random.normal(a, (DIM, WIDTH)), std * jax.random.normal(b, (WIDTH, 1))


def two_layers(p, x):
    """A linear network."""
    return (x @ p[0]) @ p[1]


silent = {}
for scale, steps in zip(SCALES, STEPS, strict=True):
    params = jax.vmap(partial(layers, scale))(jax.random.split(jax.random.key(1), SEEDS))
    run = ntk.train.ensemble(
        two_layers, params, white, line, optimizer=optax.sgd(RATE), steps=steps,
        record=tuple(range(0, steps + 1, steps // 20)), kernel_points=white,
    )  # fmt: skip
    v = np.asarray(line[:, 0])
    kernels = np.asarray(run.ntk)
    aligned = np.einsum("i,stij,j->st", v, kernels, v) / (v @ v)
    silent[scale] = {
        "time": RATE * np.array(run.steps),
        "learnt": np.einsum("stnc,nc->st", run.train, line) / N,
        "alignment": aligned / np.linalg.norm(kernels, axis=(2, 3)),
    }

# %%
figure, ax = plt.subplots(1, 4, figsize=(14, 3.8), layout="constrained")
for a, (label, m) in zip(ax, (("network", agop), ("Laplace machine", metric[1.0])),
                         strict=False):  # fmt: skip
    a.imshow(share(m).reshape(28, 28), cmap="magma", vmin=0, vmax=np.quantile(share(m), 0.995))
    a.set(xticks=[], yticks=[])
    a.set_title(f"diagonal of M: {label}", loc="left", fontsize=10, fontweight="bold")
for a, scale in zip(ax[2:], SCALES, strict=True):
    found = silent[scale]
    fine = np.linspace(0, found["time"][-1], 200)
    theory = ntk.theory.silent_alignment(fine, target_norm=1, scale=scale, dimension=DIM)
    for colour, key, curve in ((BLUE, "alignment", theory.alignment),
                               (ORANGE, "learnt", theory.learnt)):  # fmt: skip
        a.plot(fine, curve, color=colour, label=f"{key}, theory")
        values = found[key]
        a.errorbar(found["time"], values.mean(0), 2 * values.std(0, ddof=1) / SEEDS**0.5,
                   fmt="o", ms=3, color=colour, label=f"{key}, networks")  # fmt: skip
    a.axvline(theory.aligned_at, color=BLUE, linestyle=":", linewidth=1)
    a.axvline(theory.learnt_at, color=ORANGE, linestyle=":", linewidth=1)
    a.set(xlabel="time")
    a.set_title(f"initial scale {scale:g}", loc="left", fontsize=10, fontweight="bold")
ax[3].legend(frameon=False, fontsize=8)
plt.show()

# %% [markdown]
# On MNIST, with few images, the learnt metric does not help: it costs a percent or two of accuracy
# that the milder power halves. All pixels that vary matter somewhat, so there are no few directions
# to be found, and what the metric adds is the noise of its own estimate. (A larger ridge does not
# change that.) The gain of a machine is a statement about the target, not about the method.
#
# Left, the pixels that matter to a network and to the machine that has never seen it. Right, the
# kernel aligns at the same time whatever the scale, while the target is learnt later the smaller
# the start: dotted lines are the two times of theory.
#
# ## The claims, checked


# %%
def report(claim, predicted, measured, error):
    """One line, and the distance in standard errors."""
    z = (measured - predicted) / error
    print(f"{claim}: predicted {predicted:.3f}, measured {measured:.3f} +- {error:.3f}, {z:+.1f} "
          "standard errors")  # fmt: skip
    return z


def crossing(times, values, level):
    """When each seed first exceeds the level, by interpolation."""
    return np.array([np.interp(level, v, times) for v in np.maximum.accumulate(values, axis=1)])


for scale in SCALES:
    theory = ntk.theory.silent_alignment([0.0, 1e9], target_norm=1, scale=scale, dimension=DIM)
    middle = theory.alignment.mean()
    for event, key, level, t in (("aligns", "alignment", middle, theory.aligned_at),
                                 ("learns", "learnt", 0.5, theory.learnt_at)):  # fmt: skip
        times = crossing(silent[scale]["time"], silent[scale][key], level)
        z = report(f"time at which it {event}, scale {scale:g}", t, *mean(times))
        assert abs(mean(times)[0] - t) < 0.08 * t + 4 * mean(times)[1], "theory has the time"
for learner in ("Laplace", "NTK"):
    report(f"{learner}, unlearnt part of the staircase for d << n << d^2", 2 / 3,
           *mean(table["staircase"][learner]))  # fmt: skip
    report(f"{learner}, of the parity (here n is near d^2 / 2)", 1.0,
           *mean(table["parity of two"][learner]))  # fmt: skip
for n in SUBSET:
    report(f"ansatz, correlation of weights and gradients, {n}", 1.0, *correlation[n])
    report(f"machine, share of the metric on what matters, {n}", 1.0, *on_target[n])
for errors in table.values():
    fixed, machines = (min(mean(errors[k])[0] for k in pair)
                       for pair in (LEARNERS[:2], LEARNERS[2:4]))  # fmt: skip
    assert machines < 0.5 * fixed, "a kernel that learns its metric beats those that do not"
    assert mean(errors["network"])[0] < 0.6 * fixed, "and so does the network"
    assert mean(errors["after-kernel"])[0] < fixed, "whose features are in its after-kernel"
assert all(value[0] > start.correlation + 0.2 for value in correlation.values())
assert all(value[0] > 0.8 for value in on_target.values()), "the metric finds what matters"
for power in gain:
    report(f"MNIST, gain of the machine of power {power:g} (none: 0)", 0.0, *gain[power])
assert gain[0.5][0] > gain[1.0][0] - 0.01, "a milder metric is no worse on few images"
