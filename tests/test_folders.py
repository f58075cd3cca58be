"""What may lie in a model's folder: one set of files is hashed, counted and loaded, or one line says why not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CHATML, SPECIAL, digit_chat_tokenizer, tiny_model
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    CohereConfig,
    Gemma2Config,
    GraniteConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3NextConfig,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)

from calibnb.errors import UserError
from calibnb.models import __main__, cards, chatformat, fetching, loading
from calibnb.trees import attention, trie

Tensors = dict[str, torch.Tensor]


def refused(folder: Path, out: Path) -> str:
    """The one line that refuses a folder, the same thing being refused where it is fetched and where it is loaded."""
    lines = []
    for action in (lambda: fetching.fetch(str(folder), out), lambda: loading.load(folder)):
        with pytest.raises(UserError) as caught:
            action()
        lines.append(str(caught.value))
        assert "\n" not in lines[-1] and str(folder) in lines[-1]
    assert not out.exists()
    return lines[0]


@pytest.fixture
def shards(tmp_path: Path, llama: PreTrainedModel, digit_tokenizer: PreTrainedTokenizerFast) -> Path:
    """The tiny Llama in several files with their index."""
    folder = tmp_path / "shards"
    llama.save_pretrained(folder, max_shard_size="30KB")
    digit_tokenizer.save_pretrained(folder)
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


@pytest.fixture(params=["single", "shards"])
def either(request: pytest.FixtureRequest, tiny_folder: Path, shards: Path) -> Path:
    """The tiny Llama in one file and in several."""
    return tiny_folder if request.param == "single" else shards


def change(file: Path, make: Callable[[Tensors], Tensors]) -> None:
    save_file(make(load_file(file)), file, metadata={"format": "pt"})


# ---------------------------------------------------------------------------------------- one set of files
def test_one_file_and_shards_are_the_same_model(either: Path, tmp_path: Path, llama: PreTrainedModel) -> None:
    card = fetching.fetch(str(either), tmp_path / "out")
    assert card.parameters == sum(p.numel() for p in llama.parameters())
    here = {file.name: cards.file_sha256(file) for file in either.glob("*.safetensors")}
    assert card.safetensors_sha256 == here
    loaded = loading.load(tmp_path / "out")[0].state_dict()
    for name, tensor in llama.state_dict().items():
        assert torch.equal(loaded[name], tensor), name


def test_two_sets_of_weights(shards: Path, tiny_folder: Path, tmp_path: Path) -> None:
    shutil.copy(tiny_folder / "model.safetensors", shards)
    line = refused(shards, tmp_path / "out")
    assert "model.safetensors and that of model.safetensors.index.json" in line


OTHERS = (
    "adapter_model.safetensors",
    "optimizer.safetensors",
    "consolidated.safetensors",
    "consolidated.00.safetensors",
    "model.fp16.safetensors",
    "model.bf16-00001-of-00002.safetensors",
    "model-00009-of-00002.safetensors",
    "pytorch_model.safetensors",
    "adapter_config.json",
    "model.fp16.safetensors.index.json",
)


@pytest.mark.parametrize("name", OTHERS)
def test_other_weights_in_a_folder_are_refused(either: Path, tmp_path: Path, name: str) -> None:
    (either / name).write_bytes(min(either.glob("*.safetensors")).read_bytes() if name.endswith("s") else b"{}")
    line = refused(either, tmp_path / "out")
    assert f"{name} beside the model's weights (" in line


@pytest.mark.parametrize("name", OTHERS)
def test_a_hub_repository_has_others_beside_its_own(
    either: Path, tmp_path: Path, llama: PreTrainedModel, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They stay in the snapshot: not taken over, not hashed, not counted, not loaded."""
    own = {file.name for file in either.glob("*.safetensors")}
    (either / name).write_bytes(min(either.glob("*.safetensors")).read_bytes() if name.endswith("s") else b"{}")
    (either / "original").mkdir()
    (either / "original" / "consolidated.safetensors").write_bytes(b"not read")
    monkeypatch.setattr(fetching, "snapshot_download", lambda *_, **__: str(either))
    card = fetching.fetch("org/name", tmp_path / "out")
    assert card.parameters == sum(p.numel() for p in llama.parameters())
    assert {file.name for file in (tmp_path / "out").glob("*.safetensors")} == set(card.safetensors_sha256) == own
    assert torch.equal(loading.load(tmp_path / "out")[0].lm_head.weight, llama.lm_head.weight)


