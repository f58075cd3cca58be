"""Several stages at once: which run, in which order, how many, and what a failure stops."""

from __future__ import annotations

import subprocess
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


def test_a_number_of_jobs_is_at_least_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parallel.main(["--jobs", "0"])
    assert "--jobs must be >= 1, got 0" in capsys.readouterr().err
