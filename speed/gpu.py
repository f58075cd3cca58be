"""The headline on a GPU machine that nothing reaches but small pieces of files, and that is there for minutes.

    python speed/gpu.py split                   # here: weights and missing libraries, in pieces, below .gpu/
    python speed/gpu.py join PIECES FOLDER      # there: puts them together, once all are there
    python speed/gpu.py run FOLDER --out OUT    # there: trains and measures, and leaves what it has in pieces in OUT
    python speed/gpu.py probe                   # there: which card, which versions, which libraries are missing

What runs are the stages of dvc.yaml, as their commands stand there, without DVC: those that train the methods of a
profile and measure structured sampling, several at once on the one card. A stage whose outputs are there does not run
again, and a stopped training goes on from its last checkpoint, so `run` may be called again. When the time for
training is over, the seeds of which every method is trained are measured.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pieces import MEBIBYTE, cut, missing, put_together

ROOT = Path(__file__).resolve().parents[1]
BENCHMARK = "structured"
LAST = 45  # seconds for the chapters' findings, when the time for measuring is over

# Of what the stages import, what the machine lacks; their versions are those of constraints.txt.
PYTHON = "3.12"
PLATFORMS = ("manylinux2014_x86_64", *(f"manylinux_2_{glibc}_x86_64" for glibc in (28, 27, 26, 17, 12, 5)))
WHEELS = (
    *("annotated-types", "gguf", "pydantic", "pydantic-core", "typing-inspection"),
    # to run notebooks
    *("asttokens", "comm", "entrypoints", "executing", "fastjsonschema", "ipykernel", "ipython"),
    *("ipython-pygments-lexers", "jedi", "jsonschema", "jsonschema-specifications", "jupyter-client", "jupyter-core"),
    *("matplotlib-inline", "nbclient", "nbformat", "nest-asyncio2", "papermill", "parso", "pexpect", "platformdirs"),
    *("prompt-toolkit", "ptyprocess", "pure-eval", "pyzmq", "referencing", "rpds-py", "stack-data", "tenacity"),
    *("tornado", "traitlets", "wcwidth"),
)


# -- here


def split(args: argparse.Namespace) -> None:
    """Cut the weights of the profile's models, and the libraries, into pieces."""
    from calibnb.models import fetching, naming

    files: dict[str, Path] = {}
    for model in study_of(args.profile)[1].models:
        source = naming.resolve(model)
        if source.kind == "package":
            file = fetching.weights_file(source)
            files[f"cache/{file.name}"] = file
        elif source.kind == "folder" and not Path(model).is_absolute():
            files[str(Path(model))] = Path(model)
        else:
            raise SystemExit(f"models: {model}: must be a packaged model or a folder ./name to be split")
    with tempfile.TemporaryDirectory() as downloaded:
        if args.wheels:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
            pip += ["--only-binary=:all:", "--python-version", PYTHON, "--implementation", "cp"]
            pip += [part for name in PLATFORMS for part in ("--platform", name)]
            pip += ["--constraint", str(ROOT / "constraints.txt"), "--dest", downloaded, *WHEELS]
            if subprocess.run(pip, check=False).returncode:
                raise SystemExit("pip could not download the libraries; --no-wheels leaves them out")
            files |= {f"wheels/{wheel.name}": wheel for wheel in Path(downloaded).glob("*.whl")}
        pieces = cut(files, args.out, int(args.mebibytes * MEBIBYTE))
    total = sum(piece.stat().st_size for piece in pieces) / MEBIBYTE
    print(f"{args.out}: {len(pieces)} pieces of at most {args.mebibytes} MiB, {total:.0f} MiB in all")


# -- there


