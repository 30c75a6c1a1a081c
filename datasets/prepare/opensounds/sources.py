"""Where the sounds of the open corpus come from: files in Debian packages, soundfonts, synthetic speech, exact signals.

A reader yields `Sound`s. Whatever is drawn at random has a fixed seed: the same package versions give the same samples.
"""

import dataclasses
import io
import random
import struct
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.audio import AudioError, decode, resample
from datasets.prepare.opensounds.tables import Package, Preset, Rule, presets, rule_for, rules, sentences

SAMPLE_RATE = 32000  # Hz
AUDIO_SUFFIXES = (".wav", ".ogg", ".oga", ".flac", ".mp3", ".aif", ".aiff")
FRAME = SAMPLE_RATE // 100  # samples; loudness is measured in frames of 10 ms

SPEECH_SECONDS, SPEECH_PAUSE = 6.0, (0.15, 0.4)
WALK_SECONDS, STEP_INTERVAL = 4.0, (0.45, 0.65)
SHORTEST_PART = 600  # samples; shorter files are not worth joining

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

ESPEAK_VOICES = ("en-us", "en-gb", "de", "fr", "es", "it", "ru", "pl", "nl", "sv", "pt", "cs")
ESPEAK_VARIANTS = ("", "+f2", "+m3", "+f4", "+whisper", "+m7")
FLITE_VOICES = ("kal", "kal16", "awb", "rms", "slt")

Reject = Callable[[str, str], None]  # takes a source and the reason why it is left out


class PackageError(RuntimeError):
    """A package or a program did not give what was asked of it; the message is one line."""


@dataclass(frozen=True)
class Sound:
    """A labelled sound as its source gives it, before it is trimmed and cut."""

    source: str  # path in the package, or name of what was rendered; unique in its package
    labels: tuple[str, ...]
    waveform: np.ndarray  # (samples,) float32 at SAMPLE_RATE
    original_rate: int  # Hz
    kind: str  # recording, joined, rendered, synthetic or generated
    recording: str = ""  # what it shares with other sounds made of the same recording; empty: nothing


def sounds(package: Package, files: dict[str, bytes], reject: Reject) -> Iterator[Sound]:
    """All sounds of a package; `files` are those `is_needed` picks from it."""
    if package.reader == "soundfont":
        if len(files) != 1:
            raise PackageError(f"{len(files)} soundfonts in the package, needed 1")
        return soundfont_sounds(package, *files.values())
    if package.reader in ("espeak", "flite"):
        return speech_sounds(package)
    if package.reader == "signals":
        return signal_sounds(package)
    return file_sounds(package, files if package.reader == "files" else unzip(package, files), reject)


# Debian packages: files, and files in archives


