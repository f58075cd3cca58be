"""Tree attention: the logits at every prefix of many answers from one forward pass.

A prompt followed by a trie is a tree of tokens. Laid out in depth-first preorder, token ``j`` is an
ancestor of token ``i`` exactly if ``j <= i < end[j]``, so one integer a token describes the whole attention
pattern, for one trie, for several prompts packed into one row, and for a block cut out of a large trie.
Positions count depth, not index, so the model sees each answer as if it stood alone after the prompt.

Tokens that all prompts of a batch share are encoded once; their keys and values serve every row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DynamicCache

from calibnb import models
from calibnb.trie import Bools, Floats, Ints, Trie, ancestors_of, build


@dataclass(frozen=True)
class Segment:
    """A tree of tokens that follows a shared prefix: the rest of a prompt and some trie nodes.

    Attributes:
        token, position, end: ``[s]`` each; ``end`` counts within the segment.
        index: ``[n]`` where the output of a trie node stands in the segment; -1 for nodes left out.
    """

    token: Ints
    position: Ints
    end: Ints
    index: Ints


@dataclass(frozen=True)
class Rows:
    """Segments packed into rows of equal length.

    Attributes:
        token, position, end: ``[b, s]`` tensors; padding tokens see only themselves and the prefix.
        start: for each segment the flat index of its first token in ``b * s``.
    """

    token: Tensor
    position: Tensor
    end: Tensor
    start: Ints


def segment(prompt: Sequence[int], shared: int, trie: Trie, keep: Bools) -> Segment:
    """Lay out the prompt's own tokens and the kept trie nodes as one segment.

    Args:
        prompt: all tokens of the prompt; the last one is the trie's root.
        shared: how many of its first tokens are encoded elsewhere; at most ``len(prompt) - 1``.
        keep: ``[n]`` mask of nodes to run, closed under parents; the root is always run. End nodes need no
            forward pass, nothing follows them.
    """
    if not 0 <= shared < len(prompt):
        raise ValueError("at least the last prompt token belongs to the segment")
    own = np.asarray(prompt[shared:], np.int64)
    keep = keep.copy()
    keep[0] = False
    before = np.concatenate([[0], np.cumsum(keep)])  # kept nodes with a smaller index
    nodes = np.flatnonzero(keep)
    size = len(own) + len(nodes)
    index = np.full(len(keep), -1, np.int64)
    index[nodes] = len(own) + before[nodes]
    index[0] = len(own) - 1
    return Segment(
        token=np.concatenate([own, trie.token[nodes]]),
        position=np.concatenate([np.arange(shared, len(prompt)), len(prompt) - 1 + trie.depth[nodes]]),
        end=np.concatenate([np.full(len(own), size), len(own) + before[trie.end[nodes]]]),
        index=index,
    )


def pack(segments: Sequence[Segment], row_tokens: int, device: torch.device) -> Rows:
    """Fill rows with segments, longest first, each into the first row that has room.

    Attention costs grow with the square of the row length and padding with the number of rows; rows of a
    few hundred tokens keep both small. A segment longer than ``row_tokens`` sets the length of all rows.
    """
    lengths = [len(s.token) for s in segments]
    size = max([row_tokens, *lengths]) if len(segments) > 1 else lengths[0]
    filled: list[int] = []
    place = np.zeros((len(segments), 2), np.int64)
    for i in np.argsort(lengths, kind="stable")[::-1]:
        row = next((r for r, used in enumerate(filled) if used + lengths[i] <= size), len(filled))
        if row == len(filled):
            filled.append(0)
        place[i] = row, filled[row]
        filled[row] += lengths[i]
    size = max(filled)
    token = np.zeros((len(filled), size), np.int64)
    position = np.zeros_like(token)
    end = np.broadcast_to(np.arange(1, size + 1), token.shape).copy()
    for s, (row, at) in zip(segments, place, strict=True):
        here = slice(at, at + len(s.token))
        token[row, here], position[row, here], end[row, here] = s.token, s.position, s.end + at
    tensors = [torch.from_numpy(a).to(device) for a in (token, position, end)]
    return Rows(tensors[0], tensors[1], tensors[2], start=place[:, 0] * size + place[:, 1])


def shared_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """How many first tokens all prompts share, leaving each at least one token of its own."""
    shortest = min(prompts, key=len)
    limit = len(shortest) - 1
    for i in range(limit):
        if any(p[i] != shortest[i] for p in prompts):
            return i
    return limit


def head_logits(hidden: Tensor, head: Tensor, bias: Tensor | None) -> Tensor:
    """``hidden @ head^T + bias``, ``[r, v]`` in float32, for a float32 ``head``.

    The product of two bfloat16 numbers is exact in float32, so where a model computes in bfloat16 the
    hardware's bfloat16 units give the float32 logits, at their own speed: only their sums are ever rounded.
    """
    before = torch.get_float32_matmul_precision()
    if hidden.dtype == torch.bfloat16:
        torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast(hidden.device.type, enabled=False):
            return nn.functional.linear(hidden.float(), head, None if bias is None else bias.float())
    finally:
        torch.set_float32_matmul_precision(before)


class Body:
    """A causal language model split where the trie needs it: layers, then the head on chosen rows.

    Args:
        model: a transformers causal language model, or a peft model around one.
        temperature: divides the logits, in every measurement and in sampling.

    Raises:
        UserError: for architectures whose logits are not a plain linear map of the last hidden state, or
            whose layers keep a recurrent state and so cannot attend to a tree.
    """

    def __init__(self, model: nn.Module, temperature: float = 1.0) -> None:
        self.model = cast(Any, model)
        self.temperature = temperature
        inner: Any = self.model.get_base_model() if hasattr(model, "peft_config") else model
        config = inner.config.get_text_config()
        self.decoder: Any = inner.get_decoder()
        self.head: nn.Linear = inner.get_output_embeddings()
        models.check_architecture(config)
        settings = config.to_dict()
        kinds = set(settings.get("layer_types") or ["full_attention"])
        # Models of one kind of layer take one mask, mixed ones a mask a kind (transformers masking_utils).
        self.windows: dict[str, int | None] | None = None
        if "sliding_attention" in kinds:
            self.windows = {k: settings["sliding_window"] if k == "sliding_attention" else None for k in sorted(kinds)}
        self._head32: Tensor | None = None

    @property
    def device(self) -> torch.device:
        device: torch.device = self.head.weight.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        return self.head.weight.dtype

    @property
    def head32(self) -> Tensor:
        """``[v, h]`` head weights in float32, made once: measurement never rounds logits to bfloat16."""
        if self._head32 is None:
            self._head32 = self.head.weight.detach().float()
        return self._head32

    def _mask(self, visible: Tensor, query: Tensor, key: Tensor, dtype: torch.dtype) -> Tensor | dict[str, Tensor]:
        """Additive masks from ``visible [b, q, k]`` and the positions of queries and keys."""

        def additive(allowed: Tensor) -> Tensor:
            mask = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
            return mask.masked_fill_(~allowed, torch.finfo(dtype).min)[:, None]

        if self.windows is None:
            return additive(visible)
        distance = query[:, :, None] - key[:, None, :]
        return {k: additive(visible if w is None else visible & (distance < w)) for k, w in self.windows.items()}

    def forward(
        self, token: Tensor, position: Tensor, visible: Tensor, key_position: Tensor, cache: DynamicCache | None
    ) -> Tensor:
        """Last hidden states ``[b, q, h]`` of tokens that see earlier ones as ``visible [b, q, k]`` says."""
        dtype = (
            torch.get_autocast_dtype(self.device.type) if torch.is_autocast_enabled(self.device.type) else self.dtype
        )
        output = self.decoder(
            input_ids=token,
            position_ids=position,
            attention_mask=self._mask(visible, position, key_position, dtype),
            **{models.CACHE_ARGUMENT: cache},
            use_cache=cache is not None,
        )
        hidden: Tensor = output.last_hidden_state
        return hidden

    def encode(self, prefix: Sequence[int], rows: int = 1) -> DynamicCache | None:
        """Keys and values of a prefix, repeated for a number of rows. None for an empty prefix."""
        if not len(prefix):
            return None
        token = torch.as_tensor(prefix, dtype=torch.long, device=self.device)[None]
        position = torch.arange(len(prefix), device=self.device)[None]
        # A bare DynamicCache keeps every position, also for sliding layers: the window is in our mask.
        cache = DynamicCache()
        self.forward(token, position, position[:, :, None] >= position[:, None, :], position, cache)
        if rows > 1:
            cache.batch_repeat_interleave(rows)
        return cache

    def rows(self, rows: Rows, prefix: Sequence[int]) -> Tensor:
        """Last hidden states of packed rows after a shared prefix, flattened to ``[b * s, h]``."""
        b, s = rows.token.shape
        at = torch.arange(s, device=self.device)
        # [b, q, k]: k is q itself or one of its ancestors
        tree = (at[None, None, :] <= at[None, :, None]) & (at[None, :, None] < rows.end[:, None, :])
        before = torch.ones((b, s, len(prefix)), dtype=torch.bool, device=self.device)
        key_position = torch.cat([torch.arange(len(prefix), device=self.device).expand(b, -1), rows.position], dim=1)
        hidden = self.forward(
            rows.token, rows.position, torch.cat([before, tree], dim=2), key_position, self.encode(prefix, b)
        )
        return hidden.reshape(b * s, -1)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits ``[r, v]`` in float32, divided by the temperature, from hidden states ``[r, h]``."""
        logits = head_logits(hidden.to(self.dtype), self.head32, self.head.bias)
        return logits if self.temperature == 1 else logits / self.temperature

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        """Next-token log-probabilities ``[r, v]`` in float32 from hidden states ``[r, h]``."""
        return torch.log_softmax(self.logits(hidden), dim=-1)

    @torch.inference_mode()
    def scores(self, hidden: Tensor, row: Ints, token: Ints, chunk: int = 256) -> Floats:
        """Log-probabilities ``[k]`` of ``token[k]`` at ``hidden[row[k]]``, the head run ``chunk`` rows at a time."""
        out = np.empty(len(row))
        for here, at, logp in self._looked_up(hidden, row, chunk):
            out[here] = logp[at, torch.from_numpy(token[here])].double().cpu().numpy()
        return out

    @torch.inference_mode()
    def scores_and_likeliest(self, hidden: Tensor, row: Ints, token: Ints, chunk: int = 256) -> tuple[Floats, Bools]:
        """As :meth:`scores`, and whether ``token[k]`` is the likeliest at its row."""
        out, likeliest = np.empty(len(row)), np.empty(len(row), bool)
        for here, at, logp in self._looked_up(hidden, row, chunk):
            out[here] = logp[at, torch.from_numpy(token[here])].double().cpu().numpy()
            likeliest[here] = logp.argmax(-1)[at].cpu().numpy() == token[here]
        return out, likeliest

    def _looked_up(self, hidden: Tensor, row: Ints, chunk: int) -> Iterator[tuple[Ints, Tensor, Tensor]]:
        """``(here, at, logp)``: entries ``here`` of ``row`` stand at ``at`` of ``logp``, log-probabilities of rows."""
        rows, entry = np.unique(row, return_inverse=True)
        for a in range(0, len(rows), chunk):
            logp = self.log_probabilities(hidden[torch.from_numpy(rows[a : a + chunk]).to(hidden.device)])
            here = np.flatnonzero((entry >= a) & (entry < a + chunk))
            yield here, torch.from_numpy(entry[here] - a), logp


