"""Sound of a microphone, by sounddevice (PortAudio), which is imported only here and only when needed."""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from datasets.audio import AudioError
from datasets.streams.pipes import Stream
from models.errors import UserError

PIECE_SECONDS = 0.1
MAX_BEHIND = 60.0  # seconds of sound that wait for the network; more is lost, and reported
WITHOUT = "or pipe: arecord -q -t wav -f S16_LE -r 32000 | python inference.py --stream"

Piece = tuple[bytes, bool]  # samples, and whether some are missing in front of them


@dataclass(frozen=True)
class Microphone:
    """An input device: its number, or a part of its name; None is the system's choice."""

    device: str | None = None


def record(microphone: Microphone, rate: int | None, channels: int, wait: Callable[[Callable[[], Any]], Any]) -> Stream:
    """Begin to listen, at the rate of the device if `rate` (Hz) is None.

    `wait` gets a function that blocks, and returns its result, or None to end the recording. Raises UserError where there is no
    sounddevice, no PortAudio, no such device, or none of that rate and channels.
    """
    sounddevice = _import()
    device = _device(sounddevice, microphone.device)
    rate = rate or round(device["default_samplerate"])
    settings = {"device": device["index"], "samplerate": rate, "channels": channels, "dtype": "int16"}
    try:
        sounddevice.check_input_settings(**settings)
    except (ValueError, sounddevice.PortAudioError) as error:
        raise UserError(
            f"the microphone {device['name']} does not give {rate} Hz, {channels} channels ({_one_line(error)}); "
            f"it has up to {device['max_input_channels']} channels, usually {device['default_samplerate']:g} Hz"
        ) from error
    return Stream(f"the microphone {device['name']}", rate, channels, _blocks(sounddevice, settings, wait))


def _blocks(sounddevice: ModuleType, settings: dict[str, Any], wait: Callable[[Callable[[], Any]], Any]) -> Iterator[np.ndarray]:
    """Yield (samples, channels) int16 until `wait` gives None or the device is gone, which is an AudioError."""
    pieces: queue.Queue[Piece] = queue.Queue()
    rate, channels = settings["samplerate"], settings["channels"]
    dropped = False

    def take(content: Any, frames: int, time: object, status: Any) -> None:
        """Called by PortAudio's thread."""
        nonlocal dropped
        dropped = dropped or bool(status.input_overflow)
        if pieces.qsize() * PIECE_SECONDS > MAX_BEHIND:
            dropped = True
            return
        pieces.put((bytes(content), dropped))
        dropped = False

    def report() -> None:
        logging.warning(
            f"the microphone lost sound after {done / rate:.1f} s: the machine did not keep up; take a longer --hop; "
            "what was lost does not count in the times that follow"
        )

    done = 0
    try:
        with sounddevice.RawInputStream(
            **settings,
            blocksize=max(1, round(rate * PIECE_SECONDS)),
            callback=take,
            finished_callback=lambda: pieces.put((b"", dropped)),
        ):
            while (piece := wait(pieces.get)) is not None:
                content, incomplete = piece
                if incomplete:
                    report()
                if not content:
                    raise AudioError(f"the microphone stopped after {done / rate:.1f} s; is it still plugged in?")
                samples = np.frombuffer(content, np.int16).reshape(-1, channels)
                done += len(samples)
                yield samples
    except sounddevice.PortAudioError as error:
        raise AudioError(f"the microphone cannot be read ({_one_line(error)}); is another program using it?") from error


def _import() -> ModuleType:
    try:
        import sounddevice
    except ModuleNotFoundError as error:
        raise UserError(f"a microphone needs sounddevice: pip install sounddevice; {WITHOUT}") from error
    except OSError as error:  # the package is there, the library is not
        raise UserError(f"a microphone needs the library PortAudio: apt-get install libportaudio2; {WITHOUT}") from error
    return sounddevice


def _device(sounddevice: ModuleType, name: str | None) -> dict[str, Any]:
    """Look a device up."""
    try:
        return sounddevice.query_devices(int(name) if name and name.isdecimal() else name, "input")
    except (ValueError, sounddevice.PortAudioError) as error:
        inputs = [device for device in sounddevice.query_devices() if device["max_input_channels"] > 0]
        there = ", ".join(f"{device['index']} {device['name']}" for device in inputs) or "none"
        what = "no microphone" if name is None else f"no microphone {name!r}"
        raise UserError(f"{what} ({_one_line(error)}); there are: {there}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
