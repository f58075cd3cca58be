"""What the original study claims, which findings of this one speak to each claim, and what they say together.

Claims are of arXiv:2605.11845, in our words. Its abstract gives the number of models and directions, and its repository
holds no results, so what is set against it are directions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Findings = Mapping[str, Mapping[str, Any]]

METHODS = ("soft", "hard")  # the two that the original compares
REFERENCES = {"base": "of base", "format": "of the control"}  # the model as it comes, and the format control
SUPPORTED, REFUTED, UNMEASURED = "supported", "refuted", "not measured"


@dataclass(frozen=True)
class Evidence:
    """Findings that speak to a claim, shown on one line.

    Attributes
    ----------
    what : str
        What sets them apart from other lines of a claim; empty for the only one.
    findings : Mapping[str, str]
        Ids of findings by what tells them apart on the line.
    against : bool
        Whether they speak against the claim where they are supported, and for it where they are refuted.
    """

    what: str
    findings: Mapping[str, str]
    against: bool = False

    def verdicts(self, found: Findings) -> list[str]:
        """What each says of the claim; one that was not made says ``not measured``."""
        said = [str(found[name]["verdict"]) if name in found else UNMEASURED for name in self.findings.values()]
        return [opposite(verdict) for verdict in said] if self.against else said


@dataclass(frozen=True)
class PaperClaim:
    """A claim of the original study.

    Attributes
    ----------
    claim : str
        In a sentence.
    reported : str
        For how many models it is reported, as far as that is published.
    page : str
        The page that has the whole of what was found here.
    numbers : str
        What the numbers of its findings are.
    evidence : tuple[Evidence, ...]
        What speaks to it.
    """

    claim: str
    reported: str
    page: str
    numbers: str
    evidence: tuple[Evidence, ...]

    def verdict(self, found: Findings) -> str:
        """What the findings of a model say of it together."""
        return together([verdict for line in self.evidence for verdict in line.verdicts(found)])


def opposite(verdict: str) -> str:
    """What a verdict on a claim says of the contrary claim."""
    return {SUPPORTED: REFUTED, REFUTED: SUPPORTED}.get(verdict, verdict)


def together(verdicts: Sequence[str]) -> str:
    """What several verdicts say of one claim that rests on all of them.

    ``supported`` or ``refuted`` only where all are, ``supported in part`` or ``refuted in part`` where some are and
    none is the contrary, ``mixed`` where there are both. Where no verdict takes a side: what all say, else ``open``.
    Without any it is ``not measured``.
    """
    kinds = set(verdicts) or {UNMEASURED}
    if len(kinds) == 1:
        return kinds.pop()
    sides = kinds & {SUPPORTED, REFUTED}
    return "open" if not sides else "mixed" if len(sides) == 2 else f"{sides.pop()} in part"


def against(split: str, reference: str) -> Evidence:
    """Ratios of nW1 on a split to that of a reference."""
    findings = {method: f"structured.{split}.{method}.w1_vs_{reference}" for method in METHODS}
    return Evidence(REFERENCES[reference], findings)


def fidelity(split: str) -> tuple[Evidence, ...]:
    """The distance between answers and target on a split, against all references."""
    return tuple(against(split, reference) for reference in REFERENCES)


COST = Evidence("", {method: f"capability.{method}.vs_base" for method in METHODS})

_MULTIPLE = "nW1 as a multiple of that of base, and of the control"
CLAIMS = (
    PaperClaim(
        "Both methods bring answers closer to the target on families held out of training",
        "all 12 models",
        "structured",
        _MULTIPLE,
        fidelity("held_out"),
    ),
    PaperClaim(
        "Both do so on unseen parameters of the families trained on",
        "all 12 models",
        "structured",
        _MULTIPLE,
        fidelity("unseen"),
    ),
    PaperClaim(
        "Hard targets are the stronger on numbers",
        "often",
        "structured",
        "nW1 of hard as a multiple of that of soft",
        (
            Evidence(
                "",
                {"held out": "structured.held_out.hard.w1_vs_soft", "unseen": "structured.unseen.hard.w1_vs_soft"},
            ),
        ),
    ),
    PaperClaim(
        "Soft targets carry over better to open-ended prompts",
        "as a tendency",
        "openended",
        "share of unique answers, hard less soft",
        (Evidence("", {"": "openended.hard.unique_vs_soft"}, against=True),),
    ),
    PaperClaim(
        "Soft targets carry over better to the letters of right answers",
        "as a tendency",
        "positions",
        "distance from even letters, hard less soft",
        (Evidence("", {"": "positions.hard.choice_vs_soft"}, against=True),),
    ),
    PaperClaim(
        "Soft targets carry over better to prompts with many right answers",
        "as a tendency",
        "novelty",
        "different answers to a prompt, hard less soft",
        (Evidence("", {"": "novelty.hard.distinct_vs_soft"}, against=True),),
    ),
    PaperClaim(
        "Calibration costs capability",
        "sometimes, by model",
        "capability",
        "share of right answers, less that of base",
        (COST,),
    ),
    PaperClaim(
        "It costs most in arithmetic",
        "by model",
        "capability",
        "change of right answers in arithmetic, less that in other tasks",
        (Evidence("", {method: f"capability.{method}.arithmetic_vs_rest" for method in METHODS}),),
    ),
)
