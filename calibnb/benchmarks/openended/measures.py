"""Open-ended random generation: asked for one random member of a category, how many does a model have in it?

At the logits: how many next tokens carry how much of the first token's probability. By sampling: how many answers
differ. Where the members of a category can be counted (planets, elements, countries), also the exact law over them
by :mod:`calibnb.trees.trie`, its distance from uniform, and the yield of answers that are both new and true.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy.special import gammaln
from tqdm.auto import tqdm

from calibnb.benchmarks.openended.categories import Category
from calibnb.laws import distances, parsing
from calibnb.models.chatformat import ChatFormat
from calibnb.trees.attention import Body, answer_log_probabilities
from calibnb.trees.sampling import Ask
from calibnb.trees.trie import Floats, Ints, build

# The masses whose smallest set of next tokens is counted (the protocol's list).
LEVELS: tuple[float, ...] = (0.01, *(round(0.05 * i, 2) for i in range(1, 20)), 0.99)
CLOSED = ("member_mass", "uniform_tv", "effective_members", "valid_share", "valid_unique", "valid_unique_fraction")
MEASURES = (
    "entropy", "effective_support", "support_0.50", "support_0.90",
    "unique_fraction", "unique_fraction_folded", "top_share", "numbers", "empty", *CLOSED,
)  # fmt: skip
QUOTES = ('"', "'", "“”", "‘’", "«»")


def normalise(text: str) -> str:
    """The answer proper: first non-empty line, white space collapsed, one pair of quotation marks removed."""
    lines = (" ".join(line.split()) for line in text.splitlines())
    line = next((line for line in lines if line), "")
    for marks in QUOTES:
        if len(line) >= 2 and line[0] == marks[0] and line[-1] == marks[-1]:
            return line[1:-1].strip()
    return line


def fold(text: str) -> str:
    """A normalised answer without what does not tell answers apart: case, final punctuation, emphasis, an article."""
    bare = normalise(text).casefold().strip("*_` ").rstrip(".!,;:").strip("*_` ")
    bare = normalise(bare).rstrip(".!,;:")  # quotation marks inside emphasis or before a full stop
    return re.sub(r"^(the|a|an) (?=\S)", "", bare)


def support_sizes(probabilities: npt.ArrayLike, levels: Sequence[float]) -> Ints:
    """How many of the likeliest outcomes reach each mass; all of them where rounding keeps the sum below it."""
    p = np.sort(np.asarray(probabilities, np.float64))[::-1]
    reached = np.searchsorted(np.cumsum(p), np.asarray(levels) - 1e-12) + 1
    return np.minimum(reached, len(p)).astype(np.int64)


def coverage(counts: npt.ArrayLike, draws: int) -> Floats:
    """Expected number of distinct answers among n of the answers drawn, n = 1 to ``draws``.

    The rarefaction curve (Hurlbert 1971, eq. 3): sum over answers of 1 - C(N - c, n) / C(N, n) for an answer drawn c
    times out of N = ``draws``; draws that gave no answer count in N alone.
    """
    c = np.asarray(counts, np.float64)[:, None]
    n = np.arange(1, draws + 1)[None]
    possible = draws - c >= n
    rest = np.where(possible, draws - c - n, 0.0)
    missed = gammaln(draws - c + 1) - gammaln(rest + 1) - gammaln(draws + 1) + gammaln(draws - n + 1)
    found: Floats = np.where(possible, -np.expm1(missed), 1.0).sum(axis=0)
    return found


def sampled_measures(texts: Sequence[str], category: Category) -> dict[str, float | str]:
    """Unique answers among draws, as written and folded; for closed categories the true ones among them.

    ``numbers`` is the share of answers that are a bare number, which is a member of no category here.
    Fractions are of all draws, empty answers included.
    """
    plain = [t for t in map(normalise, texts) if t]
    folded = Counter(f for f in map(fold, texts) if f)
    result: dict[str, float | str] = {
        "draws": len(texts),
        "empty": len(texts) - len(plain),
        "numbers": parsing.bare_numbers(texts),
        "unique": len(set(plain)),
        "unique_folded": len(folded),
        "unique_fraction": len(set(plain)) / len(texts),
        "unique_fraction_folded": len(folded) / len(texts),
        "top_share": max(folded.values(), default=0) / len(texts),
        "top": ", ".join(f"{t} ({n})" for t, n in folded.most_common(5)),
    }
    if not category.members:
        return result | {"valid_share": np.nan, "valid_unique": np.nan, "valid_unique_fraction": np.nan}
    member = {fold(name): place for place, names in enumerate(category.members) for name in names}
    drawn = Counter(member[f] for f in folded.elements() if f in member)
    return result | {
        "valid_share": drawn.total() / len(texts),
        "valid_unique": len(drawn),
        # Of what so many draws could have had at most.
        "valid_unique_fraction": len(drawn) / min(len(category.members), len(texts)),
    }


def member_law(body: Body, chat: ChatFormat, category: Category) -> Floats:
    """Probability ``[m]`` that the whole answer is a member, over `parsing.spellings` of its names."""
    owner = {form: i for i, names in enumerate(category.members) for form in parsing.spellings(names)}
    trie = build(chat.answer_ids(list(owner)), np.full(len(owner), 1 / len(owner)), chat.end_id)
    logp = answer_log_probabilities(body, chat.prompt_ids(category.prompt), trie)
    masses = np.zeros(len(category.members))
    np.add.at(masses, list(owner.values()), np.exp(logp))
    return masses


NOT_CLOSED = dict.fromkeys(("members", "member_mass", "uniform_tv", "effective_members", "top_member"), float("nan"))


def closed_measures(masses: Floats) -> dict[str, float]:
    """Exact measures of a law over members: mass on members, and given a member the distance from uniform."""
    total = float(masses.sum())
    q = masses / total
    return {
        "members": len(masses),
        "member_mass": total,
        "uniform_tv": distances.total_variation(q, np.full(len(q), 1 / len(q))),
        "effective_members": float(np.exp(distances.entropy(q))),
        "top_member": float(q.max()),
    }


@torch.inference_mode()
def first_token(body: Body, prompt: Sequence[int]) -> Floats:
    """The law ``[v]`` of the answer's first token."""
    at = torch.arange(len(prompt), device=body.device)[None]
    ids = torch.tensor([list(prompt)], device=body.device)
    hidden = body.forward(ids, at, at[:, :, None] >= at[:, None, :], at, None)[0, -1:]
    law: Floats = body.log_probabilities(hidden)[0].double().exp().cpu().numpy()
    return law


