"""The letter of a right answer, chosen at random: questions that are given, and the exact law over four letters.

A small model that writes a multiple-choice question seldom writes one that can be read. Here the question is given,
with its right answer and three wrong ones, and all that is left to the model is the letter at which the right answer
shall stand. So every model gives a law over four letters, which ought to be uniform, and its probabilities are exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from calibnb.benchmarks.positions.questions import PRESENTATIONS, Question, prompt
from calibnb.benchmarks.positions.reading import LETTERS, NAN
from calibnb.errors import UserError
from calibnb.evidence import intervals
from calibnb.laws import distances
from calibnb.models.chatformat import ChatFormat
from calibnb.trees.attention import Body, continuations
from calibnb.trees.trie import Floats, Ints

FORMS = ("{}", "{}.", "{})", "({})")  # how a letter may be written

# Of one prompt; of the law averaged over prompts.
PROMPTED = ("letter_mass", "total_variation", "entropy")
HABITS = ("habit", "habit_listed", "habit_right")


def letter_answers(chat: ChatFormat) -> list[list[int]]:
    """Ids of whole answers, each with the end of the turn: the :data:`FORMS` of A, then of B, C and D.

    Raises
    ------
    UserError
        Where the tokenizer writes two of them alike.
    """
    texts = [form.format(letter) for letter in LETTERS for form in FORMS]
    rows = [[*ids, chat.end_id] for ids in chat.answer_ids(texts)]
    if len({tuple(ids) for ids in rows}) < len(rows):
        raise UserError(f"positions: the tokenizer must tell {', '.join(texts)} apart, and writes two of them alike")
    return rows


def laws(body: Body, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> tuple[Floats, Floats]:
    """The law over letters after each prompt.

    Parameters
    ----------
    body : Body
        The model.
    prompts : Sequence[Sequence[int]]
        Ids of ``n`` prompts, read in one pass.
    answers : Sequence[Sequence[int]]
        As :func:`letter_answers` gives them.

    Returns
    -------
    tuple[[n, 4] float array, [n] float array]
        Probabilities of the letters given that a letter is answered, and the probability of that.
    """
    found = continuations(body, prompts, [answers] * len(prompts))
    logp = np.array([[value for value, _ in row] for row in found]).reshape(len(prompts), len(LETTERS), len(FORMS))
    letters = np.logaddexp.reduce(logp, axis=2)  # [n, 4]
    total = np.logaddexp.reduce(letters, axis=1)  # [n]
    return np.exp(letters - total[:, None]), np.exp(total)


def presented(questions: Sequence[Question], orders: int) -> list[tuple[Question, str, int]]:
    """Each question in the first `orders` of the presentations, counted from another one for each question.

    So any four questions have all presentations equally often, whatever their number a question.
    """
    return [
        (question, *PRESENTATIONS[(number + shift) % len(PRESENTATIONS)])
        for number, question in enumerate(questions)
        for shift in range(orders)
    ]


def run(body: Body, chat: ChatFormat, questions: Sequence[Question], *, orders: int, batch: int) -> pd.DataFrame:
    """Ask for the letter of each question.

    Parameters
    ----------
    body, chat : Body, ChatFormat
        The model and its chat format.
    questions : Sequence[Question]
        Those to ask.
    orders : int
        In how many presentations each is asked; 1 to 4.
    batch : int
        Prompts read in one pass.

    Returns
    -------
    DataFrame
        A row a question and presentation: ``question`` (its stem), ``domain``, ``order`` (letters as listed), ``right``
        (the place, from 0 on, at which the right answer is named), ``p_A`` to ``p_D`` given a letter, ``letter_mass``.
    """
    asked, answers, rows = presented(questions, orders), letter_answers(chat), []
    for start in tqdm(range(0, len(asked), batch), desc="chosen letters", unit="batch"):
        here = asked[start : start + batch]
        found = laws(body, [chat.prompt_ids(prompt(*one)) for one in here], answers)
        for (question, letters, place), law, mass in zip(here, *found, strict=True):
            about = {"question": question.stem, "domain": question.domain, "order": letters, "right": place}
            probabilities = {f"p_{letter}": p for letter, p in zip(LETTERS, law.tolist(), strict=True)}
            rows.append(about | probabilities | {"letter_mass": float(mass)})
    return pd.DataFrame(rows)


def probabilities(frame: pd.DataFrame) -> Floats:
    """``[n, 4]`` laws over letters of the rows of :func:`run`."""
    found: Floats = frame[[f"p_{letter}" for letter in LETTERS]].to_numpy(np.float64)
    return found


def of_prompts(frame: pd.DataFrame) -> pd.DataFrame:
    """The table of :func:`run` with each row's ``total_variation`` from uniform and ``entropy`` in bits."""
    p = probabilities(frame)
    uniform = np.full(len(LETTERS), 1 / len(LETTERS))
    return frame.assign(
        total_variation=[distances.total_variation(law, uniform) for law in p],
        entropy=[distances.entropy(law) / np.log(2) for law in p],
    )


