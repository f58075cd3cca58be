"""Where right answers stand: letters counted, and their exact probabilities where they are declared."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy import stats
from tqdm.auto import tqdm

from calibnb.benchmarks.positions.reading import LETTERS, NAN, Parsed, Reason, Rejected, parse, parse_strict, prompt
from calibnb.errors import UserError
from calibnb.evidence.intervals import wilson
from calibnb.laws.distances import Floats, total_variation
from calibnb.models.chatformat import ChatFormat
from calibnb.trees.attention import Body
from calibnb.trees.sampling import Ask


def run(ask: Ask, *, domain: str, answers: int, max_new_tokens: int) -> pd.DataFrame:
    """Have `answers` questions about `domain` written, each of at most `max_new_tokens` tokens, and read them.

    Returns
    -------
    DataFrame
        A row a text: ``text``; ``parsed`` and ``reason`` (why not, else empty); ``letter`` declared (else empty);
        ``strict``, whether it is in the plain form; ``distinct_options``, whether no two options are the same (False
        where nothing was parsed).

    Raises
    ------
    UserError
        For an empty domain or fewer than one answer.
    """
    if answers < 1:
        raise UserError(f"benchmarks.positions.answers: {answers} is too few; allowed: 1 or more")
    rows = []
    for text in ask([prompt(domain)], draws=answers, max_new_tokens=max_new_tokens)[0]:
        result = parse(text)
        found = isinstance(result, Parsed)
        rows.append(
            {
                "text": text,
                "parsed": found,
                "reason": "" if isinstance(result, Parsed) else str(result.reason),
                "letter": result.letter if isinstance(result, Parsed) else "",
                "strict": isinstance(parse_strict(text), Parsed),
                "distinct_options": isinstance(result, Parsed) and result.distinct,
            }
        )
    return pd.DataFrame(rows)


def uniform_total_variation(n: int) -> float:
    """Expected total variation from uniform of the shares of four equally likely letters among `n`; nan for none.

    By symmetry E TV = 1/2 sum_k E|N_k/n - 1/4| = 2 E|N/n - 1/4| with N ~ Binomial(n, 1/4).
    """
    if n == 0:
        return NAN
    count = np.arange(n + 1)
    return float(2 * np.sum(stats.binom.pmf(count, n, 1 / 4) * np.abs(count / n - 1 / 4)))


def letter_measures(letters: Sequence[str]) -> dict[str, float]:
    """Measures of declared letters against the uniform law; all nan where there is none.

    ``frequency_A`` to ``frequency_D`` with ``_low`` and ``_high``: simultaneous 95 % intervals, that is Wilson's
    at level 1 - 0.05/4 (Goodman, 1965, *On Simultaneous Confidence Intervals for Multinomial Proportions*).
    ``total_variation`` from uniform and ``total_variation_uniform``, which a uniform sampler is expected to show
    with as many letters. ``max_deviation`` of a frequency from 1/4. ``chi_square`` (3 degrees of freedom) with
    its ``p_value``, an approximation below some 20 letters.
    """
    n = len(letters)
    counts = np.array([list(letters).count(k) for k in LETTERS])
    shares: Floats = counts / n if n else np.full(4, NAN)
    test = stats.chisquare(counts) if n else None
    measures: dict[str, float] = {}
    for k, share, count in zip(LETTERS, shares, counts, strict=True):
        low, high = wilson(int(count), n, 1 - 0.05 / 4) if n else (NAN, NAN)
        measures |= {f"frequency_{k}": float(share), f"frequency_{k}_low": low, f"frequency_{k}_high": high}
    return measures | {
        "total_variation": total_variation(shares, np.full(4, 1 / 4)),
        "total_variation_uniform": uniform_total_variation(n),
        "max_deviation": float(np.abs(shares - 1 / 4).max()),
        "chi_square": NAN if test is None else float(test.statistic),
        "p_value": NAN if test is None else float(test.pvalue),
    }


def _rate(name: str, successes: int, n: int) -> dict[str, float]:
    low, high = wilson(successes, n) if n else (NAN, NAN)
    return {f"{name}_rate": successes / n if n else NAN, f"{name}_low": low, f"{name}_high": high}


def summary(frame: pd.DataFrame) -> dict[str, float]:
    """Measures of the texts that :func:`run` returned.

    ``answers``, ``parsed``, and ``parse_rate`` with its 95 % Wilson interval ``parse_low``, ``parse_high``;
    :func:`letter_measures` of the parsed; ``distinct_rate``, the share of them whose options all differ; and what
    the strict parser alone would report: ``strict``, ``strict_rate``, ``strict_low``, ``strict_high``,
    ``strict_total_variation``, ``strict_total_variation_uniform``. A share of nothing is nan.
    """
    n = len(frame)
    parsed, strict = frame[frame["parsed"]], frame[frame["strict"]]
    plain = letter_measures(strict["letter"].tolist())
    return (
        {"answers": n, "parsed": len(parsed)}
        | _rate("parse", len(parsed), n)
        | letter_measures(parsed["letter"].tolist())
        | {"distinct_rate": float(parsed["distinct_options"].mean()) if len(parsed) else NAN}
        | {"strict": len(strict)}
        | _rate("strict", len(strict), n)
        | {f"strict_{name}": plain[name] for name in ("total_variation", "total_variation_uniform")}
    )


@dataclass(frozen=True)
class AnswerPoint:
    """Where a text declares its letter.

    Attributes
    ----------
    before : list[int]
        Ids of the text up to the token that holds the letter.
    letters : list[int]
        Ids of the tokens that put A, B, C, D in its place, alike but for the letter.
    """

    before: list[int]
    letters: list[int]


def answer_point(chat: ChatFormat, vocabulary: dict[str, int], text: str, at: int) -> AnswerPoint | Rejected:
    """Find the token of the letter `text[at]`, and those of the other letters in the same place.

    The whole text is tokenised as an answer; pieces tokenised alone would merge otherwise. The same letter has
    several tokens (" C", "C"), so the others are its own token with the letter replaced.

    Parameters
    ----------
    chat : ChatFormat
        The model's chat format.
    vocabulary : dict[str, int]
        Token -> id, of the tokenizer.
    text, at : str, int
        The question, and where its letter stands in it.
    """
    try:
        ids = chat.answer_ids([text])[0]
    except UserError:  # the text merges with the template around it
        return Rejected(Reason.OTHER_TOKENS)
    prefixes = chat.decode_many([ids[:n] for n in range(len(ids) + 1)])
    if prefixes[-1] != text:
        return Rejected(Reason.OTHER_TOKENS)
    place = next(n for n, prefix in enumerate(prefixes) if len(prefix) > at and text.startswith(prefix)) - 1
    before, piece = prefixes[place], prefixes[place + 1][len(prefixes[place]) :]
    token = chat.tokenizer.convert_ids_to_tokens(ids[place])
    assert isinstance(token, str)
    inside, letter = at - len(before), text[at]
    if not text.startswith(before) or token.count(letter) != 1:
        return Rejected(Reason.NO_TOKENS)
    same_case = LETTERS if letter.isupper() else LETTERS.lower()
    letters = [vocabulary[other] for k in same_case if (other := token.replace(letter, k)) in vocabulary]
    written = chat.decode_many([[*ids[:place], id] for id in letters])
    if written != [before + piece[:inside] + k + piece[inside + 1 :] for k in same_case]:
        return Rejected(Reason.NO_TOKENS)
    return AnswerPoint(ids[:place], letters)


@torch.inference_mode()
def run_exact(body: Body, chat: ChatFormat, frame: pd.DataFrame, *, domain: str, questions: int) -> pd.DataFrame:
    """The model's probabilities of the four letters where each of its own questions declares the answer.

    Parameters
    ----------
    body, chat : Body, ChatFormat
        The model and its chat format.
    frame : DataFrame
        Texts of :func:`run` for the same model and domain; the parsed ones are read in their order.
    domain : str
        What the questions are about.
    questions : int
        After how many usable ones to stop.

    Returns
    -------
    DataFrame
        A row a question looked at: ``row`` (its index in `frame`), ``letter`` declared, probabilities ``A`` to ``D``
        given that one of the four tokens follows, ``mass`` of the four tokens together, and ``reason``, empty for a
        question used. Where there is no answer point (the answer declared without a label and a letter, or a letter
        within a longer token) the reason says so and the numbers are nan.
    """
    if questions < 1:
        raise UserError(f"benchmarks.positions.questions: {questions} is too few; allowed: 1 or more")
    vocabulary = chat.tokenizer.get_vocab()
    asked = chat.prompt_ids(prompt(domain))
    encoded = body.encode(asked[:-1])
    rows: list[dict[str, object]] = []
    used = 0
    texts = frame.loc[frame["parsed"], "text"]
    for index, text in tqdm(texts.items(), total=len(texts), desc="answer positions", unit="question"):
        if used == questions:
            break
        result = parse(text)
        assert isinstance(result, Parsed)
        point = Rejected(Reason.NO_LETTER) if result.at is None else answer_point(chat, vocabulary, text, result.at)
        row: dict[str, object] = {"row": index, "letter": result.letter}
        if isinstance(point, Rejected):
            rows.append(row | dict.fromkeys([*LETTERS, "mass"], NAN) | {"reason": str(point.reason)})
            continue
        used += 1
        token = torch.tensor([[asked[-1], *point.before]], device=body.device)  # [1, q]
        key = torch.arange(len(asked) + len(point.before), device=body.device)[None]  # [1, k]
        query = key[:, len(asked) - 1 :]
        hidden = body.forward(token, query, query[:, :, None] >= key[:, None, :], key, copy.deepcopy(encoded))
        logp = body.log_probabilities(hidden[:, -1])[0, point.letters].double()  # [4]
        given = logp.softmax(0).tolist()
        rows.append(row | dict(zip(LETTERS, given, strict=True)) | {"mass": float(logp.exp().sum()), "reason": ""})
    return pd.DataFrame(rows, columns=["row", "letter", *LETTERS, "mass", "reason"])


def exact_summary(frame: pd.DataFrame, *, resamples: int, seed: int) -> dict[str, float]:
    """Measures of what :func:`run_exact` returned; nan where no question was used.

    ``questions`` used and ``rejected``; the mean ``mass`` of the four letters before they are normalised;
    ``probability_A`` to ``probability_D``, means over questions, and the ``total_variation`` of these means from
    uniform, each with ``_low`` and ``_high``, the 2.5 % and 97.5 % quantiles of a bootstrap over questions (nan
    for fewer than two). The total variation of a mean is biased upwards, so whether it is zero is to be read off
    the intervals of the letters.

    ``variance_ratio``: how many times as many questions counting needs for the standard error that the exact
    probabilities reach; nan for fewer than two questions or where they are all the same. With p_k the
    probability of letter k given a question it is

        sum_k P_k (1 - P_k) / sum_k Var(p_k),    P_k = E p_k,

    the variance of a counted letter over the part of it between questions. So it also says where an imbalance
    lies: at 1 each question has settled its letter before the letter is written, and the imbalance is one of
    where the right option was placed; far above 1 the letter is drawn whatever the question, and the imbalance is
    one of the letters alone.
    """
    p = frame.loc[frame["reason"] == "", list(LETTERS)].to_numpy(float)  # [n, 4]
    mass = frame.loc[frame["reason"] == "", "mass"].to_numpy(float)
    n = len(p)
    uniform = np.full(4, 1 / 4)
    mean: Floats = p.mean(axis=0) if n else np.full(4, NAN)
    low = high = np.full(5, NAN)
    ratio = NAN
    if n > 1:
        counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
        means = counts @ p / n  # [resamples, 4]
        distances = np.abs(means - uniform).sum(axis=1, keepdims=True) / 2
        low, high = np.quantile(np.concatenate([means, distances], axis=1), [0.025, 0.975], axis=0)
        between = float(p.var(axis=0, ddof=1).sum())
        # P (1 - P) of an estimated mean falls short by the variance of that mean.
        counted = float((mean * (1 - mean)).sum()) + between / n
        ratio = counted / between if between > 0 else NAN
    measures: dict[str, float] = {
        "questions": n,
        "rejected": len(frame) - n,
        "mass": float(mass.mean()) if n else NAN,
    }
    values = [*mean, total_variation(mean, uniform)]
    names = [*(f"probability_{k}" for k in LETTERS), "total_variation"]
    for name, value, a, b in zip(names, values, low, high, strict=True):
        measures |= {name: float(value), f"{name}_low": float(a), f"{name}_high": float(b)}
    return measures | {"variance_ratio": ratio}