def blocks(trie: Trie, size: int) -> Iterator[tuple[Bools, Bools]]:
    """Cut the inner nodes into depth-first blocks of at most ``size``.

    Yields ``(keep, own)`` masks: the nodes to run (the block and its ancestors) and the block itself. Every
    inner node belongs to exactly one block; only the short ancestor chains are run again.
    """
    inner = np.flatnonzero(~trie.is_end)
    for a in range(0, len(inner), size):
        own = np.zeros(len(trie.token), bool)
        own[inner[a : a + size]] = True
        yield ancestors_of(trie, inner[a : a + size]), own


@torch.inference_mode()
def log_probabilities(body: Body, prompt: Sequence[int], trie: Trie, block: int = 1024) -> Floats:
    """Log-probability of every node's token given its parent, ``[n]``, 0 at the root.

    Memory is bounded by ``block`` nodes; the cost is linear in the size of the trie.
    """
    prefix = list(prompt[:-1])
    logq = np.zeros(len(trie.token))
    for keep, own in blocks(trie, block):
        piece = segment(prompt, len(prefix), trie, keep)
        hidden = body.rows(pack([piece], 0, body.device), prefix)
        children = 1 + np.flatnonzero(own[trie.parent[1:]])
        logq[children] = body.scores(hidden, piece.index[trie.parent[children]], trie.token[children])
    return logq


