"""Many answers to many prompts, drawn from the model's own distribution.

The whole vocabulary at the model's temperature and nothing else: `generate` is not used, because it fills what it
is not told from the generation config of the model's folder (several ship temperature 0.6 or top_p 0.95 there).

Every draw has uniform numbers of its own, made from (seed, prompt, draw, step), and picks the token where the
cumulative distribution passes its number. So an answer does not depend on the answers that share its batch, a run
that was killed and resumed gives the same answers, and two prompts with one seed are independent. A prompt is run
once, whatever the number of its answers, and several answers share its keys by tree attention.
Prompts of like length share a batch.
"""

from __future__ import annotations

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

from calibnb.errors import room
from calibnb.models.chatformat import ChatFormat
from calibnb.trees.attention import Body

Floats = npt.NDArray[np.float64]
BLOCK = 256  # tokens whose probabilities are summed first, when a token is picked
KEYS_PER_PROMPT_TOKEN = 8  # how long all answers of a row may grow, relative to its prompt


def uniforms(prompt_ids: Sequence[int], *, seed: int, draws: int, steps: int, first: int = 0) -> Floats:
    """Uniform numbers in [0, 1), shape (draws, steps); a row depends on seed, prompt and its number (`first` on)."""
    digest = hashlib.sha256(np.asarray(prompt_ids, dtype="<i8").tobytes()).digest()
    prompt = int.from_bytes(digest[:8], "little")
    return np.stack([np.random.default_rng([seed, prompt, draw]).random(steps) for draw in range(first, first + draws)])


def _place(cumulated: Tensor, point: Tensor) -> Tensor:
    """The first index (B,) at which rows of ``cumulated`` (B or 1, n) pass ``point`` (B,)."""
    total = cumulated[:, -1]
    # Kept below the total, the point always falls on a step, never on what has probability 0.
    point = torch.minimum(point, torch.nextafter(total, torch.zeros_like(total)))
    if len(cumulated) == 1:
        return torch.searchsorted(cumulated[0], point, right=True)
    return torch.searchsorted(cumulated, point[:, None], right=True)[:, 0]


def pick(logits: Tensor, uniform: Tensor) -> Tensor:
    """Token ids by inverse transform, cumulated in float64 so that no tail token is lost.

    The block of tokens is found first and then the token in it, which is, up to the rounding of a block's sum, the
    token that one long cumulative sum would find, in a third of the memory. Nothing is normalised on the way.

    Parameters
    ----------
    logits : [b or 1, v] tensor
        float32.
    uniform : [b] tensor
        float64, in [0, 1).

    Returns
    -------
    [b] tensor
        int64.
    """
    weight = (logits - logits.amax(-1, keepdim=True)).exp_()
    q = torch.nn.functional.pad(weight, (0, -weight.shape[1] % BLOCK)).unflatten(1, (-1, BLOCK))
    blocks = q.sum(-1).double().cumsum(-1)
    block = _place(blocks, uniform * blocks[:, -1])  # (B,)
    row = torch.arange(len(uniform), device=q.device) if len(q) > 1 else torch.zeros_like(block)
    before = torch.where(block > 0, blocks[row, (block - 1).clamp(min=0)], 0.0)
    inside = q[row, block].double().cumsum(-1)
    return block * BLOCK + _place(inside, uniform * blocks[row, -1] - before)


# What a key belongs to: the prompt, or nobody. Other keys belong to a draw, by its number in the row.
PROMPT, NOBODY = -1, -2


