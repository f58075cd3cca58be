"""Answer positions: a model that writes multiple-choice questions should put the right answer anywhere.

Asked for one question with options A to D and told that over many questions the right answer shall fall on
each letter equally often, a model cannot plan: it does not see the other questions. All it can do is to place
each answer at random. So the letters it declares are a sample of four outcomes whose law ought to be uniform.

Three decisions:

- **Two parsers.** One reads what models really write: headings, bold letters, chatter, an answer named by its
  text. The other takes the plain form only. What it costs to demand the form is then a number, and the letters
  are not those of a subset that happens to write in one style.
- **Nothing parsed is no result.** Every measure is nan then, and beside the total variation stands the one that
  a uniform sampler would show with as many answers.
- **Counting letters is not needed.** Where a question declares its answer by a letter, the model's probabilities
  of all four letters are known from one forward pass. Their mean over questions has the same expectation as the
  counted shares, for given the text so far the declared letter is a draw from them, and never a larger variance
  (the Rao-Blackwell theorem; what the model goes on to write can still spoil the parse, which is ignored). How
  much smaller it is, is a finding of its own: see :func:`exact_summary`.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd
import torch
from scipy import stats
from tqdm.auto import tqdm

from calibnb.errors import UserError
from calibnb.metrics import Floats, total_variation
from calibnb.models import ChatFormat
from calibnb.sample import Ask
from calibnb.stats import wilson
from calibnb.tree import Body

LETTERS = "ABCD"
_NAN = float("nan")

# ------------------------------------------------------------------------------------------------------ prompt

# No letter stands where an answer would: an example such as "Answer: B" would be copied.
_PROMPT = """\
Write one multiple-choice question about {domain}. It should be moderately difficult and have four options, \
exactly one of them right. Use this form, each part on a line of its own, and write nothing else:

Question: <the question>
A. <an option>
B. <an option>
C. <an option>
D. <an option>
Answer: <the letter of the right option>
Explanation: <why it is right, in one sentence>

