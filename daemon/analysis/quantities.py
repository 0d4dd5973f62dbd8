"""Numbers with the uncertainty that the table's calibrated probabilities give them."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Measured:
    """A number and one standard deviation; both NaN where the table does not tell."""

    value: float
    standard_deviation: float


@dataclass(frozen=True)
class Count:
    """How many of something a table names, and how many of these are there if its probabilities are right.

    Errors of different sites count as independent. What the model missed is in neither number; the report of the model
    tells how much that is.

    Attributes:
        found: What the table says.
        expected: The sum of the probabilities.
        standard_deviation: Of the true number around `expected`.
    """

    found: int
    expected: float
    standard_deviation: float

    @classmethod
    def of_sites(cls, probability: NDArray[np.floating[Any]]) -> "Count":
        """Count sites that are each what they are called with this probability, shape (n,)."""
        return cls(
            len(probability), float(probability.sum()), math.sqrt(float((probability * (1 - probability)).sum()))
        )

    def __add__(self, other: "Count") -> "Count":
        """Both together, of which no site is in both."""
        return Count(
            self.found + other.found,
            self.expected + other.expected,
            math.hypot(self.standard_deviation, other.standard_deviation),
        )

    def per(self, amount: float) -> Measured:
        """The expected number by area, number of sites, seconds or dose; NaN where there is none of it."""
        if not amount > 0:
            return Measured(math.nan, math.nan)
        return Measured(self.expected / amount, self.standard_deviation / amount)
