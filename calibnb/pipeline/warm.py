"""One process that has imported what stages need, and forks for every command of theirs.

Three commands make a stage: DVC, the notebook's run and its kernel. Each would spend seconds on imports. While
:func:`parent` is open, the environment names a socket, and a command that :func:`command` gives hands itself over to a
fork of that process: same arguments, environment, folder and terminal, and its exit status comes back. It ends with
whoever asked for it. Without the socket every command runs as it always does.

Only libraries are imported ahead, never the project's own code: a stage runs what is on disk when it starts. No thread
of torch and nothing of CUDA may start ahead, for a fork could use neither. Linux only: elsewhere nothing is shared.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

SOCKET = "CALIBNB_WARM"
# What DVC, the run of a notebook, its kernel, chapters and models import.
LIBRARIES = (
    *("dvc.cli.parser", "dvc.repo.reproduce", "papermill", "ipykernel.kernelapp"),
    *("pandas", "pyarrow.parquet", "scipy.stats", "matplotlib.pyplot", "seaborn", "tqdm.auto", "pydantic.main"),
    *("transformers.models.llama.modeling_llama", "transformers.models.auto.modeling_auto", "accelerate", "peft"),
)
forked = False  # true in what :func:`serve` forks


def kernel_environment(terminal: bool) -> dict[str, str]:
    """What a notebook's kernel starts with beside the environment; libraries read most of it when they are loaded.

    Parameters
    ----------
    terminal : bool
        Whether stderr goes to one.
    """
    environment = {
        # A second busy program on the machine makes threads that wait by spinning up to ten times slower.
        "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "20000"),
        # By default glibc hands every large tensor back to the system and fetches the next one anew, page by page: a
        # tenth of an exact measurement's time, and half of a large batch's. These keep the pages.
        "MALLOC_MMAP_THRESHOLD_": os.environ.get("MALLOC_MMAP_THRESHOLD_", f"{2**33}"),
        "MALLOC_TRIM_THRESHOLD_": os.environ.get("MALLOC_TRIM_THRESHOLD_", f"{2**34}"),
        "PYTHONHASHSEED": "0",
        "PYTHONWARNINGS": "ignore:IProgress not found",  # progress bars are plain text here, on purpose
        "SOURCE_DATE_EPOCH": "315532800",  # 1980, the earliest that zip files can hold
    }
    if not terminal:
        environment["TQDM_MININTERVAL"] = "10"  # a log file need not hold every frame of a progress bar
    return environment


def command(module: str, environment: Mapping[str, str] = os.environ) -> list[str]:
    """The start of a command line that runs `python -m module`, by the warm process where there is one."""
    by = ["calibnb.pipeline.warm"] if SOCKET in environment else []
    return [sys.executable, "-m", *by, module]


def hand_over(module: str, arguments: Sequence[str]) -> None:
    """Have `python -m module` run in a fork of the warm process and exit as it does; return where there is none."""
    if forked or SOCKET not in os.environ:
        return
    # Ctrl-C goes to the fork as well: the end of its tidying up is waited for.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    parent = os.getppid()
    leader = os.getsid(0) == os.getpid()
    asked = {"argv": [module, *arguments], "cwd": str(Path.cwd()), "environment": dict(os.environ), "leader": leader}
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(os.environ[SOCKET])
            socket.send_fds(connection, [b"\0"], [0, 1, 2])
            connection.sendall(json.dumps(asked).encode() + b"\n")
            while not select.select([connection], [], [], 1)[0]:
                if os.getppid() != parent:  # nobody waits for this any more
                    sys.exit(1)
            status = connection.recv(16)
        except OSError:
            status = b""
    if not status:
        sys.exit(f"{module}: the process that runs stages has died (is there enough memory?)")
    code = int(status)
    sys.exit(code if code >= 0 else 128 - code)


@contextlib.contextmanager
def parent(
    folder: Path, environment: Mapping[str, str], libraries: Sequence[str] = LIBRARIES
) -> Iterator[dict[str, str]]:
    """Keep a warm process for commands of the project in `folder`; gives `environment` with its socket."""
    if sys.platform != "linux":
        yield dict(environment)
        return
    with tempfile.TemporaryDirectory(prefix="calibnb-") as place:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"{place}/warm")
        listener.listen(128)
        code = f"from calibnb.pipeline import warm; warm.serve({listener.fileno()}, {tuple(libraries)!r})"
        start = {"MPLBACKEND": "module://matplotlib_inline.backend_inline", **environment, **kernel_environment(False)}
        with subprocess.Popen(
            [sys.executable, "-c", code], cwd=folder, env=start, stdin=subprocess.PIPE, pass_fds=[listener.fileno()]
        ):  # leaving closes its stdin, which ends it
            listener.close()
            yield {**environment, SOCKET: f"{place}/warm"}


def serve(listening: int, libraries: Sequence[str]) -> None:
    """Import `libraries`, then fork for every command that comes by the socket; the end of stdin ends it."""
    global forked
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    import ctypes
    import gc
    import importlib

    for name in libraries:
        if select.select([0], [], [], 0)[0]:
            sys.exit()
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # what is here stays; forks need not look at it, which would copy its pages
    listener = socket.socket(fileno=listening)
    running: dict[int, tuple[int, socket.socket]] = {}  # handle of a fork -> its id, who asked
    while True:
        asking = [connection.fileno() for _, connection in running.values()]
        ready = select.select([0, listening, *running, *asking], [], [])[0]
        if 0 in ready:
            sys.exit()
        for handle, (pid, connection) in list(running.items()):
            if handle in ready:
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with contextlib.suppress(BrokenPipeError):  # who asked may have ended
                    connection.sendall(str(status).encode())
                connection.close()
                os.close(handle)
                del running[handle]
            elif connection.fileno() in ready:
                os.kill(pid, signal.SIGKILL)
        if listening in ready:
            connection = listener.accept()[0]
            handles = socket.recv_fds(connection, 1, 3)[1]
            with connection.makefile("rb") as lines:
                asked = lines.readline()
            pid = os.fork()
            if pid == 0:
                forked = True
                ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: no fork outlives this process
                for handle, (_, other) in running.items():
                    os.close(handle)
                    other.close()
                connection.close()
                listener.close()
                _become(handles, **json.loads(asked))
            for handle in handles:
                os.close(handle)
            running[os.pidfd_open(pid)] = (pid, connection)


def _become(handles: Sequence[int], argv: list[str], cwd: str, environment: Mapping[str, str], leader: bool) -> None:
    """Turn this fork into the command that is asked for; `handles` are its stdin, stdout and stderr."""
    for i, handle in enumerate(handles):
        os.dup2(handle, i)
        os.close(handle)
    if leader:
        os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = argv
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    code = 0
    try:
        runpy.run_module(argv[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    # What Python does at its end, but for taking modules apart: that copies the pages of all, half a second a fork.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    hand_over(sys.argv[1], sys.argv[2:])
    sys.exit(f"{SOCKET}: must name the socket of a warm process, got nothing")
