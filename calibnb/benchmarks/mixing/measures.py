"""The mixing curve: how often a word is said against how often it is asked for.

"Say heads with a probability of 30 % and tails with 70 %." With P(w) the probability that word w is the whole answer,
in any spelling that counts as it, the model says heads, given one of the two, with probability

    said = P(heads) / (P(heads) + P(tails)),

which needs no sampling. A model that mixes as asked has said = asked. The denominator is kept beside it, since of
answers that are hardly ever given nothing can be said.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from calibnb.benchmarks.mixing import prompts
from calibnb.benchmarks.mixing.prompts import Item
from calibnb.errors import UserError
from calibnb.laws import parsing
from calibnb.laws.distances import Floats
from calibnb.models.chatformat import ChatFormat
from calibnb.trees.attention import Body, continuations

MEASURES = ("slope", "error", "divergence", "first_gain", "either")

# What training may have seen of an item, by whether it may see its pair and its wording.
KINDS = {
    (True, True): "words-and-wording",
    (False, True): "wording-alone",
    (True, False): "words-alone",
    (False, False): "neither",
}


def spelt(chat: ChatFormat, words: tuple[str, str]) -> dict[tuple[int, ...], int]:
    """All answers that count as one of two words, as token ids with the end of the turn, and which word each is.

    Raises
    ------
    UserError
        Where the tokenizer writes a spelling of one word like one of the other.
    """
    forms = [(form, place) for place, word in enumerate(words) for form in parsing.spellings([word])]
    owner: dict[tuple[int, ...], int] = {}
    for ids, (form, place) in zip(chat.answer_ids([form for form, _ in forms]), forms, strict=True):
        if owner.setdefault((*ids, chat.end_id), place) != place:
            raise UserError(f"mixing: the tokenizer writes {form!r} like an answer that is {words[1 - place]}")
    return owner


def log_masses(body: Body, chat: ChatFormat, items: Sequence[Item], batch: int) -> Floats:
    """``[n, 2]`` log-probability that the whole answer is the first, or the second, word of an item's pair.

    A spelling is counted in the tokens that the tokenizer gives it. One forward pass takes ``batch`` prompts; what all
    of them begin with is encoded once, so neighbours should begin alike.
    """
    answers = {pair: spelt(chat, pair.words) for pair in dict.fromkeys(item.pair for item in items)}
    out = np.empty((len(items), 2))
    for start in tqdm(range(0, len(items), batch), desc="mixing", unit="pass"):
        here = items[start : start + batch]
        asked = [chat.prompt_ids(item.prompt) for item in here]
        found = continuations(body, asked, [list(answers[item.pair]) for item in here])
        for row, (item, scores) in enumerate(zip(here, found, strict=True), start):
            place, logp = np.array(list(answers[item.pair].values())), np.array([score for score, _ in scores])
            out[row] = [np.logaddexp.reduce(logp[place == word]) for word in (0, 1)]
    return out


def divergence(asked: Floats, log_said: Floats, log_other: Floats) -> Floats:
    """KL(asked || said) in nats ``[n]``, how much worse than the asked law itself the said one predicts draws from it.

    Parameters
    ----------
    asked : [n] float array
        Probability asked for, in (0, 1).
    log_said, log_other : [n] float array
        Logarithms of the probability said and of its complement, which may be too small for a float.
    """
    return asked * (np.log(asked) - log_said) + (1 - asked) * (np.log1p(-asked) - log_other)


def run(body: Body, chat: ChatFormat, items: Sequence[Item], *, batch: int) -> pd.DataFrame:
    """Measure what a model says.

    Returns
    -------
    DataFrame
        A row an item: ``pair, wording, order``; ``first, second``, the words in the order in which the prompt names
        them; ``held_out``; ``asked``, the probability of the pair's first word; ``said``, what the model gives it,
        given one of the two; ``either``, its probability of one of the two; ``divergence``, KL(asked || said), nats.
    """
    masses = log_masses(body, chat, items, batch)
    log_either = np.logaddexp(masses[:, 0], masses[:, 1])
    given, asked = masses - log_either[:, None], np.array([item.asked for item in items])
    about = [
        {
            "pair": item.pair.name,
            "wording": item.wording.name,
            "order": item.order,
            "first": item.named[0],
            "second": item.named[1],
            "held_out": item.held_out,
        }
        for item in items
    ]
    return pd.DataFrame(about).assign(
        asked=asked,
        said=np.exp(given[:, 0]),
        either=np.exp(log_either),
        divergence=divergence(asked, given[:, 0], given[:, 1]),
    )


def slope(asked: Floats, said: Floats) -> float:
    """Slope of the least-squares line of what is said on what is asked; 1 if they are the same."""
    x = asked - asked.mean()
    return float(x @ (said - said.mean()) / (x @ x))


def by_pair(frame: pd.DataFrame, by: str = "") -> pd.DataFrame:
    """The measures of every pair of words, over its wordings, orders and probabilities.

    Pairs are the sample: what a model makes of one pair is of a kind, whatever the wording.

    Parameters
    ----------
    frame : DataFrame
        Rows of :func:`run` with ``model, variant, seed``.
    by : str
        A column whose values are measured each on its own, and stand in the rows; empty for none.

    Returns
    -------
    DataFrame
        Rows of ``model, variant, seed, pair``; ``slope``; ``error``, the mean of abs(said - asked); ``divergence``,
        nats; ``first_gain``, how much more often a word is said where the prompt names it first than where it names it
        second; ``either``.
    """
    keys, rows = ["model", "variant", "seed", *([by] if by else []), "pair"], []
    for key, part in frame.groupby(keys, sort=False):
        asked, said = part["asked"].to_numpy(float), part["said"].to_numpy(float)
        listed = (part["order"] == "as listed").to_numpy()
        rows.append(
            dict(zip(keys, key, strict=True))
            | {
                "slope": slope(asked, said),
                "error": float(np.abs(said - asked).mean()),
                "divergence": float(part["divergence"].mean()),
                "first_gain": float(said[listed].mean() - said[~listed].mean()),
                "either": float(part["either"].mean()),
            }
        )
    return pd.DataFrame(rows)


def by_kind(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of :func:`by_pair` for each kind of item that there is, with its name of ``KINDS`` as ``seen``."""
    pairs, wordings = prompts.table()
    seen_pair, seen_wording = {p.name: p.seen for p in pairs}, {w.name: w.seen for w in wordings}
    items = zip(frame["pair"], frame["wording"], strict=True)
    kinds = [KINDS[seen_pair[pair], seen_wording[wording]] for pair, wording in items]
    return by_pair(frame.assign(seen=kinds), by="seen")