class _Rows:
    """Answers being written, several draws of one prompt to a row.

    A row is a tree: the prompt's keys are seen by all of its draws, a draw's own keys by that draw. So the prompt's
    keys are stored once for several draws, and a draw that has ended costs nothing but its keys.

    Attributes
    ----------
    owner, position
        ``[r, k]`` of the keys.
    start
        ``[r]`` position of the first token of the answers.
    """

    def __init__(self, body: Body, prompts: Sequence[Sequence[int]], row_prompt: Tensor) -> None:
        """Run the prompts, and give row ``i`` the keys of ``prompts[row_prompt[i]]``."""
        longest, device = max(map(len, prompts)), body.device
        token = torch.tensor([[*p, *[p[-1]] * (longest - len(p))] for p in prompts], device=device)
        length = torch.tensor([len(p) for p in prompts], device=device)
        at = torch.arange(longest, device=device).expand(len(prompts), -1)
        self.body, self.cache = body, DynamicCache()
        hidden = body.forward(token, at, at[:, :, None] >= at[:, None, :], at, self.cache)
        self.last = hidden[torch.arange(len(prompts), device=device), length - 1]  # [p, h]
        self.owner = torch.where(at < length[:, None], PROMPT, NOBODY)
        self.position, self.start = at, length
        self.keep(row_prompt)

    def keep(self, rows: Tensor) -> None:
        """Keep some rows, by number; a number may come several times."""
        self.cache.batch_select_indices(rows)
        self.owner, self.position, self.start = self.owner[rows], self.position[rows], self.start[rows]

    def step(self, row: Tensor, draw: Tensor, token: Tensor, depth: int) -> Tensor:
        """Last hidden states ``[n, h]`` after one more token of some draws, each given by row and number."""
        device, rows = self.body.device, len(self.owner)
        count = torch.bincount(row, minlength=rows)
        width = int(count.max())
        # The draws of a row stand side by side; a shorter row is filled with queries of nobody.
        column = torch.arange(len(row), device=device) - (count.cumsum(0) - count)[row]
        tokens = torch.zeros((rows, width), dtype=torch.long, device=device)
        owner = torch.full((rows, width), NOBODY, device=device)
        tokens[row, column], owner[row, column] = token, draw
        position = (self.start + depth)[:, None].expand(-1, width)
        self.owner = torch.cat([self.owner, owner], dim=1)
        self.position = torch.cat([self.position, position], dim=1)
        keys = self.owner[:, None, :]
        visible = (keys == PROMPT) | ((keys == owner[:, :, None]) & (keys != NOBODY))  # [r, q, k]
        hidden = self.body.forward(tokens, position, visible, self.position, self.cache)
        return hidden[row, column]


