from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from datasets.streams.marks import HEAD_BYTES, container
from datasets.streams.pcm import FORMATS, Pcm
from models.errors import UserError

SUBTYPES = {
    "s16le": "PCM_16",
    "s24le": "PCM_24",
    "s32le": "PCM_32",
    "f32le": "FLOAT",
    "f64le": "DOUBLE",
    "u8": "PCM_U8",
    "mulaw": "ULAW",
    "alaw": "ALAW",
}


@pytest.mark.parametrize("format", FORMATS)
def test_pcm_in_odd_pieces_is_read_as_soundfile_reads_it(format: str) -> None:
    width = FORMATS[format][0]
    if format[0] == "f":
        content = np.random.default_rng(0).uniform(-1, 1, 1536).astype(f"<f{width}").tobytes()
    else:
        content = bytes(range(256)) * 6 * width  # each code of the 8-bit formats
    expected, _ = soundfile.read(
        io.BytesIO(content), samplerate=8000, channels=2, format="RAW", subtype=SUBTYPES[format], endian="LITTLE", dtype="float32"
    )
    pcm = Pcm(format, 2)
    pieces = [pcm.push(content[start : start + 7]) for start in range(0, len(content), 7)]
    found = np.concatenate(pieces)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)
    assert len(pcm.push(bytes(2 * width - 1))) == 0  # half a frame


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(UserError, match="s16be"):
        Pcm("s16be", 1)


@pytest.mark.parametrize(
    ("format", "subtype", "kind"),
    [
        ("WAV", None, "wav"),
        ("WAVEX", None, "wav"),
        ("RF64", None, "wav"),
        ("FLAC", None, "flac"),
        ("OGG", "VORBIS", "ogg"),
        ("OGG", "OPUS", "ogg"),
        ("AIFF", None, "aiff"),
        ("AU", None, "au"),
        ("CAF", None, "caf"),
        ("W64", None, "w64"),
        ("RAW", "PCM_16", None),
    ],
)
def test_containers_are_told_by_their_first_bytes(format: str, subtype: str | None, kind: str | None) -> None:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(16000), 16000, format=format, subtype=subtype)
    assert container(file.getvalue()[:HEAD_BYTES]) == kind