def renumbered(frame: pd.DataFrame) -> dict[str, Floats]:
    """The law ``[n, 4]`` of each row over letters, over places in the list, and seen from the right answer's place.

    By the names of :data:`HABITS`. In the last, letters are numbered by ``k XOR r``, where ``r`` is the place at which
    the right answer is named: 0 is the letter of that place.
    """
    p = probabilities(frame)
    listed = np.array([[LETTERS.index(letter) for letter in order] for order in frame["order"]])  # [n, 4]
    seen: Ints = np.arange(len(LETTERS)) ^ frame["right"].to_numpy(np.int64)[:, None]
    by_place, by_right = (np.take_along_axis(p, index, axis=1) for index in (listed, seen))
    return dict(zip(HABITS, (p, by_place, by_right), strict=True))


def averaged(frame: pd.DataFrame, laws: Floats, *, resamples: int, seed: int) -> tuple[Floats, Floats]:
    """Laws averaged over prompts, adapter by adapter, and the same over resampled questions.

    Parameters
    ----------
    frame : DataFrame
        Rows of ``question`` and ``seed``, each question as often for each seed.
    laws : [n, 4] float array
        A law of each row.
    resamples, seed : int
        Resamples and seed of the bootstrap over questions.

    Returns
    -------
    tuple[[s, 4] float array, [resamples, s, 4] float array]
        For ``s`` training seeds.
    """
    table = pd.DataFrame(laws).groupby([frame["seed"].to_numpy(), frame["question"].to_numpy()], sort=False).mean()
    stacked = table.to_numpy().reshape(frame["seed"].nunique(), -1, len(LETTERS))  # [s, q, 4]
    q = stacked.shape[1]
    counts = np.random.default_rng(seed).multinomial(q, np.full(q, 1 / q), size=resamples)  # [resamples, q]
    return stacked.mean(axis=1), np.einsum("rq,sqk->rsk", counts / q, stacked)


def summarise(frame: pd.DataFrame, *, resamples: int, seed: int) -> pd.DataFrame:
    """Measures of chosen letters with 95 % bootstrap intervals over questions.

    Of single prompts, means over prompts: ``letter_mass``; ``total_variation`` from uniform, 3/4 for one who is sure of
    a letter; ``entropy`` in bits, 2 for a uniform law. Of the law averaged over prompts: ``habit``, its total variation
    from uniform, over letters; ``habit_listed``, over places in the list of letters; ``habit_right``, seen from the
    place of the right answer; ``largest``, the largest share of a letter, which is how often a reader is right who
    always guesses that one; ``share_A`` to ``share_D``. They are taken adapter by adapter and averaged.

    Parameters
    ----------
    frame : DataFrame
        The table of :func:`of_prompts` with ``seed``.
    resamples, seed : int
        Resamples and seed of the bootstrap.

    Returns
    -------
    DataFrame
        Rows of ``measure, value, low, high, items``; no interval for a single question. A distance of an average is
        biased upwards.
    """
    rows = intervals.summarise_items(frame, PROMPTED, item="question", resamples=resamples, seed=seed)
    found: dict[str, tuple[float, Floats]] = {}
    for habit, law in renumbered(frame).items():
        mean, drawn = averaged(frame, law, resamples=resamples, seed=seed)
        distance, again = (np.abs(x - 1 / len(LETTERS)).sum(axis=-1).mean(axis=-1) / 2 for x in (mean, drawn))
        found[habit] = float(distance), again
        if habit == "habit":
            found["largest"] = float(mean.max(axis=-1).mean()), drawn.max(axis=-1).mean(axis=-1)
            for k, letter in enumerate(LETTERS):
                found[f"share_{letter}"] = float(mean[:, k].mean()), drawn[:, :, k].mean(axis=-1)
    items = frame["question"].nunique()
    more = []
    for measure, (value, sample) in found.items():
        low, high = intervals.percentiles(sample, 0.95) if items > 1 else (NAN, NAN)
        more.append({"measure": measure, "value": value, "low": low, "high": high, "items": items})
    return pd.concat([rows[["measure", "value", "low", "high", "items"]], pd.DataFrame(more)], ignore_index=True)
