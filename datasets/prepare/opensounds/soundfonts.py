"""Sounds of a soundfont: phrases of its instruments and hits and grooves of its drum kits, rendered by fluidsynth.

Phrases are drawn at random with fixed seeds.
"""

import random
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.audio import decode
from datasets.prepare.opensounds.debian import PackageError, run_tool
from datasets.prepare.opensounds.sounds import FRAME, SAMPLE_RATE, LabelledSound
from datasets.prepare.opensounds.tables import Package, Preset, presets

PHRASE_SECONDS = 4.0  # notes end after 3 s and may ring for another
EFFECT_PHRASES = 3  # a soundfont's gunshot or helicopter is one recording: three pitches are enough
DRUM_CHANNEL, DRUM_BANK, MAX_DRUM_KITS = 9, 128, 8
KICK, SNARE, HI_HAT = 36, 38, 42  # General MIDI drum keys
GROOVE_LABELS = ("Drum kit", "Bass drum", "Snare drum", "Hi-hat")
MIDI_TICKS = 960  # per second: 480 per quarter note of 0.5 s
SCALE = tuple((interval,) for interval in (0, 2, 4, 5, 7, 9, 11, 12))  # semitones
CHORDS = ((0, 4, 7), (0, 3, 7), (0, 5, 9), (0, 4, 7, 12))
PHRASE_FORMS = (  # what may sound at once, and seconds from one note to the next
    (((0,), (7,), (12,)), (1.6, 2.2, 3.0)),  # one or two long notes
    (SCALE, (0.22, 0.3, 0.4, 0.55)),
    (CHORDS, (0.6, 0.9, 1.3)),
    (((0,), (4,), (7,), (12,)), (0.15, 0.2, 0.3)),  # a broken chord
)


class Note(NamedTuple):
    """A note: seconds from the beginning, MIDI pitch and velocity."""

    start: float
    seconds: float
    pitch: int
    velocity: int


class Phrase(NamedTuple):
    """What becomes one rendered sound: the fields of a `LabelledSound`, and notes that end within 3 s."""

    source: str
    labels: tuple[str, ...]
    notes: list[Note]
    recording: str = ""


def soundfont_sounds(package: Package, content: bytes) -> Iterator[LabelledSound]:
    """Phrases of every labelled instrument of a soundfont; single hits and grooves of its drum kits."""
    available = font_presets(content)
    with tempfile.TemporaryDirectory() as folder:
        font = Path(folder) / "font.sf2"
        font.write_bytes(content)
        for preset in presets():
            if (preset.bank, preset.program) in available:
                phrases = _instrument_phrases(preset, package)
                yield from _rendered(font, phrases, bank=preset.bank, program=preset.program, channel=0)
        for kit in sorted(program for bank, program in available if bank == DRUM_BANK)[:MAX_DRUM_KITS]:
            yield from _rendered(font, _drum_phrases(kit, package), bank=0, program=kit, channel=DRUM_CHANNEL)


def font_presets(content: bytes) -> set[tuple[int, int]]:
    """The (bank, program) pairs of an SF2 file: its 'phdr' chunk has records of 38 bytes, the last one a sentinel."""
    start = content.find(b"phdr") + 8
    (size,) = struct.unpack_from("<I", content, start - 4)
    records = struct.iter_unpack("<20sHH14s", content[start : start + size - 38])
    return {(bank, program) for _, program, bank, _ in records}


def _instrument_phrases(preset: Preset, package: Package) -> list[Phrase]:
    name, rng = f"{preset.bank}:{preset.program}", random.Random(f"{package.name}/{preset.bank}/{preset.program}")
    if preset.style == "effect":
        pitches = [rng.randint(preset.low, preset.high) for _ in range(EFFECT_PHRASES)]
        return [
            Phrase(f"{name} phrase {k}", preset.labels, [Note(0.05, 2.8, pitch, 100)], recording=name)
            for k, pitch in enumerate(pitches)
        ]
    forms = PHRASE_FORMS if preset.style == "polyphonic" else PHRASE_FORMS[:2]
    music = [_notes(preset, forms[k % len(forms)], rng) for k in range(package.amount)]
    return [Phrase(f"{name} phrase {k}", preset.labels, notes) for k, notes in enumerate(music)]


