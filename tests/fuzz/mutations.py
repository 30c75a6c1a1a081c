"""Random damage: to bytes, and to what they mean. A damage is a function of the content and a random generator."""

from __future__ import annotations

import csv
import io
import json
import math
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto

from helpers.export.cache import METADATA_KEY
from studies.recordings.kinds import encode
from tests.fuzz import attacks_models, entries
from tests.fuzz.attacks_sound import hdf5
from tests.fuzz.values import NUMBERS, TEXTS, json_values

Damage = Callable[[bytes, Random], bytes]

_FIELDS = [
    bytes(4),
    b"\xff" * 4,
    b"\xff\xff\xff\x7f",
    b"\x7f\xff\xff\xff",
    b"\x00\x00\x00\x80",
    b"\xff" * 8,
    bytes(8),
    struct.pack("<d", math.nan),
]
_RECORDINGS = (
    "wav, 16 bit",
    "wav, float",
    "flac, 16 bit",
    "ogg, Vorbis",
    "mp3, VBR",
    "mp3, CBR",
    "m4a, AAC",
    "aiff",
    "au",
    "caf, PCM",
    "mkv, FLAC",
    "aac",
)


def bytes_changed(content: bytes, random: Random) -> bytes:
    """A few places overwritten, removed, doubled or cut off; more often near the beginning and the end, where headers are."""
    result = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 5))):
        size = len(result)
        if not size:
            break
        place = random.choice(
            (
                random.randrange(size),
                min(size - 1, int(random.expovariate(1 / 60))),
                max(0, size - 1 - int(random.expovariate(1 / 200))),
            )
        )
        length = random.choice((1, 1, 4, 20, 200))
        match random.randrange(7):
            case 0:
                result[place : place + length] = random.randbytes(length)
            case 1:
                field = random.choice(_FIELDS)
                result[place : place + len(field)] = field
            case 2:
                del result[place : place + length]
            case 3:
                result[place:place] = result[place : place + length]
            case 4:
                del result[place:]
            case 5:
                result[place : place + length] = bytes(length)
            case 6:
                result[place] ^= 1 << random.randrange(8)
    return bytes(result)


def _changed_value(value: Any, random: Random) -> Any:
    """Data of lists and dicts with another value, or without one, at a random place."""
    if isinstance(value, dict) and value and random.random() < 0.9:
        key = random.choice(list(value))
        if random.random() < 0.15:
            return {name: item for name, item in value.items() if name != key}
        return value | {key: _changed_value(value[key], random)}
    if isinstance(value, list) and value and random.random() < 0.7:
        place = random.randrange(len(value))
        return [*value[:place], _changed_value(value[place], random), *value[place + 1 :]]
    if isinstance(value, torch.Tensor) and random.random() < 0.9:
        return _changed_tensor(value.clone(), random)
    return random.choice(json_values())


def _changed_tensor(tensor: torch.Tensor, random: Random) -> torch.Tensor:
    match random.randrange(4):
        case 0 if tensor.is_floating_point():
            tensor.view(-1)[random.randrange(tensor.numel())] = random.choice((math.nan, math.inf, -math.inf))
            return tensor
        case 1:
            return tensor.to(random.choice((torch.float16, torch.float64, torch.int32, torch.complex64)))
        case 2:
            return tensor.flatten()[: random.randrange(tensor.numel() + 1)]
    return tensor[None]


def checkpoint(content: bytes, random: Random) -> bytes:
    return attacks_models.saved(_changed_value(attacks_models.loaded(content), random))


def exported(content: bytes, random: Random) -> bytes:
    model = onnx.load_model_from_string(content)
    node = random.choice(model.graph.node)
    tensor = random.choice(model.graph.initializer)
    match random.randrange(6):
        case 0 | 1:
            prop = next(prop for prop in model.metadata_props if prop.key == METADATA_KEY)
            prop.value = json.dumps(_changed_value(json.loads(prop.value), random))
        case 2:
            tensor.dims[:] = [random.choice((0, -1, 1, 2**31, 2**62)) for _ in range(random.randrange(4))]
        case 3:
            tensor.data_type = random.choice(TensorProto.DataType.values())
        case 4:
            tensor.raw_data = bytes_changed(tensor.raw_data, random)
        case 5:
            match random.randrange(3):
                case 0 if node.attribute:
                    attribute = random.choice(node.attribute)
                    attribute.ints[:] = [random.choice((0, -1, 2**31, 2**62, 3)) for _ in attribute.ints]
                    attribute.i, attribute.f = random.choice((0, -1, 2**62)), random.choice((math.nan, 1e38, 0.0))
                case 1:
                    node.op_type = random.choice(model.graph.node).op_type
                case _ if node.input:
                    node.input[random.randrange(len(node.input))] = random.choice(["", "nothing", "waveform", node.output[0]])
    return model.SerializeToString()


