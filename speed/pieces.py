"""Files as pieces of bounded size that are told apart by their hashes, for a machine that takes small files only."""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from itertools import count
from pathlib import Path

MANIFEST = "manifest.json"
MEBIBYTE = 2**20


def sha256(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def cut(files: Mapping[str, Path], out: Path, size: int) -> list[Path]:
    """Write files and folders, by the names that they get, as pieces of at most `size` bytes, and their manifest.

    Equal files are equal pieces: of a file only its name, its bytes and its rights count.
    """

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = 0, 0, 0, "", ""
        return entry

    out.mkdir(parents=True, exist_ok=True)
    for old in (*out.glob("piece-*"), out / MANIFEST):
        old.unlink(missing_ok=True)
    pieces = []
    with tempfile.TemporaryFile(dir=out) as whole:
        with tarfile.open(fileobj=whole, mode="w") as archive:
            for name, path in sorted(files.items()):
                archive.add(path, name, filter=plain)
        whole.seek(0)
        for number in count():
            if not (part := whole.read(size)):
                break
            pieces.append(out / f"piece-{number:02d}")
            pieces[-1].write_bytes(part)
    listed = {piece.name: sha256(piece) for piece in pieces}
    (out / MANIFEST).write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")
    return pieces


def missing(folder: Path) -> list[str]:
    """The pieces of a manifest that are not in its folder yet.

    Raises
    ------
    SystemExit
        In one line, where there is no manifest, or a piece that is there is damaged.
    """
    if not (folder / MANIFEST).is_file():
        raise SystemExit(f"{folder / MANIFEST}: must be there to know the pieces by")
    listed: dict[str, str] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    there = {name: path for name in listed if (path := folder / name).is_file()}
    for name, path in there.items():
        if (got := sha256(path)) != listed[name]:
            raise SystemExit(f"{path}: damaged: sha256 must be {listed[name]}, got {got}; bring it again")
    return [name for name in listed if name not in there]


def put_together(pieces: Path, folder: Path) -> None:
    """Write the files of all pieces below a folder; that of the pieces may be one that nobody can write to."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as whole:
        for name in json.loads((pieces / MANIFEST).read_text(encoding="utf-8")):
            with (pieces / name).open("rb") as part:
                shutil.copyfileobj(part, whole, MEBIBYTE)
        whole.seek(0)
        with tarfile.open(fileobj=whole, mode="r") as archive:
            archive.extractall(folder, filter="data")