def join(args: argparse.Namespace) -> None:
    """Put the pieces together and install the libraries, once all pieces are there."""
    if rest := missing(args.pieces):
        print(f"{args.pieces}: still to come: {', '.join(rest)}")
        return
    put_together(args.pieces, args.folder)
    if wheels := sorted(map(str, (args.folder / "wheels").glob("*.whl"))):
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
        pip += ["--no-cache-dir", "--disable-pip-version-check", "--upgrade", "--target", str(site(args.folder))]
        if subprocess.run([*pip, *wheels], check=False).returncode:
            raise SystemExit(f"{args.folder}: pip could not install the libraries")
    print(f"{args.folder}: complete")


def site(folder: Path) -> Path:
    """Where the libraries that came with the pieces are installed."""
    return folder / "site"


def study_of(profile: Path) -> tuple[dict[str, Any], Any]:
    """The parameters of the study under a profile, as they are written and checked."""
    from calibnb.pipeline import params

    merged = params.under(ROOT / "params.yaml", profile)
    return merged, params.parse(merged, str(profile))


@dataclass(frozen=True)
class Stage:
    """A command of dvc.yaml for one item, and what it leaves."""

    name: str
    command: list[str]
    outs: list[Path]

    def done(self, folder: Path) -> bool:
        return all((folder / out).exists() for out in self.outs)


def stage(name: str, study: Any, **item: object) -> Stage:
    """A stage of dvc.yaml with an item's values, and those of the study, in place."""
    from calibnb import yaml_files
    from calibnb.models.places import place

    known: dict[str, Any] = {"item": item, "compute": study.compute.model_dump()}

    def filled(text: str) -> str:
        def value(found: re.Match[str]) -> str:
            block, key = found[1].split(".")
            return str(known[block][key])

        return re.sub(r"\$\{([a-z_.]+)\}", value, text)

    written = yaml_files.read(ROOT / "dvc.yaml")["stages"][name]
    python, *command = shlex.split(filled(written["cmd"]))
    assert python == "python"
    paths = [path for kind in ("outs", "metrics", "plots") for path in written.get(kind, [])]
    # A model's folder in a path is its name without what begins a path, as DVC reads it and as stages write it.
    known["item"] = item | ({"model": place(str(item["model"]))} if "model" in item else {})
    outs = [Path(filled(path if isinstance(path, str) else next(iter(path)))) for path in paths]
    return Stage("-".join([name, *map(str, item.values())]), [sys.executable, *command], outs)


class Machine:
    """Runs stages in a folder, several at once, and keeps how long each took."""

    def __init__(self, folder: Path, jobs: int) -> None:
        self.folder, self.jobs = folder.resolve(), jobs
        self.seconds: dict[str, float] = {}
        self.failed: list[str] = []
        self.environment = os.environ | {
            "PYTHONPATH": f"{site(self.folder)}{os.pathsep}{ROOT}",
            "CALIBNB_CACHE": str(self.folder / "cache"),
            "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs)),
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }

    def run(self, stages: Sequence[Stage], until: float) -> None:
        """Those that are not done, in their order; none goes on after ``until`` on the clock of `time.monotonic`."""
        with ThreadPoolExecutor(self.jobs) as pool:
            list(pool.map(lambda each: self._run(each, until), stages))

    def _run(self, each: Stage, until: float) -> None:
        begun = time.monotonic()
        if each.done(self.folder) or begun >= until:
            return
        log = self.folder / "logs" / f"{each.name.replace('/', '_')}.txt"
        log.parent.mkdir(exist_ok=True)
        with log.open("w") as said:
            process = subprocess.Popen(
                each.command, cwd=self.folder, env=self.environment, stdout=said, stderr=subprocess.STDOUT
            )
            try:
                status = process.wait(until - begun)
                word = "done" if status == 0 else "failed"
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGINT)  # which ends the notebook's kernel as well
                try:
                    process.wait(15)
                except subprocess.TimeoutExpired:
                    process.kill()
                word = "stopped"
        took = time.monotonic() - begun
        print(f"{each.name}: {word} after {took:.0f} s", flush=True)
        if word == "done":
            self.seconds[each.name] = round(took, 1)
        if word == "failed":
            self.failed.append(each.name)
            print("\n".join(f"  {line}" for line in log.read_text().splitlines()[-12:]), flush=True)