def json_text(content: bytes, random: Random) -> bytes:
    return json.dumps(_changed_value(json.loads(content), random)).encode()


def table(content: bytes, random: Random) -> bytes:
    """A table with other cells, rows or columns."""
    text = content.decode()
    delimiter = "\t" if "\t" in text else ","
    rows = list(csv.reader(io.StringIO(text), delimiter=delimiter))
    for _ in range(random.choice((1, 2, 4))):
        row = random.choice(rows)
        match random.randrange(5):
            case 0 | 1 if row:
                row[random.randrange(len(row))] = str(random.choice((*NUMBERS, *TEXTS)))
            case 2 if row:
                del row[random.randrange(len(row))]
            case 3:
                rows.insert(random.randrange(len(rows)), list(row))
            case 4:
                row.append(random.choice(TEXTS))
    result = io.StringIO()
    csv.writer(result, delimiter=delimiter, quoting=random.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL))).writerows(rows)
    return result.getvalue().encode("utf-8", "surrogatepass")


def archive(content: bytes, random: Random) -> bytes:
    """A zip with one entry under another name or with other content."""
    with zipfile.ZipFile(io.BytesIO(content)) as old:
        chosen = random.choice(old.namelist())
    other = random.choice(("../../owned", "/etc/owned", "x", "x" * 300, chosen.upper(), "ESC-50-master/audio/9.wav"))
    renames = random.random() < 0.3

    def change(name: str, data: bytes) -> tuple[str, bytes]:
        if name != chosen:
            return name, data
        return (other, data) if renames else (name, (table if name.endswith(".csv") else bytes_changed)(data, random))

    return attacks_models.repacked(content, change, random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA)))


def hdf5_values(content: bytes, random: Random) -> bytes:
    """An HDF5 file with other names, targets or mp3s."""
    generator = np.random.default_rng(random.getrandbits(32))

    def write(data: Any, _: Path) -> None:
        row = random.randrange(len(data["mp3"]))
        match random.randrange(4):
            case 0:
                mp3 = bytes_changed(data["mp3"][row].tobytes(), random)
                data["mp3"][row] = np.frombuffer(mp3, np.uint8)
            case 1:
                data["target"][row] = generator.integers(0, 256, data["target"].shape[1], np.uint8)
            case 2:
                data["audio_name"][row] = random.choice(TEXTS).encode("utf-8", "surrogatepass")[:20].rstrip(b"\0")
            case 3:
                name = random.choice(("audio_name", "target"))
                values = data[name][()]
                del data[name]
                data[name] = values[: random.randrange(len(values))]

    return hdf5(write)(content, Path())


def recording(_: bytes, random: Random) -> bytes:
    return bytes_changed(encode(random.choice(_RECORDINGS), 0.3), random)


BY_KIND: dict[entries.Kind, tuple[Damage, ...]] = {
    entries.CHECKPOINT: (checkpoint, checkpoint, checkpoint, bytes_changed),
    entries.EXPORTED: (exported, exported, exported, bytes_changed),
    entries.RECORDING: (recording,),
    entries.HDF5: (hdf5_values, bytes_changed),
    entries.PARQUET: (bytes_changed,),
    entries.TAR: (bytes_changed,),
    entries.ZIP: (archive, archive, bytes_changed),
    entries.SEGMENT_LIST: (table, bytes_changed),
    entries.TABLE: (table, bytes_changed),
    entries.LABELS: (table, bytes_changed),
    entries.EVENTS: (table, bytes_changed),
    entries.METADATA: (json_text, json_text, bytes_changed),
    entries.SPLIT: (json_text, json_text, bytes_changed),
    entries.LOGITS: (bytes_changed,),
    entries.NAMES: (bytes_changed,),
    entries.INDEX: (bytes_changed,),
    entries.DCASE20: (table, bytes_changed),
    entries.VOCABULARY: (table, bytes_changed),
    entries.PACKAGE: (bytes_changed,),
    entries.RUN_STATE: (checkpoint, checkpoint, checkpoint, bytes_changed),
    entries.RUN_CONFIG: (json_text, json_text, bytes_changed),
    entries.RUN_METRICS: (table, bytes_changed),
}
