"""Multiple-choice questions with a known answer, and how the letter of it is asked for.

A model may prefer a letter; a place in the list of letters that the prompt offers, such as the first; or the letter
that the right answer would have if options were lettered as the prompt names them. :data:`PRESENTATIONS` tells the
three apart: whoever has one of these habits alone is uniform in the two others.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import yaml

PROMPT = """\
This is a multiple-choice question with its right answer and three wrong ones.

Question: {stem}
{options}

At which letter shall the right answer stand? Choose one of {letters} at random, each as likely as the others, and \
answer with the letter alone."""

# In which order letters are listed, and at which place, from 0 on, the right answer is named. Over the four of them
# each letter stands at each place of the list once, the right answer is named at each place once, and the letter of
# that place (A for the first) stands at each place of the list once.
PRESENTATIONS = (("ABCD", 0), ("BADC", 2), ("CDAB", 3), ("DCBA", 1))


@dataclass(frozen=True)
class Question:
    """A question whose answer is known.

    Attributes
    ----------
    domain, stem : str
        What it is about, and its text.
    right : str
        The right answer.
    wrong : tuple[str, ...]
        Three others.
    """

    domain: str
    stem: str
    right: str
    wrong: tuple[str, ...]


@cache
def table() -> tuple[Question, ...]:
    """All questions in the order of ``questions.yaml``."""
    raw = yaml.safe_load((files("calibnb.benchmarks.positions") / "questions.yaml").read_text(encoding="utf-8"))
    rows = [(domain, [part.strip() for part in line.split("|")]) for domain, lines in raw.items() for line in lines]
    return tuple(Question(domain, stem, right, tuple(wrong)) for domain, (stem, right, *wrong) in rows)


def prompt(question: Question, letters: str, place: int) -> str:
    """The request for a letter.

    Parameters
    ----------
    question : Question
        What is asked about.
    letters : str
        The four letters in the order in which they are listed.
    place : int
        How many wrong answers are named before the right one.
    """
    options = [f"Wrong answer: {text}" for text in question.wrong]
    options.insert(place, f"Right answer: {question.right}")
    listed = f"{', '.join(letters[:-1])} and {letters[-1]}"
    return PROMPT.format(stem=question.stem, options="\n".join(options), letters=listed)
