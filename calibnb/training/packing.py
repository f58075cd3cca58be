"""Calibration fine-tuning: low-rank adapters trained on draws from laws.

One prompt of a step is one setting with a number of draws. The draws are merged into a trie and packed with
the step's other prompts into a few rows, so what one row a completion would encode hundreds of times is
encoded once. The loss is a weighted sum of next-token cross-entropies (:func:`calibnb.trees.trie.objective`); the
estimators differ only in which tokens are scored and with which weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from calibnb.laws import canonical
from calibnb.models import chatformat
from calibnb.training.mixture import Turn
from calibnb.trees.attention import Rows, pack, segment, shared_prefix
from calibnb.trees.trie import Ints, Objective, Trie, ancestors_of, build, objective

ROW_TOKENS = 256  # short rows: attention is quadratic in them, and first-fit packing leaves little padding


@dataclass(frozen=True)
class Example:
    """One prompt with its trie of answers and the loss on it.

    ``drawn_tokens`` counts the tokens of all drawn completions, what one row a completion would read.
    """

    prompt: list[int]
    trie: Trie
    loss: Objective
    drawn_tokens: int


def example(
    prompt: list[int], law: canonical.AnswerLaw, counts: Ints, chat: chatformat.ChatFormat, estimator: str, average: str
) -> Example:
    """Tokenise what the estimator needs and state its loss.

    Hard samples need the drawn strings only; soft paths need the whole trie, because the target at a prefix
    is spread over all strings that share it.
    """
    drawn = np.flatnonzero(counts) if estimator == "samples" else np.arange(len(counts))
    trie = build(chat.answer_ids([law.strings[i] for i in drawn]), law.probabilities[drawn], chat.end_id)
    drawn_tokens = int(((trie.path >= 0).sum(axis=1) * counts[drawn]).sum())
    return Example(prompt, trie, objective(trie, counts[drawn], estimator, average), drawn_tokens)


def ordinary_example(turn: Turn, chat: chatformat.ChatFormat) -> Example:
    """A question with its one answer, a trie of a single path; its loss is the mean over the answer's tokens."""
    prompt, answer = turn.ids(chat)
    trie = build([answer], [1.0], chat.end_id)
    return Example(prompt, trie, objective(trie, [1], "samples", "path"), trie.path.size)


@dataclass(frozen=True)
class Batch:
    """Packed prompts and the entries of their losses.

    Attributes
    ----------
    prefix : list[int]
        Tokens that all prompts share, encoded once.
    rows : Rows
        The packed rows.
    scored : [r] tensor
        Flat indices into the rows at which next tokens are scored.
    entry : [k] tensor
        Index into ``scored`` of each loss entry; ``token`` and ``weight`` as in Objective.
    entropy : float
        The loss of a perfect model.
    prompts : int
        Number of prompts.
    """

    prefix: list[int]
    rows: Rows
    scored: Tensor
    entry: Tensor
    token: Tensor
    weight: Tensor
    entropy: float
    prompts: int


def batch(examples: Sequence[Example], device: torch.device, row_tokens: int = ROW_TOKENS) -> Batch:
    """Pack examples; losses are averaged over the prompts."""
    shared = shared_prefix([e.prompt for e in examples])
    pieces = [segment(e.prompt, shared, e.trie, ancestors_of(e.trie, np.unique(e.loss.node))) for e in examples]
    rows = pack(pieces, row_tokens, device)
    at = np.concatenate([s + p.index[e.loss.node] for s, p, e in zip(rows.start, pieces, examples, strict=True)])
    scored, entry = np.unique(at, return_inverse=True)
    weight = np.concatenate([e.loss.weight for e in examples]) / len(examples)
    return Batch(
        prefix=examples[0].prompt[:shared],
        rows=rows,
        scored=torch.from_numpy(scored).to(device),
        entry=torch.from_numpy(entry).to(device),
        token=torch.from_numpy(np.concatenate([e.loss.token for e in examples])).to(device),
        weight=torch.from_numpy(weight).float().to(device),
        entropy=sum(e.loss.entropy for e in examples) / len(examples),
        prompts=len(examples),
    )


def kinds(examples: Sequence[Example], packed: Batch) -> list[str]:
    """What each token of a batch's rows is, without the beginning that all prompts share: a letter a token.

    Parameters
    ----------
    examples : Sequence[Example]
        What `packed` was made of.
    packed : Batch
        The batch.

    Returns
    -------
    list[str]
        A text a row: ``p`` a prompt's token, ``a`` one of its answers, ``.`` padding.
    """
    letters = np.full(packed.rows.token.numel(), ".")
    for one, start in zip(examples, packed.rows.start, strict=True):
        prompt_size = len(one.prompt) - len(packed.prefix)
        kept = int(ancestors_of(one.trie, np.unique(one.loss.node)).sum()) - 1
        letters[start : start + prompt_size] = "p"
        letters[start + prompt_size : start + prompt_size + kept] = "a"
    return ["".join(row) for row in letters.reshape(tuple(packed.rows.token.shape))]
