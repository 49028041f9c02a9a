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
# # 14. Transformers, depth and width
#
# Transformers have a kernel limit too (Hron et al.,
# [arXiv:2006.10540](https://arxiv.org/abs/2006.10540)). What has to grow for it, heads or their
# width? And what is left of the kernel in a language model that is trained with Adam? The models
# here are tiny, some thirty thousand parameters; the tools are those for any.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import ntk_lab as ntk

BLUE, GREEN, ORANGE, PINK = "#0072B2", "#009E73", "#E69F00", "#CC79A7"


def mean(values):
    """Mean and standard error over the first axis."""
    values = np.asarray(values, float)
    return values.mean(0), values.std(0, ddof=1) / len(values) ** 0.5


# %% [markdown]
# ## Heads or width?
#
# With logits $QK^\top/\sqrt d$, as transformers have them, a head attends at random however wide it
# is: the kernel is reached by averaging over *many* heads. With $QK^\top/d$ logits become numbers
# as heads become *wide*, and one will do. Heads being independent, the NTK of an attention layer
# with $H$ heads of width $d$ has the relative variance
#
# $$\mathrm{Var} = (A + B/d + \dots)/H,$$
#
# with $A = 0$ in the second case, and in the first what `head_moments` says: a wide head is, in
# law, a small random network. Beside it finite networks: one layer, and a whole transformer
# with one block.

# %%
print(ntk.theory.attention_theory("sqrt"))
print(ntk.theory.attention_theory("linear"))
x = jax.random.normal(jax.random.key(0), (3, 4, 16))
SIZES = {
    "one layer": ((2, 4), (2, 16), (2, 64)),
    "a transformer": ((2, 4), (2, 16), (2, 64), (8, 4), (32, 4)),
}


def attention(scaling, heads=1, width=1):
    """One output, many heads."""
    return ntk.nn.GlobalSelfAttention(1, heads, width, width, scaling=scaling)


def network(kind, scaling, heads, width):
    """Attention alone, or a transformer whose channels are those of all heads."""
    if kind == "one layer":
        return ntk.nn.Sequential(attention(scaling, heads, width), ntk.nn.GlobalAvgPool())
    channels = heads * width
    return ntk.nn.Transformer(1, channels, heads=heads, hidden=2 * channels, scaling=scaling)


def measure(kind, scaling, seeds):
    """Deviations of finite networks, and the fitted law."""
    result = ntk.theory.kernel_deviation(
        lambda heads, width: network(kind, scaling, heads, width), x, jax.random.key(2),
        sizes=SIZES[kind], seeds=seeds,
    )  # fmt: skip
    law = result.head_law()
    print(f"{kind}, {scaling}: A = {law.a:.3f} +- {law.standard_errors[0]:.3f}, "
          f"B = {law.b:.2f} +- {law.standard_errors[1]:.2f}, "
          f"chi^2 = {law.chi_square:.1f} of {law.degrees_of_freedom}")  # fmt: skip
    return result


predicted = {
    scaling: ntk.theory.head_moments(
        attention(scaling), x, jax.random.key(1), draws=10_000
    ).relative_variance()
    for scaling in ("sqrt", "linear")
}
print("A of one wide head, predicted: {:.4f} +- {:.4f}".format(*predicted["sqrt"]))
found = {("one layer", scaling): measure("one layer", scaling, 300) for scaling in predicted}

# %%
found |= {
    ("a transformer", scaling): measure("a transformer", scaling, 40) for scaling in predicted
}

# %%
figure, ax = plt.subplots(1, 3, figsize=(15, 4.2), layout="constrained")
looks = {"sqrt": (PINK, "$QK^T/\\sqrt{d}$"), "linear": (BLUE, "$QK^T/d$")}
inverse = np.linspace(0, 0.27, 50)
for scaling, (colour, label) in looks.items():
    for a, kind in zip(ax, SIZES, strict=False):
        deviation = found[kind, scaling]
        (value, error), heads = deviation.variance, deviation.sizes[:, 0]
        law = deviation.head_law()
        a.errorbar(1 / deviation.sizes[:, 1], heads * value, 2 * heads * error, fmt="o",
                   color=colour, capsize=3, markersize=5, label=label)  # fmt: skip
        a.plot(inverse, law.a + law.b * inverse, color=colour, linewidth=1)
    for moving, style in enumerate(("o-", "s--")):
        deviation = found["a transformer", scaling]
        chosen = deviation.sizes[:, 1 - moving] == (4, 2)[moving]
        value, error = deviation.distance
        ax[2].errorbar(
            deviation.sizes[chosen].prod(1), value[chosen], 2 * error[chosen], fmt=style,
            color=colour, capsize=3, label=f"{label}, more {('heads', 'width')[moving]}",
        )  # fmt: skip
