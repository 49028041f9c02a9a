"""Which options self-attention has, checked."""

from typing import Any

from ntk_lab.errors import InputError
from ntk_lab.nn.mechanism import MECHANISMS
from ntk_lab.nn.parameterization import Standard, check_parameterization
from ntk_lab.nn.position_embedding import check_decay

_CHOICES = {
    "scaling": ("linear", "sqrt"),
    "mechanism": MECHANISMS,
    "pos_emb": ("none", "sum", "concat"),
}
_OPTIONAL = ("key_width", "value_width", "pos_emb_width")


def check_options(layer: Any) -> None:
    """InputError for what no :class:`ntk_lab.nn.GlobalSelfAttention` can have."""
    for name in ("width", "heads", "samples", *_OPTIONAL):
        value, optional = getattr(layer, name), name in _OPTIONAL
        if value is None and optional:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(
                f"GlobalSelfAttention got {name}={value!r}; it must be an integer of at least "
                f"1{', or None' * optional}."
            )
    for name, choices in _CHOICES.items():
        if getattr(layer, name) not in choices:
            raise InputError(
                f"GlobalSelfAttention got {name}={getattr(layer, name)!r}; choose "
                f"{' or '.join(map(repr, choices))}."
            )
    for name in ("w_query_std", "w_key_std", "w_value_std", "w_out_std", "w_pos_emb_std", "b_std"):
        value = getattr(layer, name)
        if isinstance(value, int | float) and not 0 <= value < float("inf"):
            raise InputError(
                f"GlobalSelfAttention got {name}={value}; it must be finite and not negative."
            )
    check_decay(layer.pos_emb_decay, layer.pos_emb_p_norm)
    check_parameterization(layer.parameterization)
    if isinstance(layer.parameterization, Standard):
        raise InputError("GlobalSelfAttention takes parameterization='standard', without factors.")
