"""Ordinary examples: what is kept of a model's own answers, files and their errors, and no overlap with benchmarks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pytest
import yaml
from transformers import PreTrainedTokenizerFast

from calibnb import mixture, models, params
from calibnb.benchmarks import capability, novelty
from calibnb.errors import UserError
from calibnb.finetune import ordinary_example
from calibnb.mixture import Turn


def test_the_bundled_prompts_are_different_and_asked_by_no_benchmark() -> None:
    prompts = set(mixture.bundled_prompts()["prompt"])
    assert len(prompts) == len(mixture.bundled_prompts()) == 80
    asked = {
        item["question"]
        for task, made in capability.TASKS.items()
        for item in capability.items(task, 200 + made.examples, 0)
    }
    asked |= {prompt.prompt for prompt in novelty.load_prompts("bundled")}
    assert not prompts & asked
    # Nor in other words: no sum, no capital, nothing random.
    assert not [p for p in prompts if "capital of" in p or " + " in p or "random" in p.lower()]
    root = Path(__file__).parents[1]
    facts = yaml.safe_load((root / "calibnb/prompts/facts.yaml").read_text(encoding="utf-8"))
    assert not [p for p in prompts for kind in facts.values() if kind["question"].split("{}")[0] in p]


def test_own_answers_that_ended_are_kept(tmp_path: Path, digit_tokenizer: PreTrainedTokenizerFast) -> None:
    chat = models.chat_format(digit_tokenizer)
    said = {"a": ["yes", ""], "b": [" \n", "1234"]}

    def ask(prompts: list[str], *, draws: int, max_new_tokens: int) -> list[list[str]]:
        assert (draws, max_new_tokens) == (2, 5)
        return [said[prompt] for prompt in prompts]

    prompts = mixture.bundled_prompts().head(2).assign(prompt=["a", "b"])
    frame = mixture.distil(ask, chat, prompts, draws=2, max_new_tokens=5)
    assert frame["answer"].tolist() == ["yes", "", " \n", "1234"]
    assert frame["tokens"].tolist() == [3, 0, 0, 4]
    assert frame["usable"].tolist() == [True, False, False, True]
    mixture.write(frame, tmp_path / "own.jsonl")
    assert mixture.load("self", tmp_path / "own.jsonl") == [Turn("a", "yes"), Turn("b", "1234")]


def test_other_sources(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"prompt": "Why?", "answer": "So."}\n\n')
    assert mixture.load(str(path), Path("absent")) == [Turn("Why?", "So.")]
    with pytest.raises(UserError, match=r"^finetune.mixture.source: no file at './no.jsonl'; allowed: self, a local"):
        mixture.load("./no.jsonl", path)
    path.write_text("\n")
    with pytest.raises(UserError, match=r"mine.jsonl: nothing in it; must hold one object a line"):
        mixture.load(str(path), path)


def test_the_first_exchange_of_a_conversation(tmp_path: Path, digit_tokenizer: PreTrainedTokenizerFast) -> None:
    path = tmp_path / "mine.jsonl"
    system, user, assistant, again = (
        {"role": role, "content": text}
        for role, text in (("system", "Be brief."), ("user", "Why?"), ("assistant", "So."), ("user", "Really?"))
    )
    lines = [{"messages": [user, assistant, again]}, {"messages": [system, user, assistant], "source": "x"}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    plain, led = mixture.load(str(path), Path("absent"))
    assert (plain, led) == (Turn("Why?", "So."), Turn("Why?", "So.", system="Be brief."))
    chat = models.chat_format(digit_tokenizer)
    texts = ["".join(digit_tokenizer.convert_ids_to_tokens(ordinary_example(t, chat).prompt)) for t in (plain, led)]
    assert "Be brief." not in texts[0] and "Be brief." in texts[1] and texts[1].endswith(texts[0])

    for bad in ([], [system, assistant], [assistant, user], [user], "Why?", [user, 3]):
        path.write_text(json.dumps({"messages": bad}))
        with pytest.raises(UserError, match=r"mine.jsonl, line 1: messages must open with a user and an assistant"):
            mixture.load(str(path), path)
    path.write_text(json.dumps({"messages": [system | {"content": ["Be brief."]}, user, assistant]}))
    with pytest.raises(UserError, match=r"mine.jsonl, line 1: system must be a text$"):
        mixture.load(str(path), path)
    path.write_text(json.dumps({"messages": [user, assistant | {"content": " "}]}))
    with pytest.raises(UserError, match=r"mine.jsonl, line 1: answer must be a text that is not empty$"):
        mixture.load(str(path), path)


def test_a_hub_dataset(tmp_path: Path, hub_dataset: Callable[[str, Path], None]) -> None:
    configs = ""
    for config in ("short", "long"):
        configs += f"- config_name: {config}\n  data_files: {config}.jsonl\n"
        (tmp_path / f"{config}.jsonl").write_text(json.dumps({"prompt": "Why?", "answer": config}))
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    hub_dataset("org/name", tmp_path)
    assert mixture.load("org/name:long:train", Path("absent")) == [Turn("Why?", "long")]
    wrong = {"org/name:long:test": "Unknown split", "org/name:none:train": "none", "org/name:train": "Config"}
    for source, said in wrong.items():
        problem = rf"^finetune.mixture.source: {source} cannot be had from the hub .*{said}"
        with pytest.raises(UserError, match=problem) as error:
            mixture.load(source, Path("absent"))
        assert "\n" not in str(error.value)


def test_a_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"^finetune.mixture.source: org/none:train cannot be had.*a local jsonl file"):
        mixture.load("org/none:train", Path("absent"))


@pytest.mark.parametrize(
    "line", ["[1]", '{"prompt": "Why?"}', '{"prompt": "Why?", "answer": " "}', '{"prompt": "Why?", "answer": 3}']
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(f'{{"prompt": "Why?", "answer": "So."}}\n{line}\n')
    with pytest.raises(UserError, match=r"mine.jsonl, line 2: (prompt|answer) must be a text that is not empty$"):
        mixture.load(str(path), path)


def test_the_method_that_differs_in_its_mixture_alone() -> None:
    methods = params.load(Path(__file__).parents[1] / "params.yaml").finetune
    assert mixture.without("mixed", methods) == "soft"
    assert mixture.without("mixed", {name: methods[name] for name in ("mixed", "hard")}) is None
