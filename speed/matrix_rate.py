"""Which share of this machine's matrix rate training and evaluation reach.

The machine's rate is the best that large square products reach in the compute dtype. What training and
evaluation need is counted from the model's linear layers alone (2 operations a weight and token forward, 2
more backward for the activations, and the adapters' own), so attention, norms and everything that is no
product count as loss.
"""

from __future__ import annotations

import torch
from against_naive import packed_step
from common import load, parser, seconds

from calibnb.laws import canonical
from calibnb.training import adapters as training_adapters
from calibnb.training import objective, packing
from calibnb.trees.attention import answer_log_probabilities
from calibnb.trees.trie import build


def matrix_rate(dtype: torch.dtype, device: torch.device) -> float:
    best = 0.0
    for size in (1024, 2048, 4096):
        a, b = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
        best = max(best, 2 * size**3 / seconds(lambda a=a, b=b: a @ b, repeats=5))
    return best


def main() -> None:
    args = parser(__doc__ or "").parse_args()
    bench = load(args.weights, args.adapter)
    rate = matrix_rate(bench.dtype, bench.device)
    print(f"{bench.device} {bench.dtype}: {rate / 1e9:.0f} GFLOP/s in large matrix products")

    body_weights = sum(m.weight.numel() for m in bench.body.decoder.modules() if isinstance(m, torch.nn.Linear))
    head_weights = bench.body.head.weight.numel()

    spec = next(s for s in bench.settings if s.family == "gaussian" and s.selected)
    law = canonical.of_spec(spec, bench.params.benchmarks.structured.space)
    trie = build(bench.chat.answer_ids(law.strings), law.probabilities, bench.chat.end_id)
    ids = bench.prompt(spec)
    nodes = int((~trie.is_end).sum())
    work = 2 * body_weights * (len(ids) + nodes - 1) + 2 * head_weights * nodes
    time = seconds(lambda: answer_log_probabilities(bench.body, ids, trie))
    print(
        f"exact evaluation, {nodes} nodes: {time:.2f} s, "
        f"{work / time / 1e9:.0f} GFLOP/s, {work / time / rate:.0%} of the rate"
    )

    method = bench.params.finetune["hard"]
    model = training_adapters.with_adapter(load(args.weights, None).model, method)
    adapters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    loss = objective.TrieLoss(model)
    examples = bench.examples("hard", method.prompts_per_step)
    b = packing.batch(examples, bench.device)
    tokens = b.rows.token.numel() + len(b.prefix)
    work = (4 * body_weights + 6 * adapters) * tokens + 4 * head_weights * len(b.scored)
    time = seconds(lambda: packed_step(bench, loss, examples))
    print(
        f"training step, {tokens} tokens: {time:.2f} s, "
        f"{work / time / 1e9:.0f} GFLOP/s, {work / time / rate:.0%} of the rate"
    )


if __name__ == "__main__":
    main()
