"""Scenes of tones, whose events can be seen in the mixture."""

from __future__ import annotations

import numpy as np
import pytest

from datasets.prepare.corpus import CorpusClip
from datasets.prepare.soundscapes import scenes
from datasets.prepare.soundscapes.material import PARTS, Material, part_of
from datasets.prepare.soundscapes.scenes import SAMPLE_RATE, SECONDS, scene, sounding_parts
from models.errors import UserError

TONES = {"Whistle": 1000.0, "Bell": 2500.0, "Moo": 5000.0}  # Hz
SPREAD = 0.08  # of frequencies, by speed


class Tones:
    """A corpus of tones of 1 s in silence of 1.4 s, with ten training, five validation and five evaluation recordings of each."""

    def __init__(self) -> None:
        self.clips = []
        for label in (*TONES, "Wind"):
            for i in range(20):
                name = f"{label} {i}"
                self.clips.append(CorpusClip(name, i >= 15, (label,), (label,), "tones", name, fold=5 if i < 5 else 1))

    def waveform(self, clip: CorpusClip, sample_rate: int) -> np.ndarray:
        if clip.labels == ("Wind",):
            return np.random.default_rng(0).standard_normal(4 * sample_rate).astype(np.float32) * 0.1
        sound = np.zeros(int(1.4 * sample_rate), np.float32)
        sound[int(0.2 * sample_rate) : int(1.2 * sample_rate)] = tone(TONES[clip.labels[0]], 1.0)
        return sound


def tone(frequency: float, seconds: float) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE).astype(np.float32)


@pytest.fixture
def material() -> Material:
    return Material(Tones())


def in_band(waveform: np.ndarray, frequency: float) -> np.ndarray:
    """Amplitude at about a frequency in each 10 ms, as a tone would have it."""
    spectrum = np.fft.rfft(waveform)
    frequencies = np.fft.rfftfreq(len(waveform), 1 / SAMPLE_RATE)
    spectrum[np.abs(frequencies / frequency - 1) > SPREAD] = 0
    return np.sqrt(2 * (np.fft.irfft(spectrum).reshape(-1, 320) ** 2).mean(1))


def test_a_scene_has_its_events_where_it_says(material: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes, "ROOM_SHARE", 0.0)
    monkeypatch.setattr(scenes, "SNR_DB", (25.0, 25.0))
    seen = set()
    for index in range(6):
        mixed = scene(material, "train", 0, index, max_events=3)
        assert mixed.waveform.shape == (SECONDS * SAMPLE_RATE,) and mixed.waveform.dtype == np.float32
        assert np.abs(mixed.waveform).max() <= 1
        for k, label in enumerate(material.labels):
            level = in_band(mixed.waveform, TONES[label])
            known = np.zeros(len(level), bool)
            for event in mixed.events:
                if event.class_index == k:
                    known[round(event.onset * 100) : round(event.offset * 100)] = True
                    seen.add(label)
            if known.any():
                sounding = level > 0.2 * level.max()
                assert (sounding ^ known).sum() <= 4 * len(mixed.events)  # of frames at beginnings and ends
            else:
                assert level.max() < 0.2 * max(in_band(mixed.waveform, frequency).max() for frequency in TONES.values())
    assert seen == set(TONES)


@pytest.mark.parametrize("decibels", [3.0, 20.0])
def test_signal_to_noise_ratios_are_as_stated(material: Material, monkeypatch: pytest.MonkeyPatch, decibels: float) -> None:
    monkeypatch.setattr(scenes, "SNR_DB", (decibels, decibels))
    monkeypatch.setattr(scenes, "ROOM_SHARE", 0.0)
    mixed = scene(material, "eval", 1, 0, max_events=1)
    (event,) = mixed.events
    inside = np.zeros(len(mixed.waveform), bool)
    inside[int(event.onset * SAMPLE_RATE) : int(event.offset * SAMPLE_RATE)] = True
    noise, both = (np.square(mixed.waveform[part]).mean() for part in (~inside, inside))
    assert 10 * np.log10(both / noise - 1) == pytest.approx(decibels, abs=1.0)
    assert mixed.origins[1][3] == decibels


