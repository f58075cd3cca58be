"""Run the pipeline under a profile, in a folder of its own.

    python -m calibnb.pipeline.profiles [PROFILE] [FOLDER]        # without them: profiles/demo.yaml .demo

The folder gets the project's files as they are now, params.yaml and grids.yaml with the profile laid over them,
and a DVC project of its own that shares the cache of this one. So the results of the study stay as they are, the
weights are fetched once for both, and a second run does only what has changed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from calibnb.errors import UserError, room
from calibnb.pipeline import parallel, params

# What the pipeline makes in the folder, kept from one run to the next.
MADE = {".checked", ".code", ".dvc", ".scratch", "dvc.lock", "items", "models", "variants", "results"}
MADE_BOOK = {"executed", "_build"}

# What of the project is not copied: its own results and the state of its DVC.
LEFT = (".dvc/", "dvc.lock", "results/")

# Results that no stage makes.
INPUTS = "results/reference/"

# Settings of the folder's own DVC project, by which the folder is known again.
CORE = "[core]\n    no_scm = true\n    analytics = false\n    check_update = false\n"


def project_files(project: Path) -> list[str]:
    """The files of the project that git tracks or would track, without its results, from its root."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    run = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    if run.returncode:
        raise UserError(f"{project}: must be a git clone to be copied: {run.stderr.strip()}")
    return sorted(
        name
        for name in set(run.stdout.split("\0"))
        if (project / name).is_file() and (name.startswith(INPUTS) or not name.startswith(LEFT))
    )


def prepare(project: Path, profile: Path, folder: Path) -> None:
    """Bring `folder` up to date with the project under the profile; what it has computed stays.

    Raises
    ------
    UserError
        If the merged parameters do not pass the checks, or the folder holds anything that was not put there by this
        function, before anything is touched: what is left of an earlier project state is removed.
    """
    merged = params.under(project / "params.yaml", profile)
    params.parse(merged, str(profile))
    own = folder.resolve()  # inside the project it may hold files that git does not ignore
    names = [name for name in project_files(project) if not (project / name).resolve().is_relative_to(own)]
    config = folder / ".dvc" / "config"
    ours = config.is_file() and config.read_text().startswith(CORE)
    if folder.exists() and not ours and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: must be a new or empty folder, or one that this command has made")

    folder.mkdir(parents=True, exist_ok=True)
    for path in [*folder.iterdir(), *(folder / "book").glob("*"), *folder.glob(f"{INPUTS}*")]:
        if path.name in (MADE_BOOK if path.parent == folder / "book" else MADE | {"book"}):
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    for name in names:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(project / name, target)
    params.write(merged, folder)

    cache = subprocess.run(["dvc", "cache", "dir"], cwd=project, capture_output=True, text=True, check=True)
    relative = os.path.relpath(cache.stdout.strip(), (folder / ".dvc").resolve())
    config.parent.mkdir(exist_ok=True)
    config.write_text(f"{CORE}[cache]\n    dir = {relative}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m calibnb.pipeline.profiles",
        description="Run the pipeline under a profile, in a folder of its own.",
    )
    parser.add_argument("profile", type=Path, nargs="?", default=Path("profiles/demo.yaml"))
    parser.add_argument("folder", type=Path, nargs="?", default=Path(".demo"))
    parser.add_argument("--prepare", action="store_true", help="only bring the folder up to date")
    given = parser.parse_args(arguments)
    try:
        with room(given.folder):
            prepare(Path(), given.profile, given.folder)
        jobs = 1 if given.prepare else parallel.default_jobs(given.folder)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    if given.prepare:
        return 0
    return parallel.run(given.folder, jobs)


if __name__ == "__main__":
    sys.exit(main())
