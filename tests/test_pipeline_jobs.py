"""Several stages at once: which run, in which order, how many, and what a failure stops."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_execute import save

from calibnb.pipeline import parallel

# A stage may need those with a smaller number: acyclic by construction.
GRAPHS = st.integers(1, 7).flatmap(
    lambda n: st.fixed_dictionaries(
        {str(i): st.sets(st.sampled_from([str(j) for j in range(i)])) if i else st.just(set()) for i in range(n)}
    )
)


def reaches(needs: dict[str, set[str]], stage: str, changed: set[str]) -> bool:
    return stage in changed or any(reaches(needs, need, changed) for need in needs[stage])


@given(GRAPHS, st.data())
def test_what_has_changed_and_all_behind_it_may_run(needs: dict[str, set[str]], data: st.DataObject) -> None:
    changed = data.draw(st.sets(st.sampled_from(sorted(needs))))
    found = parallel.pending(needs, changed)
    assert set(found) == {stage for stage in needs if reaches(needs, stage, changed)}
    assert all(found[stage] == needs[stage] & set(found) for stage in found)


@given(GRAPHS, st.data())
def test_targets_bring_what_they_need_alone(needs: dict[str, set[str]], data: st.DataObject) -> None:
    targets = data.draw(st.lists(st.sampled_from(sorted(needs)), min_size=1))
    found = parallel.pending(needs, needs, targets)
    assert set(found) == {stage for stage in needs if any(reaches(needs, target, {stage}) for target in targets)}


def test_a_matrix_is_a_target_by_its_name() -> None:
    needs = {"a@x": set(), "a@y": set(), "b@x": {"a@x"}, "b@y": {"a@y"}, "end": {"b@x", "b@y"}}
    assert set(parallel.pending(needs, ["a@x", "a@y"], ["b"])) == {"a@x", "a@y", "b@x", "b@y"}
    assert set(parallel.pending(needs, ["a@x"], ["b@y", "end"])) == {"a@x", "b@x", "end"}


@given(GRAPHS, st.integers(1, 3))
def test_a_stage_runs_once_and_after_all_that_it_needs(needs: dict[str, set[str]], jobs: int) -> None:
    ended: list[str] = []

    def run(stage: str) -> bool:
        assert needs[stage] <= set(ended)
        ended.append(stage)
        return True

    assert parallel.run_all(needs, run, jobs) == []
    assert sorted(ended) == sorted(needs)


def test_the_stage_that_most_others_wait_for_comes_first() -> None:
    ran: list[str] = []
    needs = {"a": set(), "b": set(), "c": {"b"}, "d": {"c"}, "e": {"a"}}

    def run(stage: str) -> bool:
        ran.append(stage)
        return True

    parallel.run_all(needs, run, 1)
    assert ran == ["b", "a", "c", "d", "e"]


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_so_many_run_at_once_and_no_more(jobs: int) -> None:
    running, most, lock = 0, 0, threading.Lock()

    def run(stage: str) -> bool:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.05)
        with lock:
            running -= 1
        return True

    assert parallel.run_all({str(i): set() for i in range(6)}, run, jobs) == []
    assert most == jobs


def test_after_a_failure_nothing_starts_and_what_runs_ends() -> None:
    started, ended = [], []
    failing = threading.Event()

    def run(stage: str) -> bool:
        started.append(stage)
        if stage == "a":
            failing.set()
            return False
        failing.wait()
        time.sleep(0.1)
        ended.append(stage)
        return True

    assert parallel.run_all({"a": set(), "b": set(), "c": set(), "d": {"b"}}, run, 2) == ["a"]
    assert sorted(started) == ["a", "b"]
    assert ended == ["b"]


def test_a_project_in_another_folder_is_brought_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "below"
    folder.mkdir()
    subprocess.run(["dvc", "init", "--no-scm", "--quiet"], cwd=folder, check=True)
    (folder / "dvc.yaml").write_text(
        "stages:\n"
        "  first: {matrix: {who: [a, b]}, cmd: 'echo ${item.who} > ${item.who}', outs: ['${item.who}']}\n"
        "  last: {cmd: cat a b > both, deps: [a, b], outs: [both]}\n"
    )
    monkeypatch.chdir(tmp_path)
    here = Path("below")
    assert parallel.changed_stages(here) == {"first@a": set(), "first@b": set(), "last": {"first@a", "first@b"}}
    assert parallel.run(here, 2, ["first"]) == 0
    assert parallel.changed_stages(here) == {"last": set()}
    assert parallel.run(here, 2) == 0
    assert (folder / "both").read_text() == "a\nb\n"
    assert parallel.changed_stages(here) == {}


def test_what_is_behind_the_first_stages_alone_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    subprocess.run(["dvc", "init", "--no-scm", "--quiet"], cwd=tmp_path, check=True)
    (tmp_path / "dvc.yaml").write_text(
        "stages:\n"
        "  check: {cmd: 'echo checked > checked', deps: [given], outs: [checked]}\n"
        "  items: {cmd: cat checked given > asked, deps: [checked, given], outs: [asked]}\n"
        "  measure: {cmd: cat checked > measured, deps: [checked], outs: [measured]}\n"
        "  show: {cmd: cat asked measured > shown, deps: [asked, measured], outs: [shown]}\n"
    )
    monkeypatch.chdir(tmp_path)
    for text, expected in (("one", ["check", "items", "measure", "show"]), ("two", ["check", "items", "show"])):
        (tmp_path / "given").write_text(text)
        assert parallel.run(Path(), 2) == 0
        ends = [line.split()[-1] for line in capsys.readouterr().out.splitlines() if line.startswith("[")]
        assert ends == [*expected, "repro"]
    assert (tmp_path / "shown").read_text() == "checked\ntwochecked\n"


def test_a_number_of_jobs_is_at_least_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parallel.main(["--jobs", "0"])
    assert "--jobs must be >= 1, got 0" in capsys.readouterr().err


def stages(folder: Path, source: str, environment: dict[str, str], several: int) -> subprocess.Popen[str]:
    """A runner in a group of its own, of two stages at once that run a notebook of one cell.

    Parameters
    ----------
    folder, source : Path, str
        Where it runs, and the code of the notebook's cell.
    environment : dict[str, str]
        Added to this process's own.
    several : int
        Stages from which on one process imports for all.
    """
    subprocess.run(["dvc", "init", "--no-scm", "--quiet"], cwd=folder, check=True)
    save(folder, source)
    (folder / "dvc.yaml").write_text(
        "stages:\n  stage:\n    matrix: {name: [a, b]}\n"
        "    cmd: python -m calibnb.pipeline.execute notebooks/stage.ipynb ${item.name}.ipynb -p model ${item.name}\n"
        "    outs: ['${item.name}.ipynb']\n"
    )
    code = (
        f"import sys; from calibnb.pipeline import parallel as p; p.SEVERAL = {several}; sys.exit(p.main(['--jobs=2']))"
    )
    library = {"PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=folder,
        env=os.environ | library | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


WAYS = pytest.mark.parametrize("several", [1, 99], ids=["one process imports for all", "each imports for itself"])


@WAYS
def test_stages_say_what_they_did_and_why_they_failed(tmp_path: Path, several: int) -> None:
    source = (
        "import os, sys\nfrom calibnb.errors import UserError\nprint('step', file=sys.stderr, flush=True)\n"
        "assert os.environ['OF_MINE'] == 'yes'\n"
        "if model == 'b':\n    raise UserError('params.yaml: seeds: must be >= 0, got -1')"
    )
    with stages(tmp_path, source, {"OF_MINE": "yes"}, several) as runner:
        said, errors = runner.communicate(timeout=120)
    assert runner.returncode == 1
    lines = said.splitlines()
    assert {"stage@b | step", "stage@b | params.yaml: seeds: must be >= 0, got -1"} <= set(lines)
    assert not any(line.startswith("stage@a |") for line in lines)  # what went well is not worth reading
    ends = [line.split() for line in lines if line.startswith("[")]
    assert sorted([end[2:] for end in ends]) == [["stage@a"], ["stage@b", "failed"]]
    assert [end[0] for end in ends] == ["[1/2]", "[2/2]"]
    assert errors == "failed: stage@b\n"
    assert (tmp_path / "a.ipynb").is_file()
    assert not (tmp_path / "b.ipynb").exists()


@pytest.mark.parametrize(("several", "sent"), [(1, signal.SIGINT), (1, signal.SIGKILL), (99, signal.SIGINT)])
def test_ctrl_c_ends_all_and_a_later_run_goes_on(tmp_path: Path, several: int, sent: signal.Signals) -> None:
    """A terminal sends SIGINT to the whole group; the kernels stand outside it."""
    source = (
        "import os, pathlib, time\npathlib.Path(f'{model}.pid').write_text(str(os.getpid()))\n"
        "while not pathlib.Path('go on').exists():\n    time.sleep(0.1)"
    )
    pids = [tmp_path / "a.pid", tmp_path / "b.pid"]
    with stages(tmp_path, source, {}, several) as runner:
        while not all(path.is_file() and path.read_text() for path in pids):
            assert runner.poll() is None
            time.sleep(0.1)
        os.killpg(runner.pid, sent)
        runner.communicate(timeout=60)
    assert runner.returncode != 0
    kernels = [int(path.read_text()) for path in pids]
    end = time.monotonic() + 20
    while time.monotonic() < end and any(Path(f"/proc/{pid}").exists() for pid in kernels):
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in kernels)
    (tmp_path / "go on").touch()
    subprocess.run(["dvc", "repro", "--quiet", "stage@a"], cwd=tmp_path, check=True)
    assert (tmp_path / "a.ipynb").is_file()
