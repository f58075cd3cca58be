"""gp-IRT: the score on a whole benchmark, estimated from a model's answers to a hundred of its items.

Item parameters were fitted to many models' answers by a multidimensional two-parameter logistic model; with them the
ability of one model is fitted to its answers to the *seen* items, and the answers to the others are predicted
(Polo et al., 2024, arXiv 2402.14992). The published parameters are a pickle. A pickle can run any code when it is
opened the usual way; :func:`convert` opens it with a reader that makes numpy arrays and built-in containers and nothing
else, and keeps them as npz.
"""

from __future__ import annotations

import io
import pickle
import tempfile
import urllib.request
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit

from calibnb.errors import UserError
from calibnb.models import cards, fetching

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
PUBLISHED = "https://raw.githubusercontent.com/felipemaiapolo/tinyBenchmarks/main/tinyBenchmarks/tinyBenchmarks.pkl"


@dataclass(frozen=True)
class Items:
    """The items of one benchmark (a scenario), ``n`` in all, ``k`` of them seen, abilities of ``d`` dimensions.

    Attributes
    ----------
    slope, offset : [d, n] float array
        Discriminations and difficulties.
    seen : [k] int array
        Places of the seen items, in the order of a model's answers.
    anchor_weights : [k] float array
        How many of the benchmark's items a seen one stands for, as shares.
    balance : [n] float array
        Weights of mean 1 under which all parts of the benchmark count the same.
    mixing : float
        Weight of the IRT estimate in gp-IRT, in [0, 1].
    """

    slope: Floats
    offset: Floats
    seen: Ints
    anchor_weights: Floats
    balance: Floats
    mixing: float


class GpIrt(NamedTuple):
    """Estimates of the score on the whole benchmark: weighted answers, performance-IRT, and their weighted mean."""

    irt: float
    p_irt: float
    gp_irt: float


def success(ability: Floats, slope: Floats, offset: Floats) -> Floats:
    """Probability ``[n]`` of a right answer: the logistic function of ``sum_d (slope * ability - offset)``."""
    return expit(np.clip(slope * ability[:, None] - offset, -30, 30).sum(axis=0))  # type: ignore[no-any-return]


def fit_ability(answers: Floats, slope: Floats, offset: Floats) -> Floats:
    """The ability ``[d]`` of highest likelihood, by BFGS from 0.

    Parameters
    ----------
    answers : [k] float array
        Scores in [0, 1]; one between counts as that much of a right answer.
    slope, offset : [d, k] float array
        Discriminations and difficulties of the items that were answered.
    """

    def loss(ability: Floats) -> float:
        p = success(ability, slope, offset)
        # The small constant keeps the ability finite where all answers are right or all are wrong.
        return -float((answers * np.log(p + 1e-10) + (1 - answers) * np.log(1 - p + 1e-10)).sum())

    return np.asarray(minimize(loss, np.zeros(len(slope)), method="BFGS").x)


def gp_irt(answers: npt.ArrayLike, items: Items) -> GpIrt:
    """The three estimates from a model's answers ``[k]`` to the seen items, in their order.

    IRT weighs the answers by what they stand for; performance-IRT takes them as they are and predicts the others' from
    the fitted ability; gp-IRT is ``mixing * IRT + (1 - mixing) * p-IRT``.
    """
    y = np.asarray(answers, np.float64)
    if y.shape != items.seen.shape or not ((y >= -1e-9) & (y <= 1 + 1e-9)).all():
        raise ValueError(f"answers must be {len(items.seen)} scores in [0, 1]")
    y = y.clip(0.0, 1.0)  # a score that is a sum of probabilities may exceed 1 by rounding
    ability = fit_ability(y, items.slope[:, items.seen], items.offset[:, items.seen])
    n = len(items.balance)
    unseen = np.setdiff1d(np.arange(n), items.seen)
    predicted = items.balance * success(ability, items.slope, items.offset)
    share = len(items.seen) / n
    p_irt = share * float((items.balance[items.seen] * y).mean())
    if len(unseen):
        p_irt += (1 - share) * float(predicted[unseen].mean())
    irt = float(items.anchor_weights @ y)
    return GpIrt(irt, p_irt, items.mixing * irt + (1 - items.mixing) * p_irt)


_ARRAYS = {
    (module, name)
    for module in ("numpy.core.multiarray", "numpy._core.multiarray")
    for name in ("_reconstruct", "scalar")
} | {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
}
_CONTAINERS = {("builtins", name) for name in ("dict", "list", "tuple", "set", "frozenset", "bytearray")}


class _ArraysOnly(pickle.Unpickler):
    def __init__(self, data: bytes, where: str) -> None:
        super().__init__(io.BytesIO(data))
        self.where = where

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ARRAYS | _CONTAINERS:
            raise UserError(
                f"{self.where}: asks for {module}.{name}; allowed: numpy arrays and built-in containers; nothing ran"
            )
        return super().find_class(module, name)