def test_two_sets_of_weights_on_the_hub(
    shards: Path, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(tiny_folder / "model.safetensors", shards)
    monkeypatch.setattr(fetching, "snapshot_download", lambda *_, **__: str(shards))
    with pytest.raises(UserError, match="two sets of weights"):
        fetching.fetch("org/name", tmp_path / "out")


def test_a_trained_adapter_saved_into_its_base(tiny_folder: Path, tmp_path: Path) -> None:
    """transformers would lay it over the base without a word."""
    base, _ = loading.load(tiny_folder)
    get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(tiny_folder)
    assert "adapter_config.json, adapter_model.safetensors beside" in refused(tiny_folder, tmp_path / "out")


def test_weights_that_the_configuration_names(tiny_folder: Path, tmp_path: Path) -> None:
    path = tiny_folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"transformers_weights": "other.safetensors"}))
    assert "config.json: transformers_weights names other weights" in refused(tiny_folder, tmp_path / "out")


@pytest.mark.parametrize("name", ["weights.safetensors", "model-00001-of-2.safetensors", "adapter_model.safetensors"])
def test_weights_of_another_name_alone(tiny_folder: Path, tmp_path: Path, name: str) -> None:
    (tiny_folder / "model.safetensors").rename(tiny_folder / name)
    line = refused(tiny_folder, tmp_path / "out")
    assert "missing model.safetensors or model.safetensors.index.json" in line and line.endswith(f"got {name}")


# ---------------------------------------------------------------------------------------- the index
def test_an_index_names_what_its_files_hold(shards: Path, tmp_path: Path) -> None:
    index = shards / "model.safetensors.index.json"
    whole = json.loads(index.read_text())
    files = list(whole["weight_map"].values())
    name, file = next(item for item in whole["weight_map"].items() if files.count(item[1]) > 1)
    other = next(value for value in files if value != file)

    def says(weight_map: object) -> str:
        index.write_text(json.dumps(whole | {"weight_map": weight_map}))
        return refused(shards, tmp_path / "out")

    held = whole["weight_map"]
    assert f"{file} does not hold absent.weight" in says(held | {"absent.weight": file})
    assert f"does not name {name}, which {file} holds" in says({key: held[key] for key in held if key != name})
    assert name in says(held | {name: other})
    assert "missing model-9.safetensors" in says(held | {name: "model-9.safetensors"})
    for wrong in ("../x.safetensors", "/etc/x.safetensors", "model.bin", "", 7, None):
        assert f"{name} is named for {wrong!r}" in says(held | {name: wrong})
    for none in ({}, None, [], "x"):
        assert "no weight_map" in says(none)


# ---------------------------------------------------------------------------------------- tensors and the model
@pytest.mark.parametrize("place", ["first", "last", "norm"])
def test_tensors_that_the_files_lack(tiny_folder: Path, tmp_path: Path, place: str) -> None:
    names = sorted(load_file(tiny_folder / "model.safetensors"))
    name = {"first": names[0], "last": names[-1], "norm": "model.norm.weight"}[place]
    change(tiny_folder / "model.safetensors", lambda all: {key: all[key] for key in all if key != name})
    assert f"not those of LlamaForCausalLM: they lack {name}" in refused(tiny_folder, tmp_path / "out")


def test_tensors_that_the_model_has_no_place_for(tiny_folder: Path, tmp_path: Path) -> None:
    change(tiny_folder / "model.safetensors", lambda all: all | {"score.weight": torch.zeros(1, 32)})
    assert "they hold score.weight" in refused(tiny_folder, tmp_path / "out")


