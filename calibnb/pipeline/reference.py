"""The long runs: how the measures move while training goes on for hours instead of minutes.

``python -m calibnb.pipeline.reference [METHOD ...]`` (or ``make reference``) trains methods of params.yaml as changed
by ``profiles/reference.yaml``, measures them before the first step and at every validation, and writes two small files
a method into ``results/reference/``: the learning curve and where it comes from. A killed run resumes; the curve is
rewritten after every measurement. On two cores without a GPU, two methods side by side with ``OMP_NUM_THREADS=1`` are
done sooner than one after the other.
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

from calibnb.benchmarks.structured import measures
from calibnb.errors import UserError
from calibnb.evidence import intervals
from calibnb.laws import specs
from calibnb.laws.settings import TrainingSettings, questions
from calibnb.laws.specs import Spec
from calibnb.models import chatformat, loading, places
from calibnb.pipeline import params
from calibnb.training import adapters, loop
from calibnb.trees.attention import Body

MEASURES = ("nw1", "kl_format", "kl_shape", "valid_mass")


def summary(frame: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """Family medians with 95 % intervals: rows ``split, measure, value, low, high``."""
    rows = []
    for split, part in frame.groupby("split", sort=False):
        for measure in MEASURES:
            families = part["family"].tolist()
            estimate = intervals.family_median_interval(families, part[measure], resamples=resamples, seed=seed)
            rows.append({"split": split, "measure": measure} | estimate._asdict())
    return pd.DataFrame(rows)


def provenance(
    study: params.Params,
    method: str,
    weights: Path,
    measured: list[Spec],
    device: torch.device,
    dtype: torch.dtype,
) -> dict[str, object]:
    """Where a curve comes from: model, method, seed, versions, device."""
    on_cpu = device.type == "cpu"
    packages = ("torch", "transformers", "peft", "accelerate", "scipy", "numpy")
    return {
        "model": json.loads((weights / "card.json").read_text()),
        "seed": study.seeds[0],
        "device": f"cpu, threads: {torch.get_num_threads()}" if on_cpu else torch.cuda.get_device_name(device),
        "dtype": str(dtype).removeprefix("torch."),
        "python": platform.python_version(),
        "packages": {p: version(p) for p in packages},
        "prompt": study.prompt.model_dump(mode="json"),
        "finetune": study.finetune[method].model_dump(mode="json"),
        "settings": {split: sum(s.split == split for s in measured) for split in ("validation", "unseen", "held_out")},
        "bootstrap": study.bootstrap,
    }


def run(study: params.Params, name: str, out: Path) -> None:
    """Train one method on the first model with the first seed, and measure it before that and at every validation."""
    model_name, seed, method = study.models[0], study.seeds[0], study.finetune[name]
    weights = Path("models") / places.place(model_name) / "weights"
    scratch = Path(".scratch") / "reference" / name
    device = loading.pick_device(study.compute.device)
    dtype = loading.pick_dtype(study.compute.dtype, device)
    settings = specs.build(study.families, study.data.validation_share, study.data.significant_digits)
    measured = measures.measured_settings(settings, study.benchmarks.structured.settings)
    if method.mixture is not None:
        raise UserError(f"finetune.{name}.mixture: must be null in the long runs, got {method.mixture.source}")
    out.mkdir(parents=True, exist_ok=True)
    about = json.dumps(provenance(study, name, weights, measured, device, dtype), indent=2, sort_keys=True) + "\n"
    table, record = out / f"{name}.csv", out / f"{name}.json"
    same = record.exists() and record.read_text() == about
    if not same or not (scratch / "checkpoint.pt").exists():  # nothing earlier belongs to this run
        table.unlink(missing_ok=True)

    def measure(step: int, adapter: Path | None) -> None:
        network, tokenizer = loading.load(
            weights, adapter=adapter, device=device, dtype=dtype, trust_remote_code=study.compute.trust_remote_code
        )
        frame, _ = measures.run(
            Body(network), chatformat.chat_format(tokenizer), tokenizer.get_vocab(), questions(measured, study.prompt),
            space=study.benchmarks.structured.space, search=study.benchmarks.structured.open,
        )  # fmt: skip
        prompts = step * method.prompts_per_step
        rows = summary(frame, study.bootstrap, seed)
        rows = rows.assign(method=name, seed=seed, step=step, prompts=prompts)
        earlier = pd.read_csv(table) if table.exists() else rows.iloc[:0]
        pd.concat([earlier[earlier["step"] < step], rows]).to_csv(table, index=False, float_format="%.5f")
        record.write_text(about)

    def checkpoint(step: int, model: PeftModel) -> None:
        adapters.save_adapter(model, scratch / "measured")
        measure(step, scratch / "measured")

    if not table.exists():  # a curve begins with the model as it comes
        measure(0, None)
    loop.train(
        weights, Path("models") / places.place(model_name) / "reference" / name,
        TrainingSettings.of(study.families, study.data.validation_share, study.data.significant_digits),
        method, study.prompt, seed=seed, device=device, dtype=dtype,
        trust_remote_code=study.compute.trust_remote_code, scratch=scratch, on_validation=checkpoint,
    )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("methods", nargs="*", metavar="METHOD", help="all of the profile's methods if none is named")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--profile", type=Path, default=Path("profiles/reference.yaml"))
    parser.add_argument("--out", type=Path, default=Path("results/reference"))
    args = parser.parse_args()
    try:
        study = params.parse(params.under(args.params, args.profile), str(args.profile))
        for name in args.methods:
            if name not in study.methods:
                raise UserError(f"{name}: no such method; {args.profile} has {', '.join(study.methods)}")
        for name in args.methods or study.methods:
            run(study, name, args.out)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
