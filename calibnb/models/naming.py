"""Names of models: what one may be called, and what it stands for."""

from __future__ import annotations

import unicodedata

from calibnb.blocks import shown
from calibnb.errors import UserError
from calibnb.models.places import HUB, place
from calibnb.models.sources import TABLE, Source

# A model's name becomes text between single quotes of a shell, part of a DVC stage's name, of paths and of a page's
# address, and text between backquotes on a page. Everything goes through but: the quotes; what DVC splits the name of
# a stage at; what shells (fish) and DVC read as an escape or another slash; what pages take for TeX; what ends an
# address, which the pages' links to their own sources do not quote.
REFUSED = "'`@\\$\"#?%&<>"

# Parts of a path that DVC, git or Sphinx pass over, wherever they stand; .dvcignore and .gitignore name some of them.
PASSED_OVER = (
    *(".dvc", ".git", ".hg", "_sources"),
    *("__pycache__", ".ipynb_checkpoints", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis"),
)

# How files end that the pipeline writes beside a model's folders, and what DVC and Sphinx take for files of theirs.
ENDINGS = (".csv", ".dvc", ".ipynb", ".json", ".jsonl", ".md", ".parquet", ".rst", "dvc.yaml")

# Bytes. File systems allow 255 in a part, of which temporary files and the ends of files need some.
LONGEST_PART, LONGEST = 200, 1000


def requirement(name: str) -> str | None:
    """What a model must be called, where `name` is not that; None for a name that goes through the whole study.

    The text follows "must be". The one rule on names: what params.yaml may say, and what paths are made of.
    """
    local = name.startswith(("./", "/"))
    if not (name in TABLE or local or HUB.fullmatch(name)) or ".." in name.split("/") or not name.strip("./"):
        return f"one of {', '.join(TABLE)}, a hub id org/name, or a folder as a path from ./ or / on without .."
    rename = "(rename the folder, or link to it: ln -s FOLDER ./other-name)"
    for character in name:
        if character in REFUSED or not character.isprintable():
            return f"a name without {character!a}, which does not pass through shell, DVC and pages {rename}"
    if unicodedata.normalize("NFC", name) != name:
        return f"a name whose accents are one character with their letters (Unicode's NFC) {rename}"
    parts = place(name).split("/")
    plain = ("./" if name.startswith("./") else "/") + "/".join(p for p in parts if p not in ("", "."))
    if local and name != plain:
        return f"written as {plain}"
    for part in parts:
        if part in PASSED_OVER:
            return f"a name without the part {part}, which DVC, git or the book pass over {rename}"
        if part.endswith(ENDINGS):
            return f"a name no part of which ends as files of the study do ({', '.join(ENDINGS)}) {rename}"
    if max(len(part.encode()) for part in parts) > LONGEST_PART or len(name.encode()) > LONGEST:
        return f"at most {LONGEST} bytes long, a part of it at most {LONGEST_PART} {rename}"
    return None


def resolve(name: str) -> Source:
    """The source that `name` stands for: an entry of `TABLE`, a folder (absolute or from ./), or a hub id.

    Raises
    ------
    UserError
        For anything else, and for a name that `requirement` refuses.
    """
    needed = requirement(name)
    if needed is not None:
        raise UserError(f"models: must be {needed}, got {shown(name)}")
    if name in TABLE:
        return TABLE[name]
    return Source(name=name, kind="folder" if name.startswith(("/", "./")) else "hub")
