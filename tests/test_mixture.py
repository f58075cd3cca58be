"""Ordinary examples: what is kept of a model's own answers, files and their errors, and no overlap with benchmarks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pytest
import yaml
from conftest import CHATML, PIECES, PRINTABLE, chat_tokenizer, merging_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from test_models import DROPPING, PLAIN, REFUSING, with_template
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from calibnb.benchmarks.capability import bundled
from calibnb.benchmarks.novelty import prompt_sets
from calibnb.errors import UserError
from calibnb.models import chatformat
from calibnb.models.chatformat import ChatFormat
from calibnb.pipeline import params
from calibnb.training import mixture
from calibnb.training.mixture import Turn
from calibnb.training.packing import ordinary_example


def test_the_bundled_prompts_are_different_and_asked_by_no_benchmark() -> None:
    prompts = set(mixture.bundled_prompts()["prompt"])
    assert len(prompts) == len(mixture.bundled_prompts()) == 80
    asked = {
        item["question"] for task, made in bundled.TASKS.items() for item in bundled.items(task, 200 + made.examples, 0)
    }
    asked |= {prompt.prompt for prompt in prompt_sets.load_prompts("bundled")}
    assert not prompts & asked
    # Nor in other words: no sum, no capital, nothing random.
    assert not [p for p in prompts if "capital of" in p or " + " in p or "random" in p.lower()]
    root = Path(__file__).parents[1]
    facts = yaml.safe_load((root / "calibnb/benchmarks/capability/facts.yaml").read_text(encoding="utf-8"))
    assert not [p for p in prompts for kind in facts.values() if kind["question"].split("{}")[0] in p]


def test_own_answers_that_ended_are_kept(tmp_path: Path, digit_tokenizer: PreTrainedTokenizerFast) -> None:
    chat = chatformat.chat_format(digit_tokenizer)
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
    chat = chatformat.chat_format(digit_tokenizer)
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


# ------------------------------------------------------------------------------------------ as tokens
BAD = {  # a record, and what is said of it
    "end of turn": ({"answer": "So.<|im_end|>"}, r"the answer 'So.<\|im_end\|>' holds '<\|im_end\|>', a special token"),
    "end alone": ({"answer": "<|im_end|>"}, r"the answer '<\|im_end\|>' holds"),
    "another turn": ({"answer": "So.<|im_start|>user\nNo."}, r"the answer .* holds '<\|im_start\|>', a special token"),
    "end of text": ({"answer": "So.<|endoftext|>"}, r"the answer .* holds '<\|endoftext\|>', a special token"),
    "long": ({"answer": "a" * 50 + "<|im_end|>"}, r"the answer 'a{40}\.\.\.' holds"),
    "asked": ({"prompt": "Why?<|im_end|>"}, r"the question 'Why\?<\|im_end\|>' holds '<\|im_end\|>', a special token"),
    "led": ({"system": "Be<|im_start|>"}, r"the system text 'Be<\|im_start\|>' holds '<\|im_start\|>', a special"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_record_that_is_no_exchange_is_named(
    name: str, tmp_path: Path, digit_tokenizer: PreTrainedTokenizerFast
) -> None:
    record, words = BAD[name]
    good = {"prompt": "Why?", "answer": "So."}
    path = tmp_path / "mine.jsonl"
    path.write_text(f"{json.dumps(good)}\n\n{json.dumps(good | record)}\n")
    chat = chatformat.chat_format(digit_tokenizer)
    first, second = mixture.load(str(path), Path("absent"))
    assert first.ids(chat) == (chat.prompt_ids("Why?"), chat.answer_ids(["So."])[0])
    problem = rf"^{path}, line 3: chat template of .*: {words}.*; change this record or leave it out$"
    with pytest.raises(UserError, match=problem) as error:
        ordinary_example(second, chat)
    assert "\n" not in str(error.value)


def test_a_row_of_the_hub_is_named(
    tmp_path: Path, hub_dataset: Callable[[str, Path], None], digit_tokenizer: PreTrainedTokenizerFast
) -> None:
    lines = [{"prompt": "Why?", "answer": answer} for answer in ("So.", "So.<|im_end|>")]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    hub_dataset("org/name", tmp_path)
    *_, last = mixture.load("org/name:train", Path("absent"))
    with pytest.raises(UserError, match=r"^org/name:train, row 2: chat template of .* holds '<\|im_end\|>'"):
        last.ids(chatformat.chat_format(digit_tokenizer))


def test_an_answer_that_merges_with_the_prompt_is_named() -> None:
    """Two line breaks are one token, so is a blank with the word after it."""
    breaks = chat_tokenizer([*PRINTABLE, "\n\n"], r"\n\n|[\s\S]")
    cases = [(breaks, answer, "nt\\\\n") for answer in ("\nSo.", "\n\nSo.", "\n \nSo.")]
    cases += [(merging_tokenizer(pieces, PLAIN["vicuna"]), "yes", "NT: ") for pieces in PIECES if pieces != "bytes"]
    for tokenizer, answer, end in cases:
        problem = r"^here: chat template of .*: the answer .* is empty or begins with what the tokenizer merges with "
        with pytest.raises(UserError, match=problem + rf"the prompt's end, '.*{end}'; change this"):
            Turn("Why?", answer, where="here").ids(chatformat.chat_format(tokenizer))
        assert Turn("Why?", "3" + answer, where="here").ids(chatformat.chat_format(tokenizer))


@pytest.mark.parametrize("template", [REFUSING + CHATML, DROPPING])
def test_a_system_text_that_the_template_refuses_is_named(template: str) -> None:
    chat = chatformat.chat_format(with_template(template))
    assert ordinary_example(Turn("Why?", "So."), chat).prompt == chat.prompt_ids("Why?")
    with pytest.raises(UserError, match=r"^here: chat template of .*system.*; change this record or leave it out$"):
        ordinary_example(Turn("Why?", "So.", "Be brief.", "here"), chat)


EDGES = st.text(" \nSo.1", min_size=1).filter(str.strip)


def check_exchange(chat: ChatFormat, question: str, answer: str) -> None:
    """The ids are those of the whole rendered turn, up to its end, unless one line says that they cannot be."""
    said = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    turn = chat.tokenizer.apply_chat_template(said, chat_template=chat.template, tokenize=False, **chatformat.SWITCHES)
    whole = chat.tokenizer(turn, add_special_tokens=False)["input_ids"]
    try:
        prompt, own = Turn(question, answer).ids(chat)
    except UserError as error:
        assert "begins with what the tokenizer merges" in str(error)
        at = len(chat.prompt_ids(question))
        assert whole[:at] != chat.prompt_ids(question)
        return
    assert [*prompt, *own, chat.end_id] == whole[: len(prompt) + len(own) + 1]
    assert prompt == chat.prompt_ids(question) and chat.decode(own).strip() == answer.strip()


@settings(deadline=None, max_examples=40)
@given(question=EDGES, answer=EDGES)
@pytest.mark.parametrize("template", [CHATML, CHATML.replace("message['content']", "(message['content'] | trim)")])
def test_an_exchange_is_what_the_template_renders(template: str, question: str, answer: str) -> None:
    chat = chatformat.chat_format(with_template(template))
    check_exchange(chat, question, answer)
    assert ("trim" in template) or Turn(question, answer).ids(chat)[1] == chat.answer_ids([answer])[0]


@settings(deadline=None, max_examples=15)
@given(question=EDGES, answer=EDGES)
def test_real_templates_render_the_exchange(
    real_tokenizer: PreTrainedTokenizerBase, question: str, answer: str
) -> None:
    """Those of Llama and Gemma strip the blanks at an answer's ends."""
    check_exchange(chatformat.chat_format(real_tokenizer), question, answer)


