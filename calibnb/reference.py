"""The long runs: how the measures move while training goes on for hours instead of minutes.

``python -m calibnb.reference`` (or ``make reference``) trains every method of params.yaml as changed by
``profiles/reference.yaml``, measures it at every validation, and writes ``results/reference/``: the learning curves as
a small table and where they come from. A killed run resumes; the table is rewritten after every measurement.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch
from peft import PeftModel
from transformers import AutoTokenizer

from calibnb import finetune, models, params, specs, stats
from calibnb.benchmarks import structured
from calibnb.errors import UserError
from calibnb.tree import Body

MEASURES = ("nw1", "kl_format", "kl_shape", "valid_mass")


def summary(frame: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """Family medians with 95 % intervals: rows ``split, measure, value, low, high``."""
    rows = []
    for split, part in frame.groupby("split", sort=False):
        for measure in MEASURES:
            families = part["family"].tolist()
            estimate = stats.family_median_interval(families, part[measure], resamples=resamples, seed=seed)
            rows.append({"split": split, "measure": measure} | estimate._asdict())
    return pd.DataFrame(rows)


def run(study: params.Params, out: Path) -> None:
    """Train and measure every method on the first model; one seed, the first."""
    name, seed = study.models[0], study.seeds[0]
    weights = Path("models") / models.slug(name) / "weights"
    device = models.pick_device(study.compute.device)
    dtype = models.pick_dtype(study.compute.dtype, device)
    all_settings = specs.build(study.families, study.data.validation_share, study.data.significant_digits)
    choice = study.structured.settings
    measured = [
        *specs.choose(all_settings, "validation", choice.in_range),
        *specs.choose(all_settings, "unseen", choice.unseen),
        *specs.choose(all_settings, "held_out", choice.held_out),
    ]
    out.mkdir(parents=True, exist_ok=True)
    for method_name in study.methods:
        method = study.finetune[method_name]
        table = out / f"{method_name}.csv"

        def measure(step: int, model: PeftModel, method=method, table=table, method_name=method_name) -> None:  # type: ignore[no-untyped-def]
            model.eval()
            chat = models.chat_format(AutoTokenizer.from_pretrained(weights))
            with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
                frame, _ = structured.run(
                    Body(model), chat, chat.tokenizer.get_vocab(), measured,
                    prompt=study.prompt, space=study.structured.space, search=study.structured.open,
                )  # fmt: skip
            model.train()
            group = method.prompts_per_step * method.accumulation_steps
            rows = summary(frame, study.structured.bootstrap, seed)
            rows = rows.assign(method=method_name, seed=seed, step=step, prompts=step * group)
            earlier = pd.read_csv(table) if table.exists() else rows.iloc[:0]
            pd.concat([earlier[earlier["step"] < step], rows]).to_csv(table, index=False, float_format="%.5f")

        finetune.train(
            weights, Path("models") / models.slug(name) / "reference" / method_name,
            [s for s in all_settings if s.split in ("train", "validation")], study.families, method, study.prompt,
            significant_digits=study.data.significant_digits, seed=seed, device=device, dtype=dtype,
            scratch=Path(".scratch") / "reference" / method_name, on_validation=measure,
        )  # fmt: skip
    card = json.loads((weights / "card.json").read_text())
    packages = ("torch", "transformers", "peft", "accelerate", "scipy", "numpy")
    provenance = {
        "model": card,
        "seed": seed,
        "device": f"{device.type}, {torch.get_num_threads()} threads"
        if device.type == "cpu"
        else torch.cuda.get_device_name(device),
        "dtype": str(dtype).removeprefix("torch."),
        "python": platform.python_version(),
        "packages": {p: version(p) for p in packages},
        "finetune": {m: study.finetune[m].model_dump(mode="json") for m in study.methods},
        "settings": {split: sum(s.split == split for s in measured) for split in ("validation", "unseen", "held_out")},
        "bootstrap": study.structured.bootstrap,
    }
    (out / "provenance.json").write_text(json.dumps(provenance, indent=2, sort_keys=True) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--profile", type=Path, default=Path("profiles/reference.yaml"))
    parser.add_argument("--out", type=Path, default=Path("results/reference"))
    args = parser.parse_args()
    try:
        run(
            params.parse(params.merge(params.read(args.params), params.read(args.profile)), str(args.profile)), args.out
        )
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