def _write_study(merged: Mapping[str, Any], seeds: Sequence[int], folder: Path) -> None:
    from calibnb.pipeline import params

    params.write({**merged, "seeds": list(seeds)}, folder)


def run(args: argparse.Namespace) -> None:
    """Train and measure as far as the time goes, and leave what there is in pieces."""
    end = time.monotonic() + 60 * args.minutes
    training_ends = end - 60 * args.reserve
    sys.path.insert(0, str(site(args.folder)))
    from calibnb.models.places import place
    from calibnb.pipeline import items

    merged, study = study_of(args.profile)
    machine = Machine(args.folder, args.jobs)
    folder = machine.folder
    (folder / "notebooks").unlink(missing_ok=True)
    (folder / "notebooks").symlink_to(ROOT / "notebooks")
    _write_study(merged, study.seeds, folder)
    items.write(study, folder / "items", only=[BENCHMARK])

    fetched = [stage("weights", study, model=model) for model in study.models]
    machine.run(fetched, training_ends)
    if not all(one.done(folder) for one in fetched):
        end = training_ends = 0.0  # nothing else can run
    rates = folder / "rates.json"
    weights = Path("models") / place(study.models[0]) / "weights"
    command = [sys.executable, str(Path(__file__).resolve()), "rate", str(weights), str(rates)]
    command += ["--largest", str(args.largest), "--prompts", *map(str, args.prompts)]
    machine.run([Stage("rate", command, [rates])], training_ends)

    training = {
        seed: [
            stage("finetune", study, model=model, method=method, seed=seed)
            for model in study.models
            for method in study.methods
        ]
        for seed in study.seeds
    }
    measuring = {
        variant: [stage("measure", study, benchmark=BENCHMARK, model=model, variant=variant) for model in study.models]
        for variant in study.measured(BENCHMARK)
    }
    untrained = [one for variant, stages in measuring.items() if variant not in study.methods for one in stages]
    trained = [one for variant, stages in measuring.items() if variant in study.methods for one in stages]
    pages = [stage("chapter", study, benchmark=BENCHMARK), stage("finetuning", study)]
    if not all(one.done(folder) for stages in training.values() for one in stages):
        _forget(folder, [*trained, *pages])  # what fewer seeds were measured on
    machine.run([*untrained, *(one for stages in training.values() for one in stages)], training_ends)
    seeds = [seed for seed, stages in training.items() if all(one.done(folder) for one in stages)]
    if seeds:
        _write_study(merged, seeds, folder)
    machine.run([*untrained, *(trained if seeds else [])], end)
    keep = [sys.executable, "-m", "calibnb.pipeline.keep", args.name, "--only", BENCHMARK]
    kept = Stage("keep", keep, [Path("runs") / args.name / "run.json"])
    _forget(folder, [kept])
    if seeds and all(one.done(folder) for one in [*untrained, *trained]):
        machine.run(pages, end + LAST)
        machine.run([kept], end + LAST)

    record = folder / "speed.json"
    earlier = json.loads(record.read_text())["stage_seconds"] if record.is_file() else {}
    speed = {"provenance": _machine(), "jobs": args.jobs, "seeds": seeds, "stage_seconds": earlier | machine.seconds}
    speed |= {"rates": json.loads(rates.read_text()) if rates.is_file() else None, "failed": machine.failed}
    text = json.dumps(speed, indent=2) + "\n"
    record.write_text(text, encoding="utf-8")
    if kept.done(folder):
        (folder / "runs" / args.name / "speed.json").write_text(text, encoding="utf-8")
    print(text)
    names = ("book", "grids.yaml", "items", "logs", "params.yaml", "results", "runs", "speed.json")
    pieces = cut({n: folder / n for n in names if (folder / n).exists()}, args.out, int(args.mebibytes * MEBIBYTE))
    print(f"{args.out}: {len(pieces)} pieces; seeds measured: {', '.join(map(str, seeds)) or 'none yet'}")
    if machine.failed:
        raise SystemExit(f"failed: {', '.join(machine.failed)}")