def _write(
    body: Body, prompts: Sequence[Sequence[int]], uniform: Tensor, end_id: int, draws_per_row: int
) -> list[list[list[int]]]:
    """Token ids of the answers to prompts: ``uniform`` ``[p, draws, steps]`` are the random numbers behind them."""
    device, (_, draws, steps) = body.device, uniform.shape
    answers: list[list[list[int]]] = [[[] for _ in range(draws)] for _ in prompts]
    per_prompt = -(-draws // draws_per_row)
    rows = _Rows(body, prompts, torch.arange(len(prompts), device=device).repeat_interleave(per_prompt))
    # The answers still being written, sorted by row: prompt, draw, row and number of the draw in the row.
    prompt, draw = (x.flatten() for x in torch.meshgrid(torch.arange(len(prompts)), torch.arange(draws), indexing="ij"))
    prompt, draw = prompt.to(device), draw.to(device)
    row = prompt * per_prompt + draw // draws_per_row
    token = torch.empty(len(prompt), dtype=torch.long, device=device)
    first = body.logits(rows.last)
    for i in range(len(prompts)):
        here = prompt == i
        token[here] = pick(first[i : i + 1], uniform[i, :, 0])
    for step in range(1, steps + 1):
        alive = token != end_id
        prompt, draw, row, token = prompt[alive], draw[alive], row[alive], token[alive]
        for p, d, t in zip(prompt.tolist(), draw.tolist(), token.tolist(), strict=True):
            answers[p][d].append(t)
        if not len(row) or step == steps:
            break
        present, place = torch.unique(row, return_inverse=True)
        if 2 * len(present) <= len(rows.owner):  # most rows are done: go on without them
            rows.keep(present)
            row = place
        hidden = rows.step(row, draw % draws_per_row, token, step - 1)
        token = pick(body.logits(hidden), uniform[prompt, draw, step])
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
    first: int = 0,
    ended: bool = False,
) -> Iterator[tuple[int, list[str]]]:
    """Draw answers to prompts, prompts of like length together.

    Parameters
    ----------
    body : Body
        The model, in evaluation mode; its temperature applies.
    chat : ChatFormat
        The model's chat format.
    prompts : Sequence[Sequence[int]]
        Token ids from `ChatFormat.prompt_ids`.
    draws : int
        Answers to a prompt.
    max_new_tokens : int
        An answer that has not ended by then is returned as far as it got.
    batch : int
        Answers written at once; it sets memory and speed, and the answers only by the model's rounding.
    seed : int
        Seed of the uniform numbers.
    first : int
        Number of the first draw: the second hundred answers are those that two hundred would have ended with.
    ended : bool
        Whether an answer that has not ended is returned as an empty text instead.

    Yields
    ------
    tuple[int, list[str]]
        The number of a prompt and the texts of its answers in the order of the draws, without the end of the turn;
        prompts in the order of their lengths. Special tokens inside an answer stay in its text, so that such an answer
        is not taken for a number.
    """
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    together = max(1, batch // draws)
    for start in range(0, len(order), together):
        group = [prompts[i] for i in order[start : start + together]]
        uniform = torch.from_numpy(
            np.stack([uniforms(ids, seed=seed, draws=draws, steps=max_new_tokens, first=first) for ids in group])
        ).to(body.device)
        # Keys are stored once a row, so wide rows save memory; each draw attends to all keys of its row, so narrow
        # rows save time. Rows whose draws may grow to a few times the prompt are a fair balance.
        draws_per_row = max(1, min(draws, KEYS_PER_PROMPT_TOKEN * max(map(len, group)) // max_new_tokens))
        ids: list[list[list[int]]] = [[] for _ in group]
        for a in range(0, draws, batch):
            part = _write(body, group, uniform[:, a : a + batch], chat.end_id, draws_per_row)
            ids = [[*whole, *more] for whole, more in zip(ids, part, strict=True)]
        for place, answers in enumerate(ids):
            if ended:  # the end of the turn is not among the tokens: one more would have been it
                answers = [own if len(own) < max_new_tokens else [] for own in answers]
            yield order[start + place], chat.decode_many(answers)


class Ask(Protocol):
    """Draws answers of one variant: `draws` texts for each prompt, in order."""

    def __call__(self, prompts: Sequence[str], *, draws: int, max_new_tokens: int) -> list[list[str]]: ...


class Journal:
    """Answers on disk while a stage runs, so that a killed run resumes where it stopped.

    One line of JSON for a prompt and a batch of its draws, with the floating-point operations that they took, so that a
    resumed run counts what a whole one does. `about` says whose answers they are (model, adapter, seed): lines about
    others are not read. A line that a kill left half written is the last one, and is dropped.
    """

    def __init__(self, path: Path, about: str) -> None:
        self.path, self.about = path, about
        self.known: dict[str, list[str]] = {}
        self.taken: dict[str, int] = {}  # operations of a killed run, by key, until they are counted
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = path.read_bytes().rpartition(b"\n")[0] if path.exists() else b""
        for line in whole.splitlines():
            entry = json.loads(line)
            if entry.keys() >= {"key", "answers", "operations"}:  # it once had fewer keys
                self.known[entry["key"]], self.taken[entry["key"]] = entry["answers"], entry["operations"]
        with room(path), path.open("ab") as file:
            file.truncate(len(whole) + 1 if whole else 0)  # nothing is written anew that a full disk could lose

    def key(self, ids: Sequence[int], first: int, draws: int, max_new_tokens: int, ended: bool) -> str:
        """What identifies some of the answers to a prompt."""
        about = [self.about, list(ids), first, draws, max_new_tokens, ended]
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()

    def add(self, key: str, answers: list[str], operations: int) -> None:
        self.known[key] = answers
        line = json.dumps({"key": key, "answers": answers, "operations": operations}) + "\n"
        with room(self.path, len(line)), self.path.open("a", encoding="utf-8") as file:
            file.write(line)


@dataclass(frozen=True)
class Sampler:
    """An `Ask` of one model.

    Attributes
    ----------
    body, chat : Body, ChatFormat
        The model and its chat format.
    batch : int
        Answers written at once.
    seed : int
        Seed of the uniform numbers.
    journal : Journal
        Where answers are kept until the stage is done.
    system : str or None
        A system message before every prompt, or None.
    ended : bool
        Whether answers that have not ended within ``max_new_tokens`` are empty texts.
    """

    body: Body
    chat: ChatFormat
    batch: int
    seed: int
    journal: Journal
    system: str | None = None
    ended: bool = False

    def __call__(self, prompts: Sequence[str], *, draws: int, max_new_tokens: int) -> list[list[str]]:
        ids = [self.chat.prompt_ids(text, system=self.system) for text in prompts]
        answers: list[list[str]] = [[] for _ in ids]
        with tqdm(total=len(ids) * draws, desc="drawing answers", unit="answer") as bar:
            for first in range(0, draws, self.batch):  # what is kept at once is what is drawn at once
                some = min(self.batch, draws - first)
                keys = [self.journal.key(i, first, some, max_new_tokens, self.ended) for i in ids]
                missing = {k: i for k, i in zip(keys, ids, strict=True) if k not in self.journal.known}
                bar.update((len(ids) - len(missing)) * some)
                names, operations = list(missing), self.body.operations
                operations.count += sum(self.journal.taken.pop(key, 0) for key in set(keys))
                before = operations.count
                for place, texts in sample(
                    self.body, self.chat, list(missing.values()), draws=some, max_new_tokens=max_new_tokens,
                    batch=self.batch, seed=self.seed, first=first, ended=self.ended,
                ):  # fmt: skip
                    self.journal.add(names[place], texts, operations.count - before)
                    before = operations.count
                    bar.update(some)
                for own, key in zip(answers, keys, strict=True):
                    own += self.journal.known[key]
        return answers
