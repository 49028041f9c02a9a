"""Paired modules: one description builds the finite network and its infinite-width kernels."""

from ntk_lab.nn.abrelu import ABRelu as ABRelu
from ntk_lab.nn.abs import Abs as Abs
from ntk_lab.nn.activation import Activation as Activation
from ntk_lab.nn.aggregate import Aggregate as Aggregate
from ntk_lab.nn.attention import GlobalSelfAttention as GlobalSelfAttention
from ntk_lab.nn.branches import Concat as Concat
from ntk_lab.nn.branches import Product as Product
from ntk_lab.nn.branches import Sum as Sum
from ntk_lab.nn.conv import Conv as Conv
from ntk_lab.nn.conv_local import ConvLocal as ConvLocal
from ntk_lab.nn.conv_transpose import ConvTranspose as ConvTranspose
from ntk_lab.nn.dense import Dense as Dense
from ntk_lab.nn.dot_general import DotGeneral as DotGeneral
from ntk_lab.nn.dropout import Dropout as Dropout
from ntk_lab.nn.dropout import with_dropout as with_dropout
from ntk_lab.nn.elementwise import Elementwise as Elementwise
from ntk_lab.nn.elu import Elu as Elu
from ntk_lab.nn.embedding import Embedding as Embedding
from ntk_lab.nn.erf import Erf as Erf
from ntk_lab.nn.exp_normalized import ExpNormalized as ExpNormalized
from ntk_lab.nn.exponential import Exp as Exp
from ntk_lab.nn.finite_only import BatchNorm as BatchNorm
from ntk_lab.nn.finite_only import MaxPool as MaxPool
from ntk_lab.nn.flatten import Flatten as Flatten
from ntk_lab.nn.frozen import Frozen as Frozen
from ntk_lab.nn.function_pair import FunctionPair as FunctionPair
from ntk_lab.nn.gabor import Gabor as Gabor
from ntk_lab.nn.gaussian import Gaussian as Gaussian
from ntk_lab.nn.gelu import Gelu as Gelu
from ntk_lab.nn.graph import Graph as Graph
from ntk_lab.nn.hermite import Hermite as Hermite
from ntk_lab.nn.identity import Identity as Identity
from ntk_lab.nn.image_resize import ImageResize as ImageResize
from ntk_lab.nn.index import Index as Index
from ntk_lab.nn.leaky_relu import LeakyRelu as LeakyRelu
from ntk_lab.nn.masked import Masked as Masked
from ntk_lab.nn.mish import Mish as Mish
from ntk_lab.nn.module import Module as Module
from ntk_lab.nn.module import Pair as Pair
from ntk_lab.nn.module import hyper as hyper
from ntk_lab.nn.module import module as module
from ntk_lab.nn.module import submodules as submodules
from ntk_lab.nn.monomial import Monomial as Monomial
from ntk_lab.nn.normalization import LayerNorm as LayerNorm
from ntk_lab.nn.normalization import RMSNorm as RMSNorm
from ntk_lab.nn.parameterization import ABC as ABC
from ntk_lab.nn.parameterization import Standard as Standard
from ntk_lab.nn.polynomial import Polynomial as Polynomial
from ntk_lab.nn.pool import AvgPool as AvgPool
from ntk_lab.nn.pool import GlobalAvgPool as GlobalAvgPool
from ntk_lab.nn.pool import GlobalSumPool as GlobalSumPool
from ntk_lab.nn.pool import SumPool as SumPool
from ntk_lab.nn.rbf import Rbf as Rbf
from ntk_lab.nn.rectified_monomial import RectifiedMonomial as RectifiedMonomial
from ntk_lab.nn.relu import Relu as Relu
from ntk_lab.nn.repeat import Repeat as Repeat
from ntk_lab.nn.residual import Residual as Residual
from ntk_lab.nn.scale import Scale as Scale
from ntk_lab.nn.seeds import kernel_over_seeds as kernel_over_seeds
from ntk_lab.nn.selu import Selu as Selu
from ntk_lab.nn.sequential import Sequential as Sequential
from ntk_lab.nn.serialize import from_json as from_json
from ntk_lab.nn.sigmoid import Sigmoid as Sigmoid
from ntk_lab.nn.sigmoid_like import SigmoidLike as SigmoidLike
from ntk_lab.nn.sign import Sign as Sign
from ntk_lab.nn.silu import Silu as Silu
from ntk_lab.nn.simple_rnn import SimpleRNN as SimpleRNN
from ntk_lab.nn.sine import Cos as Cos
from ntk_lab.nn.sine import Sin as Sin
from ntk_lab.nn.softplus import Softplus as Softplus
from ntk_lab.nn.tanh import Tanh as Tanh
from ntk_lab.nn.transformer import Transformer as Transformer
from ntk_lab.nn.transformer import TransformerBlock as TransformerBlock

__all__ = [
    "ABC",
    "ABRelu",
    "Abs",
    "Activation",
    "Aggregate",
    "AvgPool",
    "BatchNorm",
    "Concat",
    "Conv",
    "ConvLocal",
    "ConvTranspose",
    "Cos",
    "Dense",
    "DotGeneral",
    "Dropout",
    "Elementwise",
    "Elu",
    "Embedding",
    "Erf",
    "Exp",
    "ExpNormalized",
    "Flatten",
    "Frozen",
    "FunctionPair",
    "Gabor",
    "Gaussian",
    "Gelu",
    "GlobalAvgPool",
    "GlobalSelfAttention",
    "GlobalSumPool",
    "Graph",
    "Hermite",
    "Identity",
    "ImageResize",
    "Index",
    "LayerNorm",
    "LeakyRelu",
    "Masked",
    "MaxPool",
    "Mish",
    "Module",
    "Monomial",
    "Pair",
    "Polynomial",
    "Product",
    "RMSNorm",
    "Rbf",
    "RectifiedMonomial",
    "Relu",
    "Repeat",
    "Residual",
    "Scale",
    "Selu",
    "Sequential",
    "Sigmoid",
    "SigmoidLike",
    "Sign",
    "Silu",
    "SimpleRNN",
    "Sin",
    "Softplus",
    "Standard",
    "Sum",
    "SumPool",
    "Tanh",
    "Transformer",
    "TransformerBlock",
    "from_json",
    "hyper",
    "kernel_over_seeds",
    "module",
    "submodules",
    "with_dropout",
]
