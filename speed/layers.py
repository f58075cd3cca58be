"""What other ways of computing a layer would bring to a training step, each beside the plain one in the same run.

    python speed/layers.py [--weights FOLDER] [--prompts 16]

- packed: the products of gate and up of a frozen MLP as one.
- rms: norms by `torch.nn.functional.rms_norm` instead of the model's own code.
- folded: the scale of an adapter multiplied into its second factor, which is small, not into its output.
- compiled: `torch.compile` of every layer, shapes of tokens marked dynamic (it needs a C++ compiler on a CPU).

A way is worth its code only if it pays everywhere; the losses say whether it computes the same.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from common import Bench, load, parser
from matrix_rate import matrix_rate
from peft.tuners.lora import Linear as Adapted
from torch import Tensor, nn
from torch.nn import functional

from calibnb.training import adapters, objective, packing


def packed(model: nn.Module) -> None:
    """Gate and up of every MLP as one product."""
    for module in list(model.modules()):
        if {"gate_proj", "up_proj"} <= dict(module.named_children()).keys() and type(module.up_proj) is nn.Linear:
            both = torch.cat([module.gate_proj.weight, module.up_proj.weight]).detach()

            def forward(x: Tensor, both: Tensor = both, module: Any = module) -> Tensor:
                gate, up = functional.linear(x, both).chunk(2, dim=-1)
                return module.down_proj(module.act_fn(gate) * up)

            module.forward = forward


def rms(model: nn.Module) -> None:
    """Norms by torch's own function."""
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            shape, eps = module.weight.shape, module.variance_epsilon
            module.forward = lambda x, m=module, shape=shape, eps=eps: functional.rms_norm(x, shape, m.weight, eps)


def folded(model: nn.Module) -> None:
    """The scale of an adapter in its second factor."""
    for module in model.modules():
        if isinstance(module, Adapted):

            def forward(x: Tensor, module: Any = module) -> Tensor:
                down, up = module.lora_A["default"].weight, module.lora_B["default"].weight
                scaled = up * module.scaling["default"]
                low = functional.linear(x.to(down.dtype), down)
                return module.base_layer(x) + functional.linear(low, scaled).to(x.dtype)

            module.forward = forward


def compiled(model: nn.Module) -> None:
    """Every layer of the decoder."""
    torch._dynamo.config.cache_size_limit = 64
    for module in model.modules():
        if type(module).__name__.endswith("DecoderLayer"):
            module.compile(dynamic=True)


def together(model: nn.Module) -> None:
    """All but the compiler."""
    for way in (packed, rms, folded):
        way(model)


WAYS: dict[str, Callable[[nn.Module], None]] = {
    "plain": lambda model: None,
    "packed": packed,
    "rms": rms,
    "folded": folded,
    "packed, rms, folded": together,
    "compiled": compiled,
}


def uncounted(model: nn.Module) -> None:
    """Without the hooks that count operations: a count that grows would have every layer compiled anew."""
    for module in model.modules():
        module._forward_hooks.clear()


def step_of(loss: objective.TrieLoss, bench: Bench, examples: list[packing.Example]) -> float:
    """Forward and backward over a batch, as training does it; returns the loss."""
    with torch.autocast(bench.device.type, torch.bfloat16, enabled=bench.dtype == torch.bfloat16):
        value = loss(packing.batch(examples, bench.device))
    value.backward()
    return float(value.detach())


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--prompts", type=int, default=8)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--ways", nargs="*", default=list(WAYS))
    args = options.parse_args()
    bench = load(args.weights, None)
    rate = matrix_rate(bench.dtype, bench.device, 8192 if bench.device.type == "cuda" else 4096)
    print(
        f"{bench.device} {bench.dtype}, {torch.get_num_threads()} threads: {rate / 1e9:.0f} GFLOP/s in large products"
    )
    examples = bench.examples("hard", args.prompts)
    plain = adapters.with_adapter(load(args.weights, None).model, bench.params.finetune["hard"])
    uncounted(plain)
    found: dict[str, list[float]] = {}
    losses, steps = {}, {}
    for name in args.ways:
        model = copy.deepcopy(plain)
        WAYS[name](model)
        loss = objective.TrieLoss(model)
        uncounted(model)
        steps[name] = lambda loss=loss: step_of(loss, bench, examples)
        begun = time.perf_counter()
        losses[name] = steps[name]()
        print(f"{name}: first step {time.perf_counter() - begun:.1f} s")
    for _ in range(args.repeats):  # in turns: what else the machine does hits all alike
        for name, step in steps.items():
            begun = time.perf_counter()
            step()
            found.setdefault(name, []).append(time.perf_counter() - begun)
    base = statistics.median(found[args.ways[0]])
    for name, times in found.items():
        own = statistics.median(times)
        apart = abs(losses[name] - losses[args.ways[0]])
        print(f"{name:22} {own:6.2f} s, {base / own:.2f} times {args.ways[0]}, loss differs by {apart:.1e}")


if __name__ == "__main__":
    main()
