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
            built.append(_fan(layer["num"], rest))
        elif layer["layer"] in _LAYERS:
            built.append(_LAYERS[layer["layer"]](layer))
        else:
            raise NotBuilt(layer["layer"])
    return ntk.nn.Sequential(*built)


def _fan(count, rest):
    """Branches from a FanOut, whose layers up to the FanIn are taken off ``rest``."""
    branches = [[] for _ in range(count)]
    while rest[0]["layer"] == "Parallel":
        for branch, layer in zip(branches, rest.pop(0)["branches"], strict=True):
            branch.append(layer)
    fan_in, built = rest.pop(0), [_sequence(branch) for branch in branches]
    if fan_in["layer"] == "FanInSum" and branches[1:] == [[{"layer": "Identity"}]]:
        return ntk.nn.Residual(built[0])
    if fan_in["layer"] == "FanInConcat":
        return ntk.nn.Concat(*built, axis=fan_in["axis"])
    return {"FanInSum": ntk.nn.Sum, "FanInProd": ntk.nn.Product}[fan_in["layer"]](*built)


def _dense(layer):
    return ntk.nn.Dense(
        layer["width"], layer["W_std"], layer["b_std"], parameterization=_parameterization(layer)
    )


def _parameterization(layer):
    name = layer["parameterization"]
    return ntk.nn.Standard(tuple(layer["s"])) if name == "standard" and "s" in layer else name


def _conv(layer):
    return getattr(ntk.nn, layer["layer"])(
        layer["width"],
        tuple(layer["filter_shape"]),
        tuple(layer["strides"]),
        padding=layer["padding"],
        w_std=layer["W_std"],
        b_std=layer["b_std"],
        parameterization=_parameterization(layer),
    )


def _pool(layer):
    window, strides = tuple(layer["window_shape"]), tuple(layer["strides"])
    if layer["layer"] == "SumPool":
        return ntk.nn.SumPool(window, strides, layer["padding"])
    return ntk.nn.AvgPool(window, strides, layer["padding"], layer["normalize_edges"])


def _attention(layer):
    decay = layer["pos_emb_decay"]
    return ntk.nn.GlobalSelfAttention(
        layer["n_chan_out"],
        layer["n_heads"],
        layer["n_chan_key"],
        layer["n_chan_val"],
        scaling="linear" if layer["linear_scaling"] else "sqrt",
        mechanism=layer["attention_mechanism"].lower(),
        w_query_std=layer["W_query_std"],
        w_key_std=layer["W_key_std"],
        w_value_std=layer["W_value_std"],
        w_out_std=layer["W_out_std"],
        b_std=layer["b_std"],
        pos_emb=layer["pos_emb_type"].lower(),
        w_pos_emb_std=layer["W_pos_emb_std"],
        pos_emb_decay=decay if decay is None else (decay["type"], decay["c"]),
        pos_emb_p_norm=layer["pos_emb_p_norm"],
        pos_emb_width=layer["n_chan_pos_emb"],
        val_pos_emb=layer["val_pos_emb"],
    )


def _aggregate(layer):
    return ntk.nn.Aggregate(tuple(layer["aggregate_axis"]))


def _dot_general(layer):
    numbers = layer["dimension_numbers"]
    return ntk.nn.DotGeneral(**{layer["side"]: layer["array"]}, dimension_numbers=numbers)


def _index(layer):
    batch, *rest = (tuple(triple) for triple in layer["idx"])
    if batch != (None,) * 3:
        raise NotBuilt(f"an index of examples, {layer['idx']}")
    while rest and rest[-1] == (None,) * 3:
        rest.pop()
    return ntk.nn.Index(tuple(rest))


def _resize(layer):
    batch, *spatial, channels = layer["shape"]
    assert batch == channels == -1
    return ntk.nn.ImageResize(tuple(spatial), layer["method"], layer["antialias"])


def _with(module, *names):
    return lambda layer: module(*(layer[name] for name in names))


def _numerical(layer):
    return {"tanh": ntk.nn.Tanh, "swish": ntk.nn.Silu, "softplus": ntk.nn.Softplus}[layer["fn"]]()


_LAYERS = {
    "ABRelu": _with(ntk.nn.ABRelu, "a", "b"),
    "Abs": _with(ntk.nn.Abs),
    "Aggregate": _aggregate,
    "AvgPool": _pool,
    "Conv": _conv,
    "ConvLocal": _conv,
    "ConvTranspose": _conv,
    "Cos": _with(ntk.nn.Cos, "a", "b", "c"),
    "Dense": _dense,
    "DotGeneral": _dot_general,
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
    "GlobalSelfAttention": _attention,
    "GlobalSumPool": _with(ntk.nn.GlobalSumPool),
    "Hermite": _with(ntk.nn.Hermite, "degree"),
    "Identity": _with(ntk.nn.Identity),
    "ImageResize": _resize,
    "Index": _index,
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
