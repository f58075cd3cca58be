"""Many answers to one prompt, drawn from the model's own distribution.

Temperature 1 over the whole vocabulary and nothing else: `generate` is not used, because it fills what it is
not told from the generation config of the model's folder (several ship temperature 0.6 or top_p 0.95 there).

Every draw has uniform numbers of its own, made from (seed, prompt, draw, step), and picks the token where the
cumulative distribution passes its number. So an answer does not depend on the answers that share its batch,
and two prompts with one seed are independent. The prompt is run once; its keys and values are repeated.
"""

from __future__ import annotations

import copy
import hashlib

import numpy as np
import numpy.typing as npt
import torch
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from calibnb.models import CACHE_ARGUMENT, decode

Floats = npt.NDArray[np.float64]


def uniforms(prompt_ids: list[int], *, seed: int, draws: int, steps: int) -> Floats:
    """Uniform numbers in [0, 1), shape (draws, steps); a row depends on seed, prompt and its number."""
    digest = hashlib.sha256(np.asarray(prompt_ids, dtype="<i8").tobytes()).digest()
    prompt = int.from_bytes(digest[:8], "little")
    return np.stack([np.random.default_rng([seed, prompt, draw]).random(steps) for draw in range(draws)])


def pick(logits: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Token ids by inverse transform: softmax in float32, cumulated in float64 so that no tail token is lost.

    logits: (B or 1, V) of any float dtype; uniform: (B,) float64 in [0, 1). Returns int64 (B,).
    """
    cumulated = logits.float().softmax(-1).double().cumsum(-1)  # (B or 1, V)
    total = cumulated[:, -1]
    # Kept below the total, the point always falls on a token of positive probability.
    point = torch.minimum(uniform * total, torch.nextafter(total, torch.zeros_like(total)))  # (B,)
    if len(cumulated) == 1:
        return torch.searchsorted(cumulated[0], point, right=True)
    return torch.searchsorted(cumulated, point[:, None], right=True)[:, 0]


def _step(model: PreTrainedModel, ids: torch.Tensor, cache: DynamicCache) -> torch.Tensor:
    """Logits (B, V) after the last of ids (B, n), which follow what `cache` holds; `cache` grows by n."""
    arguments = {CACHE_ARGUMENT: cache}
    logits: torch.Tensor = model(input_ids=ids, use_cache=True, logits_to_keep=1, **arguments).logits
    return logits[:, -1]


@torch.inference_mode()
def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt_ids: list[int],
    end_id: int,
    *,
    draws: int,
    max_new_tokens: int,
    batch: int,
    seed: int,
) -> list[str]:
    """The text of `draws` answers to a prompt in the order of the draws, without the end of the turn.

    model: in evaluation mode, with or without an adapter. prompt_ids: from `ChatFormat.prompt_ids`.
    max_new_tokens: an answer that has not ended by then is returned as far as it got.
    batch: draws that run together; it sets memory and speed, and the answers only by the model's rounding.
    Special tokens inside an answer stay in its text, so that such an answer is not taken for a number.
    """
    device = model.device
    numbers = torch.from_numpy(uniforms(prompt_ids, seed=seed, draws=draws, steps=max_new_tokens)).to(device)
    # Handed in, the cache is filled in place, whatever the name of the output that would return it.
    encoded = DynamicCache(config=model.config.get_text_config())
    first = _step(model, torch.tensor([prompt_ids], device=device), encoded)

    answers: list[list[int]] = [[] for _ in range(draws)]
    for start in range(0, draws, batch):
        rows = torch.arange(start, min(start + batch, draws), device=device)  # draws still being written
        logits = first
        cache: DynamicCache | None = None
        for step in range(max_new_tokens):
            token = pick(logits, numbers[rows, step])  # (rows,)
            alive = token != end_id
            rows, token = rows[alive], token[alive]
            for row, id in zip(rows.tolist(), token.tolist(), strict=True):
                answers[row].append(id)
            if not len(rows) or step == max_new_tokens - 1:
                break
            if cache is None:
                cache = copy.deepcopy(encoded)
                cache.batch_repeat_interleave(len(rows))
            elif not bool(alive.all()):
                cache.batch_select_indices(alive.nonzero()[:, 0])
            logits = _step(model, token[:, None], cache)
    return decode(tokenizer, answers)
