"""The model hub, which may be out of reach: asked once and briefly before a library asks it for minutes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from huggingface_hub import constants, get_session
from huggingface_hub.errors import LocalEntryNotFoundError
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # the installed client, whatever its version

SECONDS = 10.0  # to wait for the hub's first answer, the look-up of its name included

# What the hub's client raises where it gets no answer, one that refuses, or none and has kept nothing.
FAILURES = (httpx.HTTPError, LocalEntryNotFoundError)


def answers() -> bool:
    """Whether the hub answers one request in time. No library that looks up names can be told a limit, a thread can."""
    replies = []

    def ask() -> None:
        with contextlib.suppress(httpx.HTTPError, OSError):
            replies.append(get_session().head(constants.ENDPOINT, timeout=SECONDS).status_code)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(SECONDS)
    return bool(replies) and replies[0] < 500


@contextlib.contextmanager
def asked() -> Iterator[None]:
    """A block in which the hub is read; where it does not answer, the block sees only what was kept of it.

    Clients of the hub ask six times for a file that they have not kept, print each try and take 24 seconds where the
    name is unknown, minutes where nothing comes back. What they raise in this block says the same at once.
    """
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not answers()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
