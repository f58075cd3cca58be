"""The splits of the study as ids and files call them."""

from __future__ import annotations

KEYS = {"validation": "in_range", "unseen": "unseen", "held_out": "held_out"}
