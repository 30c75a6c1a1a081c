from __future__ import annotations

import io
import signal
import sys
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import soundfile

import inference
from datasets.audio import AudioError
from helpers.inference.stream import tag_stream
from helpers.tagger import AudioTagger
from helpers.tagger import audio_tagger as module
from models.errors import UserError

RATE = 16000
LOUD = 0.5 * np.sin(2 * np.pi * 500 * np.arange(RATE) / RATE)
SOUND = np.concatenate([0 * LOUD, LOUD, 0 * LOUD, LOUD])[:, None] * (1, 0.5)  # a second each of silence, tone, silence, tone


class Level:
    """A backend whose scores are the level and the lack of level."""

    sample_rate, labels, num_classes, embedding_size, columns, clip_seconds = RATE, ("loud", "quiet"), 2, 1, {}, None
    hop_size = None  # its windows share nothing
    step_seconds = None

    def __init__(self) -> None:
        self.act: Callable[[], None] = lambda: None

    def __call__(self, waveforms: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        self.act()
        levels = [min(1.0, float(np.sqrt(2 * np.mean(np.square(waveform))))) for waveform in waveforms]
        return [(np.array([level, 1 - level], np.float32), np.zeros(1, np.float32)) for level in levels]


@pytest.fixture
def level(monkeypatch: pytest.MonkeyPatch) -> AudioTagger:
    monkeypatch.setattr(module, "load_backend", lambda *_: Level())
    return AudioTagger("any", batch_size=1)


class Pipe(io.BytesIO):
    """Standard input that gives 1001 bytes at a time, and does something before one of them."""

    def __init__(self, content: bytes, at: int = -1, act: Callable[[], None] = lambda: None) -> None:
        super().__init__(content)
        self.buffer, self._at, self._act = self, at, act

    def read1(self, size: int = -1) -> bytes:
        if self.tell() >= self._at >= 0:
            self._at = -1
            self._act()
        return self.read(min(size, 1001))


def encoded(format: str, subtype: str | None = None, samples: np.ndarray = SOUND) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format=format, subtype=subtype)
    return file.getvalue()


@pytest.fixture
def run(
    level: AudioTagger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, list[str]]]:
    def run(pipe: bytes | Pipe, *options: object) -> tuple[int, list[str]]:
        monkeypatch.setattr(sys, "stdin", pipe if isinstance(pipe, Pipe) else Pipe(pipe))
        words = ["--stream", "--window", "0.5", "--hop", "0.25", "--threshold", "0.2", "--labels", "loud", *map(str, options)]
        code = tag_stream(level, inference.build_parser().parse_args(words))
        return code, capsys.readouterr().out.splitlines()

    return run


def test_streams_with_a_header_give_the_events_of_the_samples(
    run: Callable[..., tuple[int, list[str]]], caplog: pytest.LogCaptureFixture
) -> None:
    raw = encoded("RAW", "PCM_16")
    code, lines = run(raw, "--rate", RATE, "--channels", 2)
    assert code == 0 and [line.split()[:2] for line in lines] == [
        ["begin", "0.88"],
        ["end", "2.12"],
        ["begin", "2.88"],
        ["end", "4.00"],
    ]
    for content in (encoded("WAV", "PCM_24"), encoded("FLAC", "PCM_16"), encoded("WAV", "FLOAT")):
        assert run(content) == (0, lines)
    assert run(encoded("RAW", "FLOAT"), "--rate", RATE, "--channels", 2, "--format", "f32le") == (0, lines)
    assert not caplog.records and run(b"") == (0, [])
    assert "without any sound" in caplog.text
    _, right = run(encoded("WAV"), "--channel", 2)
    assert right != lines and len(right) == len(lines)


