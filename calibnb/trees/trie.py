"""Answers as a token trie: the one structure that losses and exact measurements are sums over.

A law on strings becomes a law on token sequences, each closed with the token that ends the assistant's
turn. Merged by common prefix they form a trie. By the chain rule the probability of an answer is the
product of the next-token probabilities along its path, so everything that can be said about answers is a
sum over the nodes of that trie.

The trie is held as flat arrays in depth-first order, not as linked objects: then "all descendants of v" is
the slice ``v:end[v]``, "all nodes an answer passes" is a row of ``path``, and no Python loop ever walks it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Trie:
    """A token trie in depth-first preorder; node 0 is the root, the prompt's last token.

    Attributes
    ----------
    token : [n] int array
        Token of each node; -1 at the root, which is part of the prompt.
    parent : [n] int array
        Index of the parent; -1 at the root.
    depth : [n] int array
        Number of answer tokens up to and including the node; 0 at the root.
    end : [n] int array
        One past the last descendant, so ``v:end[v]`` is the subtree of ``v``.
    is_end : [n] bool array
        Whether the node is an end-of-turn token, where an answer is complete.
    path : [m, l] int array
        The nodes of answer ``i`` in order, its end node last, padded with -1.
    mass : [n] float array
        Probability of all answers that pass the node; 1 at the root.
    """

    token: Ints
    parent: Ints
    depth: Ints
    end: Ints
    is_end: Bools
    path: Ints
    mass: Floats

    @property
    def leaf(self) -> Ints:
        """``[m]`` the end node of each answer."""
        last = (self.path >= 0).sum(axis=1) - 1
        leaves: Ints = self.path[np.arange(len(self.path)), last]
        return leaves

    def through(self, weights: npt.ArrayLike) -> Floats:
        """Sum per-answer weights ``[m]`` over the answers that pass each node; returns ``[n]``."""
        per_step = np.where(self.path >= 0, np.asarray(weights, float)[:, None], 0.0)
        total: Floats = np.bincount(
            np.maximum(self.path, 0).ravel(), per_step.ravel(), minlength=len(self.token)
        ).astype(np.float64)
        total[0] = float(np.sum(weights))
        return total

    def along(self, per_node: Floats) -> Floats:
        """Sum a per-node quantity ``[n]`` along each answer's path (the root left out); returns ``[m]``."""
        total: Floats = np.where(self.path >= 0, per_node[np.maximum(self.path, 0)], 0.0).sum(axis=1)
        return total

    @property
    def targets(self) -> Floats:
        """``[n]`` the target next-token probability of each node given its parent; 1 at the root."""
        share = np.ones(len(self.token))
        share[1:] = self.mass[1:] / self.mass[self.parent[1:]]
        return share


def build(answers: Sequence[Sequence[int]], probabilities: npt.ArrayLike, end_id: int) -> Trie:
    """Merge tokenised answers into a trie.

    Parameters
    ----------
    answers : Sequence[Sequence[int]]
        ``m`` token sequences, the end token not yet appended. Empty sequences are allowed (the empty answer is the end
        token alone).
    probabilities : [m] array-like
        Their probabilities; equal sequences are merged by adding up.
    end_id : int
        The token that ends the assistant's turn.

    Raises
    ------
    ValueError
        If there is no answer, or an answer holds the end token itself.
    """
    m = len(answers)
    if m == 0:
        raise ValueError("a trie needs at least one answer")
    lengths = np.fromiter((len(a) for a in answers), np.int64, m) + 1
    width = int(lengths.max())
    column = np.arange(width)
    tokens = np.full((m, width), -1, np.int64)
    tokens[column < lengths[:, None] - 1] = np.fromiter(
        (t for a in answers for t in a), np.int64, int(lengths.sum()) - m
    )
    if (tokens == end_id).any():
        raise ValueError(f"an answer holds the end-of-turn token {end_id}")
    tokens[np.arange(m), lengths - 1] = end_id

    # Sorted by token sequence, a row opens a new node wherever its prefix differs from the row above.
    order = np.lexsort(tokens.T[::-1])
    rows, valid = tokens[order], column < lengths[order][:, None]
    differs = np.ones((m, width), bool)
    differs[1:] = np.logical_or.accumulate(rows[1:] != rows[:-1], axis=1)
    opens = differs & valid
    # Row-major numbering of the opened nodes is depth-first preorder; equal prefixes inherit from above.
    number = np.where(opens, np.cumsum(opens).reshape(m, width), 0)
    path = np.where(valid, np.maximum.accumulate(number, axis=0), -1)

    n = int(opens.sum()) + 1
    row, col = np.nonzero(opens)
    token, parent, depth = np.full(n, -1, np.int64), np.full(n, -1, np.int64), np.zeros(n, np.int64)
    token[1:] = rows[row, col]
    depth[1:] = col + 1
    parent[1:] = np.where(col > 0, path[row, np.maximum(col - 1, 0)], 0)
    # A node's subtree ends after the leaf of the last row that passes it (later rows overwrite earlier ones).
    leaf = path[np.arange(m), lengths[order] - 1]
    end = np.zeros(n, np.int64)
    end[path[valid]] = np.broadcast_to(leaf[:, None] + 1, path.shape)[valid]
    end[0] = n
    is_end = np.zeros(n, bool)
    is_end[leaf] = True

    original = np.empty_like(path)
    original[order] = path
    bare = Trie(token, parent, depth, end, is_end, original, np.zeros(n))
    return Trie(token, parent, depth, end, is_end, original, bare.through(probabilities))


