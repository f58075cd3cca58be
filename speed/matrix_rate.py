"""Which share of this machine's matrix rate training and evaluation reach.

The machine's rate is the best that large square products reach in the compute dtype. What training and
evaluation need is counted from the model's linear layers alone (2 operations a weight and token forward, 2
more backward for the activations, and the adapters' own), so attention, norms and everything that is no
product count as loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from against_naive import packed_step
from common import Bench, load, parser, seconds

from calibnb.laws import canonical
from calibnb.training import adapters as training_adapters
from calibnb.training import objective, packing
from calibnb.trees.attention import answer_log_probabilities
from calibnb.trees.trie import build


def matrix_rate(dtype: torch.dtype, device: torch.device, largest: int) -> float:
    """The best of square products up to so many rows, in FLOP/s."""
    best = 0.0
    for size in (largest // 4, largest // 2, largest):
        a, b = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
        best = max(best, 2 * size**3 / seconds(lambda a=a, b=b: a @ b, repeats=5))
    return best


def _weights(bench: Bench) -> tuple[int, int]:
    """Numbers in the linear layers of the body, and in the head."""
    body = sum(m.weight.numel() for m in bench.body.decoder.modules() if isinstance(m, torch.nn.Linear))
    return body, bench.body.head.weight.numel()


def _found(tokens: int, work: float, time: float, rate: float) -> dict[str, float]:
    return {
        "tokens": tokens,
        "seconds": time,
        "tokens_per_second": tokens / time,
        "flop_per_second": work / time,
        "share_of_rate": work / time / rate,
    }


def evaluation(bench: Bench, rate: float) -> dict[str, float]:
    """The exact law of one setting on its canonical answers; ``tokens`` are those of prompt and trie."""
    body_weights, head_weights = _weights(bench)
    spec = next(s for s in bench.settings if s.family == "gaussian" and s.selected)
    law = canonical.of_spec(spec, bench.params.benchmarks.structured.space)
    trie = build(bench.chat.answer_ids(law.strings), law.probabilities, bench.chat.end_id)
    ids = bench.prompt(spec)
    nodes = int((~trie.is_end).sum())
    work = 2 * body_weights * (len(ids) + nodes - 1) + 2 * head_weights * nodes
    time = seconds(lambda: answer_log_probabilities(bench.body, ids, trie))
    return _found(len(ids) + nodes - 1, work, time, rate) | {"nodes": nodes}


def training_steps(bench: Bench, weights: Path, prompts: Sequence[int], rate: float) -> list[dict[str, float]]:
    """One pass forward and backward over so many prompts of the method `hard`, a row each."""
    body_weights, head_weights = _weights(bench)
    model = training_adapters.with_adapter(load(weights, None).model, bench.params.finetune["hard"])
    adapters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    loss = objective.TrieLoss(model)
    rows = []
    for count in prompts:
        examples = bench.examples("hard", count)
        b = packing.batch(examples, bench.device)
        tokens = b.rows.token.numel() + len(b.prefix)
        work = (4 * body_weights + 6 * adapters) * tokens + 4 * head_weights * len(b.scored)
        time = seconds(lambda examples=examples: packed_step(bench, loss, examples))
        rows.append(_found(tokens, work, time, rate) | {"prompts": len(examples)})
    return rows


def _line(what: str, row: dict[str, float]) -> str:
    return (
        f"{what}, {row['tokens']} tokens: {row['seconds']:.2f} s, {row['tokens_per_second']:.0f} tokens/s, "
        f"{row['flop_per_second'] / 1e9:.0f} GFLOP/s, {row['share_of_rate']:.1%} of the rate"
    )


def main() -> None:
    args = parser(__doc__ or "").parse_args()
    bench = load(args.weights, args.adapter)
    rate = matrix_rate(bench.dtype, bench.device, 8192 if bench.device.type == "cuda" else 4096)
    print(f"{bench.device} {bench.dtype}: {rate / 1e9:.0f} GFLOP/s in large matrix products")
    print(_line("exact evaluation", evaluation(bench, rate)))
    for row in training_steps(bench, args.weights, [bench.params.finetune["hard"].prompts_per_step], rate):
        print(_line("training step", row))


if __name__ == "__main__":
    main()
