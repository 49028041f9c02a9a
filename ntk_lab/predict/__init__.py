"""What kernel theory says that training will do."""

from ntk_lab.predict.calibration import Calibration as Calibration
from ntk_lab.predict.calibration import calibration as calibration
from ntk_lab.predict.descent import GradientDescent as GradientDescent
from ntk_lab.predict.descent import gradient_descent as gradient_descent
from ntk_lab.predict.feature_machine import FeatureMachine as FeatureMachine
from ntk_lab.predict.feature_machine import recursive_feature_machine as recursive_feature_machine
from ntk_lab.predict.fit import Fit as Fit
from ntk_lab.predict.fit import fit as fit
from ntk_lab.predict.flow import GradientFlow as GradientFlow
from ntk_lab.predict.flow import gradient_flow as gradient_flow
from ntk_lab.predict.laplace import laplace_kernel as laplace_kernel
from ntk_lab.predict.learnt_modes import LearntModes as LearntModes
from ntk_lab.predict.learnt_modes import learnt_modes as learnt_modes
from ntk_lab.predict.likelihood import log_marginal_likelihood as log_marginal_likelihood
from ntk_lab.predict.loss_descent import LossDescent as LossDescent
from ntk_lab.predict.loss_flow import LossFlow as LossFlow
from ntk_lab.predict.matrix_free import MatrixFree as MatrixFree
from ntk_lab.predict.matrix_free import MatrixFreePrediction as MatrixFreePrediction
from ntk_lab.predict.mini_batch import StochasticDescent as StochasticDescent
from ntk_lab.predict.mini_batch import stochastic_descent as stochastic_descent
from ntk_lab.predict.posterior import Posterior as Posterior
from ntk_lab.predict.posterior import gp_posterior as gp_posterior
from ntk_lab.predict.regress import regress as regress
from ntk_lab.predict.regression import Regression as Regression
from ntk_lab.predict.result import Moments as Moments
from ntk_lab.predict.result import Prediction as Prediction
from ntk_lab.predict.sign_descent import SignDescent as SignDescent
from ntk_lab.predict.sign_descent import sign_descent as sign_descent
from ntk_lab.predict.stability import max_learning_rate as max_learning_rate

__all__ = [
    "Calibration",
    "FeatureMachine",
    "Fit",
    "GradientDescent",
    "GradientFlow",
    "LearntModes",
    "LossDescent",
    "LossFlow",
    "MatrixFree",
    "MatrixFreePrediction",
    "Moments",
    "Posterior",
    "Prediction",
    "Regression",
    "SignDescent",
    "StochasticDescent",
    "calibration",
    "fit",
    "gp_posterior",
    "gradient_descent",
    "gradient_flow",
    "laplace_kernel",
    "learnt_modes",
    "log_marginal_likelihood",
    "max_learning_rate",
    "recursive_feature_machine",
    "regress",
    "sign_descent",
    "stochastic_descent",
]