def answer_log_probabilities(body: Body, prompt: Sequence[int], trie: Trie, block: int = 1024) -> Floats:
    """Log-probability ``[m]`` of every answer, its end token included, summed in float64."""
    return trie.along(log_probabilities(body, prompt, trie, block))


@torch.inference_mode()
def continuations(
    body: Body, prompts: Sequence[Sequence[int]], texts: Sequence[Sequence[Sequence[int]]], row_tokens: int = 256
) -> list[list[tuple[float, bool]]]:
    """Log-probability of every continuation of every prompt, and whether each of its tokens is the likeliest there.

    ``texts[i]`` are the continuations of ``prompts[i]``, as token ids; none is closed with an end token. What all
    prompts begin with, and what continuations of a prompt share, is encoded once.
    """
    shared = shared_prefix(prompts)
    # The trie's builder closes every answer; that token is nobody's and is not scored.
    tries = [build(t, np.full(len(t), 1 / len(t)), end_id=-2) for t in texts]
    scored = [np.flatnonzero(~t.is_end)[1:] for t in tries]
    pieces = [
        segment(p, shared, t, ancestors_of(t, np.unique(t.parent[s])))
        for p, t, s in zip(prompts, tries, scored, strict=True)
    ]
    rows = pack(pieces, row_tokens, body.device)
    hidden = body.rows(rows, list(prompts[0][:shared]))
    at = [start + p.index[t.parent[s]] for start, p, t, s in zip(rows.start, pieces, tries, scored, strict=True)]
    logp, likeliest = body.scores_and_likeliest(
        hidden, np.concatenate(at), np.concatenate([t.token[s] for t, s in zip(tries, scored, strict=True)])
    )
    out, first = [], 0
    for trie, nodes in zip(tries, scored, strict=True):
        here = slice(first, first + len(nodes))
        per_node, others = np.zeros(len(trie.token)), np.zeros(len(trie.token))
        per_node[nodes], others[nodes] = logp[here], ~likeliest[here]
        found = zip(trie.along(per_node).tolist(), (trie.along(others) == 0).tolist(), strict=True)
        out.append(list(found))
        first += len(nodes)
    return out