ax[0].errorbar(0, predicted["sqrt"][0], 2 * predicted["sqrt"][1], fmt="k*", markersize=11,
               label="predicted: wide heads", zorder=3)  # fmt: skip
ax[0].plot(0, 0, "k*", markersize=11)
for a, title in zip(ax, ("One layer", "A transformer"), strict=False):
    a.set(xlabel="1 / head width", ylabel="heads × relative variance of the NTK")
    a.set_title(title, loc="left", fontsize=10, fontweight="bold")
    a.legend(frameon=False, fontsize=8)
ax[2].set(xscale="log", yscale="log", xlabel="channels = heads × head width",
          ylabel="|NTK - limit| / |limit|, root mean square")  # fmt: skip
ax[2].set_title("A transformer: distance to the kernel", loc="left", fontsize=10, fontweight="bold")
ax[2].legend(frameon=False, fontsize=8)
plt.show()

# %% [markdown]
# Left: nothing is fitted to the stars. Wide heads keep the randomness that theory says under
# $1/\sqrt d$ and none under $1/d$. Middle and right: in a whole transformer of these sizes that
# floor is not to be seen. The channels of its other layers, whose number is that of heads times
# width, fluctuate more, and at 8 channels by higher orders too ($\chi^2$ above): there heads and
# width are worth about the same.
#
# ## A language model on Python's own documentation
#
# `ntk.data.characters`: the help texts that ship with Python, 32 characters in context, the next
# one to be predicted at every position. Three layouts of nearly the same number of parameters, from
# shallow and wide to deep and narrow, in NTK parameterization, trained with Adam.

# %%
CONTEXT, SEEDS = 32, 2
data = ntk.data.characters(CONTEXT, train=4000, test=200)
V = len(data.alphabet)
LAYOUTS = ((1, 56), (2, 40), (4, 28))


def model(depth, width, vocabulary):
    """A causal transformer with four heads, and logits at every position, flattened."""
    block = ntk.nn.TransformerBlock(width, 4, 2 * width, scaling="sqrt", causal=True, pos_emb="sum")
    ends = ntk.nn.Embedding(width, vocabulary), ntk.nn.LayerNorm(), ntk.nn.Dense(vocabulary)
    net = ntk.nn.Sequential(ends[0], *[block] * depth, *ends[1:])
    return net, lambda params, x: net.apply(params, x).reshape(len(x), -1)


def train(depth, width, vocabulary, inputs, targets, new, record, rate=1e-2, **options):
    """Ensemble under Adam, and number of parameters."""
    net, f = model(depth, width, vocabulary)
    keys = jax.random.split(jax.random.key(0), SEEDS)
    params = jax.vmap(lambda key: net.init(key, inputs.shape[1:]))(keys)
    run = ntk.train.ensemble(
        f, params, inputs, targets, new, optimizer=optax.adam(rate), steps=record[-1],
        record=record, loss=ntk.losses.TokenCrossEntropy(vocabulary), batch_size=32,
        key=jax.random.key(1), **options,
    )  # fmt: skip
    return run, sum(p[0].size for p in jax.tree.leaves(params))


def log_loss(outputs, tokens):
    """Loss of every position, from flattened logits ``(seeds, steps, n, s V)``."""
    scores = np.asarray(jax.nn.log_softmax(outputs.reshape(*outputs.shape[:3], *tokens.shape[1:],
                                                           -1)))  # fmt: skip
    return -np.take_along_axis(scores, tokens[None, None, ..., None], axis=-1)[..., 0]


def one_hot(tokens, vocabulary):
    """Flattened targets."""
    return jnp.asarray(np.eye(vocabulary, dtype=np.float32)[tokens].reshape(len(tokens), -1))


windows, new = jnp.asarray(data.train[:, :-1]), jnp.asarray(data.test[:, :-1])
targets, truth = one_hot(data.train[:, 1:], V), data.test[:, 1:]

# %%
language = {}
for depth, width in LAYOUTS:
    arrays = depth, width, V, windows, targets, new
    run, count = train(*arrays, (0, 5, 30, 100), kernel_points=windows[:8])
    size = np.linalg.norm(run.ntk[:, :1], axis=(2, 3))
    language[depth, width] = {
        "steps": run.steps,
        "loss": log_loss(run.test, truth).mean((2, 3)),
        "drift": np.linalg.norm(run.ntk - run.ntk[:, :1], axis=(2, 3)) / size,
    }
    print(f"{depth} x {width}: {count:,} parameters, "
          + "test loss {:.3f} +- {:.3f} nats, ".format(*mean(language[depth, width]["loss"][:, -1]))
          + "drift {:.1f} +- {:.1f}".format(*mean(language[depth, width]["drift"][:, -1]))
          )  # fmt: skip
