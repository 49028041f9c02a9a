"""The errors this library raises on purpose: what was got, what was expected, what to do."""


class InputError(ValueError):
    """An argument cannot be used: wrong shape, value or type."""


class NumericalError(ArithmeticError):
    """A computation left the range in which its result can be trusted."""


class StabilityError(InputError):
    """A learning rate lies beyond the limit at which discrete training diverges."""


class ConvergenceError(NumericalError):
    """An iteration stopped short of its tolerance; ``result`` is how far it came."""

    def __init__(self, message: str, result: object):
        super().__init__(message)
        self.result = result
