"""The columns of the rows of an archive.

| column | type | holds |
|---|---|---|
| source | string | the recording's name: its path below the input, or as a list has it |
| start, end | float64 | seconds; null in rows of errors |
| channel | int16 | with `per_channel` alone: from 1 |
| scores | list of K float32 | scores in [0, 1], in the order of the labels |
| labels, label_scores | lists of int16 and float32 | with `top_k`, instead of scores: the highest, first the highest |
| label, score | int16, float32 | of events: a row is an event; null in the row of a recording without any |
| embedding | list of C float32 | |
| model, model_hash, version | string | models, the SHA-256 of their weights, separated by +, and this project's version |
| warnings | list of strings | what was wrong with the recording; null for nothing |
| error, error_kind | string | null where all is well |

Columns of several models end in the model's name: scores_mn04_as. The file's metadata holds `METADATA` as JSON, with the labels.

Scores and embeddings are float32, rounded to what float16 holds unless `dtype` is float32. Spark 4.3 refuses Parquet's own type
for halves (PARQUET_TYPE_ILLEGAL: FLOAT16), while DuckDB 2.0, Polars 2.1 and Hugging Face's datasets 5.2 read either. The zeros that
rounding leaves cost next to nothing, see benchmarks/archive_format.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from helpers.tagger.embedding_files import escaped
from models.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

METADATA = b"efficientat"
DTYPES = ("float16", "float32")


@dataclass(frozen=True)
class Settings:
    """What is asked of the recordings."""

    models: tuple[str, ...]  # names or paths
    events: bool = False  # instead of scores
    embed: bool = False  # with the scores, which a model without classes has not
    top_k: int | None = None
    window: float | None = None  # seconds; None: whole recordings, or parts of long ones
    hop: float | None = None
    per_channel: bool = False
    dtype: str = DTYPES[0]  # what scores and embeddings are rounded to

    def __post_init__(self) -> None:
        """Raises UserError for settings that do not go together."""
        if not self.models:
            raise UserError("no model is given; give one or more")
        if self.events and (self.embed or self.top_k is not None):
            raise UserError("a row is an event, so events go neither with embeddings nor with top_k; make two archives")
        self.names  # noqa: B018 - raises
        if self.dtype not in DTYPES:
            raise UserError(f"dtype is {self.dtype!r}; it is one of {', '.join(DTYPES)}")

    @property
    def names(self) -> tuple[str, ...]:
        """The models' names in columns and in the manifest. Raises UserError where two are the same."""
        names = [re.sub(r"\W+", "_", PurePath(model).stem) for model in self.models]
        if len({name.lower() for name in names}) < len(names):  # SQL takes A for a
            raise UserError(f"models are {', '.join(names)}, whose names must differ; leave one out, or rename a file")
        return tuple(names)

    @property
    def suffixes(self) -> tuple[str, ...]:
        """What the names of each model's columns end in: nothing where there is one model."""
        return ("",) if len(self.models) == 1 else tuple(f"_{name}" for name in self.names)


def schema(settings: Settings, labels: Sequence[Sequence[str]], sizes: Sequence[int]) -> pa.Schema:
    """Return the columns; `labels` and `sizes` of embeddings are those of each model."""
    import pyarrow as pa

    values = pa.float32()
    fields = [pa.field("source", pa.string(), nullable=False), ("start", pa.float64()), ("end", pa.float64())]
    if settings.per_channel:
        fields.append(("channel", pa.int16()))
    for suffix, own, size in zip(settings.suffixes, labels, sizes, strict=True):
        if settings.events:
            fields += [(f"label{suffix}", pa.int16()), (f"score{suffix}", values)]
        elif own and settings.top_k is not None:
            fields += [(f"labels{suffix}", pa.list_(pa.int16())), (f"label_scores{suffix}", pa.list_(values))]
        elif own:
            fields.append((f"scores{suffix}", pa.list_(values, len(own))))
        if settings.embed:
            fields.append((f"embedding{suffix}", pa.list_(values, size)))
    fields += [(name, pa.string()) for name in ("model", "model_hash", "version")]
    fields += [("warnings", pa.list_(pa.string())), ("error", pa.string()), ("error_kind", pa.string())]
    about = {
        "dtype": settings.dtype,
        "labels": {f"labels{suffix}": list(own) for suffix, own in zip(settings.suffixes, labels, strict=True)},
    }
    return pa.schema(fields, {METADATA: json.dumps(about).encode()})


def to_table(columns: dict[str, Sequence[Any]], schema: pa.Schema) -> pa.Table:
    """Make a table of columns, which hold Python's values or, for lists of numbers, arrays; None is null. Missing ones are null.

    Scores and embeddings are rounded as the schema says.
    """
    import pyarrow as pa

    rows = len(columns["source"])
    half = json.loads(schema.metadata[METADATA])["dtype"] == "float16"
    arrays = [_array(columns.get(field.name, [None] * rows), field.type, half) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def rounded(values: np.ndarray) -> np.ndarray:
    """Return float32 with the values that float16 holds; what is too large for it becomes its largest value."""
    largest = np.finfo(np.float16).max
    return np.clip(values, -largest, largest).astype(np.float16).astype(np.float32)


def _array(values: Sequence[Any], kind: pa.DataType, half: bool) -> pa.Array:
    import pyarrow as pa

    if pa.types.is_float32(kind):
        numbers = np.array([np.nan if value is None else value for value in values], np.float32)
        return pa.array(rounded(numbers) if half else numbers, kind, mask=_missing(values))
    if pa.types.is_string(kind):
        return pa.array([value and escaped(value) for value in values], kind)
    if not pa.types.is_nested(kind):
        return pa.array(values, kind)
    if pa.types.is_string(kind.value_type):
        return pa.array([[escaped(text) for text in value] if value else None for value in values], kind)
    dtype = kind.value_type.to_pandas_dtype()
    if pa.types.is_fixed_size_list(kind):
        values_or_zeros = [np.zeros(kind.list_size, dtype) if value is None else value for value in values]
        mask = pa.array(_missing(values))
        return pa.FixedSizeListArray.from_arrays(_flat(values_or_zeros, kind, dtype, half), type=kind, mask=mask)
    lengths = [0 if value is None else len(value) for value in values]
    offsets = pa.array(np.cumsum([0, *lengths]), pa.int32())
    flat = _flat([value for value in values if value is not None], kind, dtype, half)
    return pa.ListArray.from_arrays(offsets, flat, type=kind, mask=pa.array(_missing(values)))


def _flat(values: Sequence[Any], kind: pa.DataType, dtype: Any, half: bool) -> pa.Array:
    import pyarrow as pa

    flat = np.concatenate([np.asarray(value, dtype) for value in values]) if values else np.zeros(0, dtype)
    return pa.array(rounded(flat) if half and dtype == np.float32 else flat, kind.value_type)


def _missing(values: Sequence[Any]) -> np.ndarray:
    return np.array([value is None for value in values], bool)