def test_tensors_of_another_shape(tiny_folder: Path, tmp_path: Path) -> None:
    change(tiny_folder / "model.safetensors", lambda all: all | {"lm_head.weight": torch.zeros(90, 32)})
    assert "other shapes in lm_head.weight ([90, 32], not [100, 32])" in refused(tiny_folder, tmp_path / "out")


def test_weights_of_another_model_are_a_line_of_bounded_length(
    tiny_folder: Path, tmp_path: Path, digit_tokenizer: PreTrainedTokenizerFast, capfd: pytest.CaptureFixture[str]
) -> None:
    change(tiny_folder / "model.safetensors", lambda all: {f"x.{key}": tensor for key, tensor in all.items()})
    capfd.readouterr()
    line = refused(tiny_folder, tmp_path / "out")
    assert "they lack " in line and "and hold " in line and "more" in line and len(line) < 1000
    assert "LOAD REPORT" not in capfd.readouterr().err


@pytest.mark.parametrize("saved", [True, False])
def test_a_tied_head_may_be_missing(tmp_path: Path, digit_tokenizer: PreTrainedTokenizerFast, saved: bool) -> None:
    """And is counted once where it is saved as well."""
    model = tiny_model("llama", len(digit_tokenizer))
    untied = sum(p.numel() for p in model.parameters())
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(tmp_path / "in")
    digit_tokenizer.save_pretrained(tmp_path / "in")
    if saved:
        rows = "model.embed_tokens.weight"
        change(tmp_path / "in" / "model.safetensors", lambda all: all | {"lm_head.weight": all[rows].clone()})
    assert fetching.fetch(str(tmp_path / "in"), tmp_path / "out").parameters == untied - 100 * 32
    loaded = loading.load(tmp_path / "out")[0]
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)


def test_a_tied_head_that_differs_is_refused(tmp_path: Path, digit_tokenizer: PreTrainedTokenizerFast) -> None:
    """transformers would load both and tie nothing."""
    model = tiny_model("llama", len(digit_tokenizer))
    model.config.tie_word_embeddings = True
    model.save_pretrained(tmp_path / "in")
    digit_tokenizer.save_pretrained(tmp_path / "in")
    change(tmp_path / "in" / "model.safetensors", lambda all: all | {"lm_head.weight": torch.ones(100, 32)})
    with pytest.raises(UserError, match=r"ties lm_head\.weight to model\.embed_tokens\.weight, but the weights differ"):
        fetching.fetch(str(tmp_path / "in"), tmp_path / "out")


# ---------------------------------------------------------------------------------------- broken files
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32\nsize 5\n"
TEXTS = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "model.safetensors.index.json",
)
BROKEN = {
    "pointer": (POINTER, "a git-lfs pointer, not the file itself"),
    "empty": (b"", "not json"),
    "cut off": (b'{"a": [1, 2', "not json"),
    "no object": (b"[1]", "must be a json object, got a list"),
    "null": (b"null", "must be a json object, got a NoneType"),
    "no text": (b'{"a": "\xff"}', r"not utf-8 (byte 8)"),
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("how", BROKEN)
def test_files_that_are_not_what_their_name_says(tiny_folder: Path, tmp_path: Path, name: str, how: str) -> None:
    content, reason = BROKEN[how]
    (tiny_folder / name).write_bytes(content)
    assert f"{tiny_folder / name}: {reason}" in refused(tiny_folder, tmp_path / "out")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.model", "merges.txt", "chat_template.jinja"])
def test_any_file_may_be_a_pointer(tiny_folder: Path, tmp_path: Path, name: str) -> None:
    (tiny_folder / name).write_bytes(POINTER)
    assert f"{name}: a git-lfs pointer" in refused(tiny_folder, tmp_path / "out")


def test_a_template_that_is_no_text(tiny_folder: Path, tmp_path: Path) -> None:
    (tiny_folder / "chat_template.jinja").write_bytes(b"{{ '\xff' }}")
    assert "chat_template.jinja: not utf-8 (byte 5)" in refused(tiny_folder, tmp_path / "out")


@pytest.mark.parametrize("content", [{}, {"model": 1, "added_tokens": []}, {"model": {"type": "WordLevel"}}])
def test_a_tokenizer_without_its_parts(tiny_folder: Path, tmp_path: Path, content: object) -> None:
    (tiny_folder / "tokenizer.json").write_text(json.dumps(content))
    assert "tokenizer.json: no tokenizer" in refused(tiny_folder, tmp_path / "out")


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 9, 100, -4096, -1])
def test_weights_that_are_cut_off(either: Path, tmp_path: Path, keep: int) -> None:
    file = max(either.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:keep])
    assert f"{file}: cut off or no safetensors (" in refused(either, tmp_path / "out")