def run_tool(*command: str | Path, cwd: str | None = None) -> str:
    """Run a program and return its standard output; PackageError with its last complaint if it fails."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, errors="replace")
    if done.returncode:
        complaint = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise PackageError(f"{command[0]} failed with exit code {done.returncode}: {complaint}")
    return done.stdout


def fetch_deb(name: str, debs_dir: Path) -> Path:
    """The package file in `debs_dir`, downloaded with apt-get if it is not there yet."""
    cached = sorted(debs_dir.glob(f"{name}_*.deb"))
    if not cached:
        with tempfile.TemporaryDirectory(dir=debs_dir, prefix=".download_") as folder:
            run_tool("apt-get", "-q", "download", name, cwd=folder)
            cached = [file.rename(debs_dir / file.name) for file in Path(folder).glob("*.deb")]
    return cached[-1]


def version_of(package: Package, deb: Path | None) -> str:
    """Version of a package file or of the installed synthesizer; '1' for computed signals."""
    if deb:
        return run_tool("dpkg-deb", "-f", deb, "Version").strip()
    return "1" if package.reader == "signals" else run_tool("dpkg-query", "-W", "-f=${Version}", package.name)


def copyright_path(package: Package) -> str:
    """Path of the copyright file in a Debian package."""
    return f"usr/share/doc/{package.name}/copyright"


def is_needed(path: str, package: Package) -> bool:
    """Whether a file of a package must be read: its copyright file, and what its reader uses."""
    if package.reader == "files":
        used = path.lower().endswith(AUDIO_SUFFIXES) and rule_for(path, package.name) is not None
    else:
        used = path.lower().endswith({"zip": ".pk3", "soundfont": ".sf2"}[package.reader])
    return used or path == copyright_path(package)


def read_deb(package: Package, deb: Path) -> dict[str, bytes]:
    """The needed regular files of a package by path; nothing is unpacked to disk."""
    command = ["dpkg-deb", "--fsys-tarfile", deb]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as unpacking:
        files = {}
        try:
            with tarfile.open(fileobj=unpacking.stdout, mode="r|") as members:
                for member in members:
                    path = member.name.removeprefix("./")
                    if member.isfile() and is_needed(path, package):
                        files[path] = members.extractfile(member).read()
            unpacking.stdout.read()  # padding; dpkg-deb fails when nobody reads it
        except tarfile.TarError as error:
            raise PackageError(f"{deb} cannot be read ({error}); remove it and run again") from error
    if unpacking.returncode:
        raise PackageError(f"{deb} cannot be read (dpkg-deb: {unpacking.returncode}); remove it and run again")
    return files


def unzip(package: Package, archives: dict[str, bytes]) -> dict[str, bytes]:
    """The labelled audio files in zip archives, by path; read in memory, so no path leads anywhere."""
    files = {}
    for _, archive in sorted(archives.items()):
        with zipfile.ZipFile(io.BytesIO(archive)) as members:
            for path in members.namelist():
                if path.lower().endswith(AUDIO_SUFFIXES) and rule_for(path, package.name):
                    files[path] = members.read(path)
    return files


def file_sounds(package: Package, files: dict[str, bytes], reject: Reject) -> Iterator[Sound]:
    """Sounds of audio files, rule by rule; what a rule combines is joined."""
    paths: dict[Rule, list[str]] = {rule: [] for rule in rules(package.name) if rule.labels}
    for path in sorted(files):
        paths[rule_for(path, package.name)].append(path)
    for rule, group in paths.items():
        if not group:
            reject(rule.pattern, "no file matches this rule")
        if rule.combine or 0 < rule.cap < len(group):
            random.Random(rule.pattern).shuffle(group)
        parts = _decoded(rule, {path: files[path] for path in group[: rule.cap or None]}, reject)
        yield from _joined(rule, parts) if rule.combine else parts


def _decoded(rule: Rule, files: dict[str, bytes], reject: Reject) -> Iterator[Sound]:
    for path, content in files.items():
        try:
            waveform, rate = decode(content)
        except AudioError as error:
            reject(path, f"unreadable: {error}")
        else:
            yield Sound(path, rule.labels, resample(waveform, rate, SAMPLE_RATE), rate, "recording")


def _joined(rule: Rule, sounds: Iterator[Sound]) -> Iterator[Sound]:
    rng = random.Random(rule.pattern)
    join, seconds = (_speech, SPEECH_SECONDS) if rule.combine == "speech" else (_walk, WALK_SECONDS)
    for batch in _batches(sounds, int(seconds * SAMPLE_RATE), rule.per_clip):
        first = batch[0]
        source = f"{first.source} (+{len(batch) - 1})" if len(batch) > 1 else first.source
        waveform = join([sound.waveform for sound in batch], rng)
        yield Sound(source, rule.labels, waveform, first.original_rate, "joined", recording=first.source)


def _batches(sounds: Iterator[Sound], limit: int, per_batch: int) -> Iterator[list[Sound]]:
    """Trimmed sounds in groups of at most `limit` samples and `per_batch` (if not 0) sounds."""
    batch, length = [], 0
    for sound in sounds:
        part = dataclasses.replace(sound, waveform=trim_silence(sound.waveform))
        if len(part.waveform) < SHORTEST_PART:
            continue
        if batch and (length + len(part.waveform) > limit or len(batch) == per_batch):
            yield batch
            batch, length = [], 0
        batch.append(part)
        length += len(part.waveform)
    if batch:
        yield batch


def _speech(prompts: list[np.ndarray], rng: random.Random) -> np.ndarray:
    pause = [np.zeros(int(rng.uniform(*SPEECH_PAUSE) * SAMPLE_RATE), np.float32) for _ in prompts]
    return np.concatenate([part for pair in zip(prompts, pause, strict=True) for part in pair])


def _walk(steps: list[np.ndarray], rng: random.Random) -> np.ndarray:
    walk = np.zeros(int(WALK_SECONDS * SAMPLE_RATE), np.float32)
    seconds, count = 0.05, 0
    while seconds < WALK_SECONDS - 0.3:
        rest = walk[int(seconds * SAMPLE_RATE) :]
        step = steps[count % len(steps)][: len(rest)]
        rest[: len(step)] += step
        seconds += rng.uniform(*STEP_INTERVAL)
        count += 1
    return walk


def trim_silence(waveform: np.ndarray) -> np.ndarray:
    """Cut silence from both ends but 10 ms; silent is 60 dB below the loudest 10 ms, or -80 dBFS."""
    count = len(waveform) // FRAME
    if count < 2:
        return waveform
    loudness = np.sqrt((waveform[: count * FRAME].reshape(count, FRAME) ** 2).mean(1))
    loud = np.flatnonzero(loudness > max(loudness.max() * 1e-3, 1e-4))
    return waveform[max(0, loud[0] - 1) * FRAME : (loud[-1] + 2) * FRAME] if len(loud) else waveform


# Soundfonts, rendered by fluidsynth


class Note(NamedTuple):
    """A note: seconds from the beginning, MIDI pitch and velocity."""

    start: float
    seconds: float
    pitch: int
    velocity: int


class Phrase(NamedTuple):
    """What becomes one rendered sound: the fields of a `Sound`, and notes that end within 3 s."""

    source: str
    labels: tuple[str, ...]
    notes: list[Note]
    recording: str = ""


def soundfont_sounds(package: Package, content: bytes) -> Iterator[Sound]:
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


def _rendered(font: Path, phrases: list[Phrase], *, bank: int, program: int, channel: int) -> Iterator[Sound]:
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
        yield Sound(phrase.source, phrase.labels, waveform, SAMPLE_RATE, "rendered", phrase.recording)


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


# Synthetic speech


def speech_sounds(package: Package) -> Iterator[Sound]:
    """Two random sentences per clip, said by the synthesizer that the package's reader names."""
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
            yield Sound(f"{voice} {k}", ("Speech synthesizer",), waveform, rate, "synthetic")


