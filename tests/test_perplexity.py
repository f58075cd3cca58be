"""Perplexity: every token once with the longest context, against one token at a time; bytes; bad files."""

from __future__ import annotations

import copy
import gzip
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from calibnb.benchmarks.perplexity import corpora, scoring, summaries
from calibnb.errors import UserError
from calibnb.trees.attention import Body

TEXT = "The owl saw 12 mice; 7 ran.\nNo more is known of them."


# ------------------------------------------------------------------------------------------------------- documents
def test_bundled_texts_are_there_and_told_apart() -> None:
    documents = corpora.bundled()
    assert {d.slice for d in documents} == {"language reference", "standard library", "licences"}
    assert len({(d.slice, d.name) for d in documents}) == len(documents)
    assert all(d.text.strip() and len(d.sha256) == 64 for d in documents)
    for name in ("language reference", "standard library", "licences"):
        assert sum(len(d.text.encode()) for d in documents if d.slice == name) > 32_768


def folder(root: Path, files: dict[str, list[object]]) -> Path:
    for name, rows in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = "\n".join(json.dumps(row) for row in rows).encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return root


def test_slices_of_a_folder(tmp_path: Path) -> None:
    files: dict[str, list[object]] = {
        "c4/test/a.jsonl.gz": [{"text": "one"}, {"text": "two", "id": 3}],
        "c4/val/a.jsonl.gz": [{"text": "not this"}],
        "ptb/test/b.jsonl": [{"text": "thrée"}],
    }
    found = corpora.load(str(folder(tmp_path, files)), "test", 1000)
    assert [(d.slice, d.name, d.text) for d in found] == [
        ("c4", "a.jsonl.gz:1", "one"),
        ("c4", "a.jsonl.gz:2", "two"),
        ("ptb", "b.jsonl:1", "thrée"),
    ]


def test_a_document_gives_at_most_an_eighth_and_ends_at_a_line(tmp_path: Path) -> None:
    rows: list[object] = [{"text": "12345\n"}, {"text": "é\né\nééé\n"}, {"text": "in one line"}, {"text": "late"}]
    found = corpora.load(str(folder(tmp_path, {"s/test/a.jsonl": rows})), "test", 8 * 9)
    # The third line of the second would end within a character; the third document is one line, cut where it must be.
    assert [d.text for d in found] == ["12345\n", "é\né\n", "in one li", "late"]


def test_a_slice_ends_when_its_bytes_are_used(tmp_path: Path) -> None:
    rows: list[object] = [{"text": "123456\n"}] * 12
    found = corpora.load(str(folder(tmp_path, {"s/test/a.jsonl": rows, "t/test/a.jsonl": rows[:2]})), "test", 8 * 7)
    assert [d.slice for d in found] == ["s"] * 8 + ["t"] * 2


def test_the_bundled_slices_have_several_documents() -> None:
    found = corpora.load("bundled", "test", 40_000)
    counts = Counter(d.slice for d in found)
    assert set(counts) == {"language reference", "standard library", "licences"}
    assert min(counts.values()) >= corpora.LEAST


def test_one_document_has_no_interval() -> None:
    frame = pd.DataFrame({"slice": "s", "document": ["a"], "nll": 2.0, "tokens": 4, "bytes": 9})
    found = summaries.summarise(frame, resamples=10, seed=0)
    assert found["value"].notna().all() and found[["low", "high"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": 3}', "line 2: must be an object whose key text holds a text that is not empty"),
        (b'{"text": "  "}', "line 2: must be an object whose key text holds a text that is not empty"),
        (b'["text"]', "line 2: must be an object"),
        (b'{"text"', "line 2: not json"),
        (b'{"text": "\xff"}', "line 2: not utf-8 \\(byte 11\\)"),
        (b'{"text": "abc\\ud83d"}', r"line 2: holds half of a surrogate pair \('\\ud83d'\)"),
    ],
)
def test_a_malformed_line_is_named(line: bytes, message: str) -> None:
    with pytest.raises(UserError, match=rf"^a.jsonl, {message}"):
        corpora.parse(b'{"text": "fine"}\n' + line, "a.jsonl", "s")


@pytest.mark.parametrize("data", [b"no gzip", gzip.compress(b'{"text": "x"}')[:-5]], ids=["other", "cut off"])
def test_a_broken_archive_is_named(data: bytes) -> None:
    with pytest.raises(UserError, match=r"^a.jsonl.gz: no gzip file"):
        corpora.parse(data, "a.jsonl.gz", "s")


