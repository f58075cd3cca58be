"""Ways of asking that need no training.

- **String Seed of Thought** (Misaki and Akiba, 2025, arXiv 2510.21150): the model first writes a random string and
  derives its answer from it. It needs a model that follows instructions over several steps; without a closed answer
  tag there is no answer.
- **Verbalised sampling** (Zhang et al., 2025, arXiv 2510.01171): the model states possible answers with probabilities,
  and the answer is drawn from them by a random number generator. It needs a model that writes such a list; what is
  drawn is only as varied as the list.

Both change how a question is asked and how the text is read, so they wrap an `Ask`. The instruction stands behind the
question, or before it as the system text, which some models heed better. The answers cannot be enumerated,
so exact measures do not apply.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable, Sequence

import numpy as np

from calibnb.trees.sampling import Ask, Sampler
from calibnb.trees.trie import Floats

SEED_OF_THOUGHT = """\
Work in three steps. First write a random string of about twenty letters and digits inside <random> and </random>. \
Then, inside <thinking> and </thinking>, use the string, and nothing else, to decide: every admissible answer must get \
its fair chance. Last write the answer alone inside <answer> tags."""

# No second opening inside: a model that repeats the instruction has not answered with what follows it.
_ANSWER = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL | re.IGNORECASE)


def tagged_answer(text: str) -> str:
    """What stands in the first closed answer tag; empty where there is none."""
    found = _ANSWER.search(text)
    return found[1].strip() if found else ""


def behind(question: str, instruction: str) -> str:
    """A question with an instruction behind it; alone where the instruction is empty."""
    return f"{question}\n\n{instruction}" if instruction else question


def seed_of_thought(ask: Ask, instruction: str = SEED_OF_THOUGHT) -> Ask:
    """The same questions, answered by way of a random string; ``max_new_tokens`` has to hold the string, too.

    The instruction is empty where `ask` gives it as a system text.
    """

    def asked(prompts: Sequence[str], *, draws: int, max_new_tokens: int) -> list[list[str]]:
        texts = ask([behind(p, instruction) for p in prompts], draws=draws, max_new_tokens=max_new_tokens)
        return [[tagged_answer(text) for text in row] for row in texts]

    return asked


VERBALISED = """\
Do not answer yet. Write a list of possible answers, each with the probability that it should be given, one to a line \
like this:
answer | probability"""
_LINE = re.compile(
    # A bullet or a number with a space behind it: the answer itself may begin with a sign or be a number.
    r"\s*\|?\s*(?:(?:[-*•]|\d+[.)])\s+)?(.+?)\s*[|:=]\s*(?:p\s*=\s*)?(\d*\.?\d+)\s*(%?)\s*\|?\s*$",
    re.IGNORECASE,
)


def verbalised_law(text: str) -> tuple[list[str], Floats]:
    """Answers that a text lists and their probabilities, normalised to sum to 1; empty where it lists none.

    Lines that are no pair are passed over, probabilities of 0 and above 1 (or 100 %) and totals too; an answer that is
    listed twice has both probabilities.
    """
    law: dict[str, float] = {}
    for line in text.splitlines():
        found = _LINE.fullmatch(line)
        if found is None:
            continue
        p = float(found[2]) / (100 if found[3] else 1)
        answer = found[1].strip("*\"'` ")
        if 0 < p <= 1 and answer.casefold() not in ("total", "sum"):
            law[answer] = law.get(answer, 0.0) + p
    total = sum(law.values())
    return list(law), np.array([p / total for p in law.values()])


def verbalised(ask: Ask, instruction: str = VERBALISED, *, seed: int) -> Ask:
    """The same questions, each draw an answer taken at random from a list that the model writes anew.

    Parameters
    ----------
    ask : Ask
        Draws the lists.
    instruction : str
        What stands behind a question; empty where `ask` gives it as a system text.
    seed : int
        Seed of the numbers that pick from the lists; a draw depends on seed, question and its number.
    """

    def asked(prompts: Sequence[str], *, draws: int, max_new_tokens: int) -> list[list[str]]:
        texts = ask([behind(p, instruction) for p in prompts], draws=draws, max_new_tokens=max_new_tokens)
        answers = []
        for prompt, row in zip(prompts, texts, strict=True):
            digest = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "little")
            picked = []
            for number, text in enumerate(row):
                names, p = verbalised_law(text)
                rng = np.random.default_rng([seed, digest, number])
                picked.append(names[rng.choice(len(p), p=p)] if names else "")
            answers.append(picked)
        return answers

    return asked


INSTRUCTIONS = {"ssot": SEED_OF_THOUGHT, "verbalised": VERBALISED}
SYSTEM = "-system"  # ends the name of a way whose instruction is the system text


def in_way(sampler: Sampler, way: str, wrap: Callable[[Ask], Ask] = lambda ask: ask) -> Ask:
    """A sampler that is asked in another way.

    Parameters
    ----------
    sampler : Sampler
        Of the model as it comes.
    way : str
        ``ssot`` or ``verbalised``, with ``-system`` behind it or not.
    wrap : Callable[[Ask], Ask]
        What sees the prompts as they are asked, and the texts as they were written.
    """
    name = way.removesuffix(SYSTEM)
    instruction = INSTRUCTIONS[name]
    if way != name:
        sampler, instruction = dataclasses.replace(sampler, system=instruction), ""
    ask = wrap(sampler)
    if name == "ssot":
        return seed_of_thought(ask, instruction)
    return verbalised(ask, instruction, seed=sampler.seed)
