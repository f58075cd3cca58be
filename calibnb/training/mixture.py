"""Ordinary questions and answers that are mixed into calibration, so that a model forgets less of what it could do.

By default they are the model's own: it answers a bundled set of everyday and reasoning prompts before it is trained.
Training on answers drawn from the model itself (self-distillation) has, in expectation, the gradient of
KL(base || adapter) on those prompts, whose minimum is to change nothing there; so it needs no foreign data and teaches
nothing new. The option `kl_to_base` adds that divergence itself, on the same answers (`objective.TrieLoss`).
"""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from calibnb import records
from calibnb.errors import UserError
from calibnb.models.chatformat import ChatFormat
from calibnb.training.params import DEFAULTS, SELF, FinetuneParams
from calibnb.trees.sampling import Ask


@dataclass(frozen=True)
class Turn:
    """A question and its answer, under a system text if it has one; `where` it was read, for errors."""

    prompt: str
    answer: str
    system: str | None = None
    where: str = field(default="an ordinary example", compare=False)

    def ids(self, chat: ChatFormat) -> tuple[list[int], list[int]]:
        """Ids of the prompt and of the answer; see `ChatFormat.exchange_ids`. UserError names where it was read."""
        try:
            return chat.exchange_ids(self.prompt, self.answer, system=self.system)
        except UserError as error:
            raise UserError(f"{self.where}: {error}; change this record or leave it out") from error


def bundled_prompts() -> pd.DataFrame:
    """The bundled prompts: columns ``kind, prompt``."""
    text = (importlib.resources.files("calibnb.training") / "ordinary.yaml").read_text(encoding="utf-8")
    return pd.DataFrame([(kind, prompt) for kind, prompts in yaml.safe_load(text).items() for prompt in prompts],
                        columns=["kind", "prompt"])  # fmt: skip


def distil(ask: Ask, chat: ChatFormat, prompts: pd.DataFrame, *, draws: int, max_new_tokens: int) -> pd.DataFrame:
    """The model's own answers: a row an answer, ``kind, prompt, answer, tokens, usable``.

    Not usable are answers without text and those that are no answer in the chat format, which `Turn.ids` refuses. `ask`
    is to give an empty text for one that was cut off at `max_new_tokens` (`Sampler.ended`): a model that trains on it
    learns to stop in mid-sentence. Its tokens cannot tell, since those that a model writes are not always those of its
    text. Dropping such answers favours short ones, so `max_new_tokens` should cut few.
    """
    answers = ask(prompts["prompt"].tolist(), draws=draws, max_new_tokens=max_new_tokens)
    frame = prompts.assign(answer=pd.Series(answers)).explode("answer", ignore_index=True)
    frame["tokens"] = [_length(chat, *said) for said in zip(frame["prompt"], frame["answer"], strict=True)]
    frame["usable"] = frame["tokens"] > 0
    return frame


def _length(chat: ChatFormat, prompt: str, answer: str) -> int:
    """Tokens of an answer; 0 for one that cannot be trained on."""
    if not answer.strip():
        return 0
    try:
        return len(chat.exchange_ids(prompt, answer)[1])
    except UserError:
        return 0


def write(frame: pd.DataFrame, path: Path) -> None:
    """The usable answers of :func:`distil`, as :func:`load` reads them."""
    rows = frame.loc[frame["usable"], ["prompt", "answer"]].to_dict("records")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def load(source: str, own: Path) -> list[Turn]:
    """Questions and answers to mix in.

    Parameters
    ----------
    source : str
        `self`, a local jsonl file, or a split of a hub dataset (`records.load`); a record is an object with the texts
        `prompt`, `answer` and, if it likes, `system`, or with `messages`, of which the first question and its answer
        are taken.
    own : Path
        The file that `self` stands for, of :func:`write`.

    Raises
    ------
    UserError
        A source that cannot be had, is empty or holds a malformed record, which is named.
    """
    place = str(own) if source == SELF else source
    turns = [_turn(record, where) for where, record in records.load(place, "finetune.mixture.source", SELF)]
    if not turns:
        raise UserError(f"{place}: nothing in it; must hold one object a line with the keys prompt and answer")
    return turns


def _turn(record: Any, where: str) -> Turn:
    fields = record if isinstance(record, dict) else {}
    if "messages" in fields and "answer" not in fields:
        fields = _first_exchange(fields["messages"], where)
    for key in ("prompt", "answer"):
        if not isinstance(fields.get(key), str) or not fields[key].strip():
            raise UserError(f"{where}: {key} must be a text that is not empty")
    system = fields.get("system")
    if system is not None and not isinstance(system, str):
        raise UserError(f"{where}: system must be a text")
    return Turn(fields["prompt"], fields["answer"], system, where)


def _first_exchange(messages: Any, where: str) -> dict[str, Any]:
    """`prompt`, `answer` and, where there is one, `system` of a conversation of `role` and `content`."""
    turns = messages if isinstance(messages, list) and all(isinstance(turn, dict) for turn in messages) else []
    roles = [turn.get("role") for turn in turns[:3]]
    leads = roles[:1] == ["system"]
    if roles[leads : leads + 2] != ["user", "assistant"]:
        raise UserError(f"{where}: messages must open with a user and an assistant, after at most a system text")
    said = [turn.get("content") for turn in turns[:3]]
    return {"prompt": said[leads], "answer": said[leads + 1]} | ({"system": said[0]} if leads else {})


def without(name: str, methods: Mapping[str, FinetuneParams]) -> str | None:
    """The method that differs from `name` in its mixture alone, if there is one."""
    plain = methods[name].model_copy(update={"mixture": None, "kl_to_base": 0.0})
    return next((other for other, method in methods.items() if method == plain and other != DEFAULTS), None)
