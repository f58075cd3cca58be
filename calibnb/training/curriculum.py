"""The order of prompts: which settings a run sees, with how many draws, and which ordinary examples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from calibnb.laws import canonical, specs, telling
from calibnb.laws.params import PromptParams
from calibnb.laws.settings import TrainingSettings
from calibnb.laws.specs import Spec
from calibnb.models import chatformat
from calibnb.training.mixture import Turn
from calibnb.training.packing import Batch, Example, batch, example, ordinary_example
from calibnb.training.params import FinetuneParams
from calibnb.trees.trie import draw


def schedule(settings: Sequence[Spec], family_weights: str, rng: np.random.Generator) -> list[Spec]:
    """One epoch: round robin over the families, their settings and the families shuffled anew.

    With ``settings`` each setting occurs once, so families keep unequal weight (12 to 125 settings), as in
    the paper; with ``equal`` the small families are repeated and the large ones cut, the total being the same.
    """
    families: dict[str, list[Spec]] = {}
    for s in settings:
        families.setdefault(s.family, []).append(s)
    shuffled = {f: [members[i] for i in rng.permutation(len(members))] for f, members in families.items()}
    if family_weights == "equal":
        share = math.ceil(len(settings) / len(families))
        shuffled = {f: (m * math.ceil(share / len(m)))[:share] for f, m in shuffled.items()}
    order: list[Spec] = []
    for turn in range(max(len(m) for m in shuffled.values())):
        present = [f for f, m in shuffled.items() if turn < len(m)]
        order += [shuffled[present[i]][turn] for i in rng.permutation(len(present))]
    return order[: len(settings)]


def prompts_of_run(settings: TrainingSettings, method: FinetuneParams, seed: int) -> list[Spec]:
    """The settings of a whole run, in order.

    With continuous parameters each place gets a fresh draw of its family; those that happen to be a
    validation setting or a point of the family's unseen grid are drawn again.
    """
    total = math.ceil(method.epochs * len(settings.train))
    order: list[Spec] = []
    for epoch in range(math.ceil(method.epochs)):
        order += schedule(settings.train, method.family_weights, np.random.default_rng([seed, 1, epoch]))
    order = order[:total]
    if method.parameters == "grid":
        return order
    rng = np.random.default_rng([seed, 2])
    digits, avoid = settings.significant_digits, settings.avoid
    return [specs.continuous(s.family, settings.ranges[s.family], rng, digits, avoid) for s in order]


def partners(order: Sequence[Spec], seed: int) -> list[Spec]:
    """For the format control: whose law each prompt's draws come from, a fixed-point-free shuffle."""
    shift = np.random.default_rng([seed, 3]).permutation(len(order))
    partner: list[Spec] = [order[0]] * len(order)
    for a, b in zip(shift, np.roll(shift, 1), strict=True):
        partner[a] = order[b]
    return partner


def make_examples(
    order: Sequence[Spec],
    method: FinetuneParams,
    prompt: PromptParams,
    chat: chatformat.ChatFormat,
    seed: int,
    estimator: str,
    first: int = 0,
) -> Iterator[Example]:
    """Examples of a run from place ``first`` on; draws depend on seed and place only, so a run can be resumed."""
    sources = partners(order, seed) if method.completions == "other" else order
    for place in range(first, len(order)):
        spec, source = order[place], sources[place]
        law = canonical.of_spec(source, method.space)
        rng = np.random.default_rng([seed, 4, place])
        counts = draw(law.probabilities, method.draws_per_prompt, rng, stratified=method.draws == "stratified")
        known = telling.told(spec.law, method.told)
        ids = chat.prompt_ids(specs.prompt(spec, prompt.template, prompt.parameter_names, known))
        yield example(ids, law, counts, chat, estimator, method.average)


def ordinary_order(count: int, available: int, seed: int) -> list[int]:
    """Which of the ordinary examples come in a run, ``count`` in all: each once before any comes again."""
    rounds = [np.random.default_rng([seed, 5, i]).permutation(available) for i in range(math.ceil(count / available))]
    return [int(i) for i in np.concatenate([*rounds, np.empty(0, int)])[:count]]


def ordinary_share(method: FinetuneParams) -> tuple[float, int]:
    """The weight of ordinary examples in the loss and how many a step has, 0 and 0 without a mixture."""
    return (method.mixture.share, method.mixture.prompts_per_step) if method.mixture else (0.0, 0)


@dataclass(frozen=True)
class Course:
    """What a run sees.

    Attributes
    ----------
    order : list[Spec]
        The settings of the whole run, ``prompts_per_step`` a step.
    ordinary : list[Example]
        Its ordinary examples, those of a step beside each other.
    validation : list[Batch]
        Fixed batches.
    steps : int
        Number of steps.
    """

    order: list[Spec]
    ordinary: list[Example]
    validation: list[Batch]
    steps: int


def course(
    settings: TrainingSettings,
    method: FinetuneParams,
    prompt: PromptParams,
    ordinary: Sequence[Turn],
    chat: chatformat.ChatFormat,
    seed: int,
    device: torch.device,
    show: bool,
) -> Course:
    """Choose what the run sees; ``show`` a bar while ordinary examples are read."""
    order = prompts_of_run(settings, method, seed)
    steps = math.ceil(len(order) / method.prompts_per_step)
    _, per_step = ordinary_share(method)
    drawn = ordinary_order(steps * per_step, len(ordinary), seed) if ordinary else []
    # All are read, so that one that cannot be trained on is found here; those of this run are kept.
    wanted = set(drawn)
    read = tqdm(ordinary, "ordinary examples", leave=False, disable=not ordinary or not show)
    made = ((i, ordinary_example(turn, chat)) for i, turn in enumerate(read))
    examples = {i: one for i, one in made if i in wanted}
    chosen = specs.spread(settings.validation, method.validation_settings)
    checked = list(make_examples(chosen, method, prompt, chat, seed + 1, "paths"))
    validation = [batch(checked[a : a + 16], device) for a in range(0, len(checked), 16)]
    return Course(order, [examples[i] for i in drawn], validation, steps)


def in_background(items: Iterator[Any]) -> Iterator[Any]:
    """The same items, each next one prepared in a thread while the last is in use."""
    done = object()
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(next, items, done)
        while (item := ahead.result()) is not done:
            ahead = pool.submit(next, items, done)
            yield item
