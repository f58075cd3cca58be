r"""The exact law of a model's answers over all numbers it can write, by best-first search.

A language model's answer to "one random number" is a law on strings. Sampling estimates it with noise;
here it is computed. Prefixes of the grammar ``-?\d+(\.\d+)?`` are expanded in order of probability, many at
once in one pass on a growing key-value cache, until the probability that is still unexpanded (the *open
mass*) is below a tolerance; several prompts side by side. Every token that leaves the grammar is known to be
no number, so the result carries its own certificate: the mass on numbers lies between what was closed and
that plus the open mass.

Several tokenisations of one number (``12`` as one token or two) are different paths with one value; their
masses add up, as they should.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from calibnb.trees.attention import Body, shared_prefix
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

# Prefixes in one pass over several prompts: with more, products of matrices get no faster.
TOGETHER = 1024
# Rows of the head at once: a row is as long as the vocabulary.
HEAD_ROWS = 256


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


class _Search:
    """The law of one prompt's answers, as far as it is known: expanded prefixes, and the frontier.

    Attributes
    ----------
    width : int
        Tokens of the prompt before its last one, which is the root.
    expanded : int
        How many prefixes have been expanded; the arrays below are filled so far.
    ancestor : [n, n] bool array
        ``ancestor[i, j]``: node ``j`` is ``i`` or above it.
    token, depth, slot : [n] int array
        The token to read at a node (the root's is the prompt's), the tokens between root and node, and where its key
        stands in the cache.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        tokens: NumberTokens,
        *,
        tolerance: float,
        max_nodes: int,
        nodes_per_pass: int,
        max_tokens: int,
    ) -> None:
        self.width, self.tokens = len(prompt) - 1, tokens
        self.tolerance, self.nodes_per_pass, self.max_tokens = tolerance, nodes_per_pass, max_tokens
        self.expanded = self.passes = 0
        self.ancestor: Bools = np.zeros((max_nodes, max_nodes), bool)
        self.token, self.depth, self.slot, self.state = (np.zeros(max_nodes, np.int64) for _ in range(4))
        self.logp = np.zeros(max_nodes)
        self.texts: list[str] = []
        self.new: Ints = np.zeros(0, np.int64)  # nodes that are being expanded
        self.number_mass = 0.0
        # The frontier: unexpanded prefixes, by parent node, token column, grammar state and log-probability.
        self.frontier = {
            "parent": np.array([-1]),
            "column": np.array([-1]),
            "state": np.array([START]),
            "logp": np.zeros(1),
        }
        # What the frontier had no room for, summed by parent: still open, never expanded.
        self.dust = np.zeros(max_nodes)
        self.closed_text: list[str] = []
        self.closed_logp: list[Floats] = []

    def _text(self, parent: int, column: int) -> str:
        return "" if parent < 0 else self.texts[parent] + self.tokens.text[column]

    def choose(self) -> bool:
        """Move the heaviest prefixes from the frontier to ``new``; whether there is anything left to do."""
        frontier, room = self.frontier, len(self.token) - self.expanded
        mass = np.exp(frontier["logp"])
        # The tolerance is relative to what is known to be numbers, so that laws given a number are certified too.
        if self.passes and mass.sum() + self.dust.sum() <= self.tolerance * self.number_mass:
            return False
        depth = np.where(frontier["parent"] < 0, 0, self.depth[frontier["parent"]] + 1)
        reachable = np.flatnonzero(depth < self.max_tokens)
        count = min(self.nodes_per_pass, room, len(reachable))
        if not count:
            return False
        best = reachable[np.argpartition(-mass[reachable], count - 1)[:count]]
        rest = np.ones(len(mass), bool)
        rest[best] = False
        self.frontier = {k: v[rest] for k, v in frontier.items()}

        self.new = new = np.arange(self.expanded, self.expanded + count)
        parent, column = frontier["parent"][best], frontier["column"][best]
        below = parent >= 0
        self.ancestor[new[below]] = self.ancestor[parent[below]]
        self.ancestor[new, new] = True
        self.token[new[below]] = self.tokens.token[column[below]]
        self.depth[new], self.state[new], self.logp[new] = depth[best], frontier["state"][best], frontier["logp"][best]
        self.texts.extend(self._text(p, c) for p, c in zip(parent, column, strict=True))
        self.expanded += count
        self.passes += 1
        return True

    def grow(self, following: Floats) -> None:
        """Take what follows the ``new`` nodes: log-probabilities ``[new, t + 1]`` of all number tokens and the end."""
        new = self.new
        reached = following + self.logp[new, None]
        going, ending = reached[:, :-1], reached[:, -1]
        complete = np.isin(self.state[new], COMPLETE)
        self.closed_text.extend(self.texts[i] for i in new[complete])
        self.closed_logp.append(ending[complete])
        self.number_mass += float(np.exp(ending[complete]).sum())
        states = self.tokens.next_state[self.state[new]]  # [new, t]
        row, column = np.nonzero(states >= 0)
        grown = {"parent": new[row], "column": column, "state": states[row, column], "logp": going[row, column]}
        self.frontier = {k: np.concatenate([self.frontier[k], grown[k]]) for k in self.frontier}
        if len(self.frontier["logp"]) > MAX_FRONTIER:
            order = np.argpartition(-self.frontier["logp"], MAX_FRONTIER)
            light = order[MAX_FRONTIER:]
            np.add.at(self.dust, self.frontier["parent"][light], np.exp(self.frontier["logp"][light]))
            self.frontier = {k: v[order[:MAX_FRONTIER]] for k, v in self.frontier.items()}

    def law(self) -> OpenLaw:
        """What was found."""
        frontier, dusty = self.frontier, np.flatnonzero(self.dust)
        columns = zip(frontier["parent"], frontier["column"], frontier["state"], strict=True)
        prefixes = [(self._text(p, c), s) for p, c, s in columns]
        prefixes += [(self.texts[i], int(self.state[i])) for i in dusty]
        bounds = np.array([interval(*prefix) for prefix in prefixes]).reshape(-1, 2)
        return OpenLaw(
            text=self.closed_text,
            value=np.array([float(t) for t in self.closed_text]),
            mass=np.exp(np.concatenate(self.closed_logp)) if self.closed_logp else np.empty(0),
            open_low=bounds[:, 0],
            open_high=bounds[:, 1],
            open_value=np.array([stand_in(*prefix) for prefix in prefixes]),
            open_mass=np.concatenate([np.exp(frontier["logp"]), self.dust[dusty]]),
            passes=self.passes,
            nodes=self.expanded,
        )


