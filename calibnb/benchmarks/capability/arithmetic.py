"""Written answers to questions of arithmetic, read in two ways.

Strictly, as the task demands it: a bare number, or one behind four hash signs. Leniently: the last number of the text,
whatever stands around it. What is right leniently alone is lost to the form, not to the calculation; and an answer that
was cut off may have been on its way to the right number.
"""

from __future__ import annotations

import re

CHOSEN = ("arithmetic",)  # by the probability of given answers, where no form can be wrong
WRITTEN = ("written_arithmetic", "word_problems", "tinyGSM8k")
TASKS = (*CHOSEN, *WRITTEN)
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def last_number(text: str) -> float | None:
    """The last number of a text, commas between its digits left out; None where there is none."""
    found = NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


def read(answer: str, target: str, score: float) -> dict[str, float]:
    """How an answer reads, beside what the task gives it: ``strict, lenient``, each 1 or 0.

    Parameters
    ----------
    answer, target : str
        What was written, and the right answer, whose last number counts.
    score : float
        The task's own, which is strict. What is right strictly is right leniently, too.
    """
    return {"strict": score, "lenient": max(score, float(last_number(answer) == last_number(target)))}
