"""Bridges to other libraries, one module each; a bridge imports its library only when used."""

from ntk_lab.interop.equinox import from_equinox as from_equinox
from ntk_lab.interop.flax import from_linen as from_linen
from ntk_lab.interop.flax import from_nnx as from_nnx
from ntk_lab.interop.haiku import from_haiku as from_haiku
from ntk_lab.interop.models import AdaptedModel as AdaptedModel

__all__ = ["AdaptedModel", "from_equinox", "from_haiku", "from_linen", "from_nnx"]
