"""Structured sampling: does the model answer a named law with that law's randomness?

Two exact measurements and a sampled cross-check. *Closed*: on the law's own canonical strings, KL(target ||
model), split by the chain rule into the price of not writing one of them (format) and the KL given that one
was written (shape). *Open*: on every number the model can write, by
:func:`calibnb.trees.number_search.open_laws`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import tee

import numpy as np
import numpy.typing as npt
import pandas as pd
from tqdm.auto import tqdm

from calibnb.benchmarks.structured.params import SettingsParams
from calibnb.evidence import bands
from calibnb.laws import canonical, distances, specs
from calibnb.laws.distances import Floats, Law, clipped_scale, kolmogorov, moments, w1, w1_clipped
from calibnb.laws.fit import fit_test
from calibnb.laws.params import SpaceParams
from calibnb.laws.parsing import allowed, parse_number
from calibnb.laws.settings import Question
from calibnb.laws.specs import Spec
from calibnb.models.chatformat import ChatFormat
from calibnb.trees.attention import Body, all_log_probabilities
from calibnb.trees.number_search import OpenLaw, number_tokens, open_laws
from calibnb.trees.params import OpenParams
from calibnb.trees.sampling import Ask
from calibnb.trees.trie import build


def _given_a_number(
    values: Floats, masses: Floats, law: Law, low: float, high: float, scale: float | None
) -> dict[str, float]:
    """The measures that are read given a number; all nan if none was written."""
    names = ("nw1", "w1", "kolmogorov", "mean_error", "variance_error", "top5_mass")
    if masses.sum() <= 0:
        return dict.fromkeys(names, float("nan"))
    scale = clipped_scale(law, low, high) if scale is None else scale
    mean, variance = moments(values, masses)
    target_mean, target_variance = (float(m) for m in law.stats("mv"))
    _, where = np.unique(values, return_inverse=True)
    by_value = np.sort(np.bincount(where, masses))[::-1] / masses.sum()
    return {
        "nw1": w1_clipped(values, masses, law, low, high) / scale if scale > 0 else float("nan"),
        "w1": w1(values, masses, law),
        "kolmogorov": kolmogorov(values, masses, law),
        "mean_error": abs(mean - target_mean) if np.isfinite(target_mean) else float("nan"),
        "variance_error": abs(variance - target_variance) if np.isfinite(target_variance) else float("nan"),
        "top5_mass": float(by_value[:5].sum()),
    }


def open_measures(
    values: npt.ArrayLike,
    masses: npt.ArrayLike,
    law: Law,
    *,
    discrete: bool,
    support: tuple[float, float],
    low: float,
    high: float,
    scale: float | None = None,
) -> dict[str, float]:
    """All measures of a model's law on the numbers it can write.

    Parameters
    ----------
    values : [n] array-like
        The numbers found.
    masses : [n] array-like
        Their probability; the sum may be below one, the rest is on answers that are no number.
    law : Law
        Frozen scipy law of the target.
    discrete, support : bool, tuple[float, float]
        What is allowed.
    low, high : float
        The target's 0.001 and 0.999 quantiles.
    scale : float or None
        ``clipped_scale(law, low, high)`` if known.

    Returns
    -------
    dict[str, float]
        ``number_mass``, ``valid_mass`` (allowed numbers) and ``support_violation`` (the others) as probabilities; then,
        **given a number**, ``nw1`` (no unit), ``w1`` (unclipped; inf without a target mean), ``kolmogorov``,
        ``mean_error`` and ``variance_error`` (absolute; nan where the target has none), ``top5_mass`` (the five most
        likely values). Without any number the latter are nan.
    """
    x, w = np.asarray(values, np.float64), np.asarray(masses, np.float64)
    valid = float(w[allowed(x, support, discrete)].sum())
    number = float(w.sum())
    shares = {"number_mass": number, "valid_mass": valid, "support_violation": number - valid}
    return shares | _given_a_number(x, w, law, low, high, scale)


def sampled_measures(
    texts: Sequence[str],
    law: Law,
    *,
    discrete: bool,
    support: tuple[float, float],
    low: float,
    high: float,
    scale: float | None = None,
) -> dict[str, float]:
    """The measures of `open_measures` from drawn answers, and the fit test on the valid ones.

    Shares are over all answers asked for. ``fit_statistic`` and ``fit_pvalue`` are those of `fit_test`;
    ``draws`` is their number.
    """
    parsed = [parse_number(text) for text in texts]
    values = np.asarray([v for v in parsed if v is not None], np.float64)
    masses = np.full(len(values), 1 / max(len(texts), 1))
    measures = open_measures(values, masses, law, discrete=discrete, support=support, low=low, high=high, scale=scale)
    fit = fit_test(values[allowed(values, support, discrete)], law, discrete)
    return {"draws": len(texts)} | measures | {"fit_statistic": fit.statistic, "fit_pvalue": fit.pvalue}


def closed_measures(log_probabilities: Floats, target: Floats) -> dict[str, float]:
    """Measures on the canonical strings alone, from ``[m]`` answer log-probabilities and target probabilities.

    ``kl = kl_format + kl_shape`` in nats, with Q the model and C the set of canonical strings:
    KL(P || Q) = -log Q(C) + KL(P || Q given C). ``total_variation`` counts what falls outside C as error.
    """
    logz = float(np.logaddexp.reduce(log_probabilities))
    kl = float(np.sum(target * (np.log(target) - log_probabilities)))
    inside = distances.total_variation(target, np.exp(log_probabilities))
    return {
        "kl": kl,
        "kl_format": -logz,
        "kl_shape": kl + logz,
        "canonical_mass": float(np.exp(logz)),
        "total_variation": inside + (1 - float(np.exp(logz))) / 2,
    }


@dataclass(frozen=True)
class Target:
    """What the open measures of a setting need of its law, computed once for all variants."""

    spec: Spec
    low: float
    high: float
    scale: float

    @staticmethod
    def of(spec: Spec) -> Target:
        law = spec.law
        low, high = canonical.quantile_range(law)
        return Target(spec, low, high, distances.clipped_scale(law, low, high))

    def of_values(self, values: Floats, masses: Floats) -> dict[str, float]:
        """:func:`open_measures` of numbers with masses."""
        spec = self.spec
        return open_measures(
            values, masses, spec.law,
            discrete=spec.discrete, support=spec.support, low=self.low, high=self.high, scale=self.scale,
        )  # fmt: skip

    def of_draws(self, texts: Sequence[str]) -> dict[str, float]:
        """:func:`sampled_measures` of drawn answers."""
        spec = self.spec
        return sampled_measures(
            texts, spec.law,
            discrete=spec.discrete, support=spec.support, low=self.low, high=self.high, scale=self.scale,
        )  # fmt: skip


def measured_settings(settings: Sequence[Spec], choice: SettingsParams) -> list[Spec]:
    """The settings of the study that are measured, split by split."""
    return [
        *specs.choose(settings, "validation", choice.in_range),
        *specs.choose(settings, "unseen", choice.unseen),
        *specs.choose(settings, "held_out", choice.held_out),
    ]


def mean_distance(at: Floats, values: Floats, masses: Floats) -> Floats:
    """``E|a - X|`` for each ``a`` of ``at``, X on ``values`` with ``masses`` (normalised here)."""
    order = np.argsort(values)
    x, p = values[order], masses[order] / masses.sum()
    below = np.searchsorted(x, at, side="right")
    mass = np.concatenate([[0.0], np.cumsum(p)])[below]
    weighted = np.concatenate([[0.0], np.cumsum(p * x)])[below]
    distance: Floats = at * (2 * mass - 1) + float(p @ x) - 2 * weighted
    return distance


def measures_of_open_law(found: OpenLaw, target: Target) -> dict[str, float]:
    """Measures of an open law.

    Shares (number, valid, support violation) count closed numbers only, so they are lower bounds, short of
    the truth by at most ``certificate``. What is read given a number counts the open prefixes at a stand-in
    value as well, because leaving out the least likely prefixes would cut the tails. ``nw1_slack`` bounds
    what they can still do to nW1: each may end elsewhere in its interval, or as no number at all. Where it is
    as large as nW1 itself, the search says little about the shape: so it is for a model that hardly ever
    writes a number.
    """
    spec, closed = target.spec, float(found.mass.sum())
    given = target.of_values(
        np.concatenate([found.value, found.open_value]), np.concatenate([found.mass, found.open_mass])
    )
    low, high, middle, value = (
        np.clip(x, target.low, target.high) for x in (found.open_low, found.open_high, found.open_value, found.value)
    )
    reach = high - low + (mean_distance(middle, value, found.mass) if closed > 0 else np.inf)
    unit = closed * target.scale  # 0 as well for a law that is all but certain, which has no nW1
    slack = float((found.open_mass * reach).sum()) / unit if unit > 0 else float("inf")
    valid = float(found.mass[allowed(found.value, spec.support, spec.discrete)].sum())
    return given | {
        "number_mass": closed,
        "valid_mass": valid,
        "support_violation": closed - valid,
        "certificate": found.certificate,
        "nw1_slack": slack,
        "nodes": found.nodes,
        "passes": found.passes,
    }


def run(
    body: Body,
    chat: ChatFormat,
    vocabulary: dict[str, int],
    asked: Sequence[Question],
    *,
    space: SpaceParams,
    search: OpenParams,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Measure settings exactly.

    Returns
    -------
    tuple[DataFrame, DataFrame]
        A row a setting (its family, label, split, and all measures), and the open laws themselves as rows ``label,
        value, mass``, open prefixes at their stand-in values.
    """
    prompts = [chat.prompt_ids(question.prompt) for question in asked]
    laws, again = tee(canonical.of_spec(question.spec, space) for question in asked)
    tries, to_score = tee(build(chat.answer_ids(law.strings), law.probabilities, chat.end_id) for law in again)
    closed = all_log_probabilities(body, prompts, to_score)
    opened = open_laws(
        body, prompts, number_tokens(vocabulary), chat.end_id,
        tolerance=search.tolerance, max_nodes=search.max_nodes, nodes_per_pass=search.nodes_per_pass,
    )  # fmt: skip
    rows, found_laws = [], []
    bar = tqdm(asked, desc="structured sampling", unit="setting")
    for question, law, trie, logp, found in zip(bar, laws, tries, closed, opened, strict=True):
        spec = question.spec
        about = {"family": spec.family, "label": spec.label, "split": spec.split, "selected": spec.selected}
        on_grid = closed_measures(trie.along(logp), law.probabilities)
        rows.append(about | on_grid | measures_of_open_law(found, Target.of(spec)))
        values = pd.DataFrame({"value": [*found.value, *found.open_value], "mass": [*found.mass, *found.open_mass]})
        merged = values.groupby("value", as_index=False, sort=True)["mass"].sum()
        found_laws.append(merged.assign(label=spec.label, split=spec.split))
    return pd.DataFrame(rows), pd.concat(found_laws, ignore_index=True)