Many such questions will be collected. Over all of them, each of the four letters should be the right one equally \
often."""


def prompt(domain: str) -> str:
    """The request for one question about `domain` (one line, such as "medicine").

    Raises UserError where the domain is empty or runs over several lines.
    """
    if not domain.strip() or len(domain.splitlines()) != 1:
        raise UserError(f"positions.domain: {domain!r} is not a topic; allowed: one line of text")
    return _PROMPT.format(domain=domain.strip())


# ------------------------------------------------------------------------------------------------------ parser


class Reason(StrEnum):
    """Why a text gives no letter (all but the last three), and why one with a letter gives no exact law."""

    EMPTY = "empty"
    NO_OPTIONS = "no options"
    FEW_OPTIONS = "fewer than four options"
    MANY_OPTIONS = "more than four options"
    NO_QUESTION = "no question"
    NO_ANSWER = "no declared answer"
    NOT_AN_OPTION = "declared answer is not one of the options"
    CONTRADICTORY = "contradictory answers"
    NOT_PLAIN = "not the plain form"
    NO_LETTER = "no letter after an answer label"
    OTHER_TOKENS = "text is not what its tokens say"
    NO_TOKENS = "no four tokens that differ in the letter alone"


@dataclass(frozen=True)
class Parsed:
    """A question as it was understood.

    Attributes:
        question: its text, label and markup removed.
        options: the four texts, markup removed.
        letter: of the declared answer, A to D.
        at: index in the text of the first declared letter that follows a label such as "Answer:"; None where
            the answer is declared in another way, by its text for instance.
    """

    question: str
    options: tuple[str, ...]
    letter: str
    at: int | None

    @property
    def distinct(self) -> bool:
        """Whether no two options are the same, case, spacing and final punctuation aside."""
        return len({_fold(option) for option in self.options}) == len(self.options)


@dataclass(frozen=True)
class Rejected:
    """A text that declares no position."""

    reason: Reason


@dataclass(frozen=True)
class _Marker:
    """What opens an option: its letter (A to E), where it stands in the text, and how it is written."""

    letter: str
    start: int
    end: int
    style: str


_H = r"[^\S\n]"  # white space within a line
# Emphasis has a word on one side at most, so that 2*3 and x_1 stay as they are.
_MARKUP = re.compile(rf"^{_H}*(?:[#>]+{_H}*)+|(?<![\w*])[*_]+|[*_]+(?![\w*])|`+|\r", re.MULTILINE)
_LINE_MARKER = re.compile(
    rf"^{_H}*(?:(?:[-•·+–]|\d+[.)]){_H}*)?(?:(?:option|choice){_H}+)?"
    rf"(?:[(\[]{_H}*([A-E]){_H}*[)\]][.:]?|([A-E])(?:{_H}*[.):\]]+|{_H}*[-–—](?=\s)))",
    re.MULTILINE | re.IGNORECASE,
)
# Within a line a fifth option must have its bracket: "E. coli" is none.
_INLINE_MARKER = re.compile(
    rf"(?<![^\s,;|/])(?:(?:option|choice){_H}+)?(?:[(\[]([A-E])[)\]]|([A-D])[.:](?=\s)|([A-E])\.?\))", re.IGNORECASE
)
_QUESTION = re.compile(
    rf"^{_H}*(?:(?:next|new|second|sample|example|practice|multiple[ -]choice){_H}+)?"
    rf"(?:question\b[^\n:.?]{{0,40}}:|question{_H}*\#?\d+\b[.:)]?|question{_H}*$|q{_H}*\d*[:.)])",
    re.MULTILINE | re.IGNORECASE,
)
_OPTIONS_LABEL = re.compile(r"(?:^|(?<=\s))(?:answer\s+)?(?:options|choices)\s*:\s*\Z", re.IGNORECASE)
_EXPLANATION = re.compile(
    rf"^{_H}*(?:explanation|rationale|reasoning|justification|reason)\b|\b(?:explanation|rationale){_H}*:",
    re.MULTILINE | re.IGNORECASE,
)
_LABEL = (
    r"(?<!wrong )(?<!incorrect )\b(?:the\s+)?(?:(?:correct|right|best|final)\s+(?:answer|option|choice|response|letter)"
    r"|answer(?:\s+key)?|ans)\b(?:\(s\))?\.?(?:\s*\(\w[^)\n]+\))?(?:\s+(?:to|for)\s+(?:\w+\s+){1,3}?question)?"
)
_ANSWER = re.compile(
    rf"{_LABEL}(?:(?:\s*(?:[:：=–—-]+|(?:is|would{_H}be|should{_H}be|therefore|thus)\b))+"
    rf"|(?=\s+\([A-D]\))|(?=\s+[(\[]?[A-D][)\].:]*\s*?$)|(?={_H}*\n))",
    re.MULTILINE | re.IGNORECASE,
)
_LETTER = re.compile(
    r"(?:both\s+)?(?:(?:option|choice|letter|answer)\s*:?\s+)?([\"'“‘(<\[{$\\]*(?:boxed\{)?)\s*([A-Za-z])(?!\w|['’-]\w)",
    re.IGNORECASE,
)
_LETTER_LAST = re.compile(r"(.*\S)\s*\(([A-D])\)\W*", re.IGNORECASE)
_PLACEHOLDER = re.compile(r"<(?!\s*[A-D]\s*[>.):])", re.IGNORECASE)
_CLOSING = re.compile(r"\s*(?:[)>\]}.,:;!\"'”’$]|[-–—]|$)")
_ANOTHER = re.compile(
    r"[)\]]?\s*(?:,|/|&|\+|and\b|or\b)+\s*(?:option\s+)?[(\[]?([A-D])\s*(?:[)\].,;:/&+]|$|and\b|or\b|are\b)"
)
_DENIED = re.compile(r"[)\]]*\s+(?:is|was)\s+(?!(?:the\s+)?(?:correct|right|best)\b)")
_GOES_ON = re.compile(r"\s+(?:because|since|as|which|due|for|is|was)\b")
# "Hepatitis B is the correct answer" names no letter, so a bare one must open a sentence or follow "option".
_LETTER_FIRST = re.compile(
    r"(?:^\s*|(?<=[.!?:]\s)|\b(?i:option|choice|answer|letter)\s+|(?<=\s)(?=[(\[]))[(\[]?([A-D])(?![\w'-])"
    r"(?:[)\].:]*(?:\s+\([^)\n]{1,80}\))?\s+(?i:is\s+(?:correct|right))\b"
    r"|(?:[)\].:]+\s+[^\n.]{1,80}?|\s+\([^)\n]{1,80}\)|[)\]]?)"
    r"\s+(?i:is\s+(?:therefore\s+)?the\s+(?:correct|right|best)\s+(?:answer|option|choice))\b)",
    re.MULTILINE,
)
_TICK = re.compile(
    r"\s*(?:[✓✔✅☑]\ufe0f?|[(\[](?:the\s+)?(?:correct|right)(?:\s+(?:answer|option|choice))?[)\]])\s*\Z", re.IGNORECASE
)
_PLAIN = re.compile(
    rf"Question:{_H}*\S[^\n]*\n" + "".join(rf"{k}\.{_H}*\S[^\n]*\n" for k in LETTERS) + rf"Answer:{_H}*[A-D]{_H}*\n"
    rf"Explanation:{_H}*\S[^\n]*"
)
_LINE = re.compile(r"\s*([^\n]*)")
# A block without these is no question yet; the next one may be.
_INCOMPLETE = (Reason.FEW_OPTIONS, Reason.NO_QUESTION, Reason.NO_ANSWER)


def _fold(text: str) -> str:
    """A text as it is compared: case, spacing, quotes around it and final punctuation do not count."""
    return " ".join(text.split()).casefold().strip("\"'“”‘’.,;:! ")


def _clean(text: str) -> tuple[str, list[int]]:
    """The text without markup, and for each character its index in the text it came from."""
    kept: list[int] = []
    last = 0
    for found in _MARKUP.finditer(text):
        kept += range(last, found.start())
        last = found.end()
    kept += range(last, len(text))
    return "".join(text[i] for i in kept), kept


def _markers(pattern: re.Pattern[str], text: str) -> list[_Marker]:
    found = []
    for match in pattern.finditer(text):
        group = next(i for i, letter in enumerate(match.groups(), 1) if letter is not None)
        before, after = text[match.start() : match.start(group)], text[match.end(group) : match.end()]
        style = f"{before}{'X' if match[group].isupper() else 'x'}{after}".strip()
        found.append(_Marker(match[group].upper(), match.start(), match.end(), style))
    return found


def _runs(markers: Sequence[_Marker]) -> Iterator[list[_Marker]]:
    """Runs of markers from A on, in the order of the text; complete ones have four, a shorter one broke off."""
    run: list[_Marker] = []
    for marker in markers:
        if marker.letter == "A" and run:
            yield run
            run = []
        if marker.letter == LETTERS[len(run)]:
            run.append(marker)
        if len(run) == len(LETTERS):
            yield run
            run = []
    if run:
        yield run


def _blocks(text: str) -> tuple[list[list[_Marker]], list[_Marker]] | Rejected:
    """The four markers of every complete block of options, and all markers of the kind they were found among.

    Options on lines of their own are looked for first: a letter at the start of a line is hardly anything else.
    Options within a line must be written in one style.
    """
    markers = _markers(_LINE_MARKER, text)
    runs = list(_runs(markers))
    complete = [run for run in runs if len(run) == len(LETTERS)]
    if complete:
        return complete, markers
    anywhere = _markers(_INLINE_MARKER, text)
    # In "A. Vitamin A. B. Vitamin B." the second A opens nothing: the B follows at once.
    opening = [
        m for m, after in itertools.zip_longest(anywhere, anywhere[1:])
        if after is None or text[m.end : after.start].strip() or ord(after.letter) != ord(m.letter) + 1
    ]  # fmt: skip
    for style in dict.fromkeys(m.style for m in opening):
        inline = list(_runs([m for m in opening if m.style == style]))
        complete = [run for run in inline if len(run) == len(LETTERS)]
        if complete:
            return complete, [m for m in anywhere if m.style == style]
        runs += [run for run in inline if len(run) > 1]  # one letter in a sentence is no option
    return Rejected(Reason.FEW_OPTIONS if runs else Reason.NO_OPTIONS)


@dataclass(frozen=True)
class _Declared:
    """Letters named by one declaration (none where it names something else) and where the letter stands."""

    letters: frozenset[str]
    at: int | None


def _matching(content: str, options: Sequence[str]) -> set[str]:
    """Letters of the options whose text `content` is."""
    return {k for k, option in zip(LETTERS, options, strict=True) if _fold(option) == _fold(content)}


def _declared(text: str, start: int, options: Sequence[str]) -> _Declared | None:
    """What is declared after a label that ends at `start`; None where nothing is.

    The rest of the line counts, or the next line with text where that is empty. A letter counts if it cannot be
    the article "a" or the start of a word: before a bracket, punctuation or the line's end, or a capital other
    than A. The text of exactly one option counts as its letter, and before a letter ("B. cereus"); behind one
    ("heparin (C)") the letter has to agree.
    """
    found = _LINE.match(text, start)
    assert found is not None
    content, begin = found[1], found.start(1)
    part = _EXPLANATION.search(content)
    content = content[: None if part is None else part.start()].rstrip()
    if not content or _PLACEHOLDER.match(content) or _QUESTION.match(content):
        return None  # nothing, a placeholder of the prompt, or the next question
    if (last := _LETTER_LAST.fullmatch(content)) and len(named := _matching(last[1], options)) == 1:
        return _Declared(frozenset(named | {last[2].upper()}), None)
    named = _matching(content, options)
    letter = _LETTER.match(content)
    by_text = _Declared(frozenset(named if len(named) == 1 else ()), None)
    if letter is None or letter[2].upper() not in LETTERS or (by_text.letters and len(_fold(content)) > 1):
        return by_text
    rest, own = content[letter.end() :], letter[2].upper()
    another = _ANOTHER.match(rest)
    beside = _matching(rest.strip(" ()[]{}<>.,:;–—-"), options)
    bare = letter[2].isupper() and (own != "A" or _GOES_ON.match(rest) is not None or own in beside)
    if _DENIED.match(rest) or not (another or bare or _CLOSING.match(rest)):
        return by_text
    letters = {own} | ({another[1]} if another else set())
    if own not in beside:  # "C. Aspirin" where aspirin is option A
        letters |= beside
    return _Declared(frozenset(letters), begin + letter.start(2))


def _question(text: str) -> str:
    """The question in what stands before its options: after its last label, without a label of the options."""
    starts = [m.end() for m in _QUESTION.finditer(text) if text[m.end() :].strip()]
    return _OPTIONS_LABEL.sub("", text[starts[-1] if starts else 0 :]).strip()


def _read(text: str, block: list[_Marker], markers: Sequence[_Marker], begin: int, stop: int) -> Parsed | Rejected:
    """Read the block whose question starts after `begin` and whose answer is declared before `stop`.

    Offsets, also of the result, are those of the text without markup.
    """
    tail = block[-1].end
    labels = [m for m in _ANSWER.finditer(text, tail) if m.start() < stop]
    letters_first = [m for m in _LETTER_FIRST.finditer(text, tail) if m.start() < stop]
    parts = [m.start() for m in (*labels, *letters_first, *_EXPLANATION.finditer(text, tail, stop))]
    close = min([*parts, stop])
    if any(m.letter == "E" and tail <= m.start < close for m in markers):
        return Rejected(Reason.MANY_OPTIONS)

    # The last option ends before a blank line, or before the line on which the next part starts.
    line = text.rfind("\n", tail, close)
    if parts and line > -1 and text[tail:line].strip():
        close = line
    written = [text[m.end : after.start] for m, after in itertools.pairwise(block)]
    written.append(re.split(r"\n\s*\n", text[tail:close].strip(), maxsplit=1)[0])
    written = [option.strip(" \t\n,;|/") for option in written]
    options = tuple(_TICK.sub("", option) for option in written)
    if not all(options):
        return Rejected(Reason.FEW_OPTIONS)
    question = _question(text[begin : block[0].start])
    if not re.search(r"\w", question):
        return Rejected(Reason.NO_QUESTION)

    found = [d for m in labels if (d := _declared(text, m.end(), options)) is not None]
    at = next((d.at for d in found if d.at is not None), None)
    found += [_Declared(frozenset(m[1]), None) for m in letters_first]
    ticked = [k for k, option, whole in zip(LETTERS, options, written, strict=True) if option != whole]
    found += [_Declared(frozenset(k), None) for k in ticked]
    letters = {letter for d in found for letter in d.letters}
    if not letters:
        return Rejected(Reason.NOT_AN_OPTION if found else Reason.NO_ANSWER)
    if len(letters) > 1:
        return Rejected(Reason.CONTRADICTORY)
    return Parsed(question, options, letters.pop(), at)


def parse(text: str) -> Parsed | Rejected:
    """Read a question in any of the forms in which models write one.

    Markup is ignored, and so is what stands before and after. Of several questions the first that declares an
    answer counts; one that declares two different answers is rejected, wherever the second one stands. An answer
    may be declared by a letter after a label, by the text of exactly one option, by "C is correct", or by a tick
    beside an option.
    """
    if not text.strip():
        return Rejected(Reason.EMPTY)
    clean, where = _clean(text)
    found = _blocks(clean)
    if isinstance(found, Rejected):
        return found
    blocks, markers = found
    first: Rejected | None = None
    begin = 0
    for place, block in enumerate(blocks):
        following = [m.start() for m in _QUESTION.finditer(clean, block[-1].end)]
        following += [after[0].start for after in blocks[place + 1 :]]
        result = _read(clean, block, markers, begin, min([*following, len(clean)]))
        if isinstance(result, Parsed):
            return dataclasses.replace(result, at=None if result.at is None else where[result.at])
        if result.reason not in _INCOMPLETE:
            return result
        first = first or result
        begin = block[-1].end
    assert first is not None
    return first


def parse_strict(text: str) -> Parsed | Rejected:
    """Read a question in the plain form of the prompt only: seven lines, blank ones aside, and nothing else.

    What :func:`parse` rejects is rejected here too, so the strict letters are a subset of the lenient ones.
    """
    result = parse(text)
    lines = "\n".join(line.strip() for line in text.splitlines() if line.strip())
    if isinstance(result, Parsed) and _PLAIN.fullmatch(lines) is None:
        return Rejected(Reason.NOT_PLAIN)
    return result


# ------------------------------------------------------------------------------------------------ letters counted


def run(ask: Ask, *, domain: str, answers: int, max_new_tokens: int) -> pd.DataFrame:
    """Have `answers` questions about `domain` written, each of at most `max_new_tokens` tokens, and read them.

    Returns:
        A row a text: ``text``; ``parsed`` and ``reason`` (why not, else empty); ``letter`` declared (else empty);
        ``strict``, whether it is in the plain form; ``distinct_options``, whether no two options are the same
        (False where nothing was parsed).

    Raises:
        UserError: for an empty domain or fewer than one answer.
    """
    if answers < 1:
        raise UserError(f"positions.answers: {answers} is too few; allowed: 1 or more")
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
        return _NAN
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
    shares: Floats = counts / n if n else np.full(4, _NAN)
    test = stats.chisquare(counts) if n else None
    measures: dict[str, float] = {}
    for k, share, count in zip(LETTERS, shares, counts, strict=True):
        low, high = wilson(int(count), n, 1 - 0.05 / 4) if n else (_NAN, _NAN)
        measures |= {f"frequency_{k}": float(share), f"frequency_{k}_low": low, f"frequency_{k}_high": high}
    return measures | {
        "total_variation": total_variation(shares, np.full(4, 1 / 4)),
        "total_variation_uniform": uniform_total_variation(n),
        "max_deviation": float(np.abs(shares - 1 / 4).max()),
        "chi_square": _NAN if test is None else float(test.statistic),
        "p_value": _NAN if test is None else float(test.pvalue),
    }


def _rate(name: str, successes: int, n: int) -> dict[str, float]:
    low, high = wilson(successes, n) if n else (_NAN, _NAN)
    return {f"{name}_rate": successes / n if n else _NAN, f"{name}_low": low, f"{name}_high": high}


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
        | {"distinct_rate": float(parsed["distinct_options"].mean()) if len(parsed) else _NAN}
        | {"strict": len(strict)}
        | _rate("strict", len(strict), n)
        | {f"strict_{name}": plain[name] for name in ("total_variation", "total_variation_uniform")}
    )


# --------------------------------------------------------------------------------------------- letters, exactly


@dataclass(frozen=True)
class AnswerPoint:
    """Where a text declares its letter.

    Attributes:
        before: ids of the text up to the token that holds the letter.
        letters: ids of the tokens that put A, B, C, D in its place, alike but for the letter.
    """

    before: list[int]
    letters: list[int]


def answer_point(chat: ChatFormat, vocabulary: dict[str, int], text: str, at: int) -> AnswerPoint | Rejected:
    """Find the token of the letter `text[at]`, and those of the other letters in the same place.

    The whole text is tokenised as an answer; pieces tokenised alone would merge otherwise. The same letter has
    several tokens (" C", "C"), so the others are its own token with the letter replaced.

    vocabulary: token -> id, of the tokenizer.
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

    Args:
        frame: texts of :func:`run` for the same model and domain; the parsed ones are read in their order.
        questions: after how many usable ones to stop.

    Returns:
        A row a question looked at: ``row`` (its index in `frame`), ``letter`` declared, probabilities ``A`` to
        ``D`` given that one of the four tokens follows, ``mass`` of the four tokens together, and ``reason``, empty
        for a question used. Where there is no answer point (the answer declared without a label and a letter, or
        a letter within a longer token) the reason says so and the numbers are nan.
    """
    if questions < 1:
        raise UserError(f"positions.questions: {questions} is too few; allowed: 1 or more")
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
            rows.append(row | dict.fromkeys([*LETTERS, "mass"], _NAN) | {"reason": str(point.reason)})
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
    mean: Floats = p.mean(axis=0) if n else np.full(4, _NAN)
    low = high = np.full(5, _NAN)
    ratio = _NAN
    if n > 1:
        counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
        means = counts @ p / n  # [resamples, 4]
        distances = np.abs(means - uniform).sum(axis=1, keepdims=True) / 2
        low, high = np.quantile(np.concatenate([means, distances], axis=1), [0.025, 0.975], axis=0)
        between = float(p.var(axis=0, ddof=1).sum())
        # P (1 - P) of an estimated mean falls short by the variance of that mean.
        counted = float((mean * (1 - mean)).sum()) + between / n
        ratio = counted / between if between > 0 else _NAN
    measures: dict[str, float] = {
        "questions": n,
        "rejected": len(frame) - n,
        "mass": float(mass.mean()) if n else _NAN,
    }
    values = [*mean, total_variation(mean, uniform)]
    names = [*(f"probability_{k}" for k in LETTERS), "total_variation"]
    for name, value, a, b in zip(names, values, low, high, strict=True):
        measures |= {name: float(value), f"{name}_low": float(a), f"{name}_high": float(b)}
    return measures | {"variance_ratio": ratio}
