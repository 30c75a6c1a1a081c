from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from datasets.audio import AudioError
from datasets.decoding import isolated
from datasets.decoding.isolated import Decoders, IsolatedSound
from datasets.sound import open_sound

pytestmark = pytest.mark.skipif(not isolated.IS_AVAILABLE, reason="needs POSIX")
NOISE = np.random.default_rng(0).uniform(-0.3, 0.3, (16000, 2)).astype(np.float32)

# Stands for decoders with flaws; the name says which one.
FLAWS = """
import os, signal, time
from datasets.decoding import isolated
real = isolated.open_sound
def open_sound(source, name, **reading):
    flaw = os.path.basename(name)
    if "hang" in flaw:
        time.sleep(100)
    if "exit" in flaw:
        os.write(2, b"assertion failed")
        os._exit(3)
    if "mistake" in flaw:
        raise ZeroDivisionError("by zero")
    if "crash" in flaw:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "noise" in flaw:
        os.write(2, b"[layer3.c] error: part2_3_length\\n[layer3.c] error: again\\n")
        os.write(1, b"told on standard output\\n")
    return real(source, name=name, **reading)
isolated.open_sound = open_sound
"""


@pytest.fixture
def decoders(monkeypatch: pytest.MonkeyPatch) -> Iterator[Decoders]:
    first, _, serve = isolated._PROGRAM.rpartition("; from ")
    monkeypatch.setattr(isolated, "_PROGRAM", f"{first}\n{FLAWS}\nfrom {serve}")
    with Decoders(time_limit=1.0) as decoders:
        yield decoders


def read(sound: IsolatedSound) -> np.ndarray:
    return np.concatenate(list(sound.blocks))


def test_the_samples_are_those_of_this_process(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    soundfile.write(path, np.tile(NOISE, (10, 1)), 16000)
    whole = np.concatenate(list(open_sound(path).at_rate(32000)))
    part = np.concatenate(list(open_sound(path, start=2, end=5, channel=2).at_rate(32000)))
    with Decoders() as decoders:
        sound = decoders.open(path, 32000)
        np.testing.assert_array_equal(read(sound), whole)
        assert (sound.name, sound.rate, sound.channels, sound.samples) == (str(path), 16000, 2, 160000)
        np.testing.assert_array_equal(read(decoders.open(path.read_bytes(), 32000, start=2, end=5, channel=2)), part)


def test_errors_are_those_of_this_process(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no sound" * 100)
    soundfile.write(tmp_path / "x.wav", NOISE, 16000)
    with Decoders() as decoders:
        for name in ("missing.wav", "text.wav", "x.wav"):
            with pytest.raises((ValueError, OSError)) as here:
                open_sound(tmp_path / name, start=5)
            with pytest.raises(type(here.value)) as there:
                decoders.open(tmp_path / name, 32000, start=5)
            assert str(there.value) == str(here.value)
        assert len(read(decoders.open(tmp_path / "x.wav", 16000))) == 16000  # the process goes on


@pytest.mark.parametrize(("flaw", "words"), [("hang", "1 s"), ("exit", "exit code 3"), ("crash", "signal 11")])
def test_a_decoder_that_hangs_or_crashes_costs_one_recording(decoders: Decoders, tmp_path: Path, flaw: str, words: str) -> None:
    for name in ("x", flaw):
        soundfile.write(tmp_path / f"{name}.wav", NOISE, 16000)
    read(decoders.open(tmp_path / "x.wav", 16000))
    with pytest.raises(AudioError) as error:
        decoders.open(tmp_path / f"{flaw}.wav", 16000)
    assert words in str(error.value) and f"{flaw}.wav" in str(error.value)
    assert ("assertion failed" in str(error.value)) == (flaw == "exit")
    assert len(read(decoders.open(tmp_path / "x.wav", 16000))) == 16000


def test_a_mistake_in_the_code_costs_one_recording_and_is_told(decoders: Decoders, tmp_path: Path) -> None:
    for name in ("x", "mistake"):
        soundfile.write(tmp_path / f"{name}.wav", NOISE, 16000)
    with pytest.raises(AudioError, match=r"mistake\.wav.*ZeroDivisionError: by zero"):
        decoders.open(tmp_path / "mistake.wav", 16000)
    assert len(read(decoders.open(tmp_path / "x.wav", 16000))) == 16000


def test_what_libraries_print_becomes_a_warning_of_the_recording(decoders: Decoders, tmp_path: Path) -> None:
    for name in ("x", "noise"):
        soundfile.write(tmp_path / f"{name}.wav", NOISE, 16000)
    expected = f"{tmp_path / 'noise.wav'}: [layer3.c] error: part2_3_length (and 2 more)"
    for name, warnings in (("noise", [expected]), ("x", []), ("noise", [expected])):
        sound = decoders.open(tmp_path / f"{name}.wav", 16000)
        assert len(read(sound)) == 16000 and sound.warnings == warnings


def test_a_recording_that_is_not_read_on_waits_and_holds_little(tmp_path: Path) -> None:
    """The pipe holds a process back, however long that takes; a process left in the middle is ended."""
    soundfile.write(tmp_path / "x.wav", np.tile(NOISE, (100, 1)), 16000)
    with Decoders(time_limit=0.5) as decoders:
        sound = decoders.open(tmp_path / "x.wav", 16000)
        time.sleep(1.2)
        assert len(read(sound)) == 1_600_000
        sound = decoders.open(tmp_path / "x.wav", 16000)
        next(sound.blocks)
        sound.blocks.close()
        assert len(read(decoders.open(tmp_path / "x.wav", 16000))) == 1_600_000


def test_a_process_that_was_killed_while_it_waited_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "x.wav", NOISE, 16000)
    with Decoders() as decoders:
        read(decoders.open(tmp_path / "x.wav", 16000))
        [process] = decoders._idle
        os.kill(process._process.pid, signal.SIGKILL)
        time.sleep(0.2)
        assert len(read(decoders.open(tmp_path / "x.wav", 16000))) == 16000
