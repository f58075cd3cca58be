"""Losses and gradients against one row a completion and brute force; order, resume and the control."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate.state import AcceleratorState
from peft import PeftModel
from safetensors.torch import load_file
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from calibnb.errors import UserError
from calibnb.laws import canonical, specs
from calibnb.laws.canonical import AnswerLaw
from calibnb.laws.settings import TrainingSettings
from calibnb.models import chatformat, loading
from calibnb.pipeline import params as pipeline_params
from calibnb.training import adapters, curriculum, loop, packing
from calibnb.training import params as training_params
from calibnb.training.curriculum import partners, prompts_of_run, schedule
from calibnb.training.mixture import Turn
from calibnb.training.objective import TrieLoss
from calibnb.training.packing import Example, batch, example

from conftest import digit_chat_tokenizer, tiny_model  # isort: skip

CPU = torch.device("cpu")
STUDY = pipeline_params.load(Path(__file__).parent.parent / "params.yaml")
ALL = specs.build(STUDY.families, STUDY.data.validation_share, STUDY.data.significant_digits)
SOME = ("uniform", "binomial", "geometric")
SETTINGS = [
    *[s for s in ALL if s.split == "train" and s.family in SOME][::8],
    *[s for s in ALL if s.split == "validation" and s.family in SOME][:3],
]
SMALL = {f: STUDY.families[f] for f in SOME}
TRAINING = replace(
    TrainingSettings.of(SMALL, STUDY.data.validation_share, STUDY.data.significant_digits),
    train=tuple(s for s in SETTINGS if s.split == "train"),
    validation=tuple(s for s in SETTINGS if s.split == "validation"),
)


def method(name: str = "hard", **changes: object) -> training_params.FinetuneParams:
    block = STUDY.finetune[name].model_copy(update={"lora_targets": "all-linear"})
    base = {"max_bins": 50, "lora_rank": 4, "lora_alpha": 8.0, "prompts_per_step": 4, "draws_per_prompt": 6}
    return block.model_copy(update=base | {"validations": 3, "epochs": 1.0} | changes)


def little_law(seed: int) -> AnswerLaw:
    strings = ["0.1", "0.2", "0.25", "1", "12", "-3"]
    p = np.random.default_rng(seed).dirichlet(np.ones(len(strings)))
    return AnswerLaw(strings, np.array([float(s) for s in strings]), p)


def some_examples(
    chat: chatformat.ChatFormat, estimator: str, average: str
) -> list[tuple[Example, AnswerLaw, np.ndarray]]:
    out = []
    for seed, text in enumerate(["one", "another prompt", "a third"]):
        law = little_law(seed)
        counts = np.random.default_rng(seed).multinomial(5, law.probabilities)
        out.append((example(chat.prompt_ids(text), law, counts, chat, estimator, average), law, counts))
    return out


def unpacked_loss(
    model: PreTrainedModel,
    chat: chatformat.ChatFormat,
    prompt: list[int],
    law: AnswerLaw,
    counts: np.ndarray,
    estimator: str,
    average: str,
) -> torch.Tensor:
    """A row a completion, a Python loop over prefixes, dictionaries for targets."""
    ids = [(*a, chat.end_id) for a in chat.answer_ids(law.strings)]
    total = torch.zeros((), dtype=torch.float64)
    weights = law.probabilities if estimator == "trie" else counts / counts.sum()
    for answer, weight in zip(ids, weights, strict=True):
        if weight == 0:
            continue
        row = torch.tensor([[*prompt, *answer[:-1]]])
        logp = torch.log_softmax(model(row).logits[0].double(), -1)
        terms = []
        for k in range(len(answer)):
            here = logp[len(prompt) - 1 + k]
            if estimator == "samples":
                terms.append(-here[answer[k]])
                continue
            target: Counter[int] = Counter()
            for other, p in zip(ids, law.probabilities, strict=True):
                if other[:k] == answer[:k]:
                    target[other[k]] += p
            mass = sum(target.values())
            terms.append(sum(p / mass * (np.log(p / mass) - here[t]) for t, p in target.items()))
        value = torch.stack([torch.as_tensor(t) for t in terms])
        total = total + weight * (value.mean() if average == "path" else value.sum())
    return total


@pytest.mark.parametrize(
    ("estimator", "average"),
    [("samples", "tokens"), ("samples", "path"), ("paths", "tokens"), ("paths", "path"), ("trie", "tokens")],
)
def test_packed_loss_and_gradients_equal_one_row_a_completion(
    any_model: PreTrainedModel, digit_tokenizer: PreTrainedTokenizerFast, estimator: str, average: str
) -> None:
    chat = chatformat.chat_format(digit_tokenizer)
    made = some_examples(chat, estimator, average)
    any_model.requires_grad_(True)
    any_model.get_output_embeddings().requires_grad_(False)
    any_model.get_input_embeddings().requires_grad_(False)
    any_model.zero_grad()
    loss = TrieLoss(any_model, chunk=3)(batch([e for e, _, _ in made], CPU, row_tokens=40))
    loss.backward()
    packed = {n: p.grad.clone() for n, p in any_model.named_parameters() if p.grad is not None}
    any_model.zero_grad()
    expected = sum(unpacked_loss(any_model, chat, e.prompt, law, c, estimator, average) for e, law, c in made) / 3
    expected.backward()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), abs=1e-4)
    assert len(packed) > 10
    for name, p in any_model.named_parameters():
        if name in packed:
            torch.testing.assert_close(packed[name], p.grad, atol=2e-4, rtol=1e-3)
    any_model.zero_grad()


def test_the_three_estimators_expect_one_gradient(
    llama: PreTrainedModel, digit_tokenizer: PreTrainedTokenizerFast
) -> None:
    """The expectation is taken exactly, over every answer that one draw can give."""
    chat = chatformat.chat_format(digit_tokenizer)
    law, prompt = little_law(0), chat.prompt_ids("one")
    weight = llama.model.layers[0].mlp.up_proj.weight
    llama.requires_grad_(False)
    weight.requires_grad_(True)

    def gradient(estimator: str) -> torch.Tensor:
        total = torch.zeros_like(weight)
        for i, p in enumerate(law.probabilities):
            e = example(prompt, law, np.eye(len(law.strings), dtype=int)[i], chat, estimator, "tokens")
            (g,) = torch.autograd.grad(TrieLoss(llama)(batch([e], CPU)), weight)
            total += float(p) * g
        return total

    exact = gradient("trie")
    assert exact.abs().max() > 1e-3
    torch.testing.assert_close(gradient("paths"), exact, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(gradient("samples"), exact, atol=1e-5, rtol=1e-4)


def test_an_epoch_is_a_round_robin_with_every_setting_once() -> None:
    train = [s for s in SETTINGS if s.split == "train"]
    order = schedule(train, "settings", np.random.default_rng(0))
    assert Counter(order) == Counter(train)
    rounds = [s.family for s in order[: 3 * min(Counter(s.family for s in train).values())]]
    assert all(len(set(rounds[i : i + 3])) == 3 for i in range(0, len(rounds), 3))
    assert order != schedule(train, "settings", np.random.default_rng(1))
    equal = Counter(s.family for s in schedule(train, "equal", np.random.default_rng(0)))
    assert max(equal.values()) - min(equal.values()) <= 2
    assert sum(equal.values()) == len(train)


def test_continuous_parameters_stay_in_range_and_off_the_validation_settings() -> None:
    train, validation = TRAINING.train, TRAINING.validation
    run = prompts_of_run(TRAINING, method(epochs=2.5, parameters="continuous"), seed=1)
    assert len(run) == int(np.ceil(2.5 * len(train)))
    assert not {s.parameters for s in run} & {s.parameters for s in validation}
    for s in run:
        p = dict(s.parameters)
        if s.family == "uniform":  # a from -5 to 2, width from 1 to 5
            assert -5 <= p["a"] <= 2
            assert 0.99 <= p["b"] - p["a"] <= 5.01
    grid = prompts_of_run(TRAINING, method(parameters="grid", family_weights="settings"), seed=1)
    assert Counter(grid) == Counter(train)


def test_continuous_parameters_are_none_of_the_unseen_grid() -> None:
    train = tuple(s for s in SETTINGS if s.split == "train" and s.family == "binomial")
    grid = SMALL["binomial"]
    inside = {"binomial": grid.model_copy(update={"unseen": grid.train, "train": grid.train})}
    unseen = {specs.of_point("binomial", point, "unseen", 1).parameters for point in specs.grid_points(grid.train)}
    settings = replace(TrainingSettings.of(inside, 0.1, 1), train=train, validation=())
    run = prompts_of_run(settings, method(epochs=3.0, parameters="continuous"), seed=1)
    assert not {s.parameters for s in run} & unseen


def test_partners_are_a_shuffle_without_fixed_points() -> None:
    order = list({s.label: s for s in SETTINGS}.values())
    found = partners(order, seed=3)
    assert Counter(found) == Counter(order)
    assert all(a is not b for a, b in zip(order, found, strict=True))


def train_tiny(tmp_path: Path, folder: Path, m: training_params.FinetuneParams, **more: object) -> loop.Trained:
    return loop.train(
        folder, tmp_path / "out", TRAINING, m, STUDY.prompt,
        seed=7, device=CPU, dtype=torch.float32, scratch=tmp_path / "scratch", **more,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["soft", "hard", "format"])
def test_training_lowers_the_validation_loss_and_leaves_a_clean_adapter(
    tmp_path: Path, tiny_folder: Path, name: str
) -> None:
    run = train_tiny(tmp_path, tiny_folder, method(name, learning_rate=5e-3))
    v = run.log["validation"].dropna()
    assert len(v) == 3
    assert v.iloc[-1] < v.iloc[0]
    assert run.best_step == int(run.log.loc[v.idxmin(), "step"])
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert str(tmp_path) not in (tmp_path / "out" / "adapter_config.json").read_text()
    assert not (tmp_path / "scratch").exists()
    saved = load_file(tmp_path / "out" / "adapter_model.safetensors")
    layers = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert {n.rsplit(".lora_", 1)[0].rsplit(".", 1)[-1] for n in saved} == layers
    assert sum(p.numel() for p in saved.values()) == run.trainable
    assert 0 < run.tokens < run.unpacked_tokens


class KilledError(Exception):
    pass


def test_a_killed_run_resumes_to_the_same_adapter(tmp_path: Path, tiny_folder: Path) -> None:
    whole = train_tiny(tmp_path / "a", tiny_folder, method(validations=4))

    def kill(step: int, model: object) -> None:
        if step > 0.6 * len(whole.log):
            raise KilledError

    with pytest.raises(KilledError):
        train_tiny(tmp_path / "b", tiny_folder, method(validations=4), on_validation=kill)
    assert (tmp_path / "b" / "scratch" / "checkpoint.pt").exists()
    assert not (tmp_path / "b" / "out").exists()
    again = train_tiny(tmp_path / "b", tiny_folder, method(validations=4))
    pd.testing.assert_frame_equal(again.log, whole.log, rtol=1e-5)
    assert again.operations == whole.operations
    left, right = (load_file(tmp_path / d / "out" / "adapter_model.safetensors") for d in "ab")
    for name in left:
        torch.testing.assert_close(left[name], right[name])


def test_a_checkpoint_of_another_run_is_not_continued(tmp_path: Path, tiny_folder: Path) -> None:
    def kill(step: int, model: object) -> None:
        if step > 3:
            raise KilledError

    with pytest.raises(KilledError):
        train_tiny(tmp_path / "b", tiny_folder, method(validations=4, learning_rate=1e-2), on_validation=kill)
    assert (tmp_path / "b" / "scratch" / "checkpoint.pt").exists()
    after = train_tiny(tmp_path / "b", tiny_folder, method(validations=4))
    fresh = train_tiny(tmp_path / "a", tiny_folder, method(validations=4))
    pd.testing.assert_frame_equal(after.log, fresh.log)


@pytest.mark.parametrize("place", ["train", "validation"])
@pytest.mark.parametrize("split", ["unseen", "held_out"])
def test_unseen_and_held_out_settings_are_refused(place: str, split: str) -> None:
    kept_back = tuple(s for s in ALL if s.split == split)[:2]
    with pytest.raises(ValueError, match=rf"train and validation settings only, got \['{split}'\]"):
        replace(TRAINING, **{place: kept_back})


def test_accumulated_parts_give_the_step_of_the_whole(tmp_path: Path, tiny_folder: Path) -> None:
    whole = train_tiny(tmp_path / "a", tiny_folder, method(prompts_per_step=4, accumulation_steps=1))
    parts = train_tiny(tmp_path / "b", tiny_folder, method(prompts_per_step=4, accumulation_steps=2))
    np.testing.assert_allclose(parts.log["loss"], whole.log["loss"], rtol=1e-3)
    np.testing.assert_allclose(parts.log["gradient_norm"], whole.log["gradient_norm"], rtol=1e-2)


def test_an_example_of_hard_samples_tokenises_the_drawn_answers_only(digit_tokenizer: PreTrainedTokenizerFast) -> None:
    chat = chatformat.chat_format(digit_tokenizer)
    law = canonical.of_spec(SETTINGS[0], STUDY.benchmarks.structured.space)
    counts = np.zeros(len(law.strings), int)
    counts[[3, 5]] = 2, 1
    hard = example(chat.prompt_ids("x"), law, counts, chat, "samples", "tokens")
    assert len(hard.trie.path) == 2
    assert hard.drawn_tokens == 3 * (len(law.strings[3]) + 1)
    assert len(example(chat.prompt_ids("x"), law, counts, chat, "paths", "tokens").trie.path) == len(law.strings)


@pytest.mark.parametrize("row_tokens", [8, 4096])
def test_the_letters_of_packed_rows_are_what_their_tokens_are(
    digit_tokenizer: PreTrainedTokenizerFast, row_tokens: int
) -> None:
    """Prompts without what they share, then every prefix of a drawn answer once, then nothing."""
    chat = chatformat.chat_format(digit_tokenizer)
    made = some_examples(chat, "samples", "tokens")
    examples = [example for example, _, _ in made]
    packed = batch(examples, CPU, row_tokens)
    letters = packing.kinds(examples, packed)
    assert [len(row) for row in letters] == [packed.rows.token.shape[1]] * len(packed.rows.token)
    flat = packed.rows.token.flatten().tolist()
    text = "".join(letters)
    found = {kind: [token for token, letter in zip(flat, text, strict=True) if letter == kind] for kind in "pa."}
    answers = []
    for _, law, counts in made:
        drawn = [ids for ids, count in zip(chat.answer_ids(law.strings), counts, strict=True) if count]
        prefixes = {tuple(ids[:size]) for ids in drawn for size in range(1, len(ids) + 1)}
        answers += [prefix[-1] for prefix in prefixes]
    assert Counter(found["a"]) == Counter(answers)
    assert len(found["p"]) == sum(len(one.prompt) - len(packed.prefix) for one in examples)
    assert len(text) == sum(map(len, found.values()))
    for start, one in zip(packed.rows.start, examples, strict=True):
        own = one.prompt[len(packed.prefix) :]
        assert text[start : start + len(own) + 1] == "p" * len(own) + "a"
        assert flat[start : start + len(own)] == own


def test_bfloat16_training_follows_float32(tmp_path: Path, tiny_folder: Path) -> None:
    exact = train_tiny(tmp_path / "a", tiny_folder, method())
    AcceleratorState._reset_state(True)  # one process holds one precision
    rough = loop.train(
        tiny_folder, tmp_path / "b", TRAINING, method(), STUDY.prompt,
        seed=7, device=CPU, dtype=torch.bfloat16, scratch=tmp_path / "s",
    )  # fmt: skip
    AcceleratorState._reset_state(True)
    np.testing.assert_allclose(rough.log["loss"], exact.log["loss"], rtol=0.1)


def test_adapters_never_touch_embeddings_head_or_other_towers() -> None:
    model = adapters.with_adapter(tiny_model("gemma3", 64), method())
    touched = [n for n, p in model.named_parameters() if p.requires_grad]
    assert touched
    assert all(p.dtype == torch.float32 for p in model.parameters() if p.requires_grad)
    assert not [n for n in touched if "embed" in n or "lm_head" in n]


# ----------------------------------------------------------------------------------------------- with ordinary examples
TURNS = [Turn("How are you?", "12, thanks."), Turn("And now?", "Well."), Turn("Why?", "Because of 3.")]


def some_adapter(seed: int = 0) -> PeftModel:
    """A tiny model with an adapter that changes something."""
    model = adapters.with_adapter(tiny_model("llama", len(digit_chat_tokenizer())), method())
    torch.manual_seed(seed)
    for name, p in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.3)
    return model


@pytest.mark.parametrize(("loss_weight", "kl_weight"), [(1.0, 0.0), (0.0, 0.7), (0.4, 0.7)])
def test_ordinary_loss_and_gradient_by_brute_force(
    digit_tokenizer: PreTrainedTokenizerFast, loss_weight: float, kl_weight: float
) -> None:
    """Mean over answers of the mean over tokens, of the negative log-likelihood and of KL(base || adapter)."""
    chat, model = chatformat.chat_format(digit_tokenizer), some_adapter()
    examples = [packing.ordinary_example(turn, chat) for turn in TURNS]
    expected = torch.zeros((), dtype=torch.float64)
    for turn in TURNS:
        prompt, answer = chat.prompt_ids(turn.prompt), [*chat.answer_ids([turn.answer])[0], chat.end_id]
        row = torch.tensor([[*prompt, *answer[:-1]]])
        with torch.no_grad(), model.disable_adapter():
            base = torch.log_softmax(model(row).logits[0, len(prompt) - 1 :].double(), -1)
        logq = torch.log_softmax(model(row).logits[0, len(prompt) - 1 :].double(), -1)
        loss = -logq[torch.arange(len(answer)), answer].mean()
        kl = (base.exp() * (base - logq)).sum(-1).mean()
        expected = expected + (loss_weight * loss + kl_weight * kl) / len(TURNS)
    expected.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    loss = TrieLoss(model, chunk=5)(batch(examples, CPU, row_tokens=60), loss_weight, kl_weight)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), abs=1e-5)
    assert max(float(g.abs().max()) for g in gradients.values()) > 1e-3
    for name, p in model.named_parameters():
        if name in gradients:
            torch.testing.assert_close(p.grad, gradients[name], atol=1e-5, rtol=1e-4)


def test_a_fresh_adapter_is_at_no_distance_from_the_base(digit_tokenizer: PreTrainedTokenizerFast) -> None:
    chat = chatformat.chat_format(digit_tokenizer)
    model = adapters.with_adapter(tiny_model("llama", len(digit_tokenizer)), method())
    loss = TrieLoss(model)(batch([packing.ordinary_example(t, chat) for t in TURNS], CPU), 0.0, 1.0)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    assert max(float(p.grad.abs().max()) for p in model.parameters() if p.grad is not None) < 1e-6


@pytest.mark.parametrize(("count", "available"), [(0, 3), (2, 3), (7, 3), (6, 3)])
def test_every_ordinary_example_comes_before_any_comes_again(count: int, available: int) -> None:
    order = curriculum.ordinary_order(count, available, seed=5)
    assert len(order) == count
    for start in range(0, count, available):
        part = order[start : start + available]
        assert len(set(part)) == len(part) and set(part) <= set(range(available))


def mixed(share: float, kl_weight: float = 0.0) -> training_params.FinetuneParams:
    mixture = training_params.MixtureParams(source="self", share=share, prompts_per_step=2)
    return method(mixture=mixture, kl_to_base=kl_weight, learning_rate=1e-2, epochs=3.0)


def test_a_mixture_learns_its_answers_and_still_calibrates(tmp_path: Path, tiny_folder: Path) -> None:
    plain = train_tiny(tmp_path / "a", tiny_folder, method(learning_rate=1e-2, epochs=3.0))
    run = train_tiny(tmp_path / "b", tiny_folder, mixed(0.5), ordinary=TURNS)
    assert (plain.log["ordinary"] == 0).all()
    # Both see the same prompts: the first losses agree, before any step is taken.
    assert run.log["loss"].iloc[0] == pytest.approx(plain.log["loss"].iloc[0], rel=1e-5)
    assert run.log["ordinary"].tail(3).mean() < 0.9 * run.log["ordinary"].head(3).mean()
    checked = run.log["validation"].dropna()
    assert checked.iloc[-1] < checked.iloc[0]
    assert run.tokens > plain.tokens


def test_the_pull_to_the_base_keeps_an_adapter_near(tmp_path: Path, tiny_folder: Path) -> None:
    def distance(run: str, m: training_params.FinetuneParams) -> float:
        train_tiny(tmp_path / run, tiny_folder, m, ordinary=TURNS)
        model, tokenizer = loading.load(tiny_folder, adapter=tmp_path / run / "out", device=CPU, dtype=torch.float32)
        base, _ = loading.load(tiny_folder, device=CPU, dtype=torch.float32)
        row = torch.tensor([chatformat.chat_format(tokenizer).prompt_ids(TURNS[0].prompt)])
        with torch.no_grad():
            p, q = (torch.log_softmax(m(row).logits[0, -1].double(), -1) for m in (base, model))
        return float((p.exp() * (p - q)).sum())

    assert distance("near", mixed(0.0, kl_weight=5.0)) < 0.5 * distance("far", mixed(0.0, kl_weight=1e-6))


def test_ordinary_examples_go_with_a_mixture(tmp_path: Path, tiny_folder: Path) -> None:
    with pytest.raises(ValueError, match="ordinary examples go with a mixture"):
        train_tiny(tmp_path, tiny_folder, mixed(0.5))
    with pytest.raises(ValueError, match="ordinary examples go with a mixture"):
        train_tiny(tmp_path, tiny_folder, method(), ordinary=TURNS)


def test_ordinary_examples_are_all_read_before_the_first_step(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that no step would draw."""
    bad = Turn("Why?", "So.<|im_end|>", where="mine.jsonl, line 99")
    monkeypatch.setattr(loop, "_parts_of_steps", lambda *_: pytest.fail("a step began"))
    with pytest.raises(UserError, match=r"^mine.jsonl, line 99: .* holds '<\|im_end\|>'"):
        train_tiny(tmp_path, tiny_folder, mixed(0.5), ordinary=[*TURNS * 40, bad])
    assert not (tmp_path / "out").exists()


def test_ordinary_examples_come_in_their_order(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the run are tokenised once and are the ones that each step would have made."""
    chat, seen = chatformat.chat_format(digit_chat_tokenizer()), []

    def begin(order: object, examples: list[Example], *_: object) -> None:
        seen.extend(examples)
        raise KilledError

    monkeypatch.setattr(loop, "_parts_of_steps", begin)
    with pytest.raises(KilledError):
        train_tiny(tmp_path, tiny_folder, mixed(0.5), ordinary=TURNS)
    drawn = curriculum.ordinary_order(len(seen), len(TURNS), 7)
    assert [e.prompt for e in seen] == [chat.prompt_ids(TURNS[i].prompt) for i in drawn] and len(seen) > len(TURNS)
    for i, made in zip(drawn, seen, strict=True):
        assert made.trie.token[1:].tolist() == [*chat.answer_ids([TURNS[i].answer])[0], chat.end_id]


def test_a_run_that_diverges_is_one_line(tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "validation_loss", lambda *_: float("nan"))
    with pytest.raises(UserError, match=r"loss is never a number; learning_rate must be lower, got 1\.0$"):
        train_tiny(tmp_path, tiny_folder, method(learning_rate=1.0))
    assert not (tmp_path / "out").exists()