def _following(body: Body, hidden: Tensor, columns: Tensor) -> Floats:
    """Log-probabilities ``[r, c]`` of some tokens after hidden states ``[r, h]``."""
    parts = [body.log_probabilities(some)[:, columns].double().cpu().numpy() for some in hidden.split(HEAD_ROWS)]
    found: Floats = np.concatenate(parts)
    return found


def _run(body: Body, prompts: Sequence[Sequence[int]], searches: Sequence[_Search], columns: Tensor) -> None:
    """Run searches to their end, a row of every pass each; shorter rows are filled with tokens that nobody sees."""
    shared, longest = shared_prefix(prompts), max(map(len, prompts))

    def tensor(values: object) -> Tensor:
        return torch.as_tensor(np.asarray(values)).to(body.device)

    # The first pass reads what each prompt has of its own; its last token is the root.
    token = np.array([[*p[shared:], *[p[-1]] * (longest - len(p))] for p in prompts])
    position = np.tile(np.arange(longest), (len(prompts), 1))  # [b, k], of all keys
    at = position[:, shared:]
    visible = at[:, :, None] >= position[:, None, :]
    cache = body.encode(prompts[0][:shared], len(prompts)) or DynamicCache()
    hidden = body.forward(tensor(token), tensor(at), tensor(visible), tensor(position), cache)
    last = [hidden[i, len(p) - shared - 1][None] for i, p in enumerate(prompts)]
    for search in searches:
        search.choose()
        search.slot[0] = search.width
    while True:
        following = np.split(_following(body, torch.cat(last), columns), np.cumsum([len(x) for x in last])[:-1])
        for search, found in zip(searches, following, strict=True):
            search.grow(found)
        going = [i for i, search in enumerate(searches) if search.choose()]
        if not going:
            return
        if len(going) < len(searches):
            cache.batch_select_indices(tensor(going))
            searches, position = [searches[i] for i in going], position[going]
        known, width = position.shape[1], max(len(search.new) for search in searches)
        token, at = (np.zeros((len(searches), width), np.int64) for _ in range(2))
        visible = np.zeros((len(searches), width, known + width), bool)
        visible[:, np.arange(width), known + np.arange(width)] = True  # a filling token sees itself
        for i, search in enumerate(searches):
            new, here = search.new, np.arange(len(search.new))
            search.slot[new] = known + here
            token[i, here], at[i, here] = search.token[new], search.width + search.depth[new]
            visible[i, here, : search.width] = True
            visible[i, here[:, None], search.slot[: search.expanded]] = search.ancestor[new, : search.expanded]
        position = np.concatenate([position, at], axis=1)
        hidden = body.forward(tensor(token), tensor(at), tensor(visible), tensor(position), cache)
        last = [hidden[i, : len(search.new)] for i, search in enumerate(searches)]


@torch.inference_mode()
def open_laws(
    body: Body,
    prompts: Sequence[Sequence[int]],
    tokens: NumberTokens,
    end_id: int,
    *,
    tolerance: float,
    max_nodes: int,
    nodes_per_pass: int,
    max_tokens: int = 32,
) -> Iterator[OpenLaw]:
    """Search the numbers that a model can write after each of several prompts, heaviest prefixes first.

    Every prompt has its own search, whatever stands beside it; they run side by side, since a pass over many prefixes
    costs less a prefix.

    Parameters
    ----------
    body : Body
        The model.
    prompts : Sequence[Sequence[int]]
        The tokens of the prompts; an answer starts after the last one.
    tokens : NumberTokens
        The vocabulary's number tokens.
    end_id : int
        The token that completes an answer.
    tolerance : float
        Stop once the open mass is at most this share of the mass known to be on numbers.
    max_nodes : int
        Expand at most this many prefixes of a prompt.
    nodes_per_pass : int
        How many prefixes of a prompt one forward pass expands.
    max_tokens : int
        Longer answers count as open.

    Yields
    ------
    OpenLaw
        Of each prompt, in order.
    """
    columns = torch.from_numpy(np.append(tokens.token, end_id)).to(body.device)
    side = max(1, TOGETHER // nodes_per_pass)
    for start in range(0, len(prompts), side):
        some = prompts[start : start + side]
        searches = [
            _Search(
                prompt, tokens,
                tolerance=tolerance, max_nodes=max_nodes, nodes_per_pass=nodes_per_pass, max_tokens=max_tokens,
            )
            for prompt in some
        ]  # fmt: skip
        _run(body, some, searches, columns)
        yield from (search.law() for search in searches)


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
    """The law of one prompt's answers: see :func:`open_laws`."""
    (law,) = open_laws(
        body, [prompt], tokens, end_id,
        tolerance=tolerance, max_nodes=max_nodes, nodes_per_pass=nodes_per_pass, max_tokens=max_tokens,
    )  # fmt: skip
    return law
