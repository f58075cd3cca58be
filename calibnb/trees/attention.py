"""Tree attention: the logits at every prefix of many answers from one forward pass.

A prompt followed by a trie is a tree of tokens. Laid out in depth-first preorder, token ``j`` is an
ancestor of token ``i`` exactly if ``j <= i < end[j]``, so one integer a token describes the whole attention
pattern, for one trie, for several prompts packed into one row, and for a block cut out of a large trie.
Positions count depth, not index, so the model sees each answer as if it stood alone after the prompt.

Tokens that all prompts of a batch share are encoded once; their keys and values serve every row.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DynamicCache, LlamaModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from calibnb.errors import UserError
from calibnb.models.operations import Operations
from calibnb.trees.trie import Bools, Floats, Ints, Trie, ancestors_of, build

# The forward argument for the keys and values of earlier tokens was renamed within transformers 5.
CACHE_ARGUMENT = "cache" if "cache" in inspect.signature(LlamaModel.forward).parameters else "past_key_values"

# Keys that nobody sees, in the trial of a model: more than the windows that models cut by the order of tokens.
FAR = 4096

# How much hidden states are widened there, exactly: a cap shows on large logits alone.
WIDE = 2.0**14

# The largest relative errors of a model that is measured right: in float32, and where numbers are rounded to bfloat16.
EXACT, ROUNDED = 1e-3, 0.2

# What models raise that take no positions, no masks, or no plain cache of keys and values.
UNREADABLE = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class Segment:
    """A tree of tokens that follows a shared prefix: the rest of a prompt and some trie nodes.

    Attributes
    ----------
    token, position, end : [s] int array
        ``end`` counts within the segment.
    index : [n] int array
        Where the output of a trie node stands in the segment; -1 for nodes left out.
    """

    token: Ints
    position: Ints
    end: Ints
    index: Ints


@dataclass(frozen=True)
class Rows:
    """Segments packed into rows of equal length.

    Attributes
    ----------
    token, position, end : [b, s] tensor
        Padding tokens see only themselves and the prefix.
    start : int array
        For each segment the flat index of its first token in ``b * s``.
    """

    token: Tensor
    position: Tensor
    end: Tensor
    start: Ints


def segment(prompt: Sequence[int], shared: int, trie: Trie, keep: Bools) -> Segment:
    """Lay out the prompt's own tokens and the kept trie nodes as one segment.

    Parameters
    ----------
    prompt : Sequence[int]
        All tokens of the prompt; the last one is the trie's root.
    shared : int
        How many of its first tokens are encoded elsewhere; at most ``len(prompt) - 1``.
    trie : Trie
        The answers.
    keep : [n] bool array
        Mask of nodes to run, closed under parents; the root is always run. End nodes need no forward pass, nothing
        follows them.
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
    """Share segments out over rows of about ``row_tokens``, longest first, each to the row that is least full.

    Attention costs grow with the square of the row length, so rows are short; there are as many as the tokens fill, no
    more than the longest segment allows to be full, and they end up almost equally long, so that little is padding.
    """
    lengths = [len(s.token) for s in segments]
    filled = [0] * max(1, math.ceil(sum(lengths) / max(row_tokens, *lengths, 1)))
    place = np.zeros((len(segments), 2), np.int64)
    for i in np.argsort(lengths, kind="stable")[::-1]:
        row = filled.index(min(filled))
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


