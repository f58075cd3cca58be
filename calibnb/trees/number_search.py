r"""The exact law of a model's answers over all numbers it can write, by best-first search.

A language model's answer to "one random number" is a law on strings. Sampling estimates it with noise;
here it is computed. Prefixes of the grammar ``-?\d+(\.\d+)?`` are expanded in order of probability, many at
once in one pass on a growing key-value cache, until the probability that is still unexpanded (the *open
mass*) is below a tolerance. Every token that leaves the grammar is known to be no number, so the result
carries its own certificate: the mass on numbers lies between what was closed and that plus the open mass.

Several tokenisations of one number (``12`` as one token or two) are different paths with one value; their
masses add up, as they should.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import DynamicCache

from calibnb.trees.attention import Body
from calibnb.trees.trie import Bools, Floats, Ints

# States of the number grammar: what has been written so far.
START, SIGN, INTEGER, POINT, FRACTION = range(5)
_STEP = {
    (START, "-"): SIGN,
    **{(s, d): INTEGER for s in (START, SIGN, INTEGER) for d in "0123456789"},
    (INTEGER, "."): POINT,
    **{(s, d): FRACTION for s in (POINT, FRACTION) for d in "0123456789"},
}
COMPLETE = (INTEGER, FRACTION)

# Vocabularies with digit groups have over a thousand children a prefix; the frontier keeps the heaviest.
MAX_FRONTIER = 50_000


@dataclass(frozen=True)
class NumberTokens:
    """The tokens of a vocabulary that can occur inside a number.

    Attributes
    ----------
    token : [t] int array
        Token ids.
    text : list[str]
        Their strings, made of digits, a point and a minus sign.
    next_state : [5, t] int array
        Grammar state after the token, -1 where the token would leave the grammar.
    """

    token: Ints
    text: list[str]
    next_state: Ints


def number_tokens(vocabulary: Mapping[str, int]) -> NumberTokens:
    """Find the number tokens of a vocabulary (``tokenizer.get_vocab()``).

    ASCII characters stand for themselves in byte-level and in sentencepiece vocabularies alike, so the
    token's own string is what it writes; one that carries a space marker is no part of a number.
    """
    pieces = {i: text for text, i in vocabulary.items() if text and set(text) <= set("-.0123456789")}
    ids = sorted(pieces)
    states = np.full((5, len(ids)), -1, np.int64)
    for column, i in enumerate(ids):
        for state in range(5):
            at: int | None = state
            for character in pieces[i]:
                at = _STEP.get((at, character)) if at is not None else None
            states[state, column] = -1 if at is None else at
    used: Bools = np.any(states >= 0, axis=0)
    kept = [i for i, u in zip(ids, used, strict=True) if u]
    return NumberTokens(np.asarray(kept, np.int64), [pieces[i] for i in kept], states[:, used])


@dataclass(frozen=True)
class OpenLaw:
    """The law of a model's answers, as far as the search went.

    Attributes
    ----------
    text : list[str]
        ``[k]`` numbers as written, one entry a token path.
    value : [k] float array
        Their values.
    mass : [k] float array
        Probability of the path, end token included.
    open_low, open_high : [o] float array
        For each unexpanded prefix the interval of all numbers it can still become.
    open_value : [o] float array
        One number of that interval: its middle, or the prefix as it stands where it is an integer.
    open_mass : [o] float array
        The prefix's probability.
    passes : int
        Forward passes used.
    nodes : int
        Prefixes expanded.
    """

    text: list[str]
    value: Floats
    mass: Floats
    open_low: Floats
    open_high: Floats
    open_value: Floats
    open_mass: Floats
    passes: int
    nodes: int

    @property
    def certificate(self) -> float:
        """Probability whose fate is unknown: the mass on numbers is in ``[mass.sum(), mass.sum() + certificate]``."""
        return float(self.open_mass.sum())


def stand_in(text: str, state: int) -> float:
    """A number for an unexpanded prefix: unbounded intervals have no middle, so integers stand for themselves."""
    if state in (START, SIGN):
        return 0.0
    low, high = interval(text, state)
    return float(text) if state == INTEGER else (low + high) / 2


def interval(text: str, state: int) -> tuple[float, float]:
    """The interval of all numbers that start with a prefix."""
    if state == START:
        return -np.inf, np.inf
    if state == SIGN:
        return -np.inf, 0.0
    magnitude = float(text.lstrip("-") + ("0" if state == POINT else ""))
    width = np.inf if state == INTEGER else 10.0 ** -(len(text.rsplit(".", 1)[1]))
    low, high = magnitude, magnitude + width
    return (-high, -low) if text.startswith("-") else (low, high)


@torch.inference_mode()
def open_law(
    body: Body,
    prompt: Sequence[int],
    tokens: NumberTokens,
    end_id: int,
    *,
    tolerance: float,
    max_nodes: int,
    nodes_per_pass: int,
    max_tokens: int = 32,
) -> OpenLaw:
    """Search the numbers a model can write, heaviest prefixes first.

    Parameters
    ----------
    body : Body
        The model.
    prompt : Sequence[int]
        The prompt's tokens; the answer starts after the last one.
    tokens : NumberTokens
        The vocabulary's number tokens.
    end_id : int
        The token that completes an answer.
    tolerance : float
        Stop once the open mass is at most this share of the mass known to be on numbers.
    max_nodes : int
        Expand at most this many prefixes.
    nodes_per_pass : int
        How many prefixes one forward pass expands.
    max_tokens : int
        Longer answers count as open.
    """
    device, width = body.device, len(prompt) - 1
    cache = body.encode(prompt[:-1]) or DynamicCache()
    token_ids = torch.from_numpy(tokens.token).to(device)
    # Expanded nodes; ancestor[i, j] says that j is i or above it, in the order in which the cache grew.
    ancestor: Bools = np.zeros((max_nodes, max_nodes), bool)
    depth = np.zeros(max_nodes, np.int64)
    texts: list[str] = []
    expanded = passes = 0
    number_mass = 0.0
    # The frontier: unexpanded prefixes, by parent node, token column, grammar state and log-probability.
    frontier = {"parent": np.array([-1]), "column": np.array([-1]), "state": np.array([START]), "logp": np.zeros(1)}
    # What the frontier had no room for, summed by parent: still open, never expanded.
    dust = np.zeros(max_nodes)
    state_of = np.zeros(max_nodes, np.int64)
    closed_text: list[str] = []
    closed_logp: list[Floats] = []

    def text_of(parent: int, column: int) -> str:
        return "" if parent < 0 else texts[parent] + tokens.text[column]

    while len(frontier["logp"]) and expanded < max_nodes:
        mass = np.exp(frontier["logp"])
        # The tolerance is relative to what is known to be numbers, so that laws given a number are certified too.
        if passes and mass.sum() + dust.sum() <= tolerance * number_mass:
            break
        reachable = np.flatnonzero(np.where(frontier["parent"] < 0, 0, depth[frontier["parent"]] + 1) < max_tokens)
        if not len(reachable):
            break
        count = min(nodes_per_pass, max_nodes - expanded, len(reachable))
        best = reachable[np.argpartition(-mass[reachable], count - 1)[:count]]
        chosen = {k: v[best] for k, v in frontier.items()}
        rest = np.ones(len(mass), bool)
        rest[best] = False
        frontier = {k: v[rest] for k, v in frontier.items()}

        new = np.arange(expanded, expanded + count)
        has_parent = chosen["parent"] >= 0
        ancestor[new[has_parent]] = ancestor[chosen["parent"][has_parent]]
        ancestor[new, new] = True
        state_of[new] = chosen["state"]
        depth[new] = np.where(has_parent, depth[chosen["parent"]] + 1, 0)
        texts.extend(text_of(p, c) for p, c in zip(chosen["parent"], chosen["column"], strict=True))
        expanded += count
        passes += 1

        last = np.where(has_parent, tokens.token[chosen["column"]], prompt[-1])
        position = torch.from_numpy(width + depth[new]).to(device)[None]
        visible = np.concatenate([np.ones((count, width), bool), ancestor[new, :expanded]], axis=1)
        key_position = torch.from_numpy(np.concatenate([np.arange(width), width + depth[:expanded]])).to(device)[None]
        token = torch.from_numpy(last).to(device)[None]
        hidden = body.forward(token, position, torch.from_numpy(visible).to(device)[None], key_position, cache)[0]
        logp = body.log_probabilities(hidden)
        going = logp[:, token_ids].double().cpu().numpy() + chosen["logp"][:, None]  # [count, t]
        ending = logp[:, end_id].double().cpu().numpy() + chosen["logp"]

        complete = np.isin(chosen["state"], COMPLETE)
        closed_text.extend(texts[i] for i in new[complete])
        closed_logp.append(ending[complete])
        number_mass += float(np.exp(ending[complete]).sum())
        states = tokens.next_state[chosen["state"]]  # [count, t]
        row, column = np.nonzero(states >= 0)
        grown = {"parent": new[row], "column": column, "state": states[row, column], "logp": going[row, column]}
        frontier = {k: np.concatenate([frontier[k], grown[k]]) for k in frontier}
        if len(frontier["logp"]) > MAX_FRONTIER:
            order = np.argpartition(-frontier["logp"], MAX_FRONTIER)
            light = order[MAX_FRONTIER:]
            np.add.at(dust, frontier["parent"][light], np.exp(frontier["logp"][light]))
            frontier = {k: v[order[:MAX_FRONTIER]] for k, v in frontier.items()}

    rest_of = [
        (text_of(p, c), s) for p, c, s in zip(frontier["parent"], frontier["column"], frontier["state"], strict=True)
    ]
    dusty = np.flatnonzero(dust)
    rest_of += [(texts[i], int(state_of[i])) for i in dusty]
    bounds = np.array([interval(*prefix) for prefix in rest_of]).reshape(-1, 2)
    mass = np.exp(np.concatenate(closed_logp)) if closed_logp else np.empty(0)
    return OpenLaw(
        text=closed_text,
        value=np.array([float(t) for t in closed_text]),
        mass=mass,
        open_low=bounds[:, 0],
        open_high=bounds[:, 1],
        open_value=np.array([stand_in(*prefix) for prefix in rest_of]),
        open_mass=np.concatenate([np.exp(frontier["logp"]), dust[dusty]]),
        passes=passes,
        nodes=expanded,
    )
