"""CPU seconds of a stage that does next to nothing: each importing for itself, and forked from one process (`warm`).

The notebooks are empty, or import what a chapter or what loads a model does; DVC writes the lock file of the study.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

from calibnb.pipeline import warm

CHAPTER = "import pandas, scipy.stats, matplotlib.pyplot, seaborn\nfrom calibnb.book.figures import points"
MODEL = "import pandas\nfrom calibnb.models import loading\nfrom calibnb.trees import attention"
NOTEBOOKS = {"empty": "", "chapter": CHAPTER, "model": MODEL}


def cpu(work: Callable[[], object]) -> float:
    """CPU seconds of all processes that `work` starts and waits for, and of theirs."""

    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    start = spent()
    work()
    return spent() - start


def run_all(commands: Sequence[Sequence[str]], folder: Path, together: bool) -> None:
    """Run `python -m` each of the commands in `folder`."""
    environment: Mapping[str, str] = os.environ | {"PYTHONUNBUFFERED": "1"}
    with warm.parent(folder, environment) if together else contextlib.nullcontext(environment) as shared:
        for module, *arguments in commands:
            command = [*warm.command(module, shared), *arguments]
            subprocess.run(command, cwd=folder, env=shared, stdout=subprocess.DEVNULL, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(), help="the project whose check is measured")
    parser.add_argument("--lock", type=Path, default=Path("dvc.lock"), help="the lock file that DVC reads and writes")
    parser.add_argument("--repeats", type=int, default=2)
    given = parser.parse_args()
    if not given.lock.is_file():
        parser.error(f"--lock must be a lock file that a run of the study has left, got {given.lock}")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], cwd=folder, check=True)
        shutil.copy(given.lock, folder / "dvc.lock")
        lines = "stages:\n"
        for name, source in NOTEBOOKS.items():
            nbformat.write(new_notebook(cells=[new_code_cell(source)]), folder / f"{name}.ipynb")
            command = f"python -m calibnb.pipeline.execute {name}.ipynb out-{name}.ipynb"
            lines += f"  {name}:\n    cmd: {command}\n    deps: [{name}.ipynb]\n    outs: [out-{name}.ipynb]\n"
        (folder / "dvc.yaml").write_text(lines)

        def a_time(command: Sequence[str], together: bool) -> float:
            whole = cpu(lambda: run_all([command] * given.repeats, folder, together))
            return (whole - started[together]) / given.repeats

        # A command that does nothing is served when all is imported.
        started = {False: 0.0, True: cpu(lambda: run_all([["this"]], folder, True))}
        print("| CPU seconds | each for itself | forked | ratio |\n|---|---|---|---|")
        ran: dict[str, dict[bool, float]] = {}
        for name in NOTEBOOKS:
            execute = ["calibnb.pipeline.execute", f"{name}.ipynb", "out.ipynb"]
            ran[name] = {way: a_time(execute, way) for way in (False, True)}
        force = ["dvc", "repro", "--quiet", "--force", "--single-item"]
        whole = {name: {way: a_time([*force, name], way) for way in (False, True)} for name in NOTEBOOKS}
        rows = {"DVC": {way: whole["empty"][way] - ran["empty"][way] for way in (False, True)}, "kernel": ran["empty"]}
        for name in ("chapter", "model"):
            rows[f"imports of a {name}"] = {way: ran[name][way] - ran["empty"][way] for way in (False, True)}
            rows[f"stage: {name}"] = whole[name]
        for label, cost in rows.items():
            print(f"| {label} | {cost[False]:.2f} | {cost[True]:.2f} | {cost[False] / max(cost[True], 0.01):.1f} |")
    print(f"\nThe process that imports for all: {started[True]:.1f} s, once a run.")
    check = cpu(
        lambda: subprocess.run([sys.executable, "-m", "dvc", "status", "--quiet"], cwd=given.folder, check=False)
    )
    print(
        f"What has changed in {given.folder.absolute().name}, as a `dvc repro` with nothing to do asks: {check:.1f} s."
    )


if __name__ == "__main__":
    main()
