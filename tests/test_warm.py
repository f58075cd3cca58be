"""The process that imports for all stages: what its forks get, how they end, and that none is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_execute import save

from calibnb.pipeline import warm

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="nothing is shared elsewhere")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    return tmp_path


@pytest.fixture
def shared(project: Path) -> Iterator[dict[str, str]]:
    """The environment of commands, with a warm process that imports little; each test writes its modules itself."""
    with warm.parent(project, os.environ | {"OMP_NUM_THREADS": "1"}, ["tqdm"]) as environment:
        yield environment


def start(source: str, environment: dict[str, str], cwd: Path = Path(), **options: int) -> subprocess.Popen[str]:
    """Run `source` as a module of the folder `cwd`, by the warm process that the environment names."""
    (cwd / "thing.py").write_text(source)
    return subprocess.Popen(
        [*warm.command("thing", environment), "a b", "é"],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def gone(pid: int, seconds: float = 20) -> bool:
    """Whether a process ends within some seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


def test_a_fork_is_the_command_itself(shared: dict[str, str], project: Path) -> None:
    below = project / "below"
    below.mkdir()
    source = (
        "import os, sys\nprint(sys.argv[1:], __name__, os.getcwd(), os.environ['OF_MINE'], 'tqdm' in sys.modules)\n"
        "print(sys.stdin.read(), file=sys.stderr)\nsys.exit(7)"
    )
    with start(source, shared | {"OF_MINE": "yes"}, cwd=below, stdin=subprocess.PIPE) as process:
        out, err = process.communicate("read")
    assert out == f"['a b', 'é'] __main__ {below} yes True\n"
    assert err == "read\n"
    assert process.returncode == 7


@pytest.mark.parametrize(
    ("source", "status", "said"),
    [
        ("", 0, ""),
        ("raise SystemExit('one line')", 1, "one line\n"),
        ("import sys, threading\nthreading.Timer(0.2, sys.stderr.write, ['last']).start()", 0, "last"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", 137, ""),
    ],
)
def test_exit_statuses_come_back(shared: dict[str, str], source: str, status: int, said: str) -> None:
    with start(source, shared) as process:
        assert process.communicate() == ("", said)
    assert process.returncode == status


def test_hashes_and_threads_are_those_of_a_kernel(shared: dict[str, str]) -> None:
    source = "import os, threading\nprint(hash('a'), threading.active_count(), os.environ['OMP_NUM_THREADS'])"
    with start(source, shared) as process:
        out, _ = process.communicate()
    alone = subprocess.run(
        [sys.executable, "-c", "print(hash('a'))"], env={"PYTHONHASHSEED": "0"}, capture_output=True, text=True
    )
    assert out == f"{alone.stdout.strip()} 1 1\n"


SLEEP = """import os, time
try:
    print(os.getpid(), flush=True)
    time.sleep(60)
finally:
    print("tidied", flush=True)
"""


def test_a_fork_ends_with_who_asked(shared: dict[str, str]) -> None:
    with start(SLEEP, shared) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.kill()
        assert gone(pid)


def test_a_command_ends_with_its_own_parent(shared: dict[str, str]) -> None:
    Path("thing.py").write_text(SLEEP)
    line = " ".join(warm.command("thing", shared))
    with subprocess.Popen(["sh", "-c", f"{line}; true"], env=shared, stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout is not None
        pid = int(shell.stdout.readline())
        shell.kill()
        assert gone(pid)


def test_no_fork_outlives_the_process(project: Path) -> None:
    with warm.parent(project, os.environ, []) as environment:
        process = start("import os\nprint(os.getppid(), flush=True)\n" + SLEEP, environment)
        assert process.stdout is not None
        server, pid = int(process.stdout.readline()), int(process.stdout.readline())
        os.kill(server, signal.SIGKILL)
        assert gone(pid)
        _, said = process.communicate()
        assert process.returncode == 1
        assert said == "thing: the process that runs stages has died (is there enough memory?)\n"


def test_ctrl_c_is_tidied_up_after_and_leaves_nobody(project: Path) -> None:
    runner = (
        "import os, subprocess\nfrom pathlib import Path\nfrom calibnb.pipeline import warm\n"
        "with warm.parent(Path(), os.environ, []) as environment:\n"
        "    subprocess.run(warm.command('thing', environment), env=environment)\n"
    )
    source = "import os\nprint(os.getppid(), flush=True)\n" + SLEEP
    Path("thing.py").write_text(source)
    with subprocess.Popen(
        [sys.executable, "-c", runner],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        server, pid = int(process.stdout.readline()), int(process.stdout.readline())
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        assert process.stdout.read() == "tidied\n"
        assert process.wait() != 0
    assert gone(server)
    assert gone(pid)


def test_a_notebook_runs_by_it_to_the_same_bytes(project: Path) -> None:
    source = save(
        project,
        "import sys\nprint('early', file=sys.stderr)",
        "import os, matplotlib.pyplot as plt, numpy as np, torch\nprint(set('abc'), torch.get_num_threads())",
        "figure = plt.figure(figsize=(1, 1))\nplt.plot([1, 2]);",
        "left = open('left', 'w')\nleft.write('all of it')",  # the kernel's end closes it
        "(torch.ones(300, 300) @ torch.ones(300, 300)).sum().item()",
    )
    (project / "bad").mkdir()
    bad = save(project.joinpath("bad"), "from calibnb.errors import UserError\nraise UserError('seeds: must be >= 0')")
    environment = os.environ | {"OMP_NUM_THREADS": "2"}

    def run(notebook: Path, out: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "calibnb.pipeline.execute", str(notebook), str(out), "-p", "seed", "3"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    alone = run(source, project / "alone.ipynb", environment)
    Path("left").unlink()
    with warm.parent(project, environment) as shared:
        together = run(source, project / "together.ipynb", shared)
        failed = run(bad, project / "failed.ipynb", shared)
    assert (together.returncode, together.stdout) == (alone.returncode, alone.stdout) == (0, "")
    assert "early" in together.stderr
    assert (project / "together.ipynb").read_bytes() == (project / "alone.ipynb").read_bytes()
    assert Path("left").read_text() == "all of it"
    assert "image/png" in (project / "together.ipynb").read_text()
    assert (failed.returncode, failed.stdout, failed.stderr) == (1, "", "seeds: must be >= 0\n")
    assert not (project / "failed.ipynb").exists()


def test_without_a_process_to_ask_it_says_so(project: Path) -> None:
    run = subprocess.run([sys.executable, "-m", "calibnb.pipeline.warm", "thing"], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (1, "CALIBNB_WARM: must name the socket of a warm process, got nothing\n")
