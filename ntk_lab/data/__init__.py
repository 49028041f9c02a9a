"""Small data sets that ship inside packages or are generated: nothing is downloaded."""

from ntk_lab.data.characters import Characters as Characters
from ntk_lab.data.characters import characters as characters
from ntk_lab.data.digits import digits as digits
from ntk_lab.data.mnist1d import mnist1d as mnist1d
from ntk_lab.data.mnist_5k import mnist_5k as mnist_5k
from ntk_lab.data.repeats import Repeats as Repeats
from ntk_lab.data.repeats import repeats as repeats
from ntk_lab.data.split import Split as Split
from ntk_lab.data.split import split as split
from ntk_lab.data.tabular import TABLES as TABLES
from ntk_lab.data.tabular import Table as Table
from ntk_lab.data.tabular import tabular as tabular

__all__ = [
    "TABLES",
    "Characters",
    "Repeats",
    "Split",
    "Table",
    "characters",
    "digits",
    "mnist1d",
    "mnist_5k",
    "repeats",
    "split",
    "tabular",
]
