"""Prompts of the mixing curve with answers drawn as they ask, for a method that mixes them into calibration.

    python -m calibnb.benchmarks.mixing.seen > calibnb/benchmarks/mixing/seen.jsonl

Of the pairs and wordings that are marked as seen alone, and of probabilities that the benchmark does not ask for, so
what is learned can be told from what carries over to other words, other wordings and other probabilities.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np

from calibnb.benchmarks.mixing import prompts

PROBABILITIES = (0.03, 0.08, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.92, 0.97)


def turns(seed: int = 0) -> Iterator[dict[str, str]]:
    """One answer to each prompt, drawn with the probability that it states: ``prompt, answer``."""
    rng = np.random.default_rng(seed)
    for item in prompts.items(PROBABILITIES, "all", "all"):
        if not item.held_out:
            first, second = item.pair.words
            yield {"prompt": item.prompt, "answer": first if rng.random() < item.asked else second}


if __name__ == "__main__":
    for turn in turns():
        print(json.dumps(turn))