c = np.bincount(data.train.ravel(), minlength=V) + 1.0
unigram = -np.log((c / c.sum())[truth]).mean()
pairs = np.full((V, V), 0.1)
np.add.at(pairs, (data.train[:, :-1].ravel(), data.train[:, 1:].ravel()), 1.0)
bigram = -np.log((pairs / pairs.sum(1, keepdims=True))[data.test[:, :-1], truth]).mean()
print(f"counts of characters alone: {unigram:.3f} nats; of pairs: {bigram:.3f}")

# %% [markdown]
# ## In context
#
# `ntk.data.repeats`: random tokens in random order that repeat with a random period. What follows a
# token is nowhere but in the sequence itself: find where it stood before, and copy what came next.
# Such *induction heads* take two layers of attention
# ([arXiv:2209.11895](https://arxiv.org/abs/2209.11895)); one layer would have to be as large as
# its context is long ([arXiv:2408.14332](https://arxiv.org/abs/2408.14332)). One layer might have
# another way: what comes next is always the token that was seen longest ago, and how long ago is in
# the positions. (A guess, made after one layer had done better than any token of the same sequence,
# which was expected of it; what that layer does was not looked at.) The first two layouts, at equal
# numbers of parameters, on sequences none of which is in the training set.

# %%
TOKENS, PERIODS = 12, (4, 8)
task = ntk.data.repeats(2304, 24, TOKENS, periods=PERIODS)
tokens, known = task.tokens, task.known
answers = one_hot(tokens[:2048, 1:], TOKENS).reshape(2048, 24, TOKENS) * known[:2048, :, None]
LOOKS = 0, 80, 150, 220
context = {}
for depth, width in LAYOUTS[:2]:
    arrays = jnp.asarray(tokens[:2048, :-1]), answers.reshape(2048, -1).astype(jnp.float32)
    run, _ = train(depth, width, TOKENS, *arrays, jnp.asarray(tokens[2048:, :-1]), LOOKS)
    logits = run.test.reshape(*run.test.shape[:3], 24, TOKENS)
    right = (logits.argmax(-1) == tokens[2048:, 1:]) & known[2048:]
    context[depth, width] = right.sum((2, 3)) / known[2048:].sum()
    print(f"{depth} x {width}: right in context "
          + "{:.1%} +- {:.1%}".format(*mean(context[depth, width][:, -1])))  # fmt: skip
# The best without looking a token up: one of those in the sequence.
among = (known[2048:] / (~known[2048:]).sum(1, keepdims=True)).sum() / known[2048:].sum()
print(f"any token of the same sequence: {among:.1%}")

# %% [markdown]
# ## Feature learning's part of the error budget as language models grow
#
# How long is a model its own linearization, trained in the very same way (the kernel regime of
# Adam, [arXiv:2210.05643](https://arxiv.org/abs/2210.05643))? Adam moves every weight by about its
# rate $\eta$, whatever the width $n$. If the update of a matrix has one direction its norm is
# $\eta n$, beside $\sqrt n$ of the random one, and the gap goes as $\eta\sqrt n$; if it has many,
# its norm is $\eta\sqrt n$, and the gap goes as $\eta$. The first was expected here; the second was
# thought of only when a run on more windows had contradicted the first, so that its agreement below
# explains and tests nothing. Either way models that grow at one and the
# same rate do not come nearer to their kernel; at a rate of $1/n$ they do. One block, of width 16
# and 64.

# %%
WIDTHS, EARLY = (16, 64), (0, 2, 5, 12)
rules = {"same rate": lambda width: 1e-2, "rate 1/width": lambda width: 1e-2 * 16 / width}
gaps = {}
for name, rate in rules.items():
    for width in WIDTHS:
        if width == 16 and gaps:
            gaps[name, width] = gaps["same rate", 16]
            continue
        arrays = 1, width, V, windows[:640], targets[:640], new[:64]
        network_run, linear_run = (
            train(*arrays, EARLY, rate=rate(width), linearized=linearized)[0].test
            for linearized in (False, True)
        )
        moved = np.linalg.norm(network_run - network_run[:, :1], axis=(2, 3))[:, 1:]
        apart = np.linalg.norm(network_run - linear_run, axis=(2, 3))[:, 1:]
        gaps[name, width] = apart / moved
        print(f"width {width}, {name}: gap after 2, 5, 12 steps",
              gaps[name, width].mean(0).round(3))  # fmt: skip

