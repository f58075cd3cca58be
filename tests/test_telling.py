"""What prompts tell of a law: its moments or quantiles, printed as parameters are."""

from __future__ import annotations

import re

import numpy as np
import pytest
from notebook_code import ROOT
from scipy import stats

from calibnb.laws import specs, telling
from calibnb.pipeline import params

STUDY = params.load(ROOT / "params.yaml")
ALL = specs.build(STUDY.families, STUDY.data.validation_share, STUDY.data.significant_digits)
ONE_OF_EACH = list({spec.family: spec for spec in ALL}.values())


def test_nothing_is_told_unless_asked_for() -> None:
    spec = ALL[0]
    plain = specs.prompt(spec, STUDY.prompt.template, "symbols")
    assert specs.prompt(spec, STUDY.prompt.template, "symbols", telling.told(spec.law, "nothing")) == plain


def test_what_is_told_stands_after_the_parameters() -> None:
    law = stats.binom(25, 0.5)
    assert telling.told(law, "moments") == " (mean = 12.5, standard deviation = 2.5)"
    assert telling.told(law, "quantiles") == " (lower quartile = 11, median = 12, upper quartile = 14)"
    spec = specs.Spec("binomial", (("n", 25.0), ("p", 0.5)), "unseen")
    text = specs.prompt(spec, "{distribution}: {parameters}.", "symbols", telling.told(spec.law, "moments"))
    assert text == "Binomial: n = 25, p = 0.5 (mean = 12.5, standard deviation = 2.5)."


@pytest.mark.parametrize("spec", ONE_OF_EACH, ids=lambda spec: spec.family)
def test_the_numbers_are_those_of_many_draws(spec: specs.Spec) -> None:
    rng = np.random.default_rng(5)
    draws = spec.law.ppf(rng.uniform(size=20_000))  # scipy's own draws refuse a count that is a float
    low, median, high = (float(x) for x in re.findall(r"= (-?[\d.]+)", telling.told(spec.law, "quantiles")))
    for level, value in ((0.25, low), (0.5, median), (0.75, high)):
        below, up_to = (draws < value - 1e-3 * abs(value)).mean(), (draws <= value + 1e-3 * abs(value)).mean()
        assert below - 0.02 <= level <= up_to + 0.02
    known = telling.moments(spec.law)
    if known is None:
        assert telling.told(spec.law, "moments") == telling.told(spec.law, "quantiles")
    else:
        mean, deviation = known
        # Chebyshev: at most a quarter of the mass lies beyond two standard deviations, whatever the law.
        assert np.mean(np.abs(draws - mean) > 2 * deviation) <= 0.25
        assert abs(draws.mean() - mean) <= 8 * deviation / np.sqrt(len(draws))


def test_a_law_without_a_variance_has_quantiles() -> None:
    assert telling.moments(stats.cauchy(1, 2)) is None and telling.moments(stats.pareto(1.5)) is None
    assert telling.told(stats.cauchy(1, 2), "moments") == " (lower quartile = -1, median = 1, upper quartile = 3)"
