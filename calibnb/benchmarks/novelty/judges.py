"""Who decides whether two long answers say the same, and what an answer is worth."""

from __future__ import annotations

import gc
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
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

from calibnb.benchmarks.novelty.prompt_sets import Bools, Pair, out_of_reach
from calibnb.errors import UserError
from calibnb.evidence import intervals
from calibnb.laws.distances import Floats
from calibnb.models import chatformat, fetching, folders, hub
from calibnb.models.places import HUB

# Of the stage `items`: what was found out about the judge, and the encoder beside it.
JUDGE = Path("items/novelty/judge.json")
ENCODER = "encoder"


@dataclass(frozen=True)
class Calibration:
    """A threshold set on pairs of known verdict, and how often it is right.

    Attributes
    ----------
    threshold : float
        Answers more similar than this are the same.
    balanced_accuracy : float
        Balanced accuracy of this threshold on the pairs that set it, so too good.
    accuracy : float
        Share of the pairs judged rightly by a threshold set on all the others (leave-one-out), with its 95 % Wilson
        interval low to high.
    pairs : int
        How many.
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

    It maximises the balanced accuracy, the mean of the shares of both verdicts that are found. Many thresholds do: the
    one in the middle of the widest interval of them is taken (of equally wide ones the lowest).

    Parameters
    ----------
    similarities : [n] array-like
        Cosines.
    verdicts : [n] array-like
        True for the same.

    Raises
    ------
    ValueError
        There are fewer than two of each.
    """
    x, y = np.asarray(similarities, np.float64), np.asarray(verdicts, np.bool_)
    if min(y.sum(), (~y).sum()) < 2:
        raise ValueError(f"calibration needs two pairs of each verdict, got {y.sum()} and {(~y).sum()}")
    threshold, balanced = _set_threshold(x, y)
    right = 0
    for i in range(len(x)):
        others = np.arange(len(x)) != i
        right += bool((x[i] > _set_threshold(x[others], y[others])[0]) == y[i])
    return Calibration(threshold, balanced, right / len(x), *intervals.wilson(right, len(x)), len(x))


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
        wanted = [pattern for pattern in folders.WANTED if weights or pattern != "*.safetensors"]
        try:
            with hub.asked():
                folder = Path(
                    snapshot_download(source, allow_patterns=wanted, ignore_patterns=list(fetching._UNWANTED))
                )
        except hub.FAILURES as error:
            raise out_of_reach(source, local, error) from error
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

    Parameters
    ----------
    source : str or Path
        Folder or hub id of the weights; published: yimingzhang/deberta-v3-large-generation-similarity.
    tokenizer : str or Path or None
        Folder or hub id of the tokenizer, None for the one beside the weights; the published classifier has none of its
        own and goes with microsoft/deberta-v3-large.
    batch : int
        Pairs in one pass; at least 1.
    threshold : float
        In (0, 1).

    Raises
    ------
    UserError
        For what cannot be had, lacks files, or does not have two classes.
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

    Parameters
    ----------
    source : str or Path
        A folder that :func:`fetch_encoder` made, or another encoder of that construction.
    batch : int
        Texts in one pass; at least 1.

    Raises
    ------
    UserError
        For what cannot be had or lacks files.
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

    A `with` block loads and frees the encoder.

    Attributes
    ----------
    threshold : float
        In [-1, 1], from :func:`calibrate`.
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

    Parameters
    ----------
    classifier : str or None
        Folder or hub id of a pair classifier, judging above `threshold` and with `tokenizer`; None for the encoder
        beside `JUDGE`, with the threshold that was calibrated there.
    tokenizer, threshold : str or None, float
        Tokenizer and threshold of the classifier; not read without one.
    batch : int
        Texts or pairs in one pass; at least 1.
    device : torch.device
        Where the judge computes.

    Raises
    ------
    UserError
        For what cannot be had.
    """
    if classifier is not None:
        return PairClassifier(classifier, tokenizer=tokenizer, threshold=threshold, batch=batch, device=device)
    if not JUDGE.is_file():
        raise UserError(f"{JUDGE}: no judge here; run `dvc repro items` first")
    encoder = Encoder(JUDGE.parent / ENCODER, batch=batch, device=device)
    return CosineJudge(encoder, json.loads(JUDGE.read_text())["threshold"])


class Rewarder(Protocol):
    """Says how good an answer to a prompt is."""

    def rewards(self, prompts: Sequence[str], answers: Sequence[str]) -> list[float]:
        """A reward a pair of prompt and answer."""
        ...


class RewardModel(_Scorer):
    """Rewards of answers, each read as the assistant's turn after the prompt in the model's own chat format.

    The rendered conversation has the one BOS that the template writes; the tokenizer adds none. Attention is
    eager, because faster kernels leave out the soft cap of Gemma-2's attention scores.

    Parameters
    ----------
    source : str or Path
        Folder or hub id; published: Skywork/Skywork-Reward-Gemma-2-27B-v0.2, whose scale `THRESHOLDS` is.
    batch : int
        Answers in one pass; at least 1.
    dtype : torch.dtype
        bfloat16 where the hardware has it.

    Raises
    ------
    UserError
        For what cannot be had, lacks files or a chat template, or has more than one output.
    """

    auto = AutoModelForSequenceClassification
    attention = "eager"

    def __init__(self, source: str | Path, *, batch: int, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(source, tokenizer=None, batch=batch, device=device, dtype=dtype)
        if self.config.num_labels != 1:
            raise UserError(f"novelty: {source}: {self.config.num_labels} outputs; a reward model has one")
        self.template = chatformat.chat_template(self.tokenizer)
        self.ids("question", "answer")  # a template that fails does so before anything is read
        # The model takes the reward at the last token that is not this one, so it must know which that is.
        text = self.config.get_text_config()
        if text.pad_token_id is None:
            text.pad_token_id = self.tokenizer.pad_token_id
        if text.pad_token_id is None and batch > 1:
            raise UserError(f"novelty: {source}: no padding token, so answers go one by one; set the batch to 1")
        self.filler: int = 0 if text.pad_token_id is None else text.pad_token_id

    def ids(self, prompt: str, answer: str) -> list[int]:
        """Ids of the rendered conversation.

        Raises
        ------
        UserError
            If it starts with two BOS.
        """
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        row = chatformat._ids(self.tokenizer, [chatformat._render(self.tokenizer, self.template, turns, False)])[0]
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