def test_weights_that_are_no_safetensors(either: Path, tmp_path: Path) -> None:
    file = max(either.glob("*.safetensors"))
    file.write_bytes(b"PK\x03\x04 a pickle in a zip" * 99)
    assert f"{file}: cut off or no safetensors (" in refused(either, tmp_path / "out")


# ---------------------------------------------------------------------------------------- the configuration
def configure(folder: Path, **changes: Any) -> None:
    """Lay keys over a folder's configuration; ... takes one away."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))


OWN_CODE = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        *(({"architectures": value}, "architectures must name the class") for value in (..., None, [], "Llama", [3])),
        *(({"model_type": value}, "model_type must be the kind of") for value in (..., None, 5, "", ["llama"])),
        ({"model_type": "lama"}, "config.json: model_type 'lama' is unknown to transformers"),
        ({"model_type": "own", "auto_map": OWN_CODE}, "compute.trust_remote_code: true lets it run"),
        *(({"auto_map": value}, "auto_map must be null or name") for value in (5, "a.B", ["a.B"])),
        *(({"quantization_config": value}, "must be null or name a quant_method") for value in ({}, [], "fp8", 8)),
        ({"hidden_size": "wide"}, "cannot make the configuration of it (StrictDataclassFieldValidationError"),
        ({"num_attention_heads": 5}, "cannot make the configuration of it (StrictDataclassClassValidationError"),
        ({"num_attention_heads": 0}, "cannot make the configuration of it (ZeroDivisionError"),
        ({"dtype": "float17"}, "cannot make the configuration of it (AttributeError"),
        ({"hidden_act": "none such"}, "cannot make the model of it (KeyError"),
        ({"rope_parameters": {"rope_type": "none such"}}, "cannot make the model of it (KeyError"),
        ({"vocab_size": 90}, "other shapes in lm_head.weight ([100, 32], not [90, 32])"),
        ({"num_hidden_layers": 3}, "they lack model.layers.2.input_layernorm.weight"),
        ({"num_hidden_layers": 1}, "they hold model.layers.1.input_layernorm.weight"),
    ],
)
def test_configurations_that_cannot_be_read(
    tiny_folder: Path, tmp_path: Path, changes: dict[str, Any], line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    configure(tiny_folder, **changes)
    assert line in refused(tiny_folder, tmp_path / "out")
    capfd.readouterr()
    assert __main__.main(["fetch", str(tiny_folder), str(tmp_path / "out")]) == 1
    assert capfd.readouterr().err.count("\n") == 1


def test_dense_weights_may_say_so(tiny_folder: Path, tmp_path: Path, llama: PreTrainedModel) -> None:
    configure(tiny_folder, quantization_config=None)
    assert fetching.fetch(str(tiny_folder), tmp_path / "out").quantisation is None
    assert torch.equal(loading.load(tmp_path / "out")[0].lm_head.weight, llama.lm_head.weight)


# ---------------------------------------------------------------------------------------- attention
SIZES = {
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": 0,
}


@pytest.mark.parametrize("saved", ["flash_attention_2", "flex_attention", "eager", "none such"])
@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_attention_is_not_what_a_configuration_was_saved_with(tiny_folder: Path, key: str, saved: str) -> None:
    configure(tiny_folder, **{key: saved})
    assert loading.load(tiny_folder)[0].config._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    "config",
    [
        Gemma2Config(**SIZES),
        GraniteConfig(**SIZES, logits_scaling=8.0),
        CohereConfig(**SIZES, logit_scale=0.1),
        Qwen3NextConfig(**SIZES, num_experts=4),
    ],
    ids=lambda config: config.model_type,
)
def test_models_that_the_study_cannot_measure_are_refused_when_loaded(
    tmp_path: Path, digit_tokenizer: PreTrainedTokenizerFast, config: PreTrainedConfig
) -> None:
    """Gemma 2 knows eager attention alone, which is no reason to stumble over it."""
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "in")
    digit_tokenizer.save_pretrained(tmp_path / "in")
    fetching.fetch(str(tmp_path / "in"), tmp_path / "out")
    with pytest.raises(UserError, match=rf"^models: {config.model_type} .*$") as caught:
        attention.Body(loading.load(tmp_path / "out", dtype=torch.bfloat16)[0])
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------- models of more than text
MULTIMODAL = sorted(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
# Of those that know a causal language model the ones that can be made tiny in this way; others need packages.
MADE = ("fuyu", "gemma3", "gemma4", "gemma4_unified", "git", "got_ocr2", "llama4", "mllama", "qwen3_5", "qwen3_5_moe")


def multimodal(kind: str) -> PreTrainedModel:
    """A random model of a kind, its whole configuration and all parts of it made tiny."""
    sizes = {
        **SIZES,
        "bos_token_id": 0,
        "num_heads": 4,
        "depth": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.3,
        "vocab_size_per_layer_input": 100,
        "hidden_size_per_layer_input": 8,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "num_local_experts": 4,
    }

    def fitting(config: PreTrainedConfig) -> dict[str, Any]:
        has = config.to_dict()
        kept: dict[str, Any] = {key: size for key, size in sizes.items() if key in has}
        if kinds := has.get("layer_types"):
            kept["layer_types"] = sorted({"full_attention", "sliding_attention"} & set(kinds))
            kept["layer_types"] = (kept["layer_types"] * 2)[:2]
        return kept

    whole = CONFIG_MAPPING[kind]()
    parts = {key: fitting(part) for key in whole.sub_configs if (part := getattr(whole, key)) is not None}
    config = CONFIG_MAPPING[kind](**fitting(whole), **parts)
    torch.manual_seed(0)
    return AutoModelForImageTextToText.from_config(config, dtype=torch.float32).eval()


@pytest.mark.parametrize("kind", MADE)
def test_a_multimodal_folder_answers_or_is_refused(
    tmp_path: Path, digit_tokenizer: PreTrainedTokenizerFast, kind: str
) -> None:
    """What answers gives the probabilities of the whole model, asked in words alone."""
    whole = multimodal(kind)
    whole.save_pretrained(tmp_path / "in")
    digit_tokenizer.save_pretrained(tmp_path / "in")
    if kind in ("llama4", "mllama"):  # their causal language models take the text part out of no whole one
        assert "they hold multi_modal_projector." in refused(tmp_path / "in", tmp_path / "out")
        return
    card = fetching.fetch(str(tmp_path / "in"), tmp_path / "out")
    model, tokenizer = loading.load(tmp_path / "out")
    assert card.parameters == sum(p.numel() for p in model.parameters())
    chat, answers = chatformat.chat_format(tokenizer), ["1", "12", "-3.5"]
    prompt, rows = chat.prompt_ids("Draw"), chat.answer_ids(answers)
    tree_of = trie.build(rows, np.full(3, 1 / 3), chat.end_id)
    got = attention.answer_log_probabilities(attention.Body(model), prompt, tree_of)
    for answer, mine in zip(rows, got, strict=True):
        ids = [*prompt, *answer, chat.end_id]
        with torch.no_grad():
            logp = torch.log_softmax(whole(input_ids=torch.tensor([ids])).logits[0].double(), -1)
        alone = sum(float(logp[place - 1, ids[place]]) for place in range(len(prompt), len(ids)))
        assert mine == pytest.approx(alone, abs=1e-4)


@pytest.mark.parametrize("kind", [kind for kind in MULTIMODAL if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES])
def test_a_multimodal_folder_without_a_causal_model_is_refused(tiny_folder: Path, tmp_path: Path, kind: str) -> None:
    configure(tiny_folder, model_type=kind)
    line = refused(tiny_folder, tmp_path / "out")
    assert "config.json: transformers " in line and f"no causal language model for model_type {kind!r}" in line


@pytest.mark.parametrize("kind", ["t5", "clip", "vit"])
def test_so_is_any_other_kind_of_model(tiny_folder: Path, tmp_path: Path, kind: str) -> None:
    configure(tiny_folder, model_type=kind)
    assert f"no causal language model for model_type {kind!r}" in refused(tiny_folder, tmp_path / "out")


# ---------------------------------------------------------------------------------------- ids and rows
def with_tokens(folder: Path, *added: AddedToken, rows: int = 100, **attributes: str) -> Path:
    """A tiny Llama of so many rows and the digit tokenizer, of 100 tokens, with some more."""
    tokenizer = digit_chat_tokenizer()
    tokenizer.add_tokens(list(added))
    for name, value in attributes.items():
        setattr(tokenizer, name, value)
    tiny_model("llama", rows).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


TEMPLATE_TOKENS = {
    "end of turn": CHATML.replace("<|im_end|>", "<|new|>"),
    "start of turn": CHATML.replace("<|im_start|>", "<|new|>"),
    "before all turns": "{{ '<|new|>' }}" + CHATML,
    "of the prompt alone": CHATML.replace("assistant\n' }}{% endif", "assistant\n<|new|>' }}{% endif").replace(
        "'\n' + message", "'\n' + ('<|new|>' if message['role'] == 'assistant' else '') + message"
    ),
}


@pytest.mark.parametrize("where", TEMPLATE_TOKENS)
@pytest.mark.parametrize("special", [True, False])
def test_a_token_of_the_template_beyond_the_embedding(tmp_path: Path, where: str, special: bool) -> None:
    new = AddedToken("<|new|>", special=special, normalized=False)
    folder = with_tokens(tmp_path / "in", new, chat_template=TEMPLATE_TOKENS[where])
    with pytest.raises(UserError, match=r"has '<\|new\|>' \(100\), but the weights have rows for ids below 100"):
        fetching.fetch(str(folder), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    enough = with_tokens(tmp_path / "enough", new, rows=101, chat_template=TEMPLATE_TOKENS[where])
    fetching.fetch(str(enough), tmp_path / "out")


@pytest.mark.parametrize("name", ["bos_token", "eos_token", "unk_token", "pad_token"])
def test_a_named_token_beyond_the_embedding(tmp_path: Path, name: str) -> None:
    new = AddedToken("<|new|>", special=True)
    folder = with_tokens(tmp_path / "in", new, **{name: "<|new|>"})
    with pytest.raises(UserError, match=r"'<\|new\|>' \(100\)"):
        fetching.fetch(str(folder), tmp_path / "out")


@pytest.mark.parametrize("added", [0, 1, 7])
def test_tokens_of_ordinary_text_beyond_the_embedding(tmp_path: Path, added: int) -> None:
    """Words added without rows, or a tokenizer of more words than the model's own."""
    folder = with_tokens(tmp_path / "in", *(AddedToken(f"word{i}") for i in range(added)), rows=99)
    with pytest.raises(UserError, match=r"rows for ids below 99") as caught:
        fetching.fetch(str(folder), tmp_path / "out")
    assert "'~' (99)" in str(caught.value) and str(caught.value).count("(") == min(added + 1, 4)


@pytest.mark.parametrize("rows", [100, 101, 128])
def test_rows_may_be_left_over_and_unused_special_tokens_lie_beyond(tmp_path: Path, rows: int) -> None:
    """Padded embeddings; Gemma 3, whose text models have no row for the image token."""
    unused = [AddedToken(f"<image{i}>", special=True) for i in range(30)]
    fetching.fetch(str(with_tokens(tmp_path / "in", *unused, rows=rows)), tmp_path / "out")
    assert set(loading.load(tmp_path / "out")[1].get_vocab()) > {*SPECIAL, "<image29>"}
