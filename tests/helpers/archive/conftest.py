"""Small archives of the form that archive.py writes, without Ray."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

LABELS = ("Speech", "Dog", "Rain; heavy")
SIZE = 8  # of embeddings

Row = dict[str, Any]


def row(source: str, start: float = 0.0, end: float = 2.0, **values: Any) -> Row:
    """A row of an archive; scores and embeddings are lists."""
    return {"source": source, "start": start, "end": end, **values}


def failure(source: str, kind: str = "damaged") -> Row:
    return {"source": source, "error": f"{source} cannot be used", "error_kind": kind}


@pytest.fixture
def write_archive(tmp_path: Path) -> Callable[..., str]:
    def write(
        name: str,
        *shards: Sequence[Row],
        sha256: str = "f" * 64,
        labels: Sequence[str] = LABELS,
        models: Sequence[str] = ("tiny",),
        **settings: Any,
    ) -> str:
        folder = tmp_path / name
        (folder / "data").mkdir(parents=True)
        of_models = [{"name": model, "sha256": sha256, "labels": labels} for model in models]
        manifest = {"settings": {"window": None, "top_k": None, **settings}, "models": of_models, "shards": len(shards)}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        schema = schema_of({key for shard in shards for one in shard for key in one}, len(labels))
        for number, rows in enumerate(shards):
            rows = [{**one, "model": "tiny", "model_hash": sha256, "version": "1"} for one in rows]
            pq.write_table(pa.Table.from_pylist(rows, schema), folder / f"data/shard-{number:06}.parquet")
        return str(folder)

    return write


def schema_of(names: set[str], num_labels: int) -> pa.Schema:
    half = pa.float16()
    asked = {
        "channel": pa.int16(), "scores": pa.list_(half, num_labels), "labels": pa.list_(pa.int16()), "label_scores": pa.list_(half),
        "label": pa.int16(), "score": half, "embedding": pa.list_(half, SIZE),
    }  # fmt: skip
    times = [("source", pa.string()), ("start", pa.float64()), ("end", pa.float64())]
    results = [
        (name, kind) for name in sorted(names) for start, kind in asked.items() if name in (start, f"{start}_one", f"{start}_two")
    ]
    about = [(name, pa.dictionary(pa.int32(), pa.string())) for name in ("model", "model_hash", "version")]
    return pa.schema(
        [*times, *results, *about, ("warnings", pa.list_(pa.string())), ("error", pa.string()), ("error_kind", pa.string())]
    )


def vector(*values: float) -> list[float]:
    return [*values, *[0.0] * (SIZE - len(values))]


@pytest.fixture
def random_vectors() -> Callable[[int], np.ndarray]:
    return lambda count: np.random.default_rng(0).standard_normal((count, SIZE)).astype(np.float16)