def test_an_answer_that_the_template_changes_is_refused() -> None:
    chat = chatformat.chat_format(
        with_template(CHATML.replace("message['content']", "message['content'].split('|')[-1]"))
    )
    with pytest.raises(UserError, match=r"renders the answer 'so\|yes' as 'yes'"):
        chat.exchange_ids("Why?", "so|yes")


@settings(deadline=None, max_examples=40)
@given(
    drawn=st.lists(
        st.lists(st.sampled_from(["So", "\n", " ", ".", "<s>", "</s>", "[INST]"]), max_size=4).map("".join), min_size=1
    )
)
@pytest.mark.parametrize("pieces", ["bytes", "legacy"])
def test_what_is_kept_of_own_answers_can_be_trained_on(pieces: str, drawn: list[str]) -> None:
    chat = chatformat.chat_format(merging_tokenizer(pieces, PLAIN["alpaca"]))
    asked = mixture.bundled_prompts().head(1)
    frame = mixture.distil(lambda prompts, **_: [drawn], chat, asked, draws=1, max_new_tokens=9)
    for row in frame.itertuples():
        turn = Turn(row.prompt, row.answer)
        if row.usable:
            assert row.tokens == len(turn.ids(chat)[1])
        elif row.answer.strip():
            with pytest.raises(UserError):
                turn.ids(chat)


def test_the_method_that_differs_in_its_mixture_alone() -> None:
    methods = params.load(Path(__file__).parents[1] / "params.yaml").finetune
    assert mixture.without("mixed", methods) == "soft"
    assert mixture.without("mixed", {name: methods[name] for name in ("mixed", "hard")}) is None
