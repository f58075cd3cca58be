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
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch
from peft import PeftModel
from transformers import AutoTokenizer

from calibnb import finetune, models, params, specs, stats
from calibnb.benchmarks import structured
from calibnb.errors import UserError
from calibnb.params import FinetuneParams
from calibnb.specs import Spec
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


def measured_settings(study: params.Params, settings: list[Spec]) -> list[Spec]:
    """The settings that are measured at every checkpoint, split by split."""
    choice = study.structured.settings
    return [
        *specs.choose(settings, "validation", choice.in_range),
        *specs.choose(settings, "unseen", choice.unseen),
        *specs.choose(settings, "held_out", choice.held_out),
    ]


def provenance(
    study: params.Params,
    done: Sequence[str],
    weights: Path,
    measured: list[Spec],
    device: torch.device,
    dtype: torch.dtype,
) -> dict[str, object]:
    """Where the curves come from: model, methods, seed, versions, device."""
    on_cpu = device.type == "cpu"
    packages = ("torch", "transformers", "peft", "accelerate", "scipy", "numpy")
    return {
        "model": json.loads((weights / "card.json").read_text()),
        "seed": study.seeds[0],
        "device": f"cpu, {torch.get_num_threads()} threads" if on_cpu else torch.cuda.get_device_name(device),
        "dtype": str(dtype).removeprefix("torch."),
        "python": platform.python_version(),
        "packages": {p: version(p) for p in packages},
        "finetune": {m: study.finetune[m].model_dump(mode="json") for m in done},
        "settings": {split: sum(s.split == split for s in measured) for split in ("validation", "unseen", "held_out")},
        "bootstrap": study.structured.bootstrap,
    }


def run(study: params.Params, out: Path) -> None:
    """Train and measure every method on the first model; one seed, the first."""
    name, seed = study.models[0], study.seeds[0]
    weights = Path("models") / models.slug(name) / "weights"
    device = models.pick_device(study.compute.device)
    dtype = models.pick_dtype(study.compute.dtype, device)
    settings = specs.build(study.families, study.data.validation_share, study.data.significant_digits)
    measured = measured_settings(study, settings)
    out.mkdir(parents=True, exist_ok=True)
    for place, method_name in enumerate(study.methods):
        method = study.finetune[method_name]

        def measure(step: int, model: PeftModel, name: str = method_name, method: FinetuneParams = method) -> None:
            model.eval()
            chat = models.chat_format(AutoTokenizer.from_pretrained(weights))
            with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
                frame, _ = structured.run(
                    Body(model), chat, chat.tokenizer.get_vocab(), measured,
                    prompt=study.prompt, space=study.structured.space, search=study.structured.open,
                )  # fmt: skip
            model.train()
            prompts = step * method.prompts_per_step * method.accumulation_steps
            rows = summary(frame, study.structured.bootstrap, seed)
            rows = rows.assign(method=name, seed=seed, step=step, prompts=prompts)
            table = out / f"{name}.csv"
            earlier = pd.read_csv(table) if table.exists() else rows.iloc[:0]
            pd.concat([earlier[earlier["step"] < step], rows]).to_csv(table, index=False, float_format="%.5f")

        finetune.train(
            weights, Path("models") / models.slug(name) / "reference" / method_name,
            [s for s in settings if s.split in ("train", "validation")], study.families, method, study.prompt,
            significant_digits=study.data.significant_digits, seed=seed, device=device, dtype=dtype,
            scratch=Path(".scratch") / "reference" / method_name, on_validation=measure,
        )  # fmt: skip
        about = provenance(study, study.methods[: place + 1], weights, measured, device, dtype)
        (out / "provenance.json").write_text(json.dumps(about, indent=2, sort_keys=True) + "\n")


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