def run_exact(body: Body, chat: ChatFormat, categories: Iterable[Category]) -> pd.DataFrame:
    """A row a category: entropy, effective support, ``support_<level>`` of the first token, and closed measures."""
    rows = []
    for category in tqdm(list(categories), desc="first tokens", unit="category"):
        law = first_token(body, chat.prompt_ids(category.prompt))
        entropy = distances.entropy(law)
        row = {"category": category.name, "entropy": entropy, "effective_support": float(np.exp(entropy))}
        row |= {f"support_{level:.2f}": int(k) for level, k in zip(LEVELS, support_sizes(law, LEVELS), strict=True)}
        closed = closed_measures(member_law(body, chat, category)) if category.members else NOT_CLOSED
        rows.append(row | closed)
    return pd.DataFrame(rows)


def run_sampled(
    ask: Ask, categories: Sequence[Category], *, draws: int, max_new_tokens: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A row a category as :func:`sampled_measures`, and its coverage curve as rows ``category, draws, distinct``."""
    answers = ask([c.prompt for c in categories], draws=draws, max_new_tokens=max_new_tokens)
    rows, curves = [], []
    for category, texts in zip(categories, answers, strict=True):
        rows.append({"category": category.name, **sampled_measures(texts, category)})
        counts = Counter(f for f in map(fold, texts) if f)
        curves.append(
            pd.DataFrame(
                {
                    "category": category.name,
                    "draws": np.arange(1, draws + 1),
                    "distinct": coverage(list(counts.values()), draws),
                }
            )
        )
    return pd.DataFrame(rows), pd.concat(curves, ignore_index=True)