def test_a_scene_is_a_function_of_its_seed_and_number(material: Material) -> None:
    first, again = (scene(material, "train", 3, 7, 4) for _ in range(2))
    assert np.array_equal(first.waveform, again.waveform)
    assert (first.events, first.origins) == (again.events, again.origins)
    for other in (scene(material, "train", 3, 8, 4), scene(material, "train", 4, 7, 4), scene(material, "eval", 3, 7, 4)):
        assert not np.array_equal(first.waveform, other.waveform)


def test_parts_share_no_recording_and_scenes_have_up_to_the_given_number_of_events(material: Material) -> None:
    of_part = {clip.name: part_of(clip) for clip in material.corpus.clips}
    counts = set()
    for part in PARTS:
        for index in range(4):
            (background, *_), *events = scene(material, part, 0, index, max_events=2).origins
            assert {of_part[name] for name, *_ in events} == {part}
            assert background == "" or of_part[background] == part
            counts.add(len(events))
    assert counts == {1, 2}


def test_rooms_lengthen_sounds(material: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes, "ROOM_SECONDS", (0.8, 0.8))
    monkeypatch.setattr(scenes, "DIRECT_DB", (0.0, 0.0))
    lengths = {}
    for share in (0.0, 1.0):
        monkeypatch.setattr(scenes, "ROOM_SHARE", share)
        events = [event for index in range(5) for event in scene(material, "train", 0, index, 1).events]
        lengths[share] = np.mean([event.offset - event.onset for event in events])
    assert lengths[0.0] == pytest.approx(1.0, abs=0.08)
    assert lengths[0.0] + 0.15 < lengths[1.0] < lengths[0.0] + 0.5


def test_sounding_parts_bridge_short_pauses_and_leave_out_clicks_and_quiet_ends() -> None:
    quiet = 0.02 * tone(500, 0.5)  # 34 dB below the others
    click = np.ones(100)
    pause = np.zeros(9600)
    sound = np.concatenate([pause, tone(500, 0.5), pause, tone(500, 0.2), quiet, pause, pause, click, pause])
    assert sounding_parts(sound) == [(9600, 9600 + 16000 + 9600 + 6400)]
    separate = np.concatenate([tone(500, 0.5), np.zeros(19200), tone(500, 0.2)])
    assert sounding_parts(separate) == [(0, 16000), (35200, 41600)]
    assert sounding_parts(click) == [(0, 100)]


def test_short_sounds_are_repeated_and_long_ones_cut(material: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    for seconds, shortest, longest in ((0.1, 0.4, 2.5), (9.0, 5.5, 6.2)):
        monkeypatch.setattr(material.corpus, "waveform", lambda clip, rate, seconds=seconds: tone(1000, seconds))
        rng = np.random.default_rng(0)
        sound = scenes.foreground(material, material.corpus.clips[0], rng, None)
        ((start, stop),) = sounding_parts(sound)
        assert shortest * SAMPLE_RATE < stop - start < longest * SAMPLE_RATE


def test_backgrounds_and_rare_and_implied_labels_are_no_classes() -> None:
    corpus = Tones()
    corpus.clips += [CorpusClip(f"rare {i}", i > 8, ("Oink",), ("Oink",), "", f"rare {i}", fold=1) for i in range(20)]
    implied = Tones().clips[:20]
    corpus.clips += [CorpusClip(f"{c.name} d", c.is_eval, ("Animal",), ("Animal",), "", f"{c.name} d", c.fold) for c in implied]
    assert Material(corpus).labels == ("Bell", "Moo", "Whistle")  # which implies Animal
    corpus.clips = corpus.clips[:4]
    with pytest.raises(UserError):
        Material(corpus)
