"""A hub that cannot be reached costs one request and one line, wherever it is asked for something."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
import huggingface_hub
import pytest
from conftest import digit_chat_tokenizer, tiny_model
from huggingface_hub import constants
from huggingface_hub.utils import _http, httpx

from calibnb import records
from calibnb.benchmarks.capability import bundled
from calibnb.benchmarks.capability import harness as capability_harness
from calibnb.benchmarks.novelty import judges
from calibnb.errors import UserError
from calibnb.models import __main__, chatformat, fetching, hub, loading
from calibnb.training import mixture
from calibnb.trees.attention import Body

Reply = Callable[[httpx.Request], httpx.Response]


class Network:
    """Stands in for the network below the hub's own client: what is asked for, and what comes back."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.reply: Reply = self.unknown

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(f"{request.method} {request.url}")
        return self.reply(request)

    @staticmethod
    def unknown(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("Name or service not known", request=request)


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Network]:
    """A network without a hub, empty caches, and nobody who waits for a second try."""
    made = Network()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    monkeypatch.setattr(_http.time, "sleep", lambda seconds: pytest.fail(f"waits {seconds} s to try again"))
    hooks = {"request": [_http.hf_request_event_hook]}
    huggingface_hub.set_client_factory(
        lambda: httpx.Client(transport=httpx.MockTransport(made), event_hooks=hooks, follow_redirects=True)
    )
    yield made
    huggingface_hub.set_client_factory(_http.default_client_factory)


def harness(task: str, folder: Path) -> None:
    tokenizer = digit_chat_tokenizer()
    bundled.write_suite(folder / "suite", 2, 0)
    body = Body(tiny_model("llama", len(tokenizer)))
    chat = chatformat.chat_format(tokenizer)
    capability_harness.run(body, chat, [task], suite=folder / "suite", data=None, limit=1, batch=2, seed=0)


PLACES: dict[str, Callable[[Path], object]] = {
    "model": lambda folder: fetching.fetch("org/name", folder / "out"),
    "records": lambda folder: list(records.load("org/name:train", "key")),
    "records of a configuration": lambda folder: list(records.load("org/name:config:train", "key")),
    "mixture": lambda folder: mixture.load("org/name:train", folder),
    "classifier": lambda folder: judges._folder("org/name", weights=True, tokenizer=False),
    "classifier's tokenizer": lambda folder: judges._folder("org/name", weights=False, tokenizer=True),
    "reward model": lambda folder: judges._folder("org/name", weights=True, tokenizer=True),
    "capability": lambda folder: harness("tinyMMLU", folder),
}


def timeout(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectTimeout("timed out", request=request)


def proxy(request: httpx.Request) -> httpx.Response:
    raise httpx.ProxyError("403 Forbidden", request=request)


REPLIES: dict[str, Reply] = {
    "name unknown": Network.unknown,
    "timed out": timeout,
    "a proxy in between": proxy,
    "down": lambda request: httpx.Response(503),
}


@pytest.mark.parametrize("reply", REPLIES)
@pytest.mark.parametrize("place", PLACES)
def test_one_request_and_one_line(
    network: Network, tmp_path: Path, place: str, reply: str, capfd: pytest.CaptureFixture[str]
) -> None:
    network.reply = REPLIES[reply]
    with pytest.raises(UserError, match="cannot be had") as caught:
        PLACES[place](tmp_path)
    assert network.asked == [f"HEAD {constants.ENDPOINT}"] and "\n" not in str(caught.value)
    assert "Retrying" not in capfd.readouterr().err and not constants.HF_HUB_OFFLINE


def test_the_command_prints_one_line(network: Network, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert __main__.main(["fetch", "org/name", str(tmp_path / "out")]) == 1
    line = capfd.readouterr().err
    assert line.startswith("models: org/name cannot be had: the hub is out of reach") and line.count("\n") == 1


def test_a_hub_that_answers_late_does_not_answer(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where no time limit of a client holds, as in the look-up of a name."""
    late = threading.Event()

    def waits(request: httpx.Request) -> httpx.Response:
        late.wait()
        return httpx.Response(200)

    network.reply = waits
    monkeypatch.setattr(hub, "SECONDS", 0.05)
    assert not hub.answers()
    late.set()


@pytest.mark.parametrize("status", [200, 307, 401, 403, 404, 429, 499])
def test_any_answer_of_the_hub_itself_will_do(network: Network, status: int) -> None:
    network.reply = lambda request: httpx.Response(status)
    assert hub.answers()
    with hub.asked():
        assert not constants.HF_HUB_OFFLINE


@pytest.mark.parametrize("offline", [True, False])
def test_the_setting_is_put_back(network: Network, monkeypatch: pytest.MonkeyPatch, offline: bool) -> None:
    """And a user who is offline by choice is asked for no request at all."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    with pytest.raises(ZeroDivisionError), hub.asked():
        assert constants.HF_HUB_OFFLINE
        raise ZeroDivisionError
    assert offline == constants.HF_HUB_OFFLINE and len(network.asked) == (not offline)


def test_what_was_kept_is_read(network: Network, tiny_folder: Path, tmp_path: Path) -> None:
    kept = tmp_path / "hub" / "models--org--name"
    (kept / "snapshots").mkdir(parents=True)
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("0" * 40)
    tiny_folder.rename(kept / "snapshots" / ("0" * 40))
    assert fetching.fetch("org/name", tmp_path / "out").source == f"org/name@{'0' * 40}"
    assert judges._folder("org/name", weights=True, tokenizer=True).name == "0" * 40


def test_local_models_and_bundled_tasks_ask_for_nothing(network: Network, tiny_folder: Path, tmp_path: Path) -> None:
    fetching.fetch(str(tiny_folder), tmp_path / "out")
    loading.load(tmp_path / "out")
    harness("calibnb_copying", tmp_path)
    # `datasets` counts from time to time, elsewhere and without waiting, that its reader of json is used.
    assert [line for line in network.asked if constants.ENDPOINT in line] == []
