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
# # Does kernel regression predict this network's training?
#
# A wide network trained by gradient descent is close to kernel regression with its neural tangent
# kernel (arXiv:1806.07572, arXiv:1902.06720). How close, for how long, and what the rest is, can
# be measured. Here: a Relu network on handwritten digits, first where theory holds, then where it
# does not.

# %%
import matplotlib.pyplot as plt
import numpy as np

import ntk_lab as ntk

data = ntk.data.digits(train=128, test=128)
net = ntk.nn.Sequential(
    ntk.nn.Flatten(),
    ntk.nn.Dense(64, w_std=2**0.5, b_std=0.1),
    ntk.nn.Relu(),
    ntk.nn.Dense(64, w_std=2**0.5, b_std=0.1),
    ntk.nn.Relu(),
    ntk.nn.Dense(10),
)
net

# %% [markdown]
# One description gives both halves: `net.kernel` is the infinite-width limit, `net.init` and
# `net.apply` the finite network. What theory says of the limit needs no training at all:

# %%
kernel = net.kernel(data.train[0])
y = np.eye(10, dtype=np.float32)[data.train[1]] - 0.1
flow = ntk.predict.gradient_flow(kernel.ntk, y)
limit = float(ntk.predict.max_learning_rate(kernel.ntk))
print(f"learning rates up to {limit:.3g} are stable")
slowest, fastest = (float(flow.time_scales[i]) for i in (0, -1))
print(f"the modes of the kernel are learnt in times from {fastest:.2g} to {slowest:.2g}")

# %% [markdown]
# ## Where theory holds: NTK parameterization
#
# The gap between the kernel's prediction and the trained network is split by cause.

# %%
run = {"widths": (32, 64, 256), "seeds": 3, "steps": 200, "learning_rate": 0.05 * limit}
lazy = ntk.compare(net, *data, **run)
print(lazy)

# %%
lazy.plot()
plt.show()

# %% [markdown]
# The finite-width gap falls as `width^(-1/2)`, as the fluctuations of the kernel at
# initialization do; the part due to feature learning falls faster.
#
# ## Where it does not: a mean-field readout
#
# Dividing the readout by the width instead of its square root, with a learning rate larger by the
# width, gives a network whose features move by order one however wide it is (arXiv:1906.08034,
# arXiv:2011.14522).

# %%
rich = ntk.compare(net, *data, **run, parameterization="mean_field")
print(rich.conclusion())

# %%
rich.plot()
plt.show()

# %%
fall = {name: c.gap()[:, :, -1].mean(axis=1) for name, c in (("ntk", lazy), ("mean_field", rich))}
assert fall["ntk"][-1] < 0.6 * fall["ntk"][0], "in NTK parameterization the gap falls with width"
assert fall["mean_field"][-1] > 0.6 * fall["mean_field"][0], "under mean field it does not"
fall
