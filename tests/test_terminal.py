"""What a terminal shows of stages: those that are done in lines that stay, the running ones in lines that change."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from calibnb.pipeline import terminal
from calibnb.pipeline.terminal import Terminal

BAR = "training soft:  25%|██▌       | 13/52 [03:02<08:28, 13.04s/step, loss=1.021]\n"


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.9, "0:59"), (65, "1:05"), (3600, "60:00")])
def test_minutes_and_seconds(seconds: float, text: str) -> None:
    assert terminal.clock(seconds) == text


def test_a_file_gets_a_line_a_stage_and_one_on_its_progress_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    time = [100.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: time[-1])
    out = io.StringIO()
    with Terminal(12, Console(file=out, width=80, soft_wrap=True)) as shown:
        for stage in ("finetune@./tiny-soft", "book"):
            shown.begins(stage)
        shown.says("finetune@./tiny-soft", "Use `dvc push`\n")
        for now in (130.0, 160.0, 170.0, 220.0):
            time.append(now)
            shown.says("finetune@./tiny-soft", BAR)
        time.append(225.0)
        shown.ends("finetune@./tiny-soft", well=True)
        shown.says("book", "\n")
        shown.says("book", "no page [index]\n")
        shown.ends("book", well=False)
    progress = f"finetune@./tiny-soft | {BAR.strip()}"
    done = ["[ 1/12]   2:05  finetune@./tiny-soft", "book | no page [index]", "[ 2/12]   2:05  book failed"]
    assert out.getvalue().splitlines() == [progress, progress, *done]  # after 60 and 120 seconds


def test_a_terminal_shows_how_far_each_running_stage_is() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, soft_wrap=True)
    with Terminal(3, console) as shown:
        shown.begins("finetune")
        shown.begins("weights")
        shown.says("finetune", BAR)
        shown.ends("weights", well=True)
        shown.live.refresh()
    text = out.getvalue()
    assert "13/52" in text and "1 of 3 stages done" in text
    assert "finetune |" not in text  # no line of its own, which would stay
