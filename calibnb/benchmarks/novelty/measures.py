"""How many different answers a variant gives to a prompt, and what they are worth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager

import numpy as np
import pandas as pd

from calibnb.benchmarks.novelty.classes import distinct, is_first, partitions, rating, utility
from calibnb.benchmarks.novelty.judges import Judge, Rewarder
from calibnb.benchmarks.novelty.prompt_sets import Prompt
from calibnb.laws import parsing
from calibnb.trees.sampling import Ask

MEASURES = ("distinct", "distinct_fraction", "utility", "numbers", "empty", "short")


def run(
    ask: Ask,
    prompts: Sequence[Prompt],
    *,
    generations: int,
    max_new_tokens: int,
    judge: AbstractContextManager[Judge],
    reward: AbstractContextManager[Rewarder] | None,
    patience: float,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Draw answers, cut them into classes and rate them; one model after the other is in memory.

    Parameters
    ----------
    ask : Ask
        Draws the answers.
    prompts : Sequence[Prompt]
        What is asked.
    generations : int
        Answers a prompt; at least 1.
    max_new_tokens : int
        Longest answer.
    judge : AbstractContextManager[Judge]
        For answers that are too long for :func:`short_rule`; entered once, and left before `reward`.
    reward : AbstractContextManager[Rewarder] or None
        None for no utility. Only first members of a class are rated, for repeats count 0 anyway.
    patience : float
        In [0, 1]; published: 0.8.

    Returns
    -------
    tuple[DataFrame, DataFrame]
        A row a prompt: id, category, generations, distinct (classes, empty answers one of them), distinct_fraction (of
        the generations), numbers (share of the answers that are a bare number: different, but no answers to such a
        prompt), empty (answers without a word), short (share of the compared pairs that the short rule decided; nan
        where none was compared), utility (in [0, 10]; nan without `reward`). And a row an answer: id, generation, text,
        class, reward, rating; the last two nan for repeats.
    """
    drawn = ask([prompt.prompt for prompt in prompts], draws=generations, max_new_tokens=max_new_tokens)
    with judge as judging:
        parts = partitions(drawn, judging.same)

    texts = pd.DataFrame(
        {
            "id": [prompt.id for prompt in prompts for _ in range(generations)],
            "prompt": [prompt.prompt for prompt in prompts for _ in range(generations)],
            "generation": list(range(generations)) * len(prompts),
            "text": [text for answers in drawn for text in answers],
            "class": [number for part in parts for number in part.classes],
            "reward": math.nan,
            "rating": math.nan,
        }
    )
    if reward is not None:
        first = np.asarray([here for part in parts for here in is_first(part.classes)])
        with reward as rewarding:
            values = rewarding.rewards(texts.loc[first, "prompt"].tolist(), texts.loc[first, "text"].tolist())
        texts.loc[first, "reward"] = values
        texts.loc[first, "rating"] = [float(rating(value)) for value in values]

    rated = texts["rating"].to_numpy(float).reshape(len(prompts), generations)
    frame = pd.DataFrame(
        {
            "id": prompt.id,
            "category": prompt.category,
            "generations": generations,
            "distinct": distinct(part.classes),
            "distinct_fraction": distinct(part.classes) / generations,
            "numbers": parsing.bare_numbers(answers),
            "empty": sum(not text.strip() for text in answers),
            "short": part.short / part.compared if part.compared else math.nan,
            "utility": utility(part.classes, ratings.tolist(), patience=patience),
        }
        for prompt, answers, part, ratings in zip(prompts, drawn, parts, rated, strict=True)
    )
    return frame, texts.drop(columns="prompt")
