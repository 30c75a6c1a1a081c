"""Synthetic speech of espeak-ng and flite: random sentences and voices with fixed seeds."""

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

from datasets.audio import decode, resample
from datasets.prepare.opensounds.debian import run_tool
from datasets.prepare.opensounds.sounds import SAMPLE_RATE, LabelledSound
from datasets.prepare.opensounds.tables import Package, sentences

ESPEAK_VOICES = ("en-us", "en-gb", "de", "fr", "es", "it", "ru", "pl", "nl", "sv", "pt", "cs")
ESPEAK_VARIANTS = ("", "+f2", "+m3", "+f4", "+whisper", "+m7")
FLITE_VOICES = ("kal", "kal16", "awb", "rms", "slt")


def speech_sounds(package: Package) -> Iterator[LabelledSound]:
    """Two random sentences per clip, spoken by the synthesizer that the package's reader names."""
    rng = random.Random(package.reader)
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "spoken.wav"
        for k in range(package.amount):
            text = " ".join(rng.sample(sentences(), 2))
            if package.reader == "espeak":
                voice = rng.choice(ESPEAK_VOICES) + rng.choice(ESPEAK_VARIANTS)
                speed, pitch = str(rng.randint(120, 200)), str(rng.randint(20, 80))
                run_tool("espeak-ng", "-v", voice, "-s", speed, "-p", pitch, "-w", wav, text)
            else:
                voice = FLITE_VOICES[k % len(FLITE_VOICES)]
                run_tool("flite", "-voice", voice, "-t", text, "-o", wav)
            waveform, rate = decode(wav)
            waveform = resample(waveform, rate, SAMPLE_RATE)
            yield LabelledSound(f"{voice} {k}", ("Speech synthesizer",), waveform, rate, "synthetic")