def test_missing_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"^benchmarks.perplexity.source: no folder nowhere; allowed: bundled, or a folder"
    ):
        corpora.load("nowhere", "test", 100)
    with pytest.raises(UserError, match=r"^benchmarks.perplexity.source: no .*/<slice>/test/\*.jsonl or \*.jsonl.gz"):
        corpora.load(str(folder(tmp_path, {"s/val/a.jsonl": [{"text": "x"}]})), "test", 100)


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("files", [{"a.jsonl": b""}, {"a.jsonl": b" \n\n \n"}, {"a.jsonl.gz": gzip.compress(b"\n")},
                                   {"a.jsonl": b"", "b.jsonl": b"\n"}])  # fmt: skip
def test_a_slice_without_documents_is_named(tmp_path: Path, files: dict[str, bytes], beside: bool) -> None:
    part = tmp_path / "wiki" / "test"
    part.mkdir(parents=True)
    for name, data in files.items():
        (part / name).write_bytes(data)
    if beside:
        folder(tmp_path, {"s/test/a.jsonl": [{"text": "some text"}]})
    with pytest.raises(UserError) as error:
        corpora.load(str(tmp_path), "test", 1024)
    named = ", ".join(str(part / name) for name in files)
    assert str(error.value).startswith(
        f"benchmarks.perplexity.source: the slice wiki has no document in {named}; must hold"
    )


def test_a_slice_of_which_only_blanks_are_read_is_named(tmp_path: Path) -> None:
    made = {"s/test/a.jsonl": [{"text": "some text"}], "wiki/test/b.jsonl": [{"text": "\n" * 200 + "text"}]}
    with pytest.raises(
        UserError, match=r"^benchmarks.perplexity.bytes_per_slice: the slice wiki \(b.jsonl\) begins .* \(128 bytes"
    ):
        corpora.load(str(folder(tmp_path, made)), "test", 1024)


@pytest.mark.parametrize("name", ["all", "texts"])  # what the results call the total and the list of texts
def test_a_slice_cannot_be_called_as_results_call_something_else(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        UserError, match=rf"^benchmarks.perplexity.source: a slice cannot be called {name}, rename the folder"
    ):
        corpora.load(str(folder(tmp_path, {f"{name}/test/a.jsonl": [{"text": "x"}]})), "test", 100)


# --------------------------------------------------------------------------------------------------------- windows
@given(st.integers(2, 60), st.integers(1, 4), st.integers(2, 12), st.data())
def test_every_token_is_scored_once_with_the_longest_context(
    length: int, first: int, window: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, window - 1))
    first = min(first, length - 1)
    parts = scoring.windows(length, first, window, stride)
    assert [t for begin, end, scored in parts for t in range(scored, end)] == list(range(first, length))
    for begin, end, scored in parts:
        assert begin < scored < end <= begin + window
        assert scored - begin >= min(scored, window - stride)


@torch.inference_mode()
def one_by_one(model: PreTrainedModel, ids: list[int], first: int, window: int, stride: int) -> np.ndarray:
    """Each token from a pass of its own, over the context that the sliding window gives it."""
    out = []
    for t in range(first, len(ids)):
        begin = next(b for b in range(0, len(ids), stride) if b + window > t)
        logits = model(torch.tensor([ids[begin:t]])).logits[0, -1].double()
        out.append(-float(torch.log_softmax(logits, -1)[ids[t]]))
    return np.array(out)


@pytest.mark.parametrize(("window", "stride"), [(16, 8), (12, 5), (64, 32)])
def test_equal_to_one_token_at_a_time(
    any_model: PreTrainedModel, digit_tokenizer: PreTrainedTokenizerFast, window: int, stride: int
) -> None:
    documents = [scoring.tokenise(digit_tokenizer, text) for text in (TEXT, TEXT[:20], "ab")]
    expected = [one_by_one(any_model, d.ids, d.first, window, stride) for d in documents]
    for batch_tokens in (1, 40, 4096):
        found = scoring.nll(Body(any_model), documents, window=window, stride=stride, batch_tokens=batch_tokens)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
    assert np.ptp(expected[0]) > 1


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Every byte a token, as a byte-level tokenizer cuts what it does not know."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return PreTrainedTokenizerFast(tokenizer_object=backend)


@pytest.mark.parametrize(("text", "first", "scored"), [("aé", 1, 2), ("éa", 2, 1), ("🦉🦉x", 4, 5), ("abc", 1, 2)])
def test_bytes_are_those_of_the_scored_tokens(text: str, first: int, scored: int) -> None:
    """With a byte a token the two counts must agree."""
    tokens = scoring.tokenise(byte_tokenizer(), text)
    assert (tokens.first, tokens.scored_bytes) == (first, scored)
    assert len(tokens.ids) - tokens.first == scored


def test_a_beginning_of_sequence_is_context(digit_tokenizer: PreTrainedTokenizerFast) -> None:
    plain = scoring.tokenise(digit_tokenizer, "12345")
    backend = Tokenizer.from_str(digit_tokenizer.backend_tokenizer.to_str())
    backend.post_processor = TemplateProcessing(single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)])
    with_bos = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<|im_start|>")
    found = scoring.tokenise(with_bos, "12345")
    assert found.ids == [1, *plain.ids] and found.first == 2 and found.scored_bytes == plain.scored_bytes == 4


