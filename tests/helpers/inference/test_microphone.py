from __future__ import annotations

import builtins
import sys
import threading
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from datasets.audio import AudioError
from datasets.streams.pipes import Stream
from helpers.inference import microphone
from helpers.inference.microphone import Microphone, record
from models.errors import UserError

SAMPLES = np.random.default_rng(0).integers(-9000, 9000, (10 * 4410, 2), dtype=np.int16)  # ten pieces at 44.1 kHz
DEVICES = [
    {"index": 0, "name": "Speakers", "max_input_channels": 0, "default_samplerate": 48000.0},
    {"index": 1, "name": "Webcam", "max_input_channels": 1, "default_samplerate": 16000.0},
    {"index": 2, "name": "Studio", "max_input_channels": 2, "default_samplerate": 44100.0},
]


class PortAudioError(Exception):
    pass


class RawInputStream:
    """Gives the samples from a thread, as PortAudio does, then stops as a device does that is pulled out."""

    overflows = ()  # pieces in front of which sound was lost

    def __init__(
        self, *, blocksize: int, callback: Callable[..., None], finished_callback: Callable[[], None], **settings: Any
    ) -> None:
        self.blocksize, self.callback, self.finished = blocksize, callback, finished_callback
        self.channels = settings["channels"]
        assert settings["dtype"] == "int16"

    def __enter__(self) -> None:
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        for i, start in enumerate(range(0, len(SAMPLES), self.blocksize)):
            piece = SAMPLES[start : start + self.blocksize, : self.channels]
            content = memoryview(bytearray(piece.tobytes()))  # which PortAudio fills anew when the callback returns
            self.callback(content, len(piece), None, SimpleNamespace(input_overflow=i in self.overflows))
            content[:] = bytes(len(content))
        self.finished()

    def __exit__(self, *_: object) -> None:
        self.thread.join(10)


@pytest.fixture
def sounddevice(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("sounddevice")

    def query_devices(device: int | str | None = None, kind: str | None = None) -> Any:
        if kind is None:
            return DEVICES
        found = [entry for entry in DEVICES if device in (None, entry["index"]) or str(device).lower() in entry["name"].lower()]
        found = [entry for entry in found if entry["max_input_channels"] > 0]
        if not found:
            raise ValueError(f"No input device matching {device!r}")
        return found[0]

    def check_input_settings(device: int, samplerate: int, channels: int, dtype: str) -> None:
        if channels > DEVICES[device]["max_input_channels"] or samplerate > 48000:
            raise PortAudioError("Invalid number of channels or rate")

    module.query_devices, module.check_input_settings = query_devices, check_input_settings
    module.RawInputStream = type("Stream", (RawInputStream,), {})
    module.PortAudioError = PortAudioError
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    return module


def heard(stream: Stream) -> list[np.ndarray]:
    pieces = []
    with pytest.raises(AudioError, match="stopped"):
        for piece in stream.blocks:
            pieces.append(piece)
    return pieces


def call(read: Callable[[], Any]) -> Any:
    return read()


@pytest.mark.parametrize("device", ["2", "studio"])
def test_what_a_microphone_hears_comes_in_pieces(device: str, sounddevice: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    stream = record(Microphone(device), None, 2, call)
    assert (stream.rate, stream.channels) == (44100, 2) and "Studio" in stream.kind
    np.testing.assert_array_equal(np.concatenate(heard(stream)), SAMPLES)
    assert not caplog.records


def test_rate_and_channels_can_be_given(sounddevice: ModuleType) -> None:
    stream = record(Microphone(), 8000, 1, call)
    assert (stream.rate, stream.channels) == (8000, 1) and "Webcam" in stream.kind
    np.testing.assert_array_equal(np.concatenate(heard(stream)), SAMPLES[:, :1])


def test_waiting_can_be_ended(sounddevice: ModuleType) -> None:
    answers = iter([True, True, False])
    assert len(list(record(Microphone("2"), None, 2, lambda read: read() if next(answers) else None).blocks)) == 2


def test_lost_sound_is_reported(sounddevice: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    sounddevice.RawInputStream.overflows = (3, 7)
    assert len(heard(record(Microphone("2"), None, 2, call))) == 10
    assert [record.message.split(" s:")[0][-3:] for record in caplog.records] == ["0.3", "0.7"]


def test_a_reader_that_is_too_slow_loses_sound_and_is_told(
    sounddevice: ModuleType, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(microphone, "MAX_BEHIND", 0.15)  # two pieces
    given = threading.Event()
    run = sounddevice.RawInputStream.run

    def then_tell(stream: RawInputStream) -> None:
        run(stream)
        given.set()

    def slowly(read: Callable[[], Any]) -> Any:
        assert given.wait(10)
        return read()

    monkeypatch.setattr(sounddevice.RawInputStream, "run", then_tell)
    blocks = heard(record(Microphone("2"), None, 2, slowly))
    np.testing.assert_array_equal(np.concatenate(blocks), SAMPLES[: len(blocks) * 4410])
    assert len(blocks) < 10 and caplog.records


def test_an_unknown_device_is_an_error_that_lists_the_others(sounddevice: ModuleType) -> None:
    for device in ("7", "headset", "speakers"):
        with pytest.raises(UserError, match="1 Webcam, 2 Studio") as error:
            record(Microphone(device), None, 1, call)
        assert device in str(error.value)


@pytest.mark.parametrize(("rate", "channels"), [(96000, 1), (None, 2)])
def test_what_the_device_cannot_do_is_refused(rate: int | None, channels: int, sounddevice: ModuleType) -> None:
    with pytest.raises(UserError, match="Webcam"):
        record(Microphone("1"), rate, channels, call)


@pytest.mark.parametrize(
    ("missing", "advice"),
    [(ModuleNotFoundError("no"), "pip install sounddevice"), (OSError("PortAudio library not found"), "libportaudio2")],
)
def test_without_sounddevice_the_error_says_how_to_get_it(missing: Exception, advice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def fail(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "sounddevice":
            raise missing
        return original(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(builtins, "__import__", fail)
    with pytest.raises(UserError, match=advice) as error:
        record(Microphone(), None, 1, call)
    assert "arecord" in str(error.value)
