"""Exact evaluation against Monte Carlo, packed training against one row a completion, searches side by side.

Naive evaluation draws 1,000 answers in batches of 16, the prompt encoded anew for every batch, and scores 4
sampled paths for the KL, one forward pass a path. Naive training gives every drawn completion a row of its own
and loops over its prefixes in Python to form the soft targets.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from common import Bench, load, parser, seconds

from calibnb.benchmarks.structured.measures import Target, closed_measures, measures_of_open_law
from calibnb.laws import canonical
from calibnb.laws.specs import Spec
from calibnb.training import adapters, objective, packing
from calibnb.trees.attention import answer_log_probabilities
from calibnb.trees.number_search import open_law, open_laws
from calibnb.trees.trie import build


def exact(bench: Bench, spec: Spec) -> dict[str, float]:
    law = canonical.of_spec(spec, bench.params.benchmarks.structured.space)
    ids = bench.prompt(spec)
    trie = build(bench.chat.answer_ids(law.strings), law.probabilities, bench.chat.end_id)
    search = bench.params.benchmarks.structured.open
    found = open_law(
        bench.body, ids, bench.numbers, bench.chat.end_id,
        tolerance=search.tolerance, max_nodes=search.max_nodes, nodes_per_pass=search.nodes_per_pass,
    )  # fmt: skip
    closed = closed_measures(answer_log_probabilities(bench.body, ids, trie), law.probabilities)
    return closed | measures_of_open_law(found, Target.of(spec))


def searches(bench: Bench, count: int) -> tuple[float, float, int]:
    """Seconds for the open laws of some settings one after the other and side by side, and how many settings."""
    some = [s for s in bench.settings if s.selected][:count]
    prompts, search = [bench.prompt(spec) for spec in some], bench.params.benchmarks.structured.open

    def search_each(prompts: list[list[int]]) -> None:
        laws = open_laws(
            bench.body, prompts, bench.numbers, bench.chat.end_id,
            tolerance=search.tolerance, max_nodes=search.max_nodes, nodes_per_pass=search.nodes_per_pass,
        )  # fmt: skip
        for _ in laws:
            pass

    def one_by_one() -> None:
        for prompt in prompts:
            search_each([prompt])

    return seconds(one_by_one, 1), seconds(lambda: search_each(prompts), 1), len(prompts)


@torch.inference_mode()
def naive_evaluation(bench: Bench, spec: Spec, draws: int = 1000, batch: int = 16) -> dict[str, float]:
    ids = torch.tensor([bench.prompt(spec)], device=bench.device)
    texts: list[str] = []
    while len(texts) < draws:
        n = min(batch, draws - len(texts))
        out = bench.model.generate(
            input_ids=ids.expand(n, -1), attention_mask=torch.ones_like(ids).expand(n, -1), max_new_tokens=32,
            do_sample=True, temperature=1.0, top_p=1.0, top_k=0,
            eos_token_id=bench.chat.end_id, pad_token_id=bench.chat.end_id,
        )  # fmt: skip
        end = bench.chat.end_id
        rows = [r[: r.index(end)] if end in r else r for r in out[:, ids.shape[1] :].tolist()]
        texts += [bench.tokenizer.decode(r) for r in rows]
    measured = Target.of(spec).of_draws(texts)
    # four sampled paths for the KL, a forward pass and a Python loop over prefixes each
    law = canonical.of_spec(spec, bench.params.benchmarks.structured.space)
    answers = bench.chat.answer_ids(law.strings)
    trie = build(answers, law.probabilities, bench.chat.end_id)
    rng = np.random.default_rng(11)
    kls = []
    for i in rng.choice(len(answers), 4, p=law.probabilities):
        row = [*bench.prompt(spec), *answers[i]]
        logits = bench.model(torch.tensor([row], device=bench.device)).logits[0, ids.shape[1] - 1 :].float()
        logp = torch.log_softmax(logits, -1)
        node, steps = 0, []
        for step in range(len(answers[i]) + 1):
            children = np.flatnonzero(trie.parent == node)
            t = trie.targets[children]
            steps.append(sum(t[k] * (np.log(t[k]) - float(logp[step, trie.token[c]])) for k, c in enumerate(children)))
            node = int(trie.path[i, step])
        kls.append(float(np.mean(steps)))
    return measured | {"kl_paths": float(np.mean(kls))}


def packed_step(bench: Bench, loss: objective.TrieLoss, examples: list[packing.Example]) -> None:
    with torch.autocast(bench.device.type, torch.bfloat16, enabled=bench.dtype == torch.bfloat16):
        loss(packing.batch(examples, bench.device)).backward()


def naive_step(
    bench: Bench, model: torch.nn.Module, examples: list[packing.Example], draws: int, batch: int = 16
) -> None:
    """Each completion a row; targets formed prefix by prefix; padded batches of 16 rows."""
    rng = np.random.default_rng(11)
    rows = []
    for e in examples:
        p = e.trie.mass[e.trie.leaf]
        for i in rng.choice(len(p), draws, p=p / p.sum()):
            rows.append((e, i))
    for a in range(0, len(rows), batch):
        part = rows[a : a + batch]
        paths = [e.trie.path[i][e.trie.path[i] >= 0] for e, i in part]
        ids = [[*e.prompt, *e.trie.token[p[:-1]].tolist()] for (e, _), p in zip(part, paths, strict=True)]
        width = max(map(len, ids))
        token = torch.tensor([r + [0] * (width - len(r)) for r in ids], device=bench.device)
        mask = torch.tensor([[1] * len(r) + [0] * (width - len(r)) for r in ids], device=bench.device)
        with torch.autocast(bench.device.type, torch.bfloat16, enabled=bench.dtype == torch.bfloat16):
            logits = model(input_ids=token, attention_mask=mask).logits
        total = torch.zeros((), device=bench.device)
        for r, ((e, _), p) in enumerate(zip(part, paths, strict=True)):
            logp = torch.log_softmax(logits[r, len(e.prompt) - 1 : len(e.prompt) - 1 + len(p)].float(), -1)
            node = 0
            for step in range(len(p)):
                children = np.flatnonzero(e.trie.parent == node)
                t = torch.tensor(e.trie.targets[children], dtype=torch.float32, device=bench.device)
                total = total + (
                    t * (t.log() - logp[step, torch.tensor(e.trie.token[children], device=bench.device)])
                ).sum() / len(p)
                node = int(p[step])
        (total / len(rows)).backward()


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--draws", type=int, default=1000)
    args = options.parse_args()
    bench = load(args.weights, args.adapter)
    selected = [s for s in bench.settings if s.selected]
    settings = [next(s for s in selected if s.family == f) for f in ("gaussian", "gamma", "poisson", "weibull")]

    print(
        f"model {args.weights}, adapter {args.adapter}, {bench.device} {bench.dtype}, "
        f"{torch.get_num_threads()} threads\n"
    )
    print(f"evaluation of one setting: exact (closed and open) against {args.draws} samples and 4 paths")
    ratios = []
    for spec in settings:
        ours = seconds(lambda spec=spec: exact(bench, spec))
        start = time.perf_counter()
        drawn = naive_evaluation(bench, spec, args.draws)
        naive = time.perf_counter() - start
        found = exact(bench, spec)
        ratios.append(naive / ours)
        print(
            f"  {spec.label:32s} exact {ours:6.2f} s (nW1 {found['nw1']:.3f}, open mass {found['certificate']:.3f})"
            f"  naive {naive:7.1f} s (nW1 {drawn['nw1']:.3f})  ratio {naive / ours:6.1f}"
        )
    print(f"  geometric mean of the ratios: {np.exp(np.mean(np.log(ratios))):.1f}\n")

    alone, beside, count = searches(bench, 16)
    print(f"search of {count} settings: one by one {alone:.1f} s, side by side {beside:.1f} s")
    print(f"  ratio {alone / beside:.2f}\n")

    method = bench.params.finetune["soft"]
    model = adapters.with_adapter(load(args.weights, None).model, method)
    model.train()
    examples = bench.examples("soft", method.prompts_per_step)
    loss = objective.TrieLoss(model)
    ours = seconds(lambda: packed_step(bench, loss, examples))
    naive = seconds(lambda: naive_step(bench, model, examples, method.draws_per_prompt), repeats=1)
    print(f"training, one step of {len(examples)} prompts with {method.draws_per_prompt} draws each, soft targets")
    print(f"  packed {ours:.2f} s  one row a completion {naive:.1f} s  ratio {naive / ours:.1f}")


if __name__ == "__main__":
    main()