def _forget(folder: Path, stages: Sequence[Stage]) -> None:
    """Remove what stages have left, so that they run again."""
    for path in (folder / out for one in stages for out in one.outs):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _machine() -> dict[str, Any]:
    """What this machine is: processor or card, and versions."""
    import torch

    card = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    packages = {name: version(name) for name in ("torch", "transformers", "peft", "accelerate", "numpy", "scipy")}
    return {"card": card, "cores": os.cpu_count(), "python": platform.python_version(), "packages": packages}


def rate(args: argparse.Namespace) -> None:
    """Tokens a second of training and exact evaluation, and their share of the card's matrix rate."""
    import matrix_rate
    from common import load

    bench = load(args.weights, None)
    best = matrix_rate.matrix_rate(bench.dtype, bench.device, args.largest)
    found = {
        "device": str(bench.device),
        "dtype": str(bench.dtype).removeprefix("torch."),
        "matrix_flop_per_second": best,
        "exact_evaluation": matrix_rate.evaluation(bench, best),
        "training_steps": matrix_rate.training_steps(bench, args.weights, args.prompts, best),
    }
    args.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def probe(args: argparse.Namespace) -> None:
    """Print what the machine has."""
    print(json.dumps(_machine(), indent=2))
    carried = {name.replace("-", "_") for name in WHEELS}
    imported = carried | {"accelerate", "matplotlib", "pandas", "peft", "pyarrow", "scipy", "seaborn", "transformers"}
    names = {"ipython": "IPython", "pyzmq": "zmq", "rpds_py": "rpds"}
    lacking = [name for name in sorted(imported) if importlib.util.find_spec(names.get(name, name)) is None]
    print("not installed:", ", ".join(lacking) or "nothing")
    free = shutil.disk_usage(tempfile.gettempdir()).free
    print(f"{free / 2**30:.0f} GiB free in {tempfile.gettempdir()}; pip: {importlib.util.find_spec('pip') is not None}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)

    def add(work: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
        one = commands.add_parser(work.__name__, description=work.__doc__)
        one.set_defaults(work=work)
        return one

    for one in (splits := add(split), runs := add(run)):
        one.add_argument("--profile", type=Path, default=ROOT / "profiles" / "gpu.yaml")
    splits.add_argument("--out", type=Path, default=Path(".gpu"))
    splits.add_argument("--mebibytes", type=float, default=54, help="most of a piece")
    splits.add_argument("--no-wheels", dest="wheels", action="store_false", help="only weights")
    joins = add(join)
    joins.add_argument("pieces", type=Path)
    joins.add_argument("folder", type=Path)
    runs.add_argument("folder", type=Path)
    runs.add_argument("--out", type=Path, required=True, help="where the results go, in pieces")
    runs.add_argument("--name", default="gpu", help="of the run, below runs/")
    runs.add_argument("--minutes", type=float, default=8.5, help="of training and measuring; the end takes one more")
    runs.add_argument("--reserve", type=float, default=3.5, help="minutes of them that training leaves for measuring")
    runs.add_argument("--jobs", type=int, default=6, help="stages at once")
    runs.add_argument("--mebibytes", type=float, default=15, help="most of a piece of the results")
    rates = add(rate)
    rates.add_argument("weights", type=Path)
    rates.add_argument("out", type=Path)
    for one in (runs, rates):
        one.add_argument("--largest", type=int, default=8192, help="rows of the largest matrix product")
        one.add_argument("--prompts", type=int, nargs="+", default=[16, 64, 256], help="of a training step")
    add(probe)
    given = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from calibnb.errors import UserError

    try:
        given.work(given)
    except UserError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
