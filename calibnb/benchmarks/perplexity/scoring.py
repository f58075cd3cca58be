"""Negative log-likelihood of documents, each token scored once in sliding windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from calibnb.benchmarks.perplexity.corpora import Document, Floats
from calibnb.errors import UserError
from calibnb.trees.attention import Body


@dataclass(frozen=True)
class Tokens:
    """A document's tokens.

    Attributes
    ----------
    ids : list[int]
        ``[n]``, with the model's beginning-of-sequence token in front where it has one.
    first : int
        Place of the first token that is scored.
    scored_bytes : int
        UTF-8 bytes of the tokens from `first` on.
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

    Raises
    ------
    UserError
        For a slice all of whose documents are of one token, of which none can be scored, before any is.
    """
    tokens = [tokenise(tokenizer, d.text) for d in documents]
    scored = {d.slice for d, t in zip(documents, tokens, strict=True) if t.first < len(t.ids)}
    for document in documents:
        if document.slice not in scored:
            raise UserError(
                f"benchmarks.perplexity.source: the slice {document.slice} has no document of two tokens or more"
            )
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
