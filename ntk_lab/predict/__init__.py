"""What kernel theory says that training will do."""

from ntk_lab.predict.descent import GradientDescent as GradientDescent
from ntk_lab.predict.descent import gradient_descent as gradient_descent
from ntk_lab.predict.descent import max_learning_rate as max_learning_rate
from ntk_lab.predict.flow import GradientFlow as GradientFlow
from ntk_lab.predict.flow import gradient_flow as gradient_flow
from ntk_lab.predict.loss_descent import LossDescent as LossDescent
from ntk_lab.predict.loss_flow import LossFlow as LossFlow
from ntk_lab.predict.posterior import Posterior as Posterior
from ntk_lab.predict.posterior import gp_posterior as gp_posterior
from ntk_lab.predict.result import Moments as Moments
from ntk_lab.predict.result import Prediction as Prediction

__all__ = [
    "GradientDescent",
    "GradientFlow",
    "LossDescent",
    "LossFlow",
    "Moments",
    "Posterior",
    "Prediction",
    "gp_posterior",
    "gradient_descent",
    "gradient_flow",
    "max_learning_rate",
]