# %%
figure, ax = plt.subplots(1, 4, figsize=(17, 4), layout="constrained")
for (layout, seen), colour in zip(language.items(), (BLUE, GREEN, ORANGE), strict=True):
    name = "{} x {}".format(*layout)
    look = {"fmt": "o-", "color": colour, "capsize": 3, "markersize": 4, "label": name}
    ax[0].errorbar(seen["steps"], *mean(seen["loss"]), **look)
    ax[1].errorbar(seen["steps"][1:], *(v[1:] for v in mean(seen["drift"])), **look)
    if layout in context:
        ax[2].errorbar(LOOKS, *mean(context[layout]), **look)
for level, label, style in ((unigram, "characters", ":"), (bigram, "pairs", "--")):
    ax[0].axhline(level, color="k", linestyle=style, linewidth=1, label=label)
ax[1].minorticks_off()
ax[2].axhline(among, color="k", linestyle=":", linewidth=1, label="any of the sequence")
ax[0].set(xlabel="steps of Adam", ylabel="test loss, nats a character")
ax[1].set(xscale="log", yscale="log", xlabel="steps of Adam", ylabel="kernel drift")
ax[2].set(xlabel="steps of Adam", ylabel="right where it was seen before", ylim=(0, 1.05))
for (name, width), gap in gaps.items():
    if (name, width) != ("rate 1/width", 16):
        label = f"width {width}" + f", {name}" * (width > 16)
        ax[3].errorbar(EARLY[1:], *mean(gap), fmt="s--" if name[-1] == "h" else "o-", capsize=3,
                       color=BLUE if width > 16 else ORANGE, markersize=4, label=label)  # fmt: skip
ax[3].axhline(0.15, color="k", linestyle=":", linewidth=1, label="tolerance of 15%")
ax[3].set(xscale="log", yscale="log", xlabel="steps of Adam", ylabel="gap to the linearization")
ax[3].minorticks_off()
ax[3].set_xticks(EARLY[1:], [str(step) for step in EARLY[1:]])
ax[3].set_yticks([0.02, 0.05, 0.1, 0.2], ["0.02", "0.05", "0.1", "0.2"])
titles = (
    "Python's documentation",
    "The kernel moves",
    "Copying in context",
    "The kernel regime of Adam",
)
for a, title in zip(ax, titles, strict=True):
    a.set_title(title, loc="left", fontsize=10, fontweight="bold")
    a.legend(frameon=False, fontsize=8)
plt.show()

# %% [markdown]
# ## The claims, checked


# %%
def report(claim, predicted, measured, error):
    """One line; the distance in standard errors is returned."""
    z = (measured - predicted) / error
    print(f"{claim}: predicted {predicted:.3g}, measured {measured:.3g} +- {error:.2g}, "
          f"agreement in standard errors {z:+.1f}")  # fmt: skip
    return z


for scaling in ("sqrt", "linear"):
    law = found["one layer", scaling].head_law()
    both = float(np.hypot(law.standard_errors[0], predicted[scaling][1]))
    z = report(f"variance of one wide head, {scaling}", predicted[scaling][0], law.a, both)
    assert abs(z) < 4, "wide heads are as random as predicted"
    theory = ntk.theory.attention_theory(scaling).fluctuation
    power = found["a transformer", scaling].power("fluctuation", "heads", 4)
    z = report(f"power of the heads, a transformer, {scaling}", theory[0], power.exponent,
               power.standard_error)  # fmt: skip
    assert abs(z) < 4, "heads average"
law = found["a transformer", "sqrt"].head_law()
print(f"a transformer, sqrt: what no width of two heads removes is {law.a:.3f} +- "
      f"{law.standard_errors[0]:.3f} of the variance of one head")  # fmt: skip
for layout, seen in language.items():
    name = "{} x {}".format(*layout)
    report(f"kernel drift of {name} (kernel regime: 0)", 0.0, *mean(seen["drift"][:, -1]))
    assert seen["drift"][:, -1].min() > 0.3, "language models leave their kernel"
    assert seen["loss"][:, -1].max() < unigram, "and learn more than frequencies"
shallow, deep = (context[layout][:, -1] for layout in LAYOUTS[:2])
report("two layers, right in context", 1.0, *mean(deep))
report("one layer, against any token of the sequence", among, *mean(shallow))
gain, error = mean(deep - shallow)
assert gain > max(0.2, 3 * error), "copying takes two layers"
for name, one, many in (("same rate", 0.5, 0.0), ("rate 1/width", -0.5, -1.0)):
    powers = np.log(gaps[name, 64][:, 0] / gaps[name, 16][:, 0]) / np.log(64 / 16)
    claim = f"power of the width in the gap, {name}, updates of"
    report(f"{claim} one direction", one, *mean(powers))
    report(f"{claim} many", many, *mean(powers))
    # One direction disagrees in both: what these batches move is of many.
assert (gaps["rate 1/width", 64] < gaps["rate 1/width", 16]).all(), "a rate of 1/n is lazier"
