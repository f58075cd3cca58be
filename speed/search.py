"""Short training runs on validation settings: how the study's settings were chosen (book/pages/search.md).

    python speed/search.py hard lora_rank=8            # one run: a method of params.yaml with keys changed
    python speed/search.py hard prompt.parameter_names=symbols --out row.csv

Six training families are left out of the training and measured in place of the held-out ones; of the others, validation
settings are measured, and what is left of ordinary language, apart from every benchmark. Unseen parameters and held-out
families play no part.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from calibnb.benchmarks.capability import bundled, harness
from calibnb.benchmarks.structured import measures
from calibnb.laws import specs
from calibnb.laws.settings import TrainingSettings, questions
from calibnb.models import chatformat, loading
from calibnb.pipeline import params
from calibnb.training import loop, mixture
from calibnb.trees import attention
from calibnb.trees.attention import Body

LEFT_OUT = ("geometric", "chi_square", "logistic", "triangular", "beta_binomial", "lomax")


def changed(method: str, changes: list[str]) -> params.Params:
    """params.yaml with keys changed: ``prompt.…`` as they stand, others below ``finetune.<method>``."""
    raw = params.read("params.yaml")
    for change in changes:
        key, _, value = change.partition("=")
        *path, last = key.split(".") if key.startswith("prompt.") else ["finetune", method, *key.split(".")]
        block = raw
        for part in path:
            block = block[part]
        block[last] = yaml.safe_load(value)
    return params.parse(raw, " ".join(changes))


def geometric_mean(values: pd.Series[float]) -> float:
    return float(np.exp(np.log(values.dropna()).mean()))


QUESTIONS_SEED = 1001  # of the questions of ability; no study asks these


def language(body: Body, chat: chatformat.ChatFormat, study: params.Params) -> dict[str, float]:
    """What is left of ordinary language, apart from every benchmark.

    The probability that the answer to an ordinary prompt (those that a mixture may take) begins with a digit, and the
    share of right answers to the bundled questions of another seed.
    """
    prompts = [chat.prompt_ids(prompt) for prompt in mixture.bundled_prompts()["prompt"]]
    digits = [[i] for i in (chat.answer_ids([digit])[0][0] for digit in "0123456789")]
    first = attention.continuations(body, prompts, [digits] * len(prompts))
    how = study.benchmarks.capability
    with tempfile.TemporaryDirectory() as folder:
        bundled.write_suite(Path(folder), how.items, QUESTIONS_SEED)
        asked, _, _ = harness.run(
            body, chat, "bundled", suite=Path(folder), data=None, limit=None, batch=how.batch, seed=QUESTIONS_SEED
        )
    return {
        "digit first": round(float(np.mean([sum(np.exp(logp) for logp, _ in found) for found in first])), 4),
        "right answers": round(float(asked.groupby("task")["score"].mean().mean()), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", help="a block of finetune, or base: the model as it comes")
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--prompts", type=int, default=896)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--weights", type=Path, default=Path("models/qwen2.5-coder-0.5b/weights"))
    parser.add_argument("--out", type=Path, help="a csv that gets a row")
    args = parser.parse_args()
    study = changed(args.method, args.changes) if args.method != "base" else params.load()
    seed, device = args.seed, loading.pick_device(study.compute.device)
    dtype = loading.pick_dtype(study.compute.dtype, device)

    settings = specs.build(study.families, study.data.validation_share, study.data.significant_digits)
    seen = {name: grid for name, grid in study.families.items() if name not in LEFT_OUT}
    trained = TrainingSettings.of(seen, study.data.validation_share, study.data.significant_digits)
    in_range = specs.spread(trained.validation, 27)
    left_out = specs.spread([s for s in settings if s.split == "train" and s.family in LEFT_OUT], 18)

    scratch = Path(tempfile.mkdtemp())
    adapter, log = None, pd.DataFrame({"validation": [float("nan")]})
    begun = time.perf_counter()
    if args.method != "base":
        count = len(trained.train)
        method = study.finetune[args.method].model_copy(update={"epochs": args.prompts / count, "validations": 1})
        adapter = scratch / "model" / args.method
        own = args.weights.parent / "ordinary" / f"{args.method}.jsonl"  # which the stage `ordinary` leaves
        log = loop.train(
            args.weights, adapter, trained, method, study.prompt,
            seed=seed, device=device, dtype=dtype, scratch=scratch / "run",
            ordinary=mixture.load(method.mixture.source, own) if method.mixture else [],
        ).log  # fmt: skip
    seconds = time.perf_counter() - begun
    network, tokenizer = loading.load(args.weights, adapter=adapter, device=device, dtype=dtype)
    body, chat = Body(network), chatformat.chat_format(tokenizer)
    frame, _ = measures.run(
        body, chat, tokenizer.get_vocab(),
        questions([*in_range, *left_out], study.prompt),
        space=study.benchmarks.structured.space, search=study.benchmarks.structured.open,
    )  # fmt: skip
    shutil.rmtree(scratch)
    near = frame["split"] == "validation"
    row = {
        "method": args.method,
        "changed": " ".join(args.changes) or "nothing",
        "seed": seed,
        "steps": len(log) if adapter else 0,
        "seconds": round(seconds),
        "validation loss": round(float(log["validation"].iloc[-1]), 3),
        "nW1 validation": round(geometric_mean(frame.loc[near, "nw1"]), 3),
        "nW1 families left out": round(geometric_mean(frame.loc[~near, "nw1"]), 3),
        "valid mass, families left out": round(float(frame.loc[~near, "valid_mass"].mean()), 3),
    }
    row |= language(body, chat, study)
    print(row)
    if args.out is not None:
        pd.DataFrame([row]).to_csv(args.out, mode="a", header=not args.out.exists(), index=False)


if __name__ == "__main__":
    main()
