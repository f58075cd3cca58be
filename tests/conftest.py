"""Shared fixtures: tiny random models of four architectures and two small chat tokenizers, made in memory."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma3TextConfig,
    GptOssConfig,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

sys.path.insert(0, str(Path(__file__).parent))

import fetch_tokenizers

from calibnb.models.chatformat import TEMPLATES

torch.set_num_threads(1)
settings.register_profile("shared", deadline=None)  # what an example takes depends on what else the machine does
settings.load_profile("shared")

WINDOW = 8  # of the sliding-window models, shorter than any prompt
ARCHITECTURES = ("qwen3", "llama", "gemma3", "gpt_oss")

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
PRINTABLE = ["\n", *map(chr, range(32, 127))]


def chat_tokenizer(words: list[str], pattern: str) -> PreTrainedTokenizerFast:
    """A tokenizer that cuts text by `pattern` and looks each piece up in `words`; ChatML template.

    Its eos is not the token that ends a turn, as in several real models.
    """
    vocabulary = {word: id for id, word in enumerate([*SPECIAL, "<unk>", *words])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        unk_token="<unk>",
        chat_template=CHATML,
    )


def digit_chat_tokenizer() -> PreTrainedTokenizerFast:
    """Every character a token, so digits one by one."""
    return chat_tokenizer(PRINTABLE, r"[\s\S]")


def group_chat_tokenizer() -> PreTrainedTokenizerFast:
    """Digits in groups of up to three from the left, as Llama 3 and GPT-OSS have them."""
    groups = [f"{i:02d}" for i in range(100)] + [f"{i:03d}" for i in range(1000)]
    return chat_tokenizer([*PRINTABLE, *groups], r"\d{1,3}|\D")


PIECES = ("bytes", "bytes, digits alone", "legacy", "always", "first", "never")


@cache
def _merging_backend(pieces: str) -> str:
    lines = [
        "[INST] Draw a number. [/INST] yes USER: Hello there ASSISTANT: Hello, yes Q: what?\nA: no",
        "### Instruction:\nSay yes.\n\n### Response:\nyes The answer is yes. A chat with an assistant.\n",
    ]
    backend = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    blanks = pre_tokenizers.Metaspace(prepend_scheme=pieces if pieces in ("always", "first") else "never")
    backend.pre_tokenizer, backend.decoder, alphabet = blanks, decoders.Metaspace(), ["▁", *PRINTABLE]
    if pieces.startswith("bytes"):
        cut = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alone = pre_tokenizers.Digits(individual_digits=True)
        backend.pre_tokenizer = cut if pieces == "bytes" else pre_tokenizers.Sequence([alone, cut])
        backend.decoder, alphabet = decoders.ByteLevel(), pre_tokenizers.ByteLevel.alphabet()
        lines.append("from 3 to 17, or 12.25")
    ends = ["<unk>", "<s>", "</s>"]
    how = {"vocab_size": 400, "initial_alphabet": alphabet, "special_tokens": ends, "show_progress": False}
    backend.train_from_iterator(lines * 9, trainers.BpeTrainer(**how))
    if pieces == "legacy":  # no piece begins within a word, but nothing is cut
        backend.pre_tokenizer = None
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return backend.to_str()


def merging_tokenizer(pieces: str, template: str) -> PreTrainedTokenizerFast:
    """A byte-pair tokenizer trained on a few lines, whose only special tokens are those of a text's ends.

    `bytes` cuts as GPT-2 does, so that a blank merges with a number. The others take digits one by one: of bytes, as
    Llama 2 was first converted (`legacy`), and with each of the ways in which Metaspace puts a blank first.
    """
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_merging_backend(pieces)),
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        chat_template=template,
    )


def tiny_model(architecture: str, vocabulary: int, *, seed: int = 0, **sizes: int) -> PreTrainedModel:
    """A random model of two layers in float32, evaluation mode; weights wide enough for uneven answers."""
    size = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "initializer_range": 0.3,
        "bos_token_id": None,
        "eos_token_id": 0,
        "pad_token_id": 0,
        **sizes,
    }
    windows = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
    config = {
        "qwen3": lambda: Qwen3Config(**size),
        "llama": lambda: LlamaConfig(**size),
        "gemma3": lambda: Gemma3TextConfig(
            **size,
            **windows,
            query_pre_attn_scalar=8,
            tie_word_embeddings=False,  # tied and random, it would repeat the last token
        ),
        "gpt_oss": lambda: GptOssConfig(
            **size,
            **windows,
            num_local_experts=4,
            num_experts_per_tok=2,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        ),
    }[architecture]()
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    implementation = "eager" if architecture == "gpt_oss" else "sdpa"
    model = AutoModelForCausalLM.from_config(config, attn_implementation=implementation, dtype=torch.float32)
    torch.set_rng_state(state)
    return model.eval()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: no worker is left with one of them when the others are done."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def digit_tokenizer() -> PreTrainedTokenizerFast:
    return digit_chat_tokenizer()


@pytest.fixture(scope="session")
def group_tokenizer() -> PreTrainedTokenizerFast:
    return group_chat_tokenizer()


@pytest.fixture(scope="session", params=["digit", "group"])
def any_tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    """Both small tokenizers in turn."""
    return digit_chat_tokenizer() if request.param == "digit" else group_chat_tokenizer()


@pytest.fixture(scope="session", params=ARCHITECTURES)
def any_model(request: pytest.FixtureRequest, digit_tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """The four architectures in turn, for the digit tokenizer."""
    return tiny_model(request.param, len(digit_tokenizer))


@pytest.fixture(scope="session")
def llama(digit_tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    return tiny_model("llama", len(digit_tokenizer))


@pytest.fixture
def tiny_folder(tmp_path: Path, llama: PreTrainedModel, digit_tokenizer: PreTrainedTokenizerFast) -> Path:
    """A model folder as a user has it: tiny Llama and digit tokenizer, saved."""
    folder = tmp_path / "tiny"
    llama.save_pretrained(folder)
    digit_tokenizer.save_pretrained(folder)
    return folder


def load_real_tokenizer(family: str) -> PreTrainedTokenizerBase:
    """A tokenizer of `fetch_tokenizers.FAMILIES`; skips where it was not fetched."""
    if not fetch_tokenizers.present(family):
        pytest.skip(fetch_tokenizers.MISSING)
    tokenizer = AutoTokenizer.from_pretrained(fetch_tokenizers.CACHE / family)
    if family in TEMPLATES:  # published without one
        tokenizer.chat_template = TEMPLATES[family].read_text(encoding="utf-8")
    return tokenizer


@pytest.fixture(scope="session", params=list(fetch_tokenizers.FAMILIES))
def real_tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerBase:
    """The tokenizers of the four families in turn, as published."""
    return load_real_tokenizer(request.param)


@pytest.fixture
def hub_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Path], None]:
    """Lets `datasets` find a folder under a hub id, laid out as on the hub; nothing else of it is replaced."""
    import datasets

    load = datasets.load_dataset

    def lies_in(name: str, folder: Path) -> None:
        def found(path: str, config: str | None, **how: Any) -> Any:
            assert path == name
            return load(str(folder), config, cache_dir=str(tmp_path / "cache"), **how)

        monkeypatch.setattr(datasets, "load_dataset", found)

    return lies_in
