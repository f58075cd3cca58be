"""What a prompt may say of its law beside the parameters: where it lies and how wide it is.

A model that draws badly may not know where a law lies (the mean of a binomial law has to be computed), or may know it
and not be able to draw. Told place and spread, only the second is left.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from calibnb.laws.specs import number

Told = Literal["nothing", "moments", "quantiles"]


def moments(law: Any) -> tuple[float, float] | None:
    """Mean and standard deviation of a frozen scipy law; None where one of them does not exist."""
    mean, variance = (float(x) for x in law.stats("mv"))
    return (mean, math.sqrt(variance)) if math.isfinite(mean) and math.isfinite(variance) else None


def in_words(mean: float, deviation: float) -> str:
    """Place and spread as a prompt says them, after the parameters."""
    return f" (mean = {number(mean)}, standard deviation = {number(deviation)})"


def told(law: Any, how: Told) -> str:
    """What a prompt says of a law after its parameters, rounded as parameters are.

    Parameters
    ----------
    law
        Frozen scipy law.
    how : str
        ``nothing``; ``moments``, mean and standard deviation, or what ``quantiles`` says for a law that lacks one of
        them; ``quantiles``, the median between the quartiles.
    """
    if how == "nothing":
        return ""
    if how == "moments" and (known := moments(law)):
        return in_words(*known)
    low, median, high = (number(float(x)) for x in law.ppf([0.25, 0.5, 0.75]))
    return f" (lower quartile = {low}, median = {median}, upper quartile = {high})"
