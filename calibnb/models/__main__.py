"""python -m calibnb.models fetch NAME OUT: bring the weights of a model into a folder."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from calibnb.errors import UserError
from calibnb.models.fetching import fetch
from calibnb.models.sources import TABLE


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m calibnb.models fetch NAME OUT`; returns the exit status."""
    import argparse

    parser = argparse.ArgumentParser(prog="calibnb.models", description="Fetch the weights of a model.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("fetch", help="bring the weights of a model into a folder")
    command.add_argument("name", help=f"{', '.join(TABLE)}, a hub id org/name, or a folder")
    command.add_argument("out", type=Path, help="the folder to make")
    command.add_argument("--trust-remote-code", action="store_true", help="run code that comes with a hub model")
    asked = parser.parse_args(arguments)
    try:
        card = fetch(asked.name, asked.out, trust_remote_code=asked.trust_remote_code)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{card.name}: {card.parameters:,} parameters, {card.dtype}, in {asked.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