# Signals that are exact by definition: functions of a random generator and of the time axis in seconds, within [-1, 1]


def sines(t: np.ndarray, *frequencies: float) -> np.ndarray:
    """The mean of sines; frequencies in Hz."""
    return sum(np.sin(2 * np.pi * frequency * t) for frequency in frequencies) / len(frequencies)


def white_noise(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    """Gaussian noise, 0.25 rms, clipped where it leaves [-1, 1]."""
    return np.clip(0.25 * rng.standard_normal(len(t)), -1, 1)


def pink_noise(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    """Noise whose power falls by 3 dB per octave, flat below 20 Hz."""
    frequency = np.maximum(np.fft.rfftfreq(len(t), 1 / SAMPLE_RATE), 20)
    noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(len(t))) / np.sqrt(frequency), len(t))
    return noise / np.abs(noise).max()


def sweep(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    """Exponential sweep from 0.1 to 1 kHz up to 1.6 to 10 kHz."""
    low, high = 10 ** rng.uniform(2, 3), 10 ** rng.uniform(3.2, 4)
    rate = np.log(high / low) / t[-1]
    return np.sin(2 * np.pi * low * np.expm1(rate * t) / rate)


def mains_hum(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    """50 or 60 Hz with harmonics of random phase."""
    mains = rng.choice((50, 60))
    return sum(np.sin(2 * np.pi * (mains * h * t + rng.random())) / h for h in (1, 2, 3, 4, 6)) / 2.25


def dialing(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    """5 to 11 random keys, as many as fit, with the row and column tones of ITU-T Q.23."""
    keys = rng.integers((0, 0), (4, 3), size=(rng.integers(5, 12), 2))
    tone, pause = rng.uniform(0.08, 0.2), rng.uniform(0.05, 0.15)  # seconds
    key, phase = np.divmod(t, tone + pause)
    pressed = [sines(t, (697, 770, 852, 941)[row], (1209, 1336, 1477)[column]) for row, column in keys]
    return sum(signal * (key == k) for k, signal in enumerate(pressed)) * (phase < tone)


def dial_tone(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    """The dial tone of North America or of Europe."""
    return sines(t, *((350, 440), (425,))[rng.integers(2)])


def busy_signal(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    """A busy signal of North America, Europe, the United Kingdom, or fast as on European congestion."""
    frequencies, on = (((480, 620), 0.5), ((425,), 0.5), ((400,), 0.375), ((425,), 0.25))[rng.integers(4)]
    return sines(t, *frequencies) * (t % (2 * on) < on)


SIGNALS = {
    "white noise": (("White noise",), white_noise),
    "pink noise": (("Pink noise",), pink_noise),
    "sine": (("Sine wave",), lambda rng, t: sines(t, 10 ** rng.uniform(2.2, 3.8))),
    "sweep": (("Chirp tone",), sweep),
    "mains hum": (("Mains hum", "Hum"), mains_hum),
    "dialing": (("Telephone dialing, DTMF",), dialing),
    "dial tone": (("Dial tone",), dial_tone),
    "busy signal": (("Busy signal",), busy_signal),
}


def signal_sounds(package: Package) -> Iterator[Sound]:
    """Noises and tones of 3 to 8 s with peaks up to -20 to -6 dBFS; seeded by the split."""
    for number, (name, (labels, signal)) in enumerate(SIGNALS.items()):
        for k in range(package.amount):
            rng = np.random.default_rng([package.split == "eval", number, k])
            t = np.arange(int(rng.uniform(3, 8) * SAMPLE_RATE)) / SAMPLE_RATE
            waveform = 10 ** (rng.uniform(-20, -6) / 20) * signal(rng, t)
            yield Sound(f"{name} {k}", labels, waveform.astype(np.float32), SAMPLE_RATE, "generated")
