"""EleutherAI's lm-evaluation-harness, asked in the chat format and scored by tree attention; the tinyBenchmarks."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import lm_eval.tasks
import numpy as np
import pandas as pd
import yaml
from lm_eval.api.metrics import mean
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from lm_eval.utils import hash_string
from torch import Tensor
from tqdm.auto import tqdm
from transformers import GenerationConfig

from calibnb.benchmarks.capability import arithmetic
from calibnb.benchmarks.capability.bundled import TASKS
from calibnb.errors import UserError
from calibnb.models import hub
from calibnb.models.chatformat import ChatFormat
from calibnb.trees.attention import Body, continuations

_Request = tuple[tuple[str, str], list[int], list[int]]  # texts, and the ids of context and continuation

# task of the harness: scenario of the published item parameters
TINY = {
    "tinyArc": "arc",
    "tinyGSM8k": "gsm8k",
    "tinyHellaswag": "hellaswag",
    "tinyMMLU": "mmlu",
    "tinyTruthfulQA": "truthfulqa",
    "tinyWinogrande": "winogrande",
}


def tiny_task(name: str, data: Path | None) -> dict[str, Any]:
    """One of the harness's tinyBenchmarks tasks, its mean taken as it is, its data from a folder if one is given.

    As the harness has them these tasks need a package that is on no index, which estimates the whole benchmark's score;
    here :mod:`calibnb.benchmarks.capability.irt` does that, from the scores of the items.

    Parameters
    ----------
    name : str
        Name of the task, as the harness calls it.
    data : Path or None
        A folder with the hub's data sets as subfolders (``tinyMMLU``, ...).
    """
    folder = Path(lm_eval.tasks.__path__[0]) / "tinyBenchmarks"

    def function(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Any:
        module, _, attribute = node.value.rpartition(".")
        if module == "agg_functions":
            return "mean"
        spec = importlib.util.spec_from_file_location(f"{__name__}.{module}", folder / f"{module}.py")
        assert spec is not None and spec.loader is not None
        code = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(code)
        return getattr(code, attribute)

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!function", function)
    config: dict[str, Any] = {"include": "tinyTruthfulQA_mc2.yaml" if name == "tinyTruthfulQA" else f"{name}.yaml"}
    while "include" in config:
        below = (folder / config.pop("include")).read_text(encoding="utf-8")
        config = yaml.load(below, Loader) | config
    # Of several readings of an answer the first, the strictest, counts: a task is one score.
    if "filter_list" in config:
        config["filter_list"] = config["filter_list"][:1]
    # A name of our own: the harness would lay this over its own task of the same name, which cannot be loaded.
    config["task"] = f"calibnb_{name}"
    if data is not None:
        local = data / config["dataset_path"].split("/")[1]
        if not local.is_dir():
            raise UserError(
                f"benchmarks.capability.data: no folder {local}; allowed: null, or a folder with {local.name} in it"
            )
        config["dataset_path"] = str(local)
    return config


class Harness(HFLM):  # type: ignore[misc]
    """The harness's model, asked in the chat format that everything else here uses.

    The choices of a question are scored together by tree attention, what questions begin with alike is encoded once:
    the harness encodes the whole prompt for each choice.
    """

    def __init__(self, body: Body, chat: ChatFormat, batch: int) -> None:
        # What ends a turn in the chat template need not be what the tokenizer calls the end of a text. All else that a
        # generation config can say, from penalties to limits, is the task's to say.
        body.model.generation_config = GenerationConfig(eos_token_id=chat.end_id)
        super().__init__(pretrained=body.model, tokenizer=chat.tokenizer, batch_size=batch)
        self.body, self.chat, self.together = body, chat, batch
        self.cut: dict[str, bool] = {}  # by prompt: whether its written answer ended at the limit alone
        # generate() asks for the last position of a batch, a view with gaps. Where weights need no gradient, as after
        # merging an adapter, torch multiplies such a view row by row, with a copy of the whole head for each row.
        body.head.register_forward_pre_hook(lambda head, inputs: (inputs[0].contiguous(),))

    def _loglikelihood_tokens(
        self, requests: list[_Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        if any(len(context) + len(text) > self.max_length for _, context, text in requests):
            # Cut from the left, with a warning, as the harness does it.
            return super()._loglikelihood_tokens(requests, disable_tqdm, override_bs)  # type: ignore[no-any-return]
        asked: dict[tuple[int, ...], dict[tuple[int, ...], list[int]]] = {}
        for place, (_, context, text) in enumerate(requests):
            asked.setdefault(tuple(context), {}).setdefault(tuple(text), []).append(place)
        found: list[tuple[float, bool]] = [(np.nan, False)] * len(requests)
        contexts = sorted(asked)  # neighbours begin alike
        for first in tqdm(range(0, len(contexts), self.together), desc="choices", unit="batch", disable=disable_tqdm):
            here = contexts[first : first + self.together]
            scores = continuations(self.body, here, [list(asked[key]) for key in here])
            for key, values in zip(here, scores, strict=True):
                for places, value in zip(asked[key].values(), values, strict=True):
                    for place in places:
                        found[place] = value
        return found

    def tok_batch_encode(self, strings: Sequence[str], *arguments: Any, **how: Any) -> Any:
        self._prompts = strings  # of the batch that is written next
        return super().tok_batch_encode(strings, *arguments, **how)

    def _model_generate(self, context: Tensor, max_length: int, stop: Sequence[str], **how: Any) -> Tensor:
        with self.body.counting():
            ids: Tensor = super()._model_generate(context=context, max_length=max_length, stop=stop, **how)
        for prompt, written in zip(self._prompts, ids[:, context.shape[1] :].tolist(), strict=True):
            text = self.tok_decode(written)
            self.cut[prompt] = self.chat.end_id not in written and not any(end in text for end in stop)
        return ids

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        text = self.chat.render(chat_history, add_generation_prompt, continue_final_message=not add_generation_prompt)
        return text + self.chat.forced if add_generation_prompt else text


def _what_is_missing(error: ImportError) -> str:
    """What a task's code lacks and the remedy: code of the harness may hide the package's name in a text of its own."""
    chain: BaseException | None = error
    while chain is not None and not (isinstance(chain, ImportError) and chain.name):
        chain = chain.__cause__ or chain.__context__
    reason = " ".join(str(error).split())
    if isinstance(chain, ImportError) and chain.name:
        return f"needs the package {chain.name}, which cannot be imported ({reason}); install it"
    return f"needs a package that cannot be imported ({reason}); install it"


def run(
    body: Body,
    chat: ChatFormat,
    tasks: str | Sequence[str],
    *,
    suite: Path,
    data: Path | None,
    limit: int | None,
    batch: int,
    seed: int,
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Ask a model the questions of some tasks of the harness.

    Parameters
    ----------
    body : Body
        The model with its adapter, as it is measured everywhere else, at temperature 1.
    chat : ChatFormat
        The model's chat format.
    tasks : str or Sequence[str]
        `bundled`, or names of tasks, of the harness or of the suite (``calibnb_...``).
    suite : Path
        The folder of :func:`write_suite`.
    data : Path or None
        See :func:`tiny_task`.
    limit : int or None
        At most so many questions a task.
    batch : int
        Questions in one pass.
    seed : int
        Seed of the choice of examples, where a task chooses them at random.

    Returns
    -------
    tuple[DataFrame, DataFrame, dict[str, Any]]
        A row a question: ``task, item, level, score``, the score mostly 1 or 0. A task that the harness scores in
        several ways is several tasks here, named after filter and metric; what is no mean over the questions is left
        out. A row a written question of arithmetic: ``task, item, level, strict, lenient, cut``, see
        :mod:`~calibnb.benchmarks.capability.arithmetic`; cut is 1 where the answer ended at the limit of tokens alone.
        And what identifies the measurement: the harness's version, and version, hash and number of examples of each
        task.

    Raises
    ------
    UserError
        A task that neither the harness nor the suite knows, whose code needs a package that is not there, whose data
        cannot be had, or that has no scores of its questions, such as one of perplexity.
    """
    names = [f"calibnb_{task}" for task in TASKS] if tasks == "bundled" else list(tasks)
    # The harness's group asks for a package that is in no index: its tasks stand for it.
    names = list(dict.fromkeys(n for name in names for n in (TINY if name == "tinyBenchmarks" else [name])))
    # The harness takes ten seconds to read the files of all its own tasks.
    ours = {f"calibnb_{task}" for task in TASKS} | set(TINY)
    manager = TaskManager(include_path=str(suite), include_defaults=not set(names) <= ours)
    for name in names:
        if name not in ours and name not in manager.all_tasks:
            raise UserError(
                f"benchmarks.capability.tasks: unknown task {name!r}; allowed: bundled, and what `lm_eval ls tasks` "
                "lists"
            )
    here = {f"calibnb_{task}" for task in TASKS} | (set() if data is None else set(TINY))
    name = ""
    try:
        loaded: dict[str, Any] = {}
        with contextlib.nullcontext() if set(names) <= here else hub.asked():
            for name in names:
                loaded |= manager.load([tiny_task(name, data) if name in TINY else name])["tasks"]
        name = ", ".join(names)
        # Of what a task reports, that which is a mean over its questions.
        averaged = {task: [k for k, v in loaded[task].aggregation().items() if v is mean] for task in loaded}
        for task in loaded:
            if not averaged[task]:
                raise UserError(
                    f"benchmarks.capability.tasks: {task} gives its questions no scores whose mean is the task's; "
                    "allowed: tasks with one, such as acc or exact_match"
                )
        asked = Harness(body, chat, batch)
        found = simple_evaluate(
            asked,
            tasks=list(loaded.values()),
            limit=limit,
            task_manager=manager,
            apply_chat_template=True,
            fewshot_as_multiturn=True,
            bootstrap_iters=0,
            random_seed=seed,
            numpy_random_seed=seed,
            torch_random_seed=seed,
            fewshot_random_seed=seed,
        )
    except ImportError as error:
        raise UserError(
            f"benchmarks.capability.tasks: {name} {_what_is_missing(error)}, or name other tasks"
        ) from error
    except (*hub.FAILURES, ConnectionError, FileNotFoundError, datasets.exceptions.DatasetsError) as error:
        raise UserError(
            f"benchmarks.capability.tasks: the data of {', '.join(names)} cannot be had ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:120]}); connect, or name a folder as benchmarks.capability.data"
        ) from error
    rows, written = [], []
    for task, samples in found["samples"].items():
        name = task.removeprefix("calibnb_")
        several_filters = len({sample["filter"] for sample in samples}) > 1
        metrics = [metric for metric in samples[0]["metrics"] if metric in averaged[task]]
        for sample in samples:
            level = sample["doc"]["level"] if name in TASKS else 0  # other tasks mean something else by it
            if name in arithmetic.WRITTEN:
                read = arithmetic.read(sample["resps"][0][0], str(sample["target"]), float(sample[metrics[0]]))
                cut = float(asked.cut[sample["arguments"][0][0]])
                written.append({"task": name, "item": sample["doc_id"], "level": level} | read | {"cut": cut})
            for metric in metrics:
                parts = [name, *[sample["filter"]] * several_filters, *[metric] * (len(metrics) > 1)]
                asked_for = {"task": ", ".join(parts), "item": sample["doc_id"], "level": level}
                rows.append(asked_for | {"score": float(sample[metric])})
    about = {
        "harness": found["lm_eval_version"],
        "tasks": {
            task.removeprefix("calibnb_"): {
                "version": found["versions"][task],
                "hash": hash_string("".join(s["doc_hash"] + s["prompt_hash"] + s["target_hash"] for s in samples)),
                "examples": found["n-shot"][task],
            }
            for task, samples in found["samples"].items()
        },
    }
    columns = ["task", "item", "level", "strict", "lenient", "cut"]
    return pd.DataFrame(rows), pd.DataFrame(written, columns=columns), about
