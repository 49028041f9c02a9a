"""Neural tangent kernels beside the networks they claim to describe."""

from importlib.metadata import version as _version

from ntk_lab import data as data
from ntk_lab import empirical as empirical
from ntk_lab import interop as interop
from ntk_lab import kernel as kernel
from ntk_lab import losses as losses
from ntk_lab import nn as nn
from ntk_lab import plot as plot
from ntk_lab import predict as predict
from ntk_lab import theory as theory
from ntk_lab import train as train
from ntk_lab.compare import Comparison as Comparison
from ntk_lab.compare import after_kernel_regression as after_kernel_regression
from ntk_lab.compare import compare as compare
from ntk_lab.compare import compare_model as compare_model
from ntk_lab.compare import phase_diagram as phase_diagram
from ntk_lab.empirical import monte_carlo_kernel as monte_carlo_kernel

__version__ = _version("ntk_lab")
