"""How far a long computation is, in one form for all of them."""

from collections.abc import Callable
from typing import NamedTuple


class Progress(NamedTuple):
    """How far work is: ``done`` of ``total`` units of it, and what runs next."""

    done: float
    total: float
    message: str


Report = Callable[[Progress], object]