@dataclass(frozen=True)
class Objective:
    """A loss on one prompt: ``sum_e weight[e] * -log q(token[e] | node[e])``, minus a constant.

    Soft paths, hard samples and the full trie all have this form, which is why one kernel serves them.

    Attributes
    ----------
    node : [k] int array
        The trie node at whose output the entry is scored.
    token : [k] int array
        The next token that is scored there.
    weight : [k] float array
        Its weight; the weights at a node sum to how often that node counts.
    entropy : float
        The loss at ``q = target``; subtracting it turns a cross-entropy into a KL divergence.
    """

    node: Ints
    token: Ints
    weight: Floats
    entropy: float


def objective(trie: Trie, counts: npt.ArrayLike, estimator: str, average: str = "tokens") -> Objective:
    """The training loss of one prompt under one of three estimators of the same gradient.

    By the chain rule KL(P || Q) on whole answers is the mass-weighted sum of the KLs at every prefix.
    ``trie`` is that sum itself; ``paths`` keeps the prefixes on drawn answers, with the full next-token
    target at each (the paper's soft target); ``samples`` keeps only the drawn tokens (its hard target).

    Parameters
    ----------
    trie : Trie
        The answers.
    counts : [m] array-like
        How often each answer was drawn (ignored by ``trie``).
    estimator : str
        `trie`, `paths` or `samples`.
    average : str
        ``tokens`` weighs every drawn token alike, so that the expectation is KL(P || Q) per answer; ``path`` first
        averages over the tokens of an answer, as the paper's soft loss does.

    Returns
    -------
    Objective
        An objective whose total is per answer: it is divided by the number of draws.
    """
    children = np.arange(1, len(trie.token))
    if estimator == "trie":
        if average != "tokens":
            raise ValueError("the full trie has no paths to average over: average must be 'tokens'")
        weight = trie.mass[children]
    else:
        counts = np.asarray(counts, float)
        per_answer = counts / counts.sum()
        if average == "path":
            per_answer = per_answer / (trie.path >= 0).sum(axis=1)
        visits = trie.through(per_answer)
        if estimator == "samples":
            weight = visits[children]
        else:
            # An end node has no children, so `visits` of a parent counts only answers that go on from it;
            # an answer passes a prefix and then scores one child, so both estimators share total weight.
            weight = visits[trie.parent[children]] * trie.targets[children]
    kept = weight > 0
    children, weight = children[kept], weight[kept]
    own = np.log(trie.targets[children])
    entropy = 0.0 if estimator == "samples" else float(-(weight * own).sum())
    return Objective(trie.parent[children], trie.token[children], weight, entropy)


def ancestors_of(trie: Trie, nodes: Ints) -> Bools:
    """``[n]`` mask of the given nodes, the root and everything in between."""
    keep = np.zeros(len(trie.token), bool)
    keep[0] = True
    while len(nodes):
        keep[nodes] = True
        above = trie.parent[nodes]
        nodes = np.unique(above[~keep[np.maximum(above, 0)]])
    return keep


def draw(probabilities: Floats, n: int, rng: np.random.Generator, *, stratified: bool) -> Ints:
    """Draw ``n`` answers and count them: ``[m]`` counts with sum ``n``.

    Stratified draws take one uniform number in each of ``n`` equal slices of [0, 1), so every answer is still
    drawn with its own probability in expectation while the counts vary far less than independent ones.
    """
    u = (np.arange(n) + rng.random(n)) / n if stratified else rng.random(n)
    cumulative = np.cumsum(probabilities)
    index = np.searchsorted(cumulative / cumulative[-1], u, side="right")
    return np.bincount(np.minimum(index, len(probabilities) - 1), minlength=len(probabilities))
