"""From sounds to the clips of the corpus: names, folds, levels, encoding, and dropping copies."""

import base64
import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from datasets.audio import encode_mp3
from datasets.prepare.opensounds.sounds import SAMPLE_RATE, LabelledSound, Reject, trim_silence
from datasets.prepare.opensounds.tables import Package, with_ancestors

CLIP_SECONDS, SHORTEST_SECONDS = 10.0, 0.04
SILENT_RMS, QUIET_RMS, LIFTED_RMS = 10 ** (-60 / 20), 10 ** (-35 / 20), 10 ** (-30 / 20)  # -60, -35 and -30 dBFS
PEAK = 0.98
DUPLICATE_SIMILARITY = 0.99  # copies, recoded or scaled, have 0.995; other sounds of one instrument up to 0.985


@dataclass(frozen=True)
class EncodedClip:
    """At most 10 s of a sound: the columns of clips.csv, then what is not in it."""

    name: str  # in the HDF5 file
    labels: tuple[str, ...]  # without ancestors
    package: str
    version: str
    source: str
    recording: str  # shared by all clips that come from one recording
    fold: int  # 1 to 5, for cross validation: a recording and its takes are in one fold
    kind: str
    licence: str
    licence_class: str
    seconds: float
    original_rate: int  # Hz
    sha1: str  # of the little-endian 16-bit samples that were encoded
    is_eval: bool
    mp3: bytes = field(repr=False)
    fingerprint: np.ndarray = field(repr=False)


def clip_name(package: str, source: str, segment: int) -> str:
    """A name like AudioSet's, 'Y' + 11 characters + '.mp3', that stays the same over versions of the package."""
    digest = hashlib.sha1(f"{package}/{source}/{segment}".encode()).digest()
    return f"Y{base64.urlsafe_b64encode(digest).decode()[:11]}.mp3"


def fold_of(recording: str) -> int:
    """Fold 1 to 5; numbered takes and velocity layers of a sound share it."""
    sound = re.sub(r"(?i)[-_ ]?(hardest|hard|med|softest|soft)?[-_ ]?\d*(\.\w+)?$", "", recording)
    return 1 + int(hashlib.sha1(sound.encode()).hexdigest(), 16) % 5


def fingerprint(waveform: np.ndarray) -> np.ndarray:
    """Unit vector that a copy keeps when it is scaled, cut at its ends or recoded.

    It is the log spectrogram, less its mean, of the 0.3 s from where the sound comes within 20 dB of its loudest.
    """
    size, hop, count = 1024, 160, 60  # samples, samples, frames of 5 ms
    window = np.hanning(size).astype(np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(waveform, size), size)[::hop]
    energy = frames**2 @ window**2
    peak = int(energy.argmax())
    quiet = np.flatnonzero(energy[:peak] < 0.01 * energy[peak])
    start = max(quiet[-1] + 1 if len(quiet) else 0, peak - 40)
    power = np.abs(np.fft.rfft(frames[start : start + count] * window)) ** 2  # (frames, bins)
    edges = np.unique(np.geomspace(3, size // 2, 41).astype(int))
    bands = np.add.reduceat(power, edges[:-1], axis=1) / np.diff(edges)
    levels = np.log(bands + 1e-7 * power.max() + 1e-12)
    image = np.full((count, levels.shape[1]), levels.min(), np.float32)
    image[: len(levels)] = levels
    image -= image.mean()
    return image.ravel() / (np.linalg.norm(image) + 1e-9)


def clips_of(sound: LabelledSound, package: Package, version: str, reject: Reject) -> Iterator[EncodedClip]:
    """Trim a sound, cut it into clips of at most 10 s, lift very quiet ones, limit peaks, encode."""
    whole = trim_silence(sound.waveform - sound.waveform.mean())
    if len(whole) < SHORTEST_SECONDS * SAMPLE_RATE:
        reject(sound.source, "too short")
        return
    length = int(CLIP_SECONDS * SAMPLE_RATE)
    count = 1 if len(whole) <= 1.2 * length else min(package.segments, len(whole) // length)
    recording = f"{package.name}/{sound.recording or sound.source}"
    for segment in range(count):
        part = whole[segment * length : (segment + 1) * length]
        rms = np.sqrt((part**2).mean())
        if rms < SILENT_RMS:
            reject(sound.source, f"segment {segment} is nearly silent")
            continue
        part = part * (LIFTED_RMS / rms if rms < QUIET_RMS else 1)
        part = part * min(1, PEAK / np.abs(part).max())
        samples = (part * 32767).round().astype("<i2")
        part = samples.astype(np.float32) / 32768
        yield EncodedClip(
            name=clip_name(package.name, sound.source, segment),
            labels=sound.labels,
            package=package.name,
            version=version,
            source=sound.source,
            recording=recording,
            fold=fold_of(recording),
            kind=sound.kind,
            licence=package.licence,
            licence_class=package.licence_class,
            seconds=len(part) / SAMPLE_RATE,
            original_rate=sound.original_rate,
            sha1=hashlib.sha1(samples.tobytes()).hexdigest(),
            is_eval=package.split == "eval",
            mp3=encode_mp3(part, SAMPLE_RATE),
            fingerprint=fingerprint(part),
        )


def without_duplicates(clips: Sequence[EncodedClip], reject: Callable[[EncodedClip, str], None]) -> list[EncodedClip]:
    """Keep the first of several clips with the same samples, or of copies in different packages.

    Games and drum kits take sounds from each other; without this, training and evaluation would share some.
    """
    kept: dict[int, EncodedClip] = {}  # by position in `clips`
    seen: set[str] = set()
    fingerprints = np.stack([clip.fingerprint for clip in clips]) if clips else np.zeros((0, 0))
    for i, clip in enumerate(clips):
        alike = np.flatnonzero(fingerprints[:i] @ clip.fingerprint > DUPLICATE_SIMILARITY)
        twins = [kept[j] for j in alike if j in kept and kept[j].package != clip.package]
        if clip.sha1 in seen:
            reject(clip, "same samples as another clip")
        elif twins and clip.kind != "generated":
            reject(clip, f"copy of {twins[0].package}: {twins[0].source}")
        else:
            kept[i] = clip
            seen.add(clip.sha1)
    return list(kept.values())


def recordings_by_label(clips: Iterable[EncodedClip]) -> dict[str, set[str]]:
    """The distinct recordings of every label, ancestors included."""
    found: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        for label in with_ancestors(clip.labels):
            found[label].add(clip.recording)
    return found