def test_one_token_scores_nothing(digit_tokenizer: PreTrainedTokenizerFast) -> None:
    short = scoring.tokenise(digit_tokenizer, "a")
    assert (len(short.ids), short.first, short.scored_bytes) == (1, 1, 0)
    assert scoring.windows(len(short.ids), short.first, 8, 4) == []


def test_a_document_of_one_token_among_others(llama: PreTrainedModel, digit_tokenizer: PreTrainedTokenizerFast) -> None:
    document = corpora.Document
    beside = [document("a", "x", "a"), document("a", "y", TEXT)]
    frame = scoring.run(Body(llama), digit_tokenizer, beside, window=16, stride=8)
    alone = scoring.run(Body(llama), digit_tokenizer, beside[1:], window=16, stride=8)
    assert frame.loc[0, ["nll", "tokens", "bytes"]].tolist() == [0, 0, 0]
    pd.testing.assert_frame_equal(frame[1:].reset_index(drop=True), alone)
    # Nor is it one more document to draw in the bootstrap, where draws of it alone would have no measure.
    expected = summaries.summarise(alone, resamples=50, seed=0)
    pd.testing.assert_frame_equal(summaries.summarise(frame, resamples=50, seed=0), expected)
    with pytest.raises(
        UserError, match=r"^benchmarks.perplexity.source: the slice b has no document of two tokens or more$"
    ):
        scoring.run(Body(llama), digit_tokenizer, [*beside, document("b", "z", "a")], window=16, stride=8)


# --------------------------------------------------------------------------------------------------------- summary
def test_a_uniform_model_needs_log2_of_its_vocabulary(
    llama: PreTrainedModel, digit_tokenizer: PreTrainedTokenizerFast
) -> None:
    """With a head of zeros every token costs ln v; every character is one token and one byte here."""
    flat = copy.deepcopy(llama)
    flat.get_output_embeddings().weight = torch.nn.Parameter(torch.zeros_like(llama.get_output_embeddings().weight))
    documents = [corpora.Document("a", "x", TEXT), corpora.Document("b", "y", TEXT[:9])]
    frame = scoring.run(Body(flat), digit_tokenizer, documents, window=16, stride=8)
    assert frame["tokens"].tolist() == frame["bytes"].tolist() == [len(TEXT) - 1, 8]
    table = summaries.summarise(frame, resamples=20, seed=0).set_index(["slice", "measure"])
    vocabulary = llama.config.vocab_size
    for name in ("a", "b", "all"):
        assert table.loc[(name, "perplexity"), "value"] == pytest.approx(vocabulary, rel=1e-4)
        assert table.loc[(name, "bits_per_byte"), "value"] == pytest.approx(math.log2(vocabulary), rel=1e-4)
    assert table.loc[("all", "bits_per_byte"), "high"] == pytest.approx(math.log2(vocabulary), rel=1e-4)


def measured(scale: float) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    tokens = rng.integers(50, 500, 12)
    return pd.DataFrame(
        {
            "slice": ["a"] * 6 + ["b"] * 6,
            "document": list(range(12)),
            "nll": tokens * rng.uniform(2, 4, 12) * scale,
            "tokens": tokens,
            "bytes": tokens * 4,
        }
    )


def test_sums_are_pooled_not_averaged() -> None:
    frame = measured(1)
    table = summaries.summarise(frame, resamples=500, seed=1).set_index(["slice", "measure"])
    loss = frame["nll"].sum()
    assert table.loc[("all", "perplexity"), "value"] == pytest.approx(math.exp(loss / frame["tokens"].sum()))
    assert table.loc[("all", "bits_per_byte"), "value"] == pytest.approx(loss / math.log(2) / frame["bytes"].sum())
    row = table.loc[("a", "perplexity")]
    assert row["low"] < row["value"] < row["high"] and row["documents"] == 6


def test_differences_are_paired_by_document() -> None:
    """A model that needs a tenth more for every document: the interval has no width in the mean of logs."""
    table = summaries.compare(measured(1.1), measured(1), resamples=500, seed=1).set_index(["slice", "measure"])
    bits = summaries.summarise(measured(1), resamples=500, seed=1).set_index(["slice", "measure"])
    for end in ("value", "low", "high"):
        got = table.loc[("all", "bits_per_byte"), end]
        assert got == pytest.approx(0.1 * bits.loc[("all", "bits_per_byte"), end])
    with pytest.raises(ValueError, match="different documents"):
        summaries.compare(measured(1.1), measured(1)[1:], resamples=5, seed=1)
