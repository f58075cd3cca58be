"""gp-IRT: closed forms, simulated answers with known abilities, and a pickle that may hold anything."""

from __future__ import annotations

import os
import pickle
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import expit

from calibnb.benchmarks.capability import irt
from calibnb.errors import UserError
from calibnb.models import cards


def items(n: int = 400, k: int = 100, d: int = 1, seed: int = 0, **changes: Any) -> irt.Items:
    rng = np.random.default_rng(seed)
    values: dict[str, Any] = {
        "slope": rng.uniform(0.5, 2, (d, n)),
        "offset": rng.normal(0, 1, (d, n)),
        "seen": rng.permutation(n)[:k],
        "anchor_weights": np.full(k, 1 / k),
        "balance": np.ones(n),
        "mixing": 0.4,
    }
    return irt.Items(**values | changes)


def test_probability_is_the_logistic_function() -> None:
    slope, offset = np.array([[1.0, 2.0], [0.5, 0.0]]), np.array([[0.0, 1.0], [0.0, 1.0]])
    got = irt.success(np.array([1.0, 2.0]), slope, offset)
    assert got == pytest.approx(expit([1 * 1 + 0.5 * 2, 2 * 1 - 1 - 1]))


def test_the_ability_solves_the_likelihood_equation() -> None:
    """With one dimension the maximum is where the weighted answers meet their expectation."""
    own = items()
    slope, offset = own.slope[:, own.seen], own.offset[:, own.seen]
    answers = np.random.default_rng(1).integers(0, 2, 100).astype(float)
    (got,) = irt.fit_ability(answers, slope, offset)
    root = brentq(lambda x: float((slope[0] * (answers - expit(slope[0] * x - offset[0]))).sum()), -20, 20)
    assert got == pytest.approx(root, abs=1e-4)


@pytest.mark.parametrize("ability", [-1.5, 0.0, 2.0])
@pytest.mark.parametrize("d", [1, 3])
def test_a_known_ability_and_score_are_found_again(ability: float, d: int) -> None:
    own = items(n=4000, k=2000, d=d)
    rng = np.random.default_rng(2)
    p = irt.success(np.full(d, ability / d), own.slope, own.offset)
    answers = (rng.random(4000) < p).astype(float)
    fitted = irt.fit_ability(answers[own.seen], own.slope[:, own.seen], own.offset[:, own.seen])
    assert fitted == pytest.approx(np.full(d, ability / d), abs=0.3)
    got = irt.gp_irt(answers[own.seen], own)
    assert got.p_irt == pytest.approx(answers.mean(), abs=0.02)
    assert got.gp_irt == pytest.approx(0.4 * got.irt + 0.6 * got.p_irt)


def test_p_irt_sees_that_the_seen_items_were_easy() -> None:
    """Seen items are the easiest ones: their mean flatters, the prediction for the others corrects it."""
    offset = np.sort(np.random.default_rng(3).normal(0, 1.5, (1, 1000)))
    own = items(n=1000, k=200, slope=np.ones((1, 1000)), offset=offset, seen=np.arange(200))
    answers = (np.random.default_rng(4).random(1000) < irt.success(np.zeros(1), own.slope, own.offset)).astype(float)
    got = irt.gp_irt(answers[:200], own)
    assert got.irt - answers.mean() > 0.3
    assert got.p_irt == pytest.approx(answers.mean(), abs=0.05)


def test_all_seen_is_the_score_itself() -> None:
    own = items(n=50, k=50, seen=np.arange(50), anchor_weights=np.full(50, 0.02))
    answers = np.random.default_rng(5).integers(0, 2, 50).astype(float)
    assert irt.gp_irt(answers, own) == pytest.approx((answers.mean(),) * 3)


@pytest.mark.parametrize("right", [0.0, 1.0])
def test_all_right_and_all_wrong_stay_finite(right: float) -> None:
    got = irt.gp_irt(np.full(100, right), items())
    assert got.irt == pytest.approx(right) and abs(got.p_irt - right) < 0.05


def test_a_score_above_one_by_rounding_is_one() -> None:
    assert irt.gp_irt(np.full(100, 1 + 2**-52), items()) == irt.gp_irt(np.ones(100), items())


@pytest.mark.parametrize("answers", [np.ones(99), np.full(100, 1.5), np.full(100, np.nan)])
def test_answers_have_the_right_number_and_range(answers: np.ndarray) -> None:
    with pytest.raises(ValueError, match="100 scores"):
        irt.gp_irt(answers, items())


# ------------------------------------------------------------------------------------------------------ the pickle
def artefact() -> dict[str, Any]:
    """Two benchmarks as the published file lays them out: one of two scenarios, one that is its own."""
    rng = np.random.default_rng(6)

    def one(scenarios: dict[str, dict[str, list[int]]], seen: list[int], n: int) -> dict[str, Any]:
        places = {s: [i for part in parts.values() for i in part] for s, parts in scenarios.items()}
        return {
            "irt_parameters": {"A": rng.uniform(0.5, 2, (1, 2, n)), "B": rng.normal(0, 1, (1, 2, n))},
            "scenarios_position": places,
            "subscenarios_position": scenarios,
            "seen_examples": seen,
            "examples_weights": {s: np.full(2, 0.5) for s in places},
            "optimal_lambdas": dict.fromkeys(places, 0.25),
        }

    lb = one({"arc": {"arc": [0, 1, 2, 3]}, "mmlu": {"x": [4, 5], "y": [6, 7, 8, 9]}}, [3, 0, 5, 9], 10)
    return {"lb": lb, "mmlu": one({"mmlu": {"x": [0, 1], "y": [2, 3, 4, 5]}}, [5, 1], 6)}


