"""Exact measures where answers can be enumerated or searched: one choice, and other words for a known law."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from calibnb.benchmarks.language.suites import (
    EXACT_COLUMNS,
    PARAPHRASE_COLUMNS,
    SUITES,
    Choice,
    Item,
    Paraphrase,
    _fail,
    numbers_of,
    target,
)
from calibnb.benchmarks.structured.measures import Target, measures_of_open_law
from calibnb.laws import distances
from calibnb.laws.specs import evenly
from calibnb.models.chatformat import ChatFormat
from calibnb.trees.attention import Body, answer_log_probabilities
from calibnb.trees.number_search import number_tokens, open_laws
from calibnb.trees.params import OpenParams
from calibnb.trees.trie import Floats, build


def w1_of_numbers(values: Floats, p: Floats, q: Floats) -> tuple[float, float]:
    """W1 between two laws on the same finite set of numbers, and nW1.

    Parameters
    ----------
    values : [k] float array
        The numbers, in any order.
    p : [k] float array
        Target probabilities.
    q : [k] float array
        The others.

    Returns
    -------
    tuple[float, float]
        W1 in the unit of the values, and W1 divided by E|X - median| of the target, as in `laws.distances`: 1 is what
        always answering the median gets.
    """
    order = np.argsort(values)
    gaps = np.diff(values[order])
    cdf, other = np.cumsum(p[order])[:-1], np.cumsum(q[order])[:-1]
    distance = float(np.abs(cdf - other) @ gaps)
    return distance, distance / float(np.minimum(cdf, 1 - cdf) @ gaps)


def choice_measures(log_masses: Floats, p: Floats, values: Floats | None) -> dict[str, float]:
    """Measures of the probabilities that a model gives to a closed set of answers.

    Parameters
    ----------
    log_masses : [k] float array
        Log-probability of each answer, all its spellings together.
    p : [k] float array
        Target.
    values : [k] float array or None
        The answers as numbers, where they are.

    Returns
    -------
    dict[str, float]
        ``valid_mass`` (probability of any accepted spelling); ``total_variation`` to the target given a valid answer,
        in [0, 1]; ``chance_tv``, what always giving the likeliest answer gets, 1 - max p; ``normalised_tv``, their
        ratio; ``total_variation_all``, with all other answers as one more outcome of target probability 0; ``w1`` and
        ``nw1`` given a valid answer (nan where answers are no numbers).
    """
    logz = float(np.logaddexp.reduce(log_masses))
    q = np.exp(log_masses - logz) if np.isfinite(logz) else np.full(len(p), np.nan)
    distance, chance = distances.total_variation(p, q), 1 - float(p.max())
    w1, nw1 = (float("nan"), float("nan")) if values is None else w1_of_numbers(values, p, q)
    return {
        "valid_mass": float(np.exp(logz)),
        "total_variation": distance,
        "chance_tv": chance,
        "normalised_tv": distance / chance,
        "total_variation_all": distances.total_variation(p, np.exp(log_masses)) + (1 - float(np.exp(logz))) / 2,
        "w1": w1,
        "nw1": nw1,
    }


def log_masses_of(body: Body, chat: ChatFormat, item: Choice) -> Floats:
    """``[k]`` log-probability of each answer of an item: its spellings, each complete with the end token.

    A spelling is counted in the tokens that the tokenizer gives it; other token sequences of the same text are not, so
    masses are lower bounds, in practice close ones.

    Raises
    ------
    UserError
        Where two answers have the same tokens.
    """
    pairs = [(form, place) for place, answer in enumerate(item.answers) for form in answer.spellings]
    owner: dict[tuple[int, ...], int] = {}
    for ids, (form, place) in zip(chat.answer_ids([form for form, _ in pairs]), pairs, strict=True):
        if owner.setdefault(tuple(ids), place) != place:
            _fail(f"{item.suite}.{item.id}", f"the tokenizer writes {form!r} like another answer")
    trie = build(list(owner), np.full(len(owner), 1 / len(owner)), chat.end_id)
    logp = answer_log_probabilities(body, chat.prompt_ids(item.prompt), trie)
    places = np.array(list(owner.values()))
    return np.array([np.logaddexp.reduce(logp[places == k]) for k in range(len(item.answers))])


def of_each_suite(items: Sequence[Item], count: int) -> list[Item]:
    """At most `count` items of every suite, evenly spaced, in their order."""
    chosen: list[Item] = []
    for suite in SUITES:
        chosen += evenly([item for item in items if item.suite == suite], count)
    return chosen


def run_exact(body: Body, chat: ChatFormat, items: Sequence[Item]) -> pd.DataFrame:
    """Measure the items of the closed suites exactly; items of other suites are left out.

    Returns
    -------
    DataFrame
        A row an item: ``suite, id, prompt``; ``answers`` (list of texts), ``target`` and ``model`` (their
        probabilities, the model's with all other answers counted in: ``explode`` the three for a long table); the
        measures of `choice_measures`; ``top``, the model's likeliest answer, and ``top_probability``, given a valid
        answer.
    """
    rows = []
    chosen = [item for item in items if isinstance(item, Choice)]
    for item in tqdm(chosen, desc="ordinary language, exact", unit="item"):
        p, log_masses = target(item.answers), log_masses_of(body, chat, item)
        top = int(np.argmax(log_masses))
        about = {
            "suite": item.suite,
            "id": item.id,
            "prompt": item.prompt,
            "answers": [answer.text for answer in item.answers],
            "target": p.tolist(),
            "model": np.exp(log_masses).tolist(),
        }
        measures = choice_measures(log_masses, p, numbers_of(item.answers))
        share = float(np.exp(log_masses[top] - np.logaddexp.reduce(log_masses)))
        rows.append(about | measures | {"top": item.answers[top].text, "top_probability": share})
    return table_of(rows, EXACT_COLUMNS)


def table_of(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """Rows as they are, with the `columns` that none of them has."""
    frame = pd.DataFrame(rows)
    return frame.reindex(columns=[*frame.columns, *(name for name in columns if name not in frame)])


def run_paraphrases(
    body: Body, chat: ChatFormat, vocabulary: dict[str, int], items: Sequence[Item], search: OpenParams
) -> pd.DataFrame:
    """Measure the items of `paraphrases` by the open law of their answers; others are left out.

    Parameters
    ----------
    body, chat : Body, ChatFormat
        The model and its chat format.
    vocabulary : dict[str, int]
        ``tokenizer.get_vocab()``.
    items : Sequence[Item]
        Those to measure, of any suite.
    search : OpenParams
        As for the structured benchmark.

    Returns
    -------
    DataFrame
        A row an item: ``suite, id, prompt, wording``; ``family, label, split``, which name the setting in the
        structured benchmark's results; and the measures of `structured.measures_of_open_law`, ``nw1`` and
        ``valid_mass`` among them.
    """
    chosen = [item for item in items if isinstance(item, Paraphrase)]
    targets = {spec: Target.of(spec) for spec in dict.fromkeys(item.spec for item in chosen)}
    laws = open_laws(
        body, [chat.prompt_ids(item.prompt) for item in chosen], number_tokens(vocabulary), chat.end_id,
        tolerance=search.tolerance, max_nodes=search.max_nodes, nodes_per_pass=search.nodes_per_pass,
    )  # fmt: skip
    rows = []
    for item, found in zip(tqdm(chosen, desc="ordinary language, other wordings", unit="item"), laws, strict=True):
        about = {"suite": item.suite, "id": item.id, "prompt": item.prompt, "wording": item.wording}
        setting = {"family": item.spec.family, "label": item.spec.label, "split": item.spec.split}
        rows.append(about | setting | measures_of_open_law(found, targets[item.spec]))
    return table_of(rows, PARAPHRASE_COLUMNS)
