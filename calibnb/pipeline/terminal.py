"""What a terminal shows while stages run: those that run, how far they are, those that are done and what they took.

What else a stage says is shown where it fails, and nowhere otherwise.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

BAR = "%|"  # in every line of a progress bar, and in nothing else that stages say
REPEAT = 60.0  # seconds from one line on a stage's progress to the next, where lines cannot be replaced


def clock(seconds: float) -> str:
    """Minutes and seconds, as 1:05."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


class Terminal:
    """Shows stages that threads run; a context, within which the running ones are shown.

    Parameters
    ----------
    total : int
        Stages that may have to run.
    console : Console or None
        Where it is shown; standard output, if nothing else is said.
    """

    def __init__(self, total: int, console: Console | None = None) -> None:
        self.total, self.ended, self.begun = total, 0, time.monotonic()
        self.console = console or Console(highlight=False, soft_wrap=True)
        self.running: dict[str, tuple[float, str]] = {}  # when it began, and how far it is
        self.said: dict[str, list[str]] = {}  # beside that
        self.told: dict[str, float] = {}  # when a line on its progress was last printed
        self.live = Live(get_renderable=self._shown, console=self.console, refresh_per_second=2, transient=True)

    def __enter__(self) -> Terminal:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.live.stop()

    def _shown(self) -> Table:
        grid = Table.grid(padding=(0, 2))
        now = time.monotonic()
        for stage, (begun, progress) in list(self.running.items()):
            grid.add_row(clock(now - begun), stage, Text(progress, overflow="ellipsis", no_wrap=True))
        grid.add_row(clock(now - self.begun), f"{self.ended} of {self.total} stages done")
        return grid

    def run(self, stage: str, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> bool:
        """Run a stage's command in a folder, and show each line that it says. Whether it ended well."""
        self.begins(stage)
        with subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:  # a progress bar's carriage return ends a line, too
                self.says(stage, line)
        self.ends(stage, well=process.returncode == 0)
        return process.returncode == 0

    def begins(self, stage: str) -> None:
        """A stage starts."""
        self.running[stage], self.said[stage] = (time.monotonic(), ""), []

    def says(self, stage: str, line: str) -> None:
        """A line of what a running stage says; of a progress bar it is how far the stage is."""
        if not line.strip():
            return
        if BAR not in line:
            self.said[stage].append(line.rstrip())
            return
        begun, _ = self.running[stage]
        self.running[stage] = (begun, line.strip())
        now = time.monotonic()
        if not self.console.is_terminal and now - self.told.get(stage, begun) >= REPEAT:
            self.told[stage] = now
            self.console.print(f"{stage} | {line.strip()}", markup=False)

    def ends(self, stage: str, *, well: bool) -> None:
        """A stage has ended; where it failed, with all that it said."""
        (begun, _), said = self.running.pop(stage), self.said.pop(stage)
        self.ended += 1
        took = clock(time.monotonic() - begun)
        if not well:
            for line in said:
                self.console.print(f"{stage} | {line}", markup=False)
        count = f"[{self.ended:{len(str(self.total))}}/{self.total}]"
        self.console.print(f"{count} {took:>6}  {stage}{'' if well else ' failed'}", markup=False)
