"""Small real data sets that ship inside packages: nothing is downloaded."""

from ntk_lab.data.digits import digits as digits
from ntk_lab.data.split import Split as Split
from ntk_lab.data.split import split as split

__all__ = ["Split", "digits", "split"]
