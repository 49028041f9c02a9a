"""ReLU networks as alternations of affine maps and kinks, in float64."""

from typing import Any

import numpy as np

from ntk_lab.errors import InputError
from ntk_lab.nn import Dense, Identity, Relu, Sequential


def affine_steps(net: Any, params: Any) -> list[tuple[np.ndarray, np.ndarray] | None]:
    """Layers as ``(weights, bias)``, or None for Relu; scales of parameterizations multiplied in.

    Raises InputError for layers other than ``Dense``, ``Relu`` and ``Identity``.
    """
    if isinstance(net, Sequential):
        if len(params) != len(net.layers):
            raise InputError(
                f"got parameters of {len(params)} layers for {len(net.layers)}; use those that "
                "net.init(key, shape) returns."
            )
        parts = [affine_steps(*pair) for pair in zip(net.layers, params, strict=True)]
        return [step for part in parts for step in part]
    if isinstance(net, Relu):
        return [None]
    if isinstance(net, Identity):
        return []
    if not isinstance(net, Dense):
        raise InputError(
            f"{type(net).__name__} is not piecewise linear in a way that is counted here; use a "
            "Sequential of Dense and Relu."
        )
    weights = np.asarray(params["w"], np.float64)
    scales = net._scales(weights.shape[0])
    bias = np.zeros(weights.shape[1])
    if "b" in params:
        bias = float(scales.bias_scale) * np.asarray(params["b"], np.float64)
    return [(float(scales.weight_scale) * weights, bias)]


def point(name: str, x: Any, steps: list) -> np.ndarray:
    """One input as a float64 vector that fits the first layer."""
    x = np.asarray(x, np.float64)
    first = next((step for step in steps if step is not None), None)
    if x.ndim != 1 or not np.isfinite(x).all() or (first is not None and len(x) != len(first[0])):
        wanted = "any" if first is None else len(first[0])
        raise InputError(f"{name} has shape {x.shape}; expected one finite vector of {wanted}.")
    return x