@contextmanager
def _masks(implementation: str, visible: Tensor, query: Tensor, key: Tensor, dtype: torch.dtype) -> Iterator[None]:
    """Within the block every attention mask that a model makes for itself is also cut to ``visible [b, q, k]``.

    A model states each of its masks as a function of the places of query and key in the text, and hands it to the
    library's mask maker of its attention ``implementation``. Ours asks that function at the positions ``query [b, q]``
    and ``key [b, k]`` of a tree. So sliding windows and chunks are what the model's own forward makes of them,
    whatever its configuration calls them. The masks are additive, ``[b, 1, q, k]`` in ``dtype``.
    """

    def make(*, mask_function: Callable[..., Tensor], kv_length: int, **_: object) -> Tensor:
        if kv_length != visible.shape[-1]:
            raise ValueError(f"a mask of {kv_length} keys was asked for where there are {visible.shape[-1]}")
        row = torch.arange(len(visible), device=visible.device)[:, None, None, None]
        allowed = mask_function(row, torch.zeros_like(row[:1]), query[:, None, :, None], key[:, None, None, :])
        allowed = allowed & visible[:, None]
        return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(
            ~allowed, torch.finfo(dtype).min
        )

    ALL_MASK_ATTENTION_FUNCTIONS[implementation] = make
    try:
        yield
    finally:
        del ALL_MASK_ATTENTION_FUNCTIONS[implementation]


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Within the block the model is in evaluation mode, afterwards each of its parts in the mode that it had."""
    modes = {part: part.training for part in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


class Body:
    """A causal language model split where the trie needs it: layers, then the head on chosen rows.

    Parameters
    ----------
    model : nn.Module
        A transformers causal language model, or a peft model around one.
    temperature : float
        Divides the logits, in every measurement and in sampling.

    Attributes
    ----------
    operations : Operations
        What the model has done since, the trial of it included.

    Raises
    ------
    UserError
        For models that would be measured wrongly: they give other hidden states in a tree than by their own forward, or
        other logits than a plain linear map of the last hidden states. Both are tried once.
    """

    def __init__(self, model: nn.Module, temperature: float = 1.0) -> None:
        self.model = cast(Any, model)
        self.temperature = temperature
        inner: Any = self.model.get_base_model() if hasattr(model, "peft_config") else model
        self.decoder: Any = inner.get_decoder()
        self.head: nn.Linear = inner.get_output_embeddings()
        self._head32: Tensor | None = None
        self.operations = Operations(inner)
        config = inner.config.get_text_config()
        try:
            in_tree, by_head = self._errors(inner, config.vocab_size)
        except torch.OutOfMemoryError:
            raise
        except UNREADABLE as error:
            reason = str(error).partition("\n")[0]
            raise UserError(
                f"models: {config.model_type} cannot read answers as a tree, which this study needs "
                f"({type(error).__name__}: {reason})"
            ) from error
        limit = EXACT if self.dtype == torch.float32 else ROUNDED
        if not in_tree <= limit:
            raise UserError(
                f"models: {config.model_type} reads answers in a tree otherwise than each alone, which this study does "
                "not support: its layers keep a state, or go by the order of tokens, not by their positions and masks"
            )
        if not by_head <= limit:
            raise UserError(
                f"models: {config.model_type} caps, scales or transforms its logits, which this study does not "
                "support: they must be a linear map of the last hidden states"
            )

    @torch.no_grad()
    def _errors(self, inner: Any, vocabulary: int) -> tuple[float, float]:
        """Relative errors of hidden states in a tree and of logits, measured by the model's own forward.

        The tree is two answers after a prefix, with ``FAR`` keys in between that nobody sees (nothing is run for
        them): a layer that goes by the order of tokens takes the prefix for that much farther away.
        """
        generator = torch.Generator().manual_seed(0)
        low, high = vocabulary // 4, max(vocabulary // 2, vocabulary // 4 + 1)  # special tokens stand at either end
        prefix = torch.randint(low, high, (6,), generator=generator)
        answers = torch.randint(low, high, (2, 6), generator=generator)
        last: list[Tensor] = []

        def widen(_module: nn.Module, _inputs: object, output: Any) -> Any:
            last.append(output.last_hidden_state)
            output.last_hidden_state = WIDE * output.last_hidden_state
            return output

        with _evaluating(inner):
            with self.decoder.register_forward_hook(widen), self.counting():
                texts = torch.cat([prefix.expand(2, -1), answers], dim=1).to(self.device)
                logits = inner(input_ids=texts, use_cache=False).logits.float()
            cache = self.encode(prefix.tolist())
            for layer in cast(Any, cache).layers:
                layer.keys, layer.values = (nn.functional.pad(x, (0, 0, 0, FAR)) for x in (layer.keys, layer.values))
            own = torch.block_diag(*torch.ones(2, 6, 6).tril()).bool()
            visible = torch.cat([torch.ones(12, 6).bool(), torch.zeros(12, FAR).bool(), own], dim=1)
            position = torch.arange(6, 12).repeat(2)
            key_position = torch.cat([torch.arange(6), torch.zeros(FAR, dtype=torch.long), position])
            token, position, visible, key_position = (
                x[None].to(self.device) for x in (answers.flatten(), position, visible, key_position)
            )
            tree = self.forward(token, position, visible, key_position, cache)
        expected = last[0][:, len(prefix) :].float()
        of_head = self._by_head((WIDE * last[0]).to(self.dtype))

        def relative(found: Tensor, own: Tensor) -> Tensor:
            """Along the last dimension; 0 where both are 0."""
            size = torch.linalg.norm(own, dim=-1).clamp(min=torch.finfo(torch.float32).tiny)
            apart: Tensor = torch.linalg.norm(found - own, dim=-1) / size
            return apart

        return (
            # Of a token in the middle: where rounding sends a token to other experts, that token alone is far off.
            float(relative(tree.view_as(expected).float(), expected).median(dim=-1).values.max()),
            float(relative(of_head, logits).max()),
        )

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

    def counting(self) -> AbstractContextManager[None]:
        """Within it attention counts for `operations` whoever runs the model; its layers always do."""
        return self.operations.attention(self.decoder.config._attn_implementation)

    def forward(
        self, token: Tensor, position: Tensor, visible: Tensor, key_position: Tensor, cache: DynamicCache | None
    ) -> Tensor:
        """Last hidden states ``[b, q, h]`` of tokens that see earlier ones as ``visible [b, q, k]`` says."""
        dtype = (
            torch.get_autocast_dtype(self.device.type) if torch.is_autocast_enabled(self.device.type) else self.dtype
        )
        own = _masks(self.decoder.config._attn_implementation, visible, position, key_position, dtype)
        with own, self.counting():
            output = self.decoder(
                input_ids=token,
                position_ids=position,
                # No key is padding: what a query sees is in our masks.
                attention_mask=torch.ones((len(token), visible.shape[-1]), dtype=torch.long, device=token.device),
                **{CACHE_ARGUMENT: cache},
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

    def rows(self, rows: Rows, prefix: Sequence[int], encoded: DynamicCache | None = None) -> Tensor:
        """Last hidden states of packed rows after a shared prefix, flattened to ``[b * s, h]``.

        The prefix is run anew unless its keys and values for these rows are given, which the call adds to.
        """
        b, s = rows.token.shape
        at = torch.arange(s, device=self.device)
        # [b, q, k]: k is q itself or one of its ancestors
        tree = (at[None, None, :] <= at[None, :, None]) & (at[None, :, None] < rows.end[:, None, :])
        before = torch.ones((b, s, len(prefix)), dtype=torch.bool, device=self.device)
        key_position = torch.cat([torch.arange(len(prefix), device=self.device).expand(b, -1), rows.position], dim=1)
        hidden = self.forward(
            rows.token, rows.position, torch.cat([before, tree], dim=2), key_position, encoded or self.encode(prefix, b)
        )
        return hidden.reshape(b * s, -1)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits ``[r, v]`` in float32, divided by the temperature, from hidden states ``[r, h]``."""
        logits = self._by_head(hidden.to(self.dtype))
        return logits if self.temperature == 1 else logits / self.temperature

    def _by_head(self, hidden: Tensor) -> Tensor:
        """What the head makes of hidden states ``[..., h]``, in float32."""
        self.operations.count += 2 * self.head32.numel() * (hidden.numel() // hidden.shape[-1])
        return head_logits(hidden, self.head32, self.head.bias)

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

    Every inner node belongs to exactly one block; only the short ancestor chains are run again.

    Yields
    ------
    tuple[bool array, bool array]
        ``(keep, own)`` masks: the nodes to run (the block and its ancestors) and the block itself.
    """
    inner = np.flatnonzero(~trie.is_end)
    for a in range(0, len(inner), size):
        own = np.zeros(len(trie.token), bool)
        own[inner[a : a + size]] = True
        yield ancestors_of(trie, inner[a : a + size]), own


@torch.inference_mode()
def all_log_probabilities(
    body: Body, prompts: Sequence[Sequence[int]], tries: Iterable[Trie], block: int = 1024
) -> Iterator[Floats]:
    """For each prompt and its trie the log-probability of every node's token given its parent, ``[n]``, 0 at the root.

    What all prompts begin with is encoded once. Memory is bounded by ``block`` nodes; the cost is linear in the size of
    the tries.
    """
    shared = shared_prefix(prompts)
    prefix = list(prompts[0][:shared])
    encoded = body.encode(prefix)
    for prompt, trie in zip(prompts, tries, strict=True):
        logq = np.zeros(len(trie.token))
        for keep, own in blocks(trie, block):
            piece = segment(prompt, shared, trie, keep)
            hidden = body.rows(pack([piece], 0, body.device), prefix, copy.deepcopy(encoded))
            children = 1 + np.flatnonzero(own[trie.parent[1:]])
            logq[children] = body.scores(hidden, piece.index[trie.parent[children]], trie.token[children])
        yield logq


def log_probabilities(body: Body, prompt: Sequence[int], trie: Trie, block: int = 1024) -> Floats:
    """:func:`all_log_probabilities` of one prompt."""
    (found,) = all_log_probabilities(body, [prompt], [trie], block)
    return found


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
