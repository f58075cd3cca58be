"""Many answers to many prompts, drawn from the model's own distribution.

The whole vocabulary at the model's temperature and nothing else: `generate` is not used, because it fills what it
is not told from the generation config of the model's folder (several ship temperature 0.6 or top_p 0.95 there).

Every draw has uniform numbers of its own, made from (seed, prompt, draw, step), and picks the token where the
cumulative distribution passes its number. So an answer does not depend on the answers that share its batch, a run
that was killed and resumed gives the same answers, and two prompts with one seed are independent. A prompt is run
once, whatever the number of its answers: its keys and values are repeated. Prompts of like length share a batch.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import DynamicCache

from calibnb.models import CACHE_ARGUMENT, ChatFormat
from calibnb.tree import Body

Floats = npt.NDArray[np.float64]

BLOCK = 256  # tokens whose probabilities are summed first, when a token is picked


def uniforms(prompt_ids: Sequence[int], *, seed: int, draws: int, steps: int) -> Floats:
    """Uniform numbers in [0, 1), shape (draws, steps); a row depends on seed, prompt and its number."""
    digest = hashlib.sha256(np.asarray(prompt_ids, dtype="<i8").tobytes()).digest()
    prompt = int.from_bytes(digest[:8], "little")
    return np.stack([np.random.default_rng([seed, prompt, draw]).random(steps) for draw in range(draws)])


def _place(cumulated: Tensor, point: Tensor) -> Tensor:
    """The first index (B,) at which rows of ``cumulated`` (B or 1, n) pass ``point`` (B,)."""
    total = cumulated[:, -1]
    # Kept below the total, the point always falls on a step, never on what has probability 0.
    point = torch.minimum(point, torch.nextafter(total, torch.zeros_like(total)))
    if len(cumulated) == 1:
        return torch.searchsorted(cumulated[0], point, right=True)
    return torch.searchsorted(cumulated, point[:, None], right=True)[:, 0]


def pick(logits: Tensor, uniform: Tensor, temperature: float = 1.0) -> Tensor:
    """Token ids by inverse transform: softmax in float32, cumulated in float64 so that no tail token is lost.

    The block of tokens is found first and then the token in it, which is the token that one long cumulative sum
    would find, in a third of the memory.

    logits: (B or 1, V) of any float dtype; uniform: (B,) float64 in [0, 1). Returns int64 (B,).
    """
    q = (logits.float() / temperature).softmax(-1)  # (B or 1, V)
    q = torch.nn.functional.pad(q, (0, -q.shape[1] % BLOCK)).unflatten(1, (-1, BLOCK))
    blocks = q.sum(-1, dtype=torch.float64).cumsum(-1)
    block = _place(blocks, uniform * blocks[:, -1])  # (B,)
    row = torch.arange(len(uniform), device=q.device) if len(q) > 1 else torch.zeros_like(block)
    before = torch.where(block > 0, blocks[row, (block - 1).clamp(min=0)], 0.0)
    inside = q[row, block].double().cumsum(-1)
    return block * BLOCK + _place(inside, uniform * blocks[row, -1] - before)


@dataclass(frozen=True)
class _Encoded:
    """Prompts of like length, run once: their cache, mask and lengths, and the logits after them."""

    cache: DynamicCache
    mask: Tensor
    length: Tensor
    logits: Tensor


def _encode(body: Body, prompts: Sequence[Sequence[int]]) -> _Encoded:
    """Run prompts together, the shorter ones padded on the left."""
    device, longest = body.device, max(map(len, prompts))
    length = torch.tensor([len(p) for p in prompts], device=device)
    # What stands in the padding is never attended to; any token will do.
    ids = torch.tensor([[*[p[0]] * (longest - len(p)), *p] for p in prompts], device=device)
    at = torch.arange(longest, device=device) - (longest - length)[:, None]
    # Handed in, the cache is filled in place, whatever the name of the output that would return it.
    cache = DynamicCache(config=body.model.config.get_text_config())
    mask = (at >= 0).long()
    return _Encoded(cache, mask, length, _step(body, ids, at.clamp(min=0), mask, cache))


def _step(body: Body, ids: Tensor, position: Tensor, mask: Tensor, cache: DynamicCache) -> Tensor:
    """Logits (B, V) after the last of ids (B, n), which follow what `cache` holds; `cache` grows by n."""
    arguments = {CACHE_ARGUMENT: cache}
    logits: Tensor = body.model(
        input_ids=ids, position_ids=position, attention_mask=mask, use_cache=True, logits_to_keep=1, **arguments
    ).logits
    return logits[:, -1]


@torch.inference_mode()
def _answers(
    body: Body, encoded: _Encoded, slot: Tensor, numbers: Tensor, end_id: int
) -> list[list[int]]:
    """Token ids of answers: row i answers prompt ``slot[i]`` with the uniform numbers ``numbers[i]`` (B, steps)."""
    answers: list[list[int]] = [[] for _ in range(len(slot))]
    rows = torch.arange(len(slot), device=slot.device)  # answers still being written
    one = len(encoded.logits) == 1
    logits = encoded.logits if one else encoded.logits[slot]
    mask, cache = encoded.mask[slot], None
    for step in range(numbers.shape[1]):
        token = pick(logits, numbers[rows, step], body.temperature)  # (rows,)
        alive = token != end_id
        rows, token = rows[alive], token[alive]
        for row, id in zip(rows.tolist(), token.tolist(), strict=True):
            answers[row].append(id)
        if not len(rows) or step == numbers.shape[1] - 1:
            break
        if cache is None:
            cache = copy.deepcopy(encoded.cache)
            cache.batch_select_indices(slot[rows])
        elif not bool(alive.all()):
            cache.batch_select_indices(alive.nonzero()[:, 0])
        mask = torch.cat([mask[alive], torch.ones_like(mask[alive, :1])], dim=1)
        logits = _step(body, token[:, None], (encoded.length[slot[rows]] + step)[:, None], mask, cache)
    return answers


@torch.inference_mode()
def sample(
    body: Body,
    chat: ChatFormat,
    prompts: Sequence[Sequence[int]],
    *,
    draws: int,
    max_new_tokens: int,
    batch: int,
    seed: int,
) -> Iterator[tuple[int, list[str]]]:
    """Draw answers to prompts, prompts of like length together.

    Args:
        body: the model, in evaluation mode; its temperature applies.
        prompts: token ids from `ChatFormat.prompt_ids`.
        draws: answers to a prompt.
        max_new_tokens: an answer that has not ended by then is returned as far as it got.
        batch: answers written at once; it sets memory and speed, and the answers only by the model's rounding.

    Yields:
        The number of a prompt and the texts of its answers in the order of the draws, without the end of the
        turn; prompts in the order of their lengths. Special tokens inside an answer stay in its text, so that
        such an answer is not taken for a number.
    """
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    together = max(1, batch // draws)
    for start in range(0, len(order), together):
        group = order[start : start + together]
        encoded = _encode(body, [prompts[i] for i in group])
        slot = torch.arange(len(group), device=body.device).repeat_interleave(draws)
        numbers = torch.from_numpy(
            np.concatenate([uniforms(prompts[i], seed=seed, draws=draws, steps=max_new_tokens) for i in group])
        ).to(body.device)
        ids: list[list[int]] = []
        for a in range(0, len(slot), batch):
            ids += _answers(body, encoded, slot[a : a + batch], numbers[a : a + batch], chat.end_id)
        texts = chat.decode_many(ids)
        for place, i in enumerate(group):
            yield i, texts[place * draws : (place + 1) * draws]


class Ask(Protocol):
    """Draws answers of one variant: `draws` texts for each prompt, in order."""

    def __call__(self, prompts: Sequence[str], *, draws: int, max_new_tokens: int) -> list[list[str]]: ...


class Journal:
    """Answers on disk while a stage runs, so that a killed run resumes where it stopped.

    One line of JSON a prompt. `about` says whose answers they are (model, adapter, seed): lines about others are
    not read. A line that a kill left half written is the last one, and is dropped.
    """

    def __init__(self, path: Path, about: str) -> None:
        self.path, self.about = path, about
        self.known: dict[str, list[str]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = path.read_bytes().rpartition(b"\n")[0] if path.exists() else b""
        for line in whole.splitlines():
            entry = json.loads(line)
            self.known[entry["key"]] = entry["answers"]
        path.write_bytes(whole + b"\n" if whole else b"")

    def key(self, ids: Sequence[int], draws: int, max_new_tokens: int) -> str:
        """What identifies the answers to a prompt."""
        return hashlib.sha256(json.dumps([self.about, list(ids), draws, max_new_tokens]).encode()).hexdigest()

    def add(self, key: str, answers: list[str]) -> None:
        self.known[key] = answers
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, "answers": answers}) + "\n")


@dataclass(frozen=True)
class Sampler:
    """An `Ask` of one model.

    Attributes:
        body, chat: the model and its chat format.
        batch: answers written at once.
        seed: of the uniform numbers.
        journal: where answers are kept until the stage is done.
        system: a system message before every prompt, or None.
    """

    body: Body
    chat: ChatFormat
    batch: int
    seed: int
    journal: Journal
    system: str | None = None

    def __call__(self, prompts: Sequence[str], *, draws: int, max_new_tokens: int) -> list[list[str]]:
        ids = [self.chat.prompt_ids(text, system=self.system) for text in prompts]
        keys = [self.journal.key(i, draws, max_new_tokens) for i in ids]
        missing = {k: i for k, i in zip(keys, ids, strict=True) if k not in self.journal.known}
        names = list(missing)
        drawn = sample(
            self.body, self.chat, list(missing.values()),
            draws=draws, max_new_tokens=max_new_tokens, batch=self.batch, seed=self.seed,
        )  # fmt: skip
        with tqdm(total=len(missing) * draws, desc="drawing answers", unit="answer") as bar:
            for place, texts in drawn:
                self.journal.add(names[place], texts)
                bar.update(draws)
        return [self.journal.known[k] for k in keys]
