"""Stored architectures (tests/golden/README.md, section 1.2) as networks of this library."""

import ntk_lab as ntk


class NotBuilt(Exception):
    """The description uses a layer that the library does not have."""


def build(net):
    """Network from a stored description; raises NotBuilt where a layer does not exist."""
    return _sequence([net])


def _sequence(layers):
    built, rest = [], list(layers)
    while rest:
        layer = rest.pop(0)
        if layer["layer"] == "Serial":
            rest = layer["layers"] + rest
        elif layer["layer"] == "FanOut":
            built.append(_residual(layer, rest.pop(0), rest.pop(0)))
        elif layer["layer"] in _LAYERS:
            built.append(_LAYERS[layer["layer"]](layer))
        else:
            raise NotBuilt(layer["layer"])
    return ntk.nn.Sequential(*built)


def _residual(fan_out, parallel, fan_in):
    names = [branch["layer"] for branch in parallel["branches"]]
    if fan_out["num"] != 2 or fan_in["layer"] != "FanInSum" or names[1] != "Identity":
        raise NotBuilt(f"{names} into {fan_in['layer']}")
    return ntk.nn.Residual(_sequence(parallel["branches"][:1]))


def _dense(layer):
    return ntk.nn.Dense(
        layer["width"], layer["W_std"], layer["b_std"], parameterization=layer["parameterization"]
    )


def _conv(layer):
    return ntk.nn.Conv(
        layer["width"],
        tuple(layer["filter_shape"]),
        tuple(layer["strides"]),
        padding=layer["padding"],
        w_std=layer["W_std"],
        b_std=layer["b_std"],
        parameterization=layer["parameterization"],
    )


def _pool(layer):
    window, strides = tuple(layer["window_shape"]), tuple(layer["strides"])
    if layer["layer"] == "SumPool":
        return ntk.nn.SumPool(window, strides, layer["padding"])
    return ntk.nn.AvgPool(window, strides, layer["padding"], layer["normalize_edges"])


def _with(module, *names):
    return lambda layer: module(*(layer[name] for name in names))


def _numerical(layer):
    return {"tanh": ntk.nn.Tanh, "swish": ntk.nn.Silu, "softplus": ntk.nn.Softplus}[layer["fn"]]()


_LAYERS = {
    "ABRelu": _with(ntk.nn.ABRelu, "a", "b"),
    "Abs": _with(ntk.nn.Abs),
    "AvgPool": _pool,
    "Conv": _conv,
    "Cos": _with(ntk.nn.Cos, "a", "b", "c"),
    "Dense": _dense,
    "ElementwiseNumerical": _numerical,
    "Dropout": _with(ntk.nn.Dropout, "keep_prob", "mode"),
    "Erf": _with(ntk.nn.Erf, "a", "b", "c"),
    "Exp": _with(ntk.nn.Exp, "a", "b"),
    "ExpNormalized": _with(ntk.nn.ExpNormalized, "gamma", "shift", "do_clip"),
    "Flatten": _with(ntk.nn.Flatten),
    "Gabor": _with(ntk.nn.Gabor),
    "Gaussian": _with(ntk.nn.Gaussian, "a", "b"),
    "Gelu": _with(ntk.nn.Gelu),
    "GlobalAvgPool": _with(ntk.nn.GlobalAvgPool),
    "GlobalSumPool": _with(ntk.nn.GlobalSumPool),
    "Hermite": _with(ntk.nn.Hermite, "degree"),
    "Identity": _with(ntk.nn.Identity),
    "LayerNorm": lambda layer: ntk.nn.LayerNorm(tuple(layer["axis"]), layer["eps"]),
    "LeakyRelu": _with(ntk.nn.LeakyRelu, "alpha"),
    "Monomial": _with(ntk.nn.Monomial, "degree"),
    "Polynomial": _with(ntk.nn.Polynomial, "coef"),
    "Rbf": _with(ntk.nn.Rbf, "gamma"),
    "RectifiedMonomial": _with(ntk.nn.RectifiedMonomial, "degree"),
    "Relu": _with(ntk.nn.Relu),
    "Sigmoid_like": _with(ntk.nn.SigmoidLike),
    "Sign": _with(ntk.nn.Sign),
    "Sin": _with(ntk.nn.Sin, "a", "b", "c"),
    "SumPool": _pool,
}