def test_windows_of_a_stream_are_those_of_the_file(run: Callable[..., tuple[int, list[str]]], level: AudioTagger) -> None:
    content = encoded("WAV", samples=SOUND[: 3 * RATE + 777])
    _, lines = run(content, "--show_top", 2, "--threshold", 1)
    timeline = level.tag_windows(content, window=0.5, hop=0.25, labels=["loud"])
    expected = [(start, end, scores[0]) for start, end, scores in zip(timeline.starts, timeline.ends, timeline.scores, strict=True)]
    found = [tuple(map(float, (line.split()[1], line.split()[2], line.split()[4]))) for line in lines]
    assert all(line.split()[0] == "top" for line in lines)
    np.testing.assert_allclose(found, expected, atol=0.006)


def test_what_follows_a_window_is_printed_before_the_next_one(
    run: Callable[..., tuple[int, list[str]]], level: AudioTagger
) -> None:
    _, lines = run(encoded("WAV"), "--show_top", 1)
    begin = next(i for i, line in enumerate(lines) if line.startswith("begin"))
    assert lines[begin - 1].split()[:3] == ["top", "0.75", "1.25"] and lines[begin + 1].split()[:3] == ["top", "1.00", "1.50"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("format", ["WAV", "FLAC"])
def test_a_signal_ends_the_sound_and_prints_the_last_events(
    number: signal.Signals, format: str, run: Callable[..., tuple[int, list[str]]]
) -> None:
    content = encoded(format)
    handler = signal.getsignal(number)
    waited_on = []

    def act() -> None:
        signal.raise_signal(number)
        waited_on.append(True)

    code, lines = run(Pipe(content, len(content) * 2 // 5, act))
    assert not waited_on
    assert code == 128 + number and [line.split()[0] for line in lines] == ["begin", "end"]
    assert 1.2 < float(lines[1].split()[1]) < 1.9
    assert signal.getsignal(number) is handler


def test_a_signal_while_the_network_computes_loses_no_window(run: Callable[..., tuple[int, list[str]]], level: AudioTagger) -> None:
    calls = []

    def act() -> None:
        calls.append(1)
        if len(calls) == 5:  # the window from 1.0 s
            signal.raise_signal(signal.SIGTERM)

    level.backend.act = act
    code, lines = run(encoded("WAV"), "--show_top", 1)
    assert code == 128 + signal.SIGTERM
    assert [line.split()[1] for line in lines if line.startswith("top")][:5] == ["0.00", "0.25", "0.50", "0.75", "1.00"]
    assert lines[-1].split()[:2] == ["end", "1.50"] or 1.5 < float(lines[-1].split()[1]) < 1.6


def test_a_second_ctrl_c_ends_the_program(run: Callable[..., tuple[int, list[str]]], level: AudioTagger) -> None:
    level.backend.act = lambda: signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(encoded("WAV"))


def test_damage_ends_with_the_last_events_and_an_error(
    run: Callable[..., tuple[int, list[str]]], capsys: pytest.CaptureFixture[str]
) -> None:
    samples = SOUND[:, 0].copy()
    samples[2 * RATE - 100] = np.nan
    for content, options in (
        (encoded("WAV", "FLOAT", samples), ()),
        (encoded("RAW", "FLOAT", samples), ("--format", "f32le", "--rate", RATE)),
    ):
        with pytest.raises(AudioError, match="NaN"):
            run(content, *options)
        assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["begin", "end"]


@pytest.mark.parametrize("options", [["--rate", "8000"], ["--channels", "1"], ["--format", "f32le"]])
def test_options_that_contradict_the_header_are_refused(options: list[str], run: Callable[..., tuple[int, list[str]]]) -> None:
    with pytest.raises(UserError, match=f"contradicts {options[0][2:]} {options[1]}"):
        run(encoded("WAV", "PCM_16"), *options)
    run(encoded("WAV", "PCM_16"), "--rate", RATE, "--channels", 2, "--format", "s16le")


def test_a_closed_standard_input_is_an_error(level: AudioTagger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UserError, match="standard input"):
        tag_stream(level, inference.build_parser().parse_args(["--stream"]))
