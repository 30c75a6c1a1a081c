"""python -m datasets.prepare.soundscapes on a tiny corpus."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from datasets import audioset
from datasets.csv_table import write_table
from datasets.labels import audioset_labels, audioset_mids
from datasets.prepare.opensounds.tables import with_ancestors
from datasets.prepare.soundscapes import build
from datasets.strong_labels import read_strong_labels

CLASSES = ("Bark", "Whistle")
SCENES = {"train": 3, "validation": 1, "eval": 2}
TABLES = {part: f"audioset_{part}_strong.tsv" for part in SCENES}


@pytest.fixture(scope="module")
def corpus_dir(write_tiny_corpus: Callable[..., Path]) -> Path:
    clips = [((label,), "package") for label in (*CLASSES, "Rain") for _ in range(25)]
    return write_tiny_corpus({"balanced_train": clips, "unbalanced_train": [(("Rain",), "other")], "eval": clips})


def arguments(corpus_dir: Path, output_dir: Path, *options: object) -> list[str]:
    hours = [word for part, name in zip(SCENES, ("hours", "validation_hours", "eval_hours"), strict=True)
             for word in (f"--{name}", SCENES[part] / 360)]  # fmt: skip
    return [*map(str, ("--dataset_dir", corpus_dir, "--output_dir", output_dir, "--num_workers", 1, *hours, *options))]


@pytest.fixture(scope="module")
def scenes_dir(corpus_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("soundscapes")
    assert build.main(arguments(corpus_dir, folder)) == 0
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_it_is_an_audioset_with_strong_labels(scenes_dir: Path) -> None:
    mids = dict(zip(audioset_labels(), audioset_mids(), strict=True))
    assert (scenes_dir / "strong_classes.tsv").read_text().splitlines()[1:] == [f"{mids[label]}\t{label}" for label in CLASSES]
    opened = {"train": audioset.training_set, "validation": audioset.validation_set, "eval": audioset.evaluation_set}
    for part, count in SCENES.items():
        clips = opened[part](scenes_dir, clip_seconds=10.0)
        events = read_strong_labels(scenes_dir / TABLES[part], CLASSES, [mids[label] for label in CLASSES], seconds=10.0)
        assert [f"Y{name.removesuffix('_0')}.mp3" for name in events] == clips.names and len(clips) == count
        for clip, of_clip in zip(clips, events.values(), strict=True):
            found = {audioset_labels()[k] for k in np.flatnonzero(clip.target)}
            assert found == {label for event in of_clip for label in with_ancestors((CLASSES[event.class_index],))}
            assert len(clip.waveform) == 320000 and of_clip
            assert float(clip.waveform.abs().max()) > 0.001


def test_origins_name_the_corpus_clips(scenes_dir: Path, corpus_dir: Path) -> None:
    with (corpus_dir / "clips.csv").open(newline="") as file:
        split_of = {row["name"]: row["split"] for row in csv.DictReader(file)}
    for part in SCENES:
        with (scenes_dir / f"origins_{part}.csv").open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["corpus_clip"]]
        assert {split_of[row["corpus_clip"]] == "eval" for row in rows} == {part == "eval"}


def test_an_interrupted_build_resumes_with_the_same_result(
    scenes_dir: Path, corpus_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, encoded = build.clip_target, []

    def interrupt(*given: object) -> np.ndarray:
        encoded.append(None)
        if len(encoded) == 3:
            raise KeyboardInterrupt
        return original(*given)

    monkeypatch.setattr(build, "clip_target", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build.main(arguments(corpus_dir, tmp_path))
    assert not any((tmp_path / table).exists() for table in TABLES.values())
    assert build.main(arguments(corpus_dir, tmp_path)) == 0
    assert len(encoded) == 1 + sum(SCENES.values())  # none twice but the third
    expected = contents(scenes_dir)
    (tmp_path / TABLES["eval"]).unlink()  # as when the process was killed between scenes and table
    assert build.main(arguments(corpus_dir, tmp_path)) == 0
    found = contents(tmp_path)
    assert found.keys() == expected.keys()
    assert all(found[name] == expected[name] for name in expected if not name.endswith(".hdf"))
    for opened in (audioset.training_set, audioset.evaluation_set):
        here, there = opened(tmp_path), opened(scenes_dir)
        assert all(here.read(index)[:3:2] == there.read(index)[:3:2] for index in range(len(there)))


def test_what_is_there_is_kept_and_other_options_are_refused(
    scenes_dir: Path, corpus_dir: Path, failing_message: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in scenes_dir.glob("*.hdf")}
    assert build.main(arguments(corpus_dir, scenes_dir)) == 0
    capsys.readouterr()
    assert "other options" in failing_message(build.main, *arguments(corpus_dir, scenes_dir, "--seed", 1))
    assert {path: path.stat().st_mtime_ns for path in scenes_dir.glob("*.hdf")} == before


@pytest.mark.parametrize("options", [("--hours", "0"), ("--eval_hours", "nan"), ("--seed", "-1"), ("--dataset_dir", "nowhere")])
def test_mistakes_are_one_line_and_write_nothing(
    corpus_dir: Path, tmp_path: Path, options: tuple[str, str], failing_message: Callable[..., str]
) -> None:
    failing_message(build.main, *arguments(corpus_dir, tmp_path / "new", *options))
    assert not (tmp_path / "new").exists()


def test_a_folder_with_something_else_is_refused(corpus_dir: Path, tmp_path: Path, failing_message: Callable[..., str]) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert "something else" in failing_message(build.main, *arguments(corpus_dir, tmp_path))
    assert contents(tmp_path) == {"mine.txt": b"mine"}


def test_a_damaged_table_of_the_corpus_is_one_line(corpus_dir: Path, tmp_path: Path, failing_message: Callable[..., str]) -> None:
    with (corpus_dir / "clips.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows[3]["fold"] = "two"
    write_table(tmp_path / "clips.csv", [list(rows[0]), *(list(row.values()) for row in rows)])
    for path in corpus_dir.glob("*.hdf"):
        (tmp_path / path.name).symlink_to(path)
    assert "'two'" in failing_message(build.main, *arguments(tmp_path, tmp_path / "new"))
