"""Clips of AudioSet's audio with targets in time."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets import audioset_strong
from datasets.audioset_strong import read_classes, strong_set
from datasets.augment import Augmented
from datasets.clip import FrameClip
from datasets.labels import audioset_strong_labels, audioset_strong_mids
from datasets.recordings import Recordings
from datasets.strong_clips import StrongClips
from datasets.strong_labels import LabelledEvent
from models.errors import UserError
from tests.finetuning import write


def open_set(folder: Path, part: str = "train", **options) -> StrongClips:
    options = {"frames": 25, "step": 0.04, "sample_rate": 16000, "clip_seconds": 1.0} | options
    return strong_set(part, folder, read_classes(folder), **options)


def test_clips_have_the_targets_of_their_table(tiny_strong: Path) -> None:
    clips = open_set(tiny_strong)
    assert len(clips) == 24 and clips.has_times.all() and set(clips.names) <= {f"Yunba{i:07d}.mp3" for i in range(24)}
    clip = clips[5]  # class 1, in the second half of a second
    assert clip.waveform.shape == (16000,) and clip.target.shape == (3, 25) and clip.name == clips.names[5]
    np.testing.assert_array_equal(clip.target[1], [0.0] * 12 + [1.0] * 13)
    assert clip.target[[0, 2]].sum() == 0 and clip.target_weight == 1 and clip.clip_target.tolist() == [0, 1, 0]


def test_clips_that_the_table_does_not_name_have_their_labels(tiny_strong: Path) -> None:
    clips = open_set(tiny_strong, with_weak=True)
    assert (~clips.has_times).sum() == 6  # of 8 balanced clips, two of which have the fourth label alone
    for index in np.flatnonzero(~clips.has_times):
        clip = clips[int(index)]
        assert clip.target_weight == 0 and not clip.target.any()
        assert clip.clip_target.tolist() == np.eye(3)[int(clip.name[-5]) % 4].tolist()


def test_what_the_audio_lacks_is_counted(tiny_strong: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = tmp_path / "more.tsv"
    original = (tiny_strong / audioset_strong.TABLES["train"]).read_text()
    table.write_text(original + "missing0000_0\t0\t1\tTone 0\nmissing0001_0\t\t\t\n")
    with caplog.at_level(logging.WARNING):
        assert len(open_set(tiny_strong, table=table)) == 24
    assert any("2 of the 26 clips" in message and "missing0000" in message for message in caplog.messages)
    table.write_text("filename\tonset\toffset\tevent_label\nother.wav\t0\t1\tTone 0\n")
    with pytest.raises(UserError, match="names none"):
        open_set(tiny_strong, table=table)


def test_other_classes_are_refused_in_training_and_left_out_in_evaluation(tiny_strong: Path, tmp_path: Path) -> None:
    table = tmp_path / "other.tsv"
    table.write_text(
        "filename\tonset\toffset\tevent_label\neval0000000_0\t0\t1\tMeow\nunba0000000_0\t0\t1\tMeow\n"
        "eval0000001_0\t0\t1\tTone 0\neval0000001_0\t0\t1\tMeow\n"
    )
    with pytest.raises(UserError, match="Meow"):
        open_set(tiny_strong, table=table)
    clips = open_set(tiny_strong, "eval", table=table)  # as published, without those that have nothing else
    assert clips.names == ["Yeval0000001.mp3"] and clips.events == [[LabelledEvent(0.0, 1.0, 0)]]


def test_the_evaluation_part_validates_where_there_is_no_other(tiny_strong: Path) -> None:
    assert open_set(tiny_strong, "validation").names == open_set(tiny_strong, "eval").names
    with pytest.raises(FileNotFoundError, match="audioset_validation_strong"):
        (tiny_strong / "nothing").mkdir(exist_ok=True)
        open_set(tiny_strong / "nothing")


def test_classes_are_those_of_the_corpus_or_audioset_strongs(tmp_path: Path) -> None:
    assert read_classes(tmp_path) == (audioset_strong_labels(), audioset_strong_mids())
    assert len(set(audioset_strong_labels())) == len(set(audioset_strong_mids())) == 447
    assert len(audioset_strong.clip_label_columns(audioset_strong_mids())) == 376
    for rows in ("/m/1\tone\n/m/1\ttwo\n", ""):
        (tmp_path / audioset_strong.CLASSES).write_text(f"mid\tdisplay_name\n{rows}")
        with pytest.raises(UserError, match="once"):
            read_classes(tmp_path)


def sounds(tmp_path: Path, count: int = 2) -> Recordings:
    paths = [tmp_path / f"{i}.wav" for i in range(count)]
    for i, path in enumerate(paths):
        write(path, np.full(1600, 0.1 * (i + 1), np.float32), 16000)
    return Recordings(paths, np.eye(2)[np.arange(count) % 2], list("abcd")[:count], sample_rate=16000, clip_seconds=0.1)


def test_wavmix_keeps_times_and_labels_apart(tmp_path: Path) -> None:
    """What is known of one clip alone weighs as much as its share in the mixture."""
    clips = StrongClips(sounds(tmp_path), {0: [LabelledEvent(0, 0.04, 0)], 1: None}, 2, frames=3)
    torch.manual_seed(0)
    mixtures = [Augmented(clips, wavmix=True)[0] for _ in range(60)]
    mixed = [clip for clip in mixtures if 0.5 <= clip.target_weight < 1]
    assert len(mixed) > 5
    for clip in mixed:
        assert isinstance(clip, FrameClip)
        np.testing.assert_allclose(clip.target, [[1, 0, 0], [0, 0, 0]])
        np.testing.assert_allclose(clip.clip_target, [0, 1], atol=1e-6)
    assert {float(clip.target_weight) for clip in mixtures} - {float(clip.target_weight) for clip in mixed} <= {1.0}


def test_clips_must_not_be_cropped_at_random(tmp_path: Path) -> None:
    clips = sounds(tmp_path)
    clips.random_crop = True
    with pytest.raises(UserError, match="random"):
        StrongClips(clips, {0: []}, 2, frames=3)
