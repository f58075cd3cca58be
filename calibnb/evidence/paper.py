"""What the original study claims, which findings of this one speak to each claim, and what they say together.

Claims are of arXiv:2605.11845, in our words. Its abstract gives the number of models and directions, and its repository
holds no results, so what is set against it are directions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from calibnb.evidence.claims import CONTROLS

Findings = Mapping[str, Mapping[str, Any]]

METHODS = ("soft", "hard")  # the two that the original compares
SUPPORTED, REFUTED = "supported", "refuted"


@dataclass(frozen=True)
class Evidence:
    """Findings that speak to a claim, shown on one line.

    Attributes
    ----------
    what : str
        What their numbers are.
    findings : Mapping[str, str]
        Ids of findings by what tells them apart on the line.
    against : bool
        Whether they speak against the claim where they are supported, and for it where they are refuted.
    """

    what: str
    findings: Mapping[str, str]
    against: bool = False

    def verdicts(self, found: Findings) -> list[str]:
        """What those that were made say of the claim."""
        said = [str(found[name]["verdict"]) for name in self.findings.values() if name in found]
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
    evidence : tuple[Evidence, ...]
        What speaks to it.
    """

    claim: str
    reported: str
    page: str
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
    kinds = set(verdicts)
    if not kinds:
        return "not measured"
    if len(kinds) == 1:
        return kinds.pop()
    if {SUPPORTED, REFUTED} <= kinds:
        return "mixed"
    sided = kinds & {SUPPORTED, REFUTED}
    return f"{sided.pop()} in part" if sided else "open"


def fidelity(split: str) -> tuple[Evidence, ...]:
    """The distance between answers and target on a split, against the model as it comes and against the control."""
    return tuple(
        Evidence(
            f"nW1 as a multiple of that of {CONTROLS[reference]}",
            {method: f"structured.{split}.{method}.w1_vs_{reference}" for method in METHODS},
        )
        for reference in ("base", "format")
    )


COST = Evidence(
    "share of right answers, less that of the model as it comes",
    {method: f"capability.{method}.vs_base" for method in METHODS},
)
CLAIMS = (
    PaperClaim(
        "Both methods bring answers closer to the target on families that were held out of training",
        "all of 12 models",
        "structured",
        fidelity("held_out"),
    ),
    PaperClaim(
        "Both do so on unseen parameters of the families trained on",
        "all of 12 models",
        "structured",
        fidelity("unseen"),
    ),
    PaperClaim(
        "Hard targets are the stronger on numbers",
        "often",
        "structured",
        (
            Evidence(
                "nW1 of hard as a multiple of that of soft",
                {
                    "held out": "structured.held_out.hard.w1_vs_soft",
                    "unseen": "structured.unseen.hard.w1_vs_soft",
                },
            ),
        ),
    ),
    PaperClaim(
        "Soft targets carry over better to open-ended prompts",
        "as a tendency",
        "openended",
        (Evidence("share of unique answers, hard less soft", {"": "openended.hard.unique_vs_soft"}, against=True),),
    ),
    PaperClaim(
        "… and to the letters of right answers",
        "as a tendency",
        "positions",
        (Evidence("distance from uniform, hard less soft", {"": "positions.hard.choice_vs_soft"}, against=True),),
    ),
    PaperClaim(
        "… and to prompts with many right answers",
        "as a tendency",
        "novelty",
        (Evidence("different answers, hard less soft", {"": "novelty.hard.distinct_vs_soft"}, against=True),),
    ),
    PaperClaim("It costs capability", "sometimes, by model", "capability", (COST,)),
)
