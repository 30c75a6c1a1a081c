from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pytest
import soundfile

from datasets.audio import AudioError
from datasets.streams.pcm import FORMATS
from datasets.streams.pipes import open_stream
from helpers.tagger import AudioTagger, StreamTagger
from helpers.tagger import audio_tagger as module
from models.errors import UserError

RATE = 16000
RNG = np.random.default_rng(0)
STEREO = RNG.integers(-9000, 9000, (RATE, 2), dtype=np.int16)


class Power:
    """A backend whose scores are mean square and peak."""

    sample_rate, labels, num_classes, embedding_size, columns, clip_seconds = RATE, ("power", "peak"), 2, 1, {}, None
    hop_size = None  # its windows share nothing
    step_seconds = None

    def __call__(self, waveforms: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        return [(np.array([np.square(x).mean(), np.abs(x).max()], np.float32), np.zeros(1, np.float32)) for x in waveforms]


@pytest.fixture
def power(monkeypatch: pytest.MonkeyPatch) -> AudioTagger:
    monkeypatch.setattr(module, "load_backend", lambda *_: Power())
    return AudioTagger("any")


def scores(stream: StreamTagger, *pieces: bytes | np.ndarray) -> np.ndarray:
    windows = [window for piece in pieces for window in stream.windows(piece)] + stream.last_windows()
    return np.array([row for *_, row in windows])


@pytest.mark.parametrize(
    ("format", "subtype"), [("s16le", "PCM_16"), ("s32le", "PCM_32"), ("f32le", "FLOAT"), ("u8", "PCM_U8"), ("mulaw", "ULAW")]
)
def test_raw_formats_give_the_windows_of_the_file(format: str, subtype: str, power: AudioTagger) -> None:
    raw, wav = io.BytesIO(), io.BytesIO()
    soundfile.write(raw, STEREO / 32768, RATE, format="RAW", subtype=subtype)
    soundfile.write(wav, STEREO / 32768, RATE, format="WAV", subtype=subtype)
    options = {"window": 0.3, "hop": 0.1}
    stream = StreamTagger(power, RATE, channels=2, format=format, **options)
    content = raw.getvalue()
    found = scores(stream, content[:1001], content[1001:])
    np.testing.assert_allclose(found, power.tag_windows(wav.getvalue(), **options).scores, atol=1e-6)
    assert format in FORMATS


def test_arrays_are_taken_as_well(power: AudioTagger) -> None:
    options = {"window": 0.3, "hop": 0.1, "channels": 2}
    expected = scores(StreamTagger(power, RATE, **options), STEREO.tobytes())
    for pieces in ((STEREO[:77], STEREO[77:]), (STEREO / 32768, STEREO[:0])):
        np.testing.assert_allclose(scores(StreamTagger(power, RATE, **options), *pieces), expected, atol=1e-6)
    left = scores(StreamTagger(power, RATE, **options, channel=1), STEREO)
    np.testing.assert_array_equal(left, scores(StreamTagger(power, RATE, window=0.3, hop=0.1), STEREO[:, 0]))
    for wrong in (STEREO[:, 0], STEREO[None], STEREO > 0):
        with pytest.raises(UserError):
            StreamTagger(power, RATE, **options).feed(wrong)
    with pytest.raises(AudioError, match="channel 3"):
        StreamTagger(power, RATE, channels=2, channel=3)


@pytest.mark.parametrize("size", [1, 3, 10**6])
@pytest.mark.parametrize(("format", "subtype"), [("WAV", None), ("FLAC", None), ("OGG", "VORBIS")])
def test_bytes_with_a_header_are_refused_and_open_stream_reads_them(
    size: int, format: str, subtype: str | None, power: AudioTagger
) -> None:
    file = io.BytesIO()
    soundfile.write(file, STEREO, RATE, format=format, subtype=subtype)
    content = file.getvalue()
    with pytest.raises(UserError, match="open_stream"):
        scores(StreamTagger(power, RATE, window=0.3, hop=0.1), *(content[i : i + size] for i in range(0, 20, size)))
    opened = open_stream(io.BytesIO(content))
    found = scores(StreamTagger(power, opened.rate, channels=opened.channels, window=0.3, hop=0.1), *opened.blocks)
    np.testing.assert_allclose(found, power.tag_windows(content, window=0.3, hop=0.1).scores, atol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -20000.0])
def test_samples_that_are_no_sound_are_refused(bad: float, power: AudioTagger) -> None:
    samples = np.zeros(RATE, np.float32)
    samples[500] = bad
    with pytest.raises(AudioError, match="NaN|full scale"):
        StreamTagger(power, RATE, format="f32le").feed(samples.tobytes())


@pytest.mark.parametrize("piece", [999, 1 << 20])
def test_channels_that_cancel_are_noticed_before_the_first_window(
    piece: int, power: AudioTagger, caplog: pytest.LogCaptureFixture
) -> None:
    left = RNG.uniform(-0.5, 0.5, 40 * RATE)
    right = np.concatenate([left[: 20 * RATE] * -0.9, left[20 * RATE :] * 0.9])  # cancels for 20 s
    sound = np.stack([left, right], 1)
    stream = StreamTagger(power, RATE, channels=2, window=10, hop=10)
    found = scores(stream, *(sound[start : start + piece] for start in range(0, len(sound), piece)))[:, 0]
    alone, mixed = np.square(left).mean(), np.square(0.95 * left).mean()
    np.testing.assert_allclose(found, [alone, alone, 0.1 * alone + 0.9 * mixed, mixed], rtol=0.02)
    [record] = caplog.records
    assert "cancel" in record.message and "channel 1" in record.message


def test_channels_that_cancel_later_are_noticed_while_they_do(power: AudioTagger, caplog: pytest.LogCaptureFixture) -> None:
    left = RNG.uniform(-0.5, 0.5, 30 * RATE)
    right = np.concatenate([left[: 10 * RATE], -left[10 * RATE :]])
    found = scores(StreamTagger(power, RATE, channels=2, window=10, hop=10), np.stack([left, right], 1))[:, 0]
    np.testing.assert_allclose(found, np.square(left).mean() * np.array([1, 0, 1]), rtol=0.02, atol=1e-6)
    [record] = caplog.records
    assert "from 20 s on" in record.message


@pytest.mark.parametrize("samples", [1, RATE // 2, RATE + 1])
def test_short_sound_of_two_channels_is_not_lost(samples: int, power: AudioTagger) -> None:
    left = RNG.uniform(-0.5, 0.5, samples)
    found = scores(StreamTagger(power, RATE, channels=2), np.stack([left, -left], 1))
    np.testing.assert_allclose(found, [[np.square(left).mean(), np.abs(left).max()]], rtol=1e-5)


def test_the_array_of_a_piece_may_be_used_again(power: AudioTagger, caplog: pytest.LogCaptureFixture) -> None:
    piece = np.empty((RATE // 2, 2), np.float32)
    stream = StreamTagger(power, RATE, channels=2, window=1, hop=1)
    for number in range(12):
        piece[:, 0] = RNG.uniform(-0.5, 0.5, len(piece))
        piece[:, 1] = piece[:, 0] * (-1) ** number  # half of each second cancels
        stream.windows(piece)
    assert not caplog.records