def write(path: Path, content: object, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol))
    return path


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_the_artefact_is_converted_once(tmp_path: Path, protocol: int) -> None:
    content = artefact()
    file = write(tmp_path / "tiny.pkl", content, protocol)
    digest = cards.file_sha256(file)
    assert irt.convert(file, tmp_path / "out" / "items.npz", digest) == digest
    arc = irt.load(tmp_path / "out" / "items.npz", "arc")
    assert np.array_equal(arc.slope, content["lb"]["irt_parameters"]["A"][0][:, :4])
    assert arc.seen.tolist() == [3, 0] and arc.mixing == 0.25 and arc.balance.tolist() == [1, 1, 1, 1]
    mmlu = irt.load(tmp_path / "out" / "items.npz", "mmlu")  # the benchmark of its own
    assert np.array_equal(mmlu.offset, content["mmlu"]["irt_parameters"]["B"][0])
    assert mmlu.seen.tolist() == [5, 1]
    assert mmlu.balance == pytest.approx([1.5, 1.5, 0.75, 0.75, 0.75, 0.75])  # both parts weigh the same
    with pytest.raises(UserError, match=r"no item parameters for 'gsm8k'; allowed: arc, mmlu$"):
        irt.load(tmp_path / "out" / "items.npz", "gsm8k")


class Evil:
    def __init__(self, where: str) -> None:
        self.where = where

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.where,)


def test_nothing_in_a_pickle_is_run(tmp_path: Path) -> None:
    file = write(tmp_path / "evil.pkl", {"lb": Evil(str(tmp_path / "made"))})
    with pytest.raises(UserError, match=r"evil.pkl: asks for (posix|nt).mkdir; allowed: numpy arrays"):
        irt.convert(file, tmp_path / "items.npz", None)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["evil.pkl"]


def test_an_array_of_objects_holds_nothing_else_either(tmp_path: Path) -> None:
    file = write(tmp_path / "evil.pkl", np.array([Evil(str(tmp_path / "made"))], dtype=object))
    with pytest.raises(UserError, match="mkdir"):
        irt.read_pickle(file)
    assert not (tmp_path / "made").exists()


def test_names_behind_an_allowed_module_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "evil.pkl"
    file.write_bytes(b"\x80\x04cnumpy\nload\n.")
    with pytest.raises(UserError, match=r"asks for numpy.load; allowed"):
        irt.read_pickle(file)


@pytest.mark.parametrize("data", [b"", b"no pickle", b"\x80\x04", b"\x80\x04K\x01"])
def test_what_is_no_pickle_is_one_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "broken.pkl").write_bytes(data)
    with pytest.raises(UserError, match=r"broken.pkl: no readable pickle"):
        irt.read_pickle(tmp_path / "broken.pkl")


@pytest.mark.parametrize("content", [[1, 2], {"lb": {}}, {"lb": 3}])
def test_another_layout_is_one_line_and_leaves_nothing(tmp_path: Path, content: object) -> None:
    file = write(tmp_path / "other.pkl", content)
    with pytest.raises(UserError, match=r"other.pkl: not laid out like the published"):
        irt.convert(file, tmp_path / "items.npz", None)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other.pkl"]


def test_a_wrong_hash_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    file = write(tmp_path / "evil.pkl", Evil(str(tmp_path / "made")))
    with pytest.raises(UserError, match=r"^benchmarks.capability.irt_sha256: .*evil.pkl has [0-9a-f]{64}, must be 00$"):
        irt.convert(file, tmp_path / "items.npz", "00")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"^benchmarks.capability.irt: no file nowhere.pkl; allowed: null, published, or a file$"
    ):
        irt.fetch("nowhere.pkl", tmp_path)


def test_a_download_that_fails_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    with pytest.raises(UserError, match=r"cannot be had .*no network.*; connect, or name a file in its place$"):
        irt.fetch("published", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_artefact_is_converted_the_first_time_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALIBNB_CACHE", str(tmp_path / "cache"))
    file = write(tmp_path / "tiny.pkl", artefact())
    digest = cards.file_sha256(file)
    made = irt.parameters(str(file), None)
    assert irt.origin(made) == digest and irt.load(made, "arc").mixing == 0.25
    monkeypatch.setattr(irt, "convert", None)
    assert irt.parameters(str(file), digest) == made
    with pytest.raises(UserError, match=r"^benchmarks.capability.irt_sha256: .*tiny.pkl has [0-9a-f]{64}, must be 00$"):
        irt.parameters(str(file), "00")
    with pytest.raises(UserError, match=r"^benchmarks.capability.irt: no file nowhere.pkl"):
        irt.parameters("nowhere.pkl", None)
