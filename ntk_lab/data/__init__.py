"""Small real data sets that ship inside packages: nothing is downloaded."""

from ntk_lab.data.digits import digits as digits
from ntk_lab.data.mnist1d import mnist1d as mnist1d
from ntk_lab.data.mnist_5k import mnist_5k as mnist_5k
from ntk_lab.data.split import Split as Split
from ntk_lab.data.split import split as split
from ntk_lab.data.tabular import TABLES as TABLES
from ntk_lab.data.tabular import Table as Table
from ntk_lab.data.tabular import tabular as tabular

__all__ = ["TABLES", "Split", "Table", "digits", "mnist1d", "mnist_5k", "split", "tabular"]
