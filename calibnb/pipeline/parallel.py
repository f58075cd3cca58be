"""Run what has changed in the pipeline, several stages at once.

    python -m calibnb.pipeline [--jobs N] [--folder FOLDER] [STAGE]...

`dvc repro` runs one stage after the other, which leaves cores idle: two stages on one thread each do more in a
minute than one stage on two. DVC lets stages run in processes of their own, given that each finds what it depends
on (its manual on `repro`, "Parallel stage execution"). So a stage that has changed, or depends on one that has, is
started as `dvc repro --single-item` once all that it depends on have ended. A plain `dvc repro` has the last word.
Where several stages may run, `warm` imports for all of them once.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from graphlib import TopologicalSorter
from pathlib import Path

import torch
from dvc.exceptions import DvcException
from dvc.repo import Repo

from calibnb.errors import UserError
from calibnb.pipeline import dependence, memory, params, warm
from calibnb.pipeline.terminal import Terminal

PAGE = Path("book/_build/html/index.html")
FIRST = ("check", "items")  # all others are behind them, but what they leave is seldom new
LAST = "dvc repro"  # the plain one, which finds nothing left to do
SEVERAL = 4  # stages whose imports take longer than those of the process that imports for all


def behind(needs: Mapping[str, Iterable[str]], stages: Iterable[str]) -> set[str]:
    """Of a graph stage -> stages that it needs: `stages` and all that need them, directly or not."""
    found = set(stages)
    for stage in TopologicalSorter(needs).static_order():
        if found & set(needs.get(stage, ())):
            found.add(stage)
    return found


def pending(needs: Mapping[str, set[str]], changed: Iterable[str], targets: Sequence[str] = ()) -> dict[str, set[str]]:
    """The part of the graph that may have to run: `changed` and all behind them.

    Parameters
    ----------
    needs : Mapping[str, set[str]]
        Stage -> the stages that it needs.
    changed : Iterable[str]
        Stages that have changed.
    targets : Sequence[str]
        Only what these need, and themselves; a stage, or all of a matrix by its name alone. None of them means
        everything.
    """
    stages = behind(needs, changed)
    if targets:
        users: dict[str, set[str]] = {stage: set() for stage in needs}
        for stage, needed in needs.items():
            for need in needed:
                users[need].add(stage)
        stages &= behind(users, [s for s in needs if s in targets or s.split("@")[0] in targets])
    return {stage: stages & needs[stage] for stage in stages}


def run_all(needs: Mapping[str, Iterable[str]], run: Callable[[str], bool], jobs: int) -> list[str]:
    """Run every stage after the ones it needs, at most `jobs` at once; the names of those that failed.

    Of the stages that could start, the one that most others wait for does. After a failure no other stage starts; those
    that are running end.
    """
    awaited = {stage: len(behind(needs, [stage])) for stage in needs}
    order = TopologicalSorter(needs)
    order.prepare()
    waiting: list[str] = []
    running: dict[Future[bool], str] = {}
    failed: list[str] = []
    with ThreadPoolExecutor(jobs) as pool:
        while order.is_active():
            waiting = sorted([*waiting, *order.get_ready()], key=lambda stage: (-awaited[stage], stage))
            while waiting and len(running) < jobs and not failed:
                stage = waiting.pop(0)
                running[pool.submit(run, stage)] = stage
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                stage = running.pop(future)
                if future.result():
                    order.done(stage)
                else:
                    failed.append(stage)
    return failed


def changed_stages(folder: Path, targets: Sequence[str] = ()) -> dict[str, set[str]]:
    """The part of the pipeline in `folder` that may have to run, as :func:`pending` gives it."""
    # DVC names stages as they are seen from the working directory.
    with contextlib.chdir(folder):
        dependence.write(dependence.everything(Path()), dependence.FOLDER)
        with Repo() as repo:
            graph = repo.index.graph
            needs = {stage.addressing: {need.addressing for need in graph.successors(stage)} for stage in graph}
            # What the stage `code` does is done: behind it is only what its files have changed.
            changed = set(repo.status()) - {dependence.STAGE}
    return pending(needs, changed, targets)


def run_stages(needs: Mapping[str, set[str]], folder: Path, jobs: int, environment: Mapping[str, str]) -> list[str]:
    """Run stages of the project in `folder` as :func:`run_all` does; the names of those that failed."""
    prepared = warm.parent(folder, environment) if len(needs) >= SEVERAL else contextlib.nullcontext(environment)
    with prepared as shared, Terminal(len(needs)) as terminal:

        def run_stage(stage: str) -> bool:
            command = [*warm.command("dvc", shared), "--wait-for-lock", "repro", "--single-item", stage]
            return terminal.run(stage, command, folder, shared)

        return run_all(needs, run_stage, jobs)


def run(folder: Path, jobs: int, targets: Sequence[str] = ()) -> int:
    """Bring the pipeline in `folder`, or what `targets` need of it, up to date, `jobs` stages at once.

    Returns
    -------
    int
        The exit status.
    """
    threads = max(1, torch.get_num_threads() // jobs)
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
    try:
        needs = changed_stages(folder, targets)
        first = {stage: needs[stage] & set(FIRST) for stage in FIRST if stage in needs}
        failed = run_stages(first, folder, jobs, environment) if first else []
        if first and not failed:
            needs = changed_stages(folder, targets)
    except (DvcException, UserError) as error:
        print(f"dvc: {error}" if isinstance(error, DvcException) else error, file=sys.stderr)
        return 1
    if needs and not failed:
        print(f"{len(needs)} stages may run. Stopped with Ctrl-C, the same command goes on.", flush=True)
        failed = run_stages(needs, folder, jobs, environment)
    if not failed:
        with Terminal(1) as terminal:
            failed = [] if terminal.run(LAST, ["dvc", "repro", *targets], folder, environment) else [LAST]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    elif not targets and (folder / PAGE).is_file():
        print(f"built {folder / PAGE}")
    return int(bool(failed))


def default_jobs(folder: Path) -> int:
    """One stage on a GPU, whose memory it may need whole; two on a CPU, if it has two cores and memory for both.

    Raises
    ------
    UserError
        For parameters of the project in `folder` that are wrong, and where there is too little memory for one stage.
    """
    jobs = 1 if torch.cuda.is_available() else min(2, torch.get_num_threads())
    with contextlib.chdir(folder):
        return memory.jobs_that_fit(params.load(), jobs)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m calibnb.pipeline", description="Run what has changed.")
    parser.add_argument("--jobs", type=int, help="stages at once (default: two on a CPU with memory for both, or one)")
    parser.add_argument("--folder", type=Path, default=Path(), help="the project's folder (default: this one)")
    parser.add_argument("stages", metavar="STAGE", nargs="*", help="what to bring up to date (default: everything)")
    given = parser.parse_args(arguments)
    if given.jobs is not None and given.jobs < 1:
        parser.error(f"--jobs must be >= 1, got {given.jobs}")
    try:
        jobs = given.jobs or default_jobs(given.folder)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return run(given.folder, jobs, given.stages)
