"""Paired modules: one description builds the finite network and its infinite-width kernels."""

from ntk_lab.nn.activation import Activation as Activation
from ntk_lab.nn.conv import Conv as Conv
from ntk_lab.nn.dense import Dense as Dense
from ntk_lab.nn.erf import Erf as Erf
from ntk_lab.nn.flatten import Flatten as Flatten
from ntk_lab.nn.frozen import Frozen as Frozen
from ntk_lab.nn.function_pair import FunctionPair as FunctionPair
from ntk_lab.nn.gelu import Gelu as Gelu
from ntk_lab.nn.identity import Identity as Identity
from ntk_lab.nn.module import Module as Module
from ntk_lab.nn.module import Pair as Pair
from ntk_lab.nn.module import hyper as hyper
from ntk_lab.nn.module import module as module
from ntk_lab.nn.module import submodules as submodules
from ntk_lab.nn.pool import AvgPool as AvgPool
from ntk_lab.nn.pool import GlobalAvgPool as GlobalAvgPool
from ntk_lab.nn.pool import GlobalSumPool as GlobalSumPool
from ntk_lab.nn.pool import SumPool as SumPool
from ntk_lab.nn.relu import Relu as Relu
from ntk_lab.nn.residual import Residual as Residual
from ntk_lab.nn.sequential import Sequential as Sequential
from ntk_lab.nn.serialize import from_json as from_json
from ntk_lab.nn.tanh import Tanh as Tanh

__all__ = [
    "Activation",
    "AvgPool",
    "Conv",
    "Dense",
    "Erf",
    "Flatten",
    "Frozen",
    "FunctionPair",
    "Gelu",
    "GlobalAvgPool",
    "GlobalSumPool",
    "Identity",
    "Module",
    "Pair",
    "Relu",
    "Residual",
    "Sequential",
    "SumPool",
    "Tanh",
    "from_json",
    "hyper",
    "module",
    "submodules",
]
