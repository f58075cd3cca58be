"""Perplexity and bits per byte of slices of text, with intervals from a bootstrap of the documents."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from calibnb.benchmarks.perplexity.corpora import MEASURES, Floats


def _totals(frame: pd.DataFrame) -> Floats:
    """``[3, documents]``: NLL, tokens and bytes of each document with a scored token, the mean over training seeds."""
    scored = frame[frame["tokens"] > 0]
    per_document = scored.groupby(["slice", "document"], sort=False)[["nll", "tokens", "bytes"]].mean()
    return per_document.to_numpy(np.float64).T


def _measures(totals: Floats) -> dict[str, Floats]:
    loss, tokens, size = totals
    return {"perplexity": np.exp(loss / tokens), "bits_per_byte": loss / (math.log(2) * size)}


def _resampled(totals: Floats, resamples: int, seed: int) -> dict[str, Floats]:
    """The measures of `resamples` draws of as many documents with replacement; equal seeds draw the same ones."""
    documents = totals.shape[1]
    counts = np.random.default_rng(seed).multinomial(documents, np.full(documents, 1 / documents), size=resamples)
    return _measures(totals @ counts.T)


def _slices(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {**{str(name): part for name, part in frame.groupby("slice", sort=False)}, "all": frame}


def _rows(name: str, values: dict[str, Floats], drawn: dict[str, Floats], documents: int) -> list[dict[str, object]]:
    """A row a measure, its interval from the resamples ``drawn``."""
    rows: list[dict[str, object]] = []
    for measure in MEASURES:
        # One document says nothing of how documents differ.
        ends = np.quantile(drawn[measure], [0.025, 0.975]) if documents > 1 else (np.nan, np.nan)
        low, high = map(float, ends)
        row: dict[str, object] = {"slice": name, "measure": measure, "value": float(values[measure])}
        rows.append(row | {"low": low, "high": high, "documents": documents})
    return rows


def summarise(frame: pd.DataFrame, *, resamples: int, seed: int) -> pd.DataFrame:
    """Perplexity and bits per byte of each slice and of all: rows ``slice, measure, value, low, high, documents``.

    Parameters
    ----------
    frame : DataFrame
        Frame of :func:`run`, any number of training seeds. Intervals come from a bootstrap of the documents.
    resamples, seed : int
        Resamples and seed of the bootstrap.
    """
    rows = []
    for name, part in _slices(frame).items():
        totals = _totals(part)
        rows += _rows(name, _measures(totals.sum(axis=1)), _resampled(totals, resamples, seed), totals.shape[1])
    return pd.DataFrame(rows)


def _against(own: dict[str, Floats], base: dict[str, Floats]) -> dict[str, Floats]:
    return {
        "perplexity": own["perplexity"] / base["perplexity"],
        "bits_per_byte": own["bits_per_byte"] - base["bits_per_byte"],
    }


def compare(frame: pd.DataFrame, base: pd.DataFrame, *, resamples: int, seed: int) -> pd.DataFrame:
    """What `frame` needs more than `base`: ratio of perplexities and difference of bits per byte, documents paired."""
    rows = []
    others = _slices(base)
    for name, part in _slices(frame).items():
        own, other = _totals(part), _totals(others[name])
        if own.shape != other.shape:
            raise ValueError(f"{name}: the two hold different documents")
        values = _against(_measures(own.sum(axis=1)), _measures(other.sum(axis=1)))
        drawn = _against(_resampled(own, resamples, seed), _resampled(other, resamples, seed))
        rows += _rows(name, values, drawn, own.shape[1])
    return pd.DataFrame(rows)
