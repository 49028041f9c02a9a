"""Small real data sets that ship inside packages: nothing is downloaded."""

from ntk_lab.data.digits import digits as digits
from ntk_lab.data.mnist1d import mnist1d as mnist1d
from ntk_lab.data.mnist_5k import mnist_5k as mnist_5k
from ntk_lab.data.split import Split as Split
from ntk_lab.data.split import split as split

__all__ = ["Split", "digits", "mnist1d", "mnist_5k", "split"]
