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

import dataclasses
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from calibnb.errors import UserError

LETTERS = "ABCD"
NAN = float("nan")

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

    Raises
    ------
    UserError
        Where the domain is empty or runs over several lines.
    """
    if not domain.strip() or len(domain.splitlines()) != 1:
        raise UserError(f"benchmarks.positions.domain: {domain!r} is not a topic; allowed: one line of text")
    return _PROMPT.format(domain=domain.strip())


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

    Attributes
    ----------
    question : str
        Its text, label and markup removed.
    options : tuple[str, ...]
        The four texts, markup removed.
    letter : str
        Letter of the declared answer, A to D.
    at : int or None
        Index in the text of the first declared letter that follows a label such as "Answer:"; None where the answer is
        declared in another way, by its text for instance.
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