def run_sampled(ask: Ask, asked: Sequence[Question], *, draws: int, max_new_tokens: int) -> pd.DataFrame:
    """The paper's own way, as a cross-check: draw answers and measure the draws; a row a setting."""
    answers = ask([question.prompt for question in asked], draws=draws, max_new_tokens=max_new_tokens)
    rows = []
    for spec, texts in zip([question.spec for question in asked], answers, strict=True):
        measured = Target.of(spec).of_draws(texts)
        rows.append({"family": spec.family, "label": spec.label, "split": spec.split} | measured)
    return pd.DataFrame(rows)


CHECKED = ("family", "label", "split", "draws", "valid_mass", "number_mass", "nw1", "fit_pvalue")
BAND = ("exact", "expected", "low", "high", "floor")


def cross_check(drawn: pd.DataFrame, found_laws: pd.DataFrame, asked: Sequence[Question]) -> pd.DataFrame:
    """Sampled settings beside what their exact laws imply for as many draws.

    A sampled W1 is biased upwards: even a perfect sampler does not reach 0. So the exact law is turned into what that
    many draws from it would give.

    Parameters
    ----------
    drawn : DataFrame
        Rows of :func:`run_sampled`.
    found_laws : DataFrame
        Found laws of :func:`run`.
    asked : Sequence[Question]
        The questions of `drawn`.

    Returns
    -------
    DataFrame
        The rows with ``exact`` (the exact nW1), ``expected``, ``low`` and ``high`` (of a sampled one under the exact
        law: its mean and 95 % band; nan where no number was drawn) and ``floor`` (a perfect sampler's).
    """
    if drawn.empty:
        texts = ("family", "label", "split")
        columns = {name: pd.Series(dtype=object if name in texts else float) for name in (*CHECKED, *BAND)}
        return pd.DataFrame(columns)
    rows = []
    for question, (_, row) in zip(asked, drawn.iterrows(), strict=True):
        law = question.spec.law
        low, high = canonical.quantile_range(law)
        here = (found_laws["label"] == question.spec.label) & (found_laws["split"] == question.spec.split)
        exact = found_laws[here]
        count = round(row["number_mass"] * row["draws"])
        band = bands.SamplingBand(np.nan, np.nan, np.nan, np.nan)
        if count:
            band = bands.sampling_band(exact["value"], exact["mass"], law, low, high, count, 200, 0)
        rows.append(
            {
                "exact": distances.normalised_w1(exact["value"], exact["mass"], law, low, high),
                "expected": band.mean,
                "low": band.low,
                "high": band.high,
                "floor": bands.perfect_sampler_floor(law, low, high, int(row["draws"]), 200, 0).mean,
            }
        )
    return pd.concat([drawn, pd.DataFrame(rows)], axis=1)
