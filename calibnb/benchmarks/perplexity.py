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
import importlib.metadata
import importlib.util
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from calibnb import records
from calibnb.errors import UserError
from calibnb.tree import Body

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MEASURES = ("perplexity", "bits_per_byte")
LEAST = 8  # documents of a slice, where it has so many


# ------------------------------------------------------------------------------------------------------- documents
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

    Args:
        source: `bundled`, or a folder with a folder a slice, as PALOMA is laid out: ``<slice>/<split>/*.jsonl.gz`` (or
            plain jsonl), an object with a `text` a line.

    Raises:
        UserError: no such folder, no slice in it, a file that cannot be read, a document or a slice without text.
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
            f"perplexity.bytes_per_slice: the slice {name} ({files}) begins each document with more blanks than are "
            f"read of it ({bytes_per_slice // LEAST} bytes); raise it, or remove the slice"
        )
    return chosen


def _from_folder(folder: Path, split: str) -> Iterator[Document]:
    if not folder.is_dir():
        raise UserError(f"perplexity.source: no folder {folder}; allowed: bundled, or a folder with a folder a slice")
    found = False
    for part in sorted(p for p in folder.iterdir() if (p / split).is_dir()):
        files = sorted((*(part / split).glob("*.jsonl"), *(part / split).glob("*.jsonl.gz")))
        if not files:
            continue
        found = True
        if part.name in ("all", "texts"):  # the results have keys of these names beside those of slices
            raise UserError(f"perplexity.source: a slice cannot be called {part.name}, rename the folder {part}")
        documents = [document for file in files for document in parse(file.read_bytes(), str(file), part.name)]
        if not documents:
            raise UserError(
                f"perplexity.source: the slice {part.name} has no document in {', '.join(map(str, files))}; must hold "
                "an object with a text a line, or remove the slice"
            )
        yield from documents
    if not found:
        raise UserError(f"perplexity.source: no {folder}/<slice>/{split}/*.jsonl or *.jsonl.gz; PALOMA is laid out so")


def parse(data: bytes, where: str, slice_name: str) -> list[Document]:
    """The documents of a jsonl file, gzipped if its name says so."""
    if where.endswith(".gz"):
        try:
            data = gzip.decompress(data)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise UserError(f"{where}: no gzip file ({error})") from error
    documents = []
    for number, row in records.parse(data, where):
        if not isinstance(row, dict) or not isinstance(row.get("text"), str) or not row["text"].strip():
            raise UserError(f"{where}, line {number}: must be an object whose key text holds a text that is not empty")
        documents.append(Document(slice_name, f"{Path(where).name}:{number}", row["text"]))
    return documents


# --------------------------------------------------------------------------------------------------------- windows
@dataclass(frozen=True)
class Tokens:
    """A document's tokens.

    Attributes:
        ids: ``[n]``, with the model's beginning-of-sequence token in front where it has one.
        first: place of the first token that is scored.
        scored_bytes: UTF-8 bytes of the tokens from `first` on.
    """

    ids: list[int]
    first: int
    scored_bytes: int


def tokenise(tokenizer: PreTrainedTokenizerBase, text: str) -> Tokens:
    """Tokens of a document; its first token is context only, in the count of bytes too, so one token scores nothing.

    Where the first character is cut in several tokens all of these are context, so that bytes stay whole.
    """
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids, offsets = list(encoded["input_ids"]), encoded["offset_mapping"]
    first = next((i for i in range(1, len(ids)) if offsets[i][0] >= offsets[i - 1][1] > 0), len(ids))
    end_of_context = offsets[first - 1][1]
    bos = [tokenizer.bos_token_id] if adds_bos(tokenizer) else []
    return Tokens(bos + ids, len(bos) + first, len(text[end_of_context:].encode()))


def adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer itself begins texts with its beginning-of-sequence token, as Gemma's and Llama's do."""
    return tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id


def windows(length: int, first: int, window: int, stride: int) -> list[tuple[int, int, int]]:
    """``(begin, end, scored)``: run the model on tokens ``begin`` to ``end`` and score those from ``scored`` on.

    Windows begin `stride` apart; each scores what the one before did not reach, so that tokens ``first`` to ``length``
    are scored once each.
    """
    if not 1 <= stride < window:
        raise ValueError("stride must be at least 1 and less than the window")
    out, reached = [], first
    for begin in range(0, length, stride):
        end = min(begin + window, length)
        if end > reached:
            out.append((begin, end, reached))
            reached = end
    return out


@torch.inference_mode()
def nll(body: Body, documents: Sequence[Tokens], *, window: int, stride: int, batch_tokens: int = 4096) -> list[Floats]:
    """Negative log-likelihood of every scored token, in nats: an array ``[n - first]`` a document.

    Windows of like length share a pass of about `batch_tokens` tokens, padded on the right, where a causal model does
    not look.
    """
    jobs = sorted(
        ((end - begin, d, begin, end, scored) for d, tokens in enumerate(documents)
         for begin, end, scored in windows(len(tokens.ids), tokens.first, window, stride)),
        reverse=True,
    )  # fmt: skip
    out = [np.full(len(t.ids) - t.first, np.nan) for t in documents]
    bar = tqdm(total=sum(len(v) for v in out), desc="scoring text", unit="token")
    at = 0
    while at < len(jobs):
        longest = jobs[at][0]
        group = jobs[at : at + max(1, batch_tokens // longest)]
        at += len(group)
        token = torch.zeros((len(group), longest), dtype=torch.long, device=body.device)
        for row, (size, d, begin, end, _) in enumerate(group):
            token[row, :size] = torch.as_tensor(documents[d].ids[begin:end], device=body.device)
        position = torch.arange(longest, device=body.device).expand(len(group), -1)
        hidden = body.forward(token, position, position[:, :, None] >= position[:, None, :], position, None)
        for row, (_, d, begin, end, scored) in enumerate(group):
            before = np.arange(scored - 1 - begin, end - 1 - begin)
            targets = np.asarray(documents[d].ids[scored:end])
            first = documents[d].first
            out[d][scored - first : end - first] = -body.scores(hidden[row], before, targets)
            bar.update(end - scored)
    bar.close()
    return out


def run(
    body: Body, tokenizer: PreTrainedTokenizerBase, documents: Sequence[Document], *, window: int, stride: int
) -> pd.DataFrame:
    """A row a document: ``slice, document, sha256`` of its text, and ``nll, tokens, bytes`` of what is scored.

    Raises UserError for a slice all of whose documents are of one token, of which none can be scored, before any is.
    """
    tokens = [tokenise(tokenizer, d.text) for d in documents]
    scored = {d.slice for d, t in zip(documents, tokens, strict=True) if t.first < len(t.ids)}
    for document in documents:
        if document.slice not in scored:
            raise UserError(f"perplexity.source: the slice {document.slice} has no document of two tokens or more")
    values = nll(body, tokens, window=window, stride=stride)
    return pd.DataFrame(
        {
            "slice": [d.slice for d in documents],
            "document": [d.name for d in documents],
            "sha256": [d.sha256 for d in documents],
            "nll": [float(v.sum()) for v in values],
            "tokens": [len(v) for v in values],
            "bytes": [t.scored_bytes for t in tokens],
        }
    )


# --------------------------------------------------------------------------------------------------------- summary
def _totals(frame: pd.DataFrame) -> Floats:
    """``[3, documents]``: NLL, tokens and bytes of each document with a scored token, the mean over training seeds."""
    scored = frame[frame["tokens"] > 0]
    per_document = scored.groupby(["slice", "document"], sort=False)[["nll", "tokens", "bytes"]].mean()
    return per_document.to_numpy(np.float64).T


def _measures(totals: Floats) -> dict[str, Floats]:
    loss, tokens, size = totals
    return {"perplexity": np.exp(loss / tokens), "bits_per_byte": loss / (math.log(2) * size)}


def _resampled(totals: Floats, resamples: int, seed: int) -> dict[str, Floats]:
    """The measures of `resamples` draws of as many documents with replacement; equal seeds draw the same ones."""
    documents = totals.shape[1]
    counts = np.random.default_rng(seed).multinomial(documents, np.full(documents, 1 / documents), size=resamples)
    return _measures(totals @ counts.T)


def _slices(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {**{str(name): part for name, part in frame.groupby("slice", sort=False)}, "all": frame}


def _rows(name: str, values: dict[str, Floats], drawn: dict[str, Floats], documents: int) -> list[dict[str, object]]:
    """A row a measure, its interval from the resamples ``drawn``."""
    rows: list[dict[str, object]] = []
    for measure in MEASURES:
        # One document says nothing of how documents differ.
        ends = np.quantile(drawn[measure], [0.025, 0.975]) if documents > 1 else (np.nan, np.nan)
        low, high = map(float, ends)
        row: dict[str, object] = {"slice": name, "measure": measure, "value": float(values[measure])}
        rows.append(row | {"low": low, "high": high, "documents": documents})
    return rows


def summarise(frame: pd.DataFrame, *, resamples: int, seed: int) -> pd.DataFrame:
    """Perplexity and bits per byte of each slice and of all: rows ``slice, measure, value, low, high, documents``.

    frame: of :func:`run`, any number of training seeds. Intervals come from a bootstrap of the documents.
    """
    rows = []
    for name, part in _slices(frame).items():
        totals = _totals(part)
        rows += _rows(name, _measures(totals.sum(axis=1)), _resampled(totals, resamples, seed), totals.shape[1])
    return pd.DataFrame(rows)


def _against(own: dict[str, Floats], base: dict[str, Floats]) -> dict[str, Floats]:
    return {
        "perplexity": own["perplexity"] / base["perplexity"],
        "bits_per_byte": own["bits_per_byte"] - base["bits_per_byte"],
    }


def compare(frame: pd.DataFrame, base: pd.DataFrame, *, resamples: int, seed: int) -> pd.DataFrame:
    """What `frame` needs more than `base`: ratio of perplexities and difference of bits per byte, documents paired."""
    rows = []
    others = _slices(base)
    for name, part in _slices(frame).items():
        own, other = _totals(part), _totals(others[name])
        if own.shape != other.shape:
            raise ValueError(f"{name}: the two hold different documents")
        values = _against(_measures(own.sum(axis=1)), _measures(other.sum(axis=1)))
        drawn = _against(_resampled(own, resamples, seed), _resampled(other, resamples, seed))
        rows += _rows(name, values, drawn, own.shape[1])
    return pd.DataFrame(rows)
