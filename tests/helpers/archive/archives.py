"""Small archives, written by the output module without Ray."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from helpers.archive.inputs import Entry
from helpers.archive.output import MANIFEST, Output
from helpers.archive.parcels import Address
from helpers.archive.plan import Plan
from helpers.archive.schema import Settings, schema, to_table

LABELS = ("Speech", "Dog", "Rain; heavy")
SIZE = 8  # of embeddings

Row = dict[str, Any]


def row(source: str, start: float = 0.0, end: float = 2.0, **values: Any) -> Row:
    """A row of an archive."""
    return {"source": source, "start": start, "end": end, **values}


def failure(source: str, kind: str = "damaged") -> Row:
    return {"source": source, "error": f"{source} cannot be used", "error_kind": kind}


def vector(*values: float) -> list[float]:
    """An embedding that begins with these values."""
    return [*values, *[0.0] * (SIZE - len(values))]


def write(
    folder: Path,
    *shards: Sequence[Row],
    sha256: str = "f" * 64,
    labels: Sequence[str] = LABELS,
    models: Sequence[str] = ("tiny",),
    addresses: Path | None = None,  # folder of the recordings
    entries: Sequence[Entry] | None = None,  # of the one shard, where they are no files of a folder
    settings: dict[str, Any] | None = None,
    **columns: Any,
) -> str:
    """Write rows as the shards of an archive; return its address. `columns` are options of `Settings`, `settings` further ones."""
    names = {name for rows in shards for one in rows for name in one}
    columns = {
        "events": any("label" in name.split("_")[:1] for name in names - {"label_scores"}),
        "per_channel": "channel" in names,
        **columns,
    }
    asked = Settings(tuple(models), embed="embedding" in names, top_k=2 if "labels" in names else None, **columns)
    has_scores = any(name.startswith(("scores", "label")) for name in names)
    size = max((len(one["embedding"]) for rows in shards for one in rows if one.get("embedding") is not None), default=SIZE)
    kind = schema(asked, [labels if has_scores else ()] * len(models), [size] * len(models))
    output = Output(folder)
    for number, rows in enumerate(shards):
        sources = dict.fromkeys(one["source"] for one in rows)
        listed = entries or [Entry(source, str((addresses or Path("/in")) / source)) for source in sources]
        Plan(folder).extend(listed, 10**6, 10**6)  # one shard, one task
        about = {"model": "+".join(models), "model_hash": sha256, "version": "1"}
        table = {field.name: [{**about, **one}.get(field.name) for one in rows] for field in kind}
        output.write_parcel(Address(number, 0, 0, True), to_table(table, kind))
        output.compact(number)
    described = [{"name": name, "given": name, "sha256": sha256, "labels": list(labels)} for name in models]
    output.write_json(
        MANIFEST, {"input": str(addresses or "/in"), "settings": {**vars(asked), **(settings or {})}, "models": described}
    )
    return output.address
