"""Random estimates, which come with their standard errors."""

from typing import NamedTuple

import jax


class Estimate(NamedTuple):
    """A number, or an array of numbers, that was estimated from random samples.

    Attributes
    ----------
    value
        The estimate.
    standard_error
        Of ``value``, from the spread of the samples; zero for what is exact.
    samples
        How many there were; zero for what is exact.
    truncation
        What is wrong for another reason than chance, and more samples do not mend: each routine
        says whether this is a bound. Zero where there is no such reason.
    """

    value: jax.Array
    standard_error: jax.Array
    samples: int
    truncation: jax.Array | float = 0.0


def from_samples(values: jax.Array, truncation: jax.Array | float = 0.0) -> Estimate:
    """Mean and standard error of independent samples along the first axis, at least two."""
    n = len(values)
    return Estimate(values.mean(axis=0), values.std(axis=0, ddof=1) / n**0.5, n, truncation)
