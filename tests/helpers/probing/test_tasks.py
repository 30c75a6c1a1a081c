"""Data sets as tasks: which clips, which splits, which metric; small copies of each layout."""

from __future__ import annotations

import csv
import json
import os
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from datasets import audio
from datasets.hdf5_mp3 import Mp3Writer
from helpers.probing.tasks import open_task

NOISE = np.random.default_rng(0).uniform(-0.3, 0.3, 3200).astype(np.float32)


def write_wav(path: Path, samples: int = 3200) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32(os.fsencode(path.relative_to(path.parents[2]))))  # no two files are alike
    soundfile.write(path, rng.uniform(-0.3, 0.3, samples), 32000)


def write_hdf5(path: Path, num_classes: int, clips: int) -> None:
    mp3 = audio.encode_mp3(NOISE, 32000)
    with Mp3Writer(path, num_classes) as writer:
        for number in range(clips):
            writer.add(f"{path.name[7:12]}{number}.mp3", mp3, np.eye(num_classes)[number % 3])


def test_a_hear_task_keeps_its_splits_and_its_first_metric(tmp_path: Path) -> None:
    folder = tmp_path / "pets-v1-full"
    for split in ("train", "valid", "test"):
        write_wav(folder / "32000" / split / "a.wav")
        folder.joinpath(f"{split}.json").write_text(json.dumps({"a.wav": ["cat", "dog"] if split == "test" else ["dog"]}))
    metadata = {"task_name": "pets", "embedding_type": "scene", "prediction_type": "multilabel", "split_mode": "trainvaltest"}
    metadata |= {"splits": ["train", "valid", "test"], "sample_duration": 0.2, "evaluation": ["aucroc", "mAP"]}
    folder.joinpath("task_metadata.json").write_text(json.dumps(metadata))
    folder.joinpath("labelvocabulary.csv").write_text("idx,label\n0,cat\n1,dog\n")
    task = open_task(folder)
    assert (task.name, task.metric, task.folds, task.single_label) == ("pets", "aucroc", False, False)
    assert task.splits.tolist() == ["train", "valid", "test"] and task.targets.tolist() == [[0, 1], [0, 1], [1, 1]]
    assert [len(clips[0].waveform) for clips in task.clips] == [6400] * 3


def test_esc50_has_its_folds(tmp_path: Path) -> None:
    rows = [
        (f"{fold}-{target}-A-{target}.wav", fold, target, f"class {target}", fold * 100 + target)
        for fold in range(1, 6)
        for target in range(50)
    ]
    for name, *_ in rows:
        write_wav(tmp_path / "audio_32k" / name, 320)
    (tmp_path / "meta").mkdir()
    with open(tmp_path / "meta" / "esc50.csv", "w", newline="") as file:
        csv.writer(file).writerows([("filename", "fold", "target", "category", "src_file"), *rows])
    task = open_task(tmp_path)
    assert Counter(task.splits) == {f"fold{fold}": 50 for fold in range(1, 6)}
    assert (task.metric, task.folds, task.single_label) == ("top1_acc", True, True)
    assert (task.targets.sum(0) == 5).all() and task.chance() == pytest.approx(1 / 50)


def test_fsd50k_and_audioset(tmp_path: Path) -> None:
    for part, clips in (("train", 5), ("val", 3), ("eval", 4)):
        write_hdf5(tmp_path / "fsd" / f"FSD50K.{part}_mp3.hdf", 200, clips)
    for part, clips in (("balanced_train", 40), ("eval", 4)):
        write_hdf5(tmp_path / "as" / f"{part}_segments_mp3.hdf", 527, clips)
    fsd50k, audioset = open_task(tmp_path / "fsd"), open_task(tmp_path / "as")
    assert Counter(fsd50k.splits) == {"train": 5, "valid": 3, "test": 4} and fsd50k.targets.shape == (12, 200)
    counts = Counter(audioset.splits)
    assert counts["test"] == 4 and 0 < counts["valid"] < 15 and counts.total() == 44
    assert audioset.splits.tolist()[-4:] == ["test"] * 4 and audioset.targets.shape == (44, 527)
    assert (open_task(tmp_path / "as").splits == audioset.splits).all()
    for task in (fsd50k, audioset):
        assert (task.metric, task.folds, task.single_label) == ("mAP", False, False)
        assert all(clips.clip_seconds is None and not clips.random_crop for clips in task.clips)


def test_a_folder_is_divided_into_folds(tmp_path: Path) -> None:
    for label, count in (("bark", 10), ("miaow", 20)):
        for number in range(count):
            write_wav(tmp_path / label / f"{number}.wav", 1000 + 100 * number)
    task = open_task(tmp_path)
    assert (task.metric, task.folds, task.single_label) == ("top1_acc", True, True) and task.chance() == pytest.approx(2 / 3)
    for fold in range(5):
        assert task.targets[task.splits == f"fold{fold}"].sum(0).tolist() == [2, 4]
    assert [len(clip.waveform) for clip in task.clips[0]][:2] == [1000, 1100]


@pytest.mark.parametrize(
    ("column", "folds", "expected"),
    [
        ("split", False, {"train": 4, "valid": 4, "test": 4}),
        ("fold", True, {"a": 4, "b": 4, "c": 4}),
        ("group", True, {f"fold{k}": None for k in range(4)}),
    ],
)
def test_a_table_assigns_splits_or_folds(tmp_path: Path, column: str, folds: bool, expected: dict[str, int | None]) -> None:
    values = {"split": ["train", "val", "test"] * 4, "fold": list("abc") * 4, "group": [f"g{i // 3}" for i in range(12)]}[column]
    rows = []
    for number, value in enumerate(values):
        write_wav(tmp_path / f"{number}.wav")
        rows.append(f"{number}.wav,{'dog;cat' if number % 2 else ''},{value}")
    (tmp_path / "table.csv").write_text(f"path,labels,{column}\n" + "\n".join(rows))
    task = open_task(tmp_path / "table.csv")
    assert (task.metric, task.folds, task.single_label, task.name) == ("mAP", folds, False, "table")
    counts = Counter(task.splits)
    if column == "group":
        assert all(len({task.splits[i] for i in range(12) if values[i] == group}) == 1 for group in set(values))
    else:
        assert counts == expected


def test_missing_data_are_reported(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing_here"):
        open_task(tmp_path / "nothing_here")
    with pytest.raises(ValueError, match="one folder per class"):
        open_task(tmp_path)
    (tmp_path / "tasks" / "pets-v1-full").mkdir(parents=True)
    (tmp_path / "tasks" / "pets-v1-full" / "task_metadata.json").write_text("{}")
    with pytest.raises(ValueError, match="1 HEAR task.*pets-v1-full"):
        open_task(tmp_path)
