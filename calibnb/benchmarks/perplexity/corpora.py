"""Language modelling: what calibration does to the probability of ordinary text.

A document's tokens are scored once each, the first left out, in windows that overlap so that every token has at
least `window - stride` tokens of context, or all there are. Perplexity is per token and so depends on the tokenizer;
bits per byte do not:

    perplexity = exp(NLL / tokens),     bits per byte = NLL / (ln 2 * bytes),

with NLL, tokens and UTF-8 bytes of what is scored, summed over documents (Gao et al., 2020, arXiv 2101.00027).
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import numpy.typing as npt

from calibnb import json_files
from calibnb.errors import UserError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
MEASURES = ("perplexity", "bits_per_byte")
LEAST = 8  # documents of a slice, where it has so many


@dataclass(frozen=True)
class Document:
    """A text; `slice` names the kind of text it belongs to."""

    slice: str
    name: str
    text: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


# Modules of the standard library that read well and have no twin in the training data of a number sampler.
SOURCES = ("argparse", "bisect", "calendar", "csv", "difflib", "fractions", "heapq", "shlex", "statistics", "textwrap")
LICENCES = ("numpy", "scipy", "pandas", "torch", "transformers", "matplotlib", "dvc", "jupyterlab", "ipykernel")


def bundled() -> list[Document]:
    """Texts that come with Python and the packages of the study: its language reference, source code and licences.

    They differ between versions, so their hashes belong to the result.
    """
    documents = [Document("language reference", name, text) for name, text in sorted(topics.items())]
    for name in SOURCES:
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.origin is not None
        documents.append(Document("standard library", name, Path(spec.origin).read_text(encoding="utf-8")))
    for name in LICENCES:
        for file in sorted(importlib.metadata.files(name) or (), key=str):
            if file.parts[0].endswith(".dist-info") and file.stem.upper().startswith("LICEN"):
                text = Path(str(file.locate())).read_text(encoding="utf-8")
                documents.append(Document("licences", "/".join((name, *file.parts[1:])), text))
    return documents


def load(source: str, split: str, bytes_per_slice: int) -> list[Document]:
    """The documents that are scored, in their order, at most `bytes_per_slice` bytes of each slice.

    A document gives at most an eighth of them and is cut at a line, or within its first line where that is longer:
    an interval over documents needs several.

    Parameters
    ----------
    source : str
        `bundled`, or a folder with a folder a slice, as PALOMA is laid out: ``<slice>/<split>/*.jsonl.gz`` (or plain
        jsonl), an object with a `text` a line.
    split : str
        Which split of the corpus; not read for `bundled`.
    bytes_per_slice : int
        Most bytes that are scored of a slice.

    Raises
    ------
    UserError
        No such folder, no slice in it, a file that cannot be read, a document or a slice without text.
    """
    documents = bundled() if source == "bundled" else list(_from_folder(Path(source), split))
    chosen: list[Document] = []
    left = dict.fromkeys((d.slice for d in documents), bytes_per_slice)
    for document in documents:
        text, most = document.text, min(left[document.slice], bytes_per_slice // LEAST)
        if len(text.encode()) > most:
            text = text.encode()[:most].decode(errors="ignore")
            lines = text[: text.rfind("\n") + 1]
            text = lines or (text if most == bytes_per_slice // LEAST else "")  # what is left may be a few bytes
        if text.strip():
            chosen.append(Document(document.slice, document.name, text))
            left[document.slice] -= len(text.encode())
    for name in sorted(left.keys() - {document.slice for document in chosen}):
        files = ", ".join(dict.fromkeys(d.name.rpartition(":")[0] for d in documents if d.slice == name))
        raise UserError(
            f"benchmarks.perplexity.bytes_per_slice: the slice {name} ({files}) begins each document with more blanks "
            f"than are read of it ({bytes_per_slice // LEAST} bytes); raise it, or remove the slice"
        )
    return chosen


def _from_folder(folder: Path, split: str) -> Iterator[Document]:
    if not folder.is_dir():
        raise UserError(
            f"benchmarks.perplexity.source: no folder {folder}; allowed: bundled, or a folder with a folder a slice"
        )
    found = False
    for part in sorted(p for p in folder.iterdir() if (p / split).is_dir()):
        files = sorted((*(part / split).glob("*.jsonl"), *(part / split).glob("*.jsonl.gz")))
        if not files:
            continue
        found = True
        if part.name in ("all", "texts"):  # the results have keys of these names beside those of slices
            raise UserError(
                f"benchmarks.perplexity.source: a slice cannot be called {part.name}, rename the folder {part}"
            )
        documents = [document for file in files for document in parse(file.read_bytes(), str(file), part.name)]
        if not documents:
            raise UserError(
                f"benchmarks.perplexity.source: the slice {part.name} has no document in {', '.join(map(str, files))}; "
                "must hold an object with a text a line, or remove the slice"
            )
        yield from documents
    if not found:
        raise UserError(
            f"benchmarks.perplexity.source: no {folder}/<slice>/{split}/*.jsonl or *.jsonl.gz; PALOMA is laid out so"
        )


def parse(data: bytes, where: str, slice_name: str) -> list[Document]:
    """The documents of a jsonl file, gzipped if its name says so."""
    if where.endswith(".gz"):
        try:
            data = gzip.decompress(data)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise UserError(f"{where}: no gzip file ({error})") from error
    documents = []
    for number, row in json_files.parse(data, where):
        if not isinstance(row, dict) or not isinstance(row.get("text"), str) or not row["text"].strip():
            raise UserError(f"{where}, line {number}: must be an object whose key text holds a text that is not empty")
        documents.append(Document(slice_name, f"{Path(where).name}:{number}", row["text"]))
    return documents