def _notes(preset: Preset, form: tuple, rng: random.Random) -> list[Note]:
    """Compose 3 s in one of PHRASE_FORMS."""
    notes, start = [], 0.05
    intervals, steps = form
    base, step = rng.randint(preset.low, max(preset.low, preset.high - 12)), rng.choice(steps)
    while start < 2.5:
        duration = min(step * 0.95, 2.95 - start)
        for interval in rng.choice(intervals):
            notes.append(Note(start, duration, min(base + interval, preset.high), rng.randint(55, 115)))
        start += step * rng.choice((1, 1, 2))
    return notes


def _drum_phrases(kit: int, package: Package) -> list[Phrase]:
    rng = random.Random(f"{package.name}/kit{kit}")
    hits = [
        Phrase(f"128:{kit} key {drum.low}", drum.labels, [Note(0.05, 0.5, drum.low, rng.randint(70, 120))])
        for drum in presets()
        if drum.style == "drum"
    ]
    grooves = [Phrase(f"128:{kit} groove {k}", GROOVE_LABELS, _groove(rng)) for k in range(2)]
    return hits + grooves


def _groove(rng: random.Random) -> list[Note]:
    beat, notes = rng.choice((0.2, 0.25, 0.3)), []
    for k in range(int(3.8 / beat)):
        keys = [HI_HAT] + [KICK] * (k % 4 == 0 or rng.random() < 0.15) + [SNARE] * (k % 4 == 2)
        notes += [Note(0.05 + k * beat, 0.1, key, rng.randint(60, 110)) for key in keys]
    return notes


def _rendered(font: Path, phrases: list[Phrase], *, bank: int, program: int, channel: int) -> Iterator[LabelledSound]:
    """Render phrases in one go, each in a slot of PHRASE_SECONDS with a fade of 10 ms at its end."""
    notes = []
    for k, phrase in enumerate(phrases):
        notes += [note._replace(start=note.start + k * PHRASE_SECONDS) for note in phrase.notes]
    music = render(font, midi_file(notes, bank=bank, program=program, channel=channel))
    slot = int(PHRASE_SECONDS * SAMPLE_RATE)
    for k, phrase in enumerate(phrases):
        waveform = music[k * slot : (k + 1) * slot].copy()
        tail = waveform[slot - FRAME :]
        tail *= np.linspace(1, 0, FRAME, dtype=np.float32)[: len(tail)]
        yield LabelledSound(phrase.source, phrase.labels, waveform, SAMPLE_RATE, "rendered", phrase.recording)


def render(font: Path, score: bytes) -> np.ndarray:
    """Play a MIDI file with a soundfont: (samples,) float32 at SAMPLE_RATE, no reverb, no chorus."""
    with tempfile.TemporaryDirectory() as folder:
        midi, wav = Path(folder) / "score.mid", Path(folder) / "music.wav"
        midi.write_bytes(score)
        dry = ("-g", "0.5", "-R", "0", "-C", "0", "-o", "synth.dynamic-sample-loading=1", "-r", str(SAMPLE_RATE))
        run_tool("fluidsynth", "-niq", *dry, "-F", wav, "-T", "wav", "-O", "s16", font, midi)
        if not wav.exists():
            raise PackageError("fluidsynth rendered nothing; is the soundfont whole?")
        return decode(wav)[0]


def midi_file(notes: list[Note], *, bank: int, program: int, channel: int) -> bytes:
    """Notes as a standard MIDI file with one track."""
    events = [(0, bytes([0xB0 | channel, 0, bank])), (0, bytes([0xC0 | channel, program]))]
    for start, seconds, pitch, velocity in notes:
        events.append((round(start * MIDI_TICKS), bytes([0x90 | channel, pitch, velocity])))
        events.append((round((start + seconds) * MIDI_TICKS), bytes([0x80 | channel, pitch, 0])))
    events.sort(key=lambda event: (event[0], event[1][0] & 0xF0 == 0x90))  # a note ends before the next begins
    track, now = b"", 0
    for tick, message in [*events, (events[-1][0] + MIDI_TICKS, b"\xff\x2f\x00")]:
        track += _variable_length(tick - now) + message
        now = tick
    return b"MThd" + struct.pack(">IHHH", 6, 0, 1, 480) + b"MTrk" + struct.pack(">I", len(track)) + track


def _variable_length(number: int) -> bytes:
    digits = [number & 127]
    while number := number >> 7:
        digits.insert(0, number & 127 | 128)
    return bytes(digits)
