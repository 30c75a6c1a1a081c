"""From sounds to clips: names, folds, segments, levels, fingerprints."""

import re

import numpy as np
import pytest

from datasets.audio import decode, encode_mp3
from datasets.prepare.opensounds import clips
from datasets.prepare.opensounds.sounds import SAMPLE_RATE as RATE
from datasets.prepare.opensounds.sounds import LabelledSound
from datasets.prepare.opensounds.tables import Package

PACKAGE = Package("p", "train", "CC0", "permissive", "files", segments=2, amount=0)


def burst(seed: int, seconds: float = 0.5) -> np.ndarray:
    """A decaying sound with a spectrum of its own: a random chord in a little noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * RATE)) / RATE
    chord = sum(np.sin(2 * np.pi * frequency * t) for frequency in rng.uniform(200, 8000, 5))
    return (0.1 * (chord + 0.1 * rng.standard_normal(len(t))) * np.exp(-2 * t / seconds)).astype(np.float32)


def made_of(waveform: np.ndarray) -> tuple[list[clips.EncodedClip], list[tuple[str, str]]]:
    """Clips of a sound, and what is rejected."""
    rejected = []
    sound = LabelledSound("a.wav", ("Moo",), waveform.astype(np.float32), RATE, "recording")
    made = clips.clips_of(sound, PACKAGE, "1", lambda *line: rejected.append(line))
    return list(made), rejected


def test_clip_names_look_like_those_of_audioset_and_never_change():
    name = clips.clip_name("scratch", "usr/share/scratch/Cat.mp3", 0)
    assert name == "YTo8KTzenot_.mp3"
    assert re.fullmatch(r"Y[\w-]{11}\.mp3", name)


def test_long_recordings_become_segments(monkeypatch):
    assert clips.CLIP_SECONDS == 10.0  # as in AudioSet
    monkeypatch.setattr(clips, "CLIP_SECONDS", 1.0)
    segments, _ = made_of(np.concatenate([burst(seed, 0.7) for seed in range(5)]))
    assert [clip.seconds for clip in segments] == [1.0, 1.0]  # the package allows two
    assert len({clip.name for clip in segments}) == 2 and len({clip.recording for clip in segments}) == 1


def test_silence_is_trimmed_levels_are_set_and_useless_sounds_rejected():
    silence = np.zeros(RATE, np.float32)
    ((clip,), _) = made_of(np.concatenate([silence, 0.05 * burst(1), silence]))
    waveform, rate = decode(clip.mp3)
    assert rate == RATE and 0.4 < clip.seconds < 0.6
    assert len(waveform) == round(clip.seconds * RATE)
    assert 20 * np.log10(np.sqrt((waveform**2).mean())) == pytest.approx(-30, abs=0.5)
    ((loud,), _) = made_of(20 * burst(2))
    assert np.abs(decode(loud.mp3)[0]).max() < 1.1
    assert made_of(silence)[1] == [("a.wav", "segment 0 is nearly silent")]
    assert made_of(burst(3)[:100])[1] == [("a.wav", "too short")]


def test_fingerprint_knows_copies():
    original = clips.fingerprint(burst(1))
    louder = clips.fingerprint(0.2 * burst(1))
    longer = clips.fingerprint(np.concatenate([np.zeros(777, np.float32), burst(1), 0.01 * burst(5)]))
    recoded = clips.fingerprint(decode(encode_mp3(burst(1), RATE))[0])
    for copy in (louder, longer, recoded):
        assert original @ copy > clips.DUPLICATE_SIMILARITY
    assert max(original @ clips.fingerprint(burst(seed)) for seed in range(2, 30)) < 0.9


def test_takes_share_a_fold():
    folds = {clips.fold_of(f"kit/Snare-{take}.wav") for take in ("Soft", "Hard", "1", "12")}
    assert len(folds) == 1 and folds <= {1, 2, 3, 4, 5}
    assert len({clips.fold_of(f"kit/{chr(97 + i)}.wav") for i in range(26)}) == 5