def read_pickle(path: Path) -> Any:
    """What a pickle of numpy arrays and built-in containers holds.

    Raises
    ------
    UserError
        For one that asks for any other class or function, before it is looked up, and for one that is no pickle.
    """
    try:
        return _ArraysOnly(path.read_bytes(), str(path)).load()
    except (pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: no readable pickle ({type(error).__name__})") from error


def fetch(source: str, folder: Path) -> Path:
    """The artefact's file: `published`, downloaded into `folder`, or a local path."""
    if source != "published":
        if not Path(source).is_file():
            raise UserError(f"benchmarks.capability.irt: no file {source}; allowed: null, published, or a file")
        return Path(source)
    out = folder / "tinyBenchmarks.pkl"
    try:
        with urllib.request.urlopen(PUBLISHED, timeout=10) as reply:
            data = reply.read()
    except (urllib.error.URLError, TimeoutError) as error:
        raise UserError(
            f"benchmarks.capability.irt: {PUBLISHED} cannot be had ({error}); connect, or name a file in its place"
        ) from error
    out.write_bytes(data)
    return out


def items_of(benchmark: Any, scenario: str) -> Items:
    """The items of one scenario of a benchmark as the artefact lays them out.

    ``irt_parameters`` holds ``A`` and ``B`` (``[1, d, n]``) for the items of all scenarios, ``scenarios_position`` the
    places of each scenario's, ``subscenarios_position`` those of its parts, ``seen_examples`` the seen places.
    """
    fitted = (np.asarray(benchmark["irt_parameters"][key], np.float64) for key in ("A", "B"))
    slope, offset = (values.reshape(-1, values.shape[-1]) for values in fitted)
    places = np.sort(np.asarray(benchmark["scenarios_position"][scenario], np.int64))
    balance = np.ones(len(places))
    parts = [np.asarray(part, np.int64) for part in benchmark["subscenarios_position"][scenario].values()]
    for part in parts:
        balance[np.searchsorted(places, part)] = len(places) / (len(parts) * len(part))
    seen = [place for place in benchmark["seen_examples"] if place in set(places.tolist())]
    return Items(
        slope[:, places],
        offset[:, places],
        np.searchsorted(places, seen).astype(np.int64),
        np.asarray(benchmark["examples_weights"][scenario], np.float64).ravel(),
        balance,
        float(benchmark["optimal_lambdas"][scenario]),
    )


def convert(path: Path, out: Path, sha256: str | None) -> str:
    """Keep the artefact's parameters as npz, which holds arrays alone.

    A scenario that is a benchmark of its own there (MMLU) is taken from it. Nothing is written unless all of it can be.

    Parameters
    ----------
    path : Path
        The artefact.
    out : Path
        The npz.
    sha256 : str or None
        Any other file is refused; None takes the one that is there.

    Returns
    -------
    str
        The artefact's sha256.
    """
    found = cards.file_sha256(path)
    if sha256 is not None and found != sha256:
        raise UserError(f"benchmarks.capability.irt_sha256: {path} has {found}, must be {sha256}")
    content = read_pickle(path)
    arrays: dict[str, npt.NDArray[Any]] = {"sha256": np.array(found)}
    try:
        for name, benchmark in content.items():
            for scenario in benchmark["scenarios_position"]:
                if scenario == name or scenario not in content:
                    values = vars(items_of(benchmark, scenario))
                    arrays |= {f"{scenario}/{key}": np.asarray(value) for key, value in values.items()}
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not laid out like the published tinyBenchmarks artefact ({error!r})") from error
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as temporary:
        np.savez_compressed(Path(temporary) / "items.npz", **arrays)  # type: ignore[arg-type]
        (Path(temporary) / "items.npz").replace(out)
    return found


def parameters(source: str, sha256: str | None) -> Path:
    """The npz of an artefact's parameters: converted the first time, kept in the cache of downloads.

    Parameters
    ----------
    source : str
        `published` or a local file.
    sha256 : str or None
        As :func:`convert` takes it; without it, what was published at the first download stays.
    """
    if source == "published":
        key = sha256 or "published"
    else:
        key = cards.file_sha256(fetch(source, Path()))
        if sha256 not in (None, key):
            raise UserError(f"benchmarks.capability.irt_sha256: {source} has {key}, must be {sha256}")
    out = fetching.cache_folder() / f"irt-{key[:16]}.npz"
    if not out.is_file():
        with tempfile.TemporaryDirectory() as folder:
            convert(fetch(source, Path(folder)), out, sha256)
    return out


def origin(path: Path) -> str:
    """The sha256 of the artefact that an npz was made of."""
    with np.load(path, allow_pickle=False) as file:
        return str(file["sha256"])


def load(path: Path, scenario: str) -> Items:
    """The items of one scenario from the npz that :func:`convert` made."""
    with np.load(path, allow_pickle=False) as file:
        known = sorted({key.split("/")[0] for key in file.files if "/" in key})
        if scenario not in known:
            raise UserError(f"{path}: no item parameters for {scenario!r}; allowed: {', '.join(known)}")
        values = {field.name: file[f"{scenario}/{field.name}"] for field in fields(Items)}
    return Items(**values | {"mixing": float(values["mixing"])})
