"""Knowing where a law lies, and drawing from it: nW1 in two parts, told and untold, and whether a model believes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from calibnb.benchmarks.told.items import SHIFT, STRETCH
from calibnb.laws import affine, canonical, telling
from calibnb.laws.distances import Floats
from calibnb.laws.parsing import allowed
from calibnb.laws.settings import Question
from calibnb.models.chatformat import ChatFormat
from calibnb.trees.attention import Body
from calibnb.trees.number_search import OpenLaw, number_tokens, open_laws
from calibnb.trees.params import OpenParams

Answers = tuple[Floats, Floats]  # values, and masses that sum up to what was found
PARTS = ("nw1", "place", "shape", "valid_mass", "certificate")


def answers_of(found: OpenLaw) -> Answers:
    """All numbers of an open law, prefixes that are not done at their stand-in values."""
    return (
        np.concatenate([found.value, found.open_value]).astype(np.float64),
        np.concatenate([found.mass, found.open_mass]).astype(np.float64),
    )


def parts(question: Question, found: OpenLaw) -> dict[str, float]:
    """`PARTS` of what a model answers to a question; the first three are nan where no number was found."""
    spec, (values, masses) = question.spec, answers_of(found)
    valid = float(found.mass[allowed(found.value, spec.support, spec.discrete)].sum())
    place = shape = math.nan
    if masses.sum() > 0:
        law = spec.law
        place, shape = affine.nw1_parts(values, masses, law, *canonical.quantile_range(law))
    return {
        "nw1": place + shape,
        "place": place,
        "shape": shape,
        "valid_mass": valid,
        "certificate": found.certificate,
    }


def followed(question: Question, told: Answers, wrongly: Answers) -> dict[str, float]:
    """How far answers follow what they were told wrongly: 1 all the way, 0 not at all.

    ``followed_place`` is the shift of the median in units of the shift that was told, ``followed_spread`` the logarithm
    of how many times as wide the answers are, in units of that of what was told.
    """
    law = question.spec.law
    known = telling.moments(law)
    if known is None or told[1].sum() <= 0 or wrongly[1].sum() <= 0:
        return {"followed_place": math.nan, "followed_spread": math.nan}
    low, high = canonical.quantile_range(law)
    reach = (low - (high - low), high + (high - low))
    shift, ratio = affine.moved(told, wrongly, reach)
    return {
        "followed_place": shift / (SHIFT * known[1]),
        "followed_spread": math.log(ratio) / math.log(STRETCH) if ratio > 0 else math.nan,
    }


def run(
    body: Body,
    chat: ChatFormat,
    vocabulary: dict[str, int],
    asked: Mapping[str, Sequence[Question]],
    search: OpenParams,
) -> pd.DataFrame:
    """Measure every setting in all ways; a row a setting.

    Parameters
    ----------
    body, chat, vocabulary : Body, ChatFormat, dict[str, int]
        The model.
    asked : Mapping[str, Sequence[Question]]
        The questions ``untold``, ``told`` and ``wrong`` of the same settings; of the last some may be missing.
    search : OpenParams
        How far the exact law of answers is followed.

    Returns
    -------
    DataFrame
        Rows of ``family, label, split``, `PARTS` with the ends ``_untold`` and ``_told``, ``followed_place`` and
        ``followed_spread``.
    """
    wrongly = {question.spec: question for question in asked["wrong"]}
    pairs = list(zip(asked["untold"], asked["told"], strict=True))
    questions = [q for plain, told in pairs for q in (plain, told, wrongly.get(plain.spec)) if q is not None]
    laws = open_laws(
        body, [chat.prompt_ids(question.prompt) for question in questions], number_tokens(vocabulary), chat.end_id,
        tolerance=search.tolerance, max_nodes=search.max_nodes, nodes_per_pass=search.nodes_per_pass,
    )  # fmt: skip
    rows = []
    for plain, _ in tqdm(pairs, desc="told where the law lies", unit="setting"):
        spec = plain.spec
        row: dict[str, object] = {"family": spec.family, "label": spec.label, "split": spec.split}
        untold, told = next(laws), next(laws)
        for way, found in {"untold": untold, "told": told}.items():
            row |= {f"{name}_{way}": value for name, value in parts(plain, found).items()}
        nowhere = (np.zeros(0), np.zeros(0))
        misled = answers_of(next(laws)) if spec in wrongly else nowhere
        rows.append(row | followed(plain, answers_of(told), misled))
    return pd.DataFrame(rows)
