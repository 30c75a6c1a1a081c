"""The study on ESC-10 at toy size: folds, scores of classes, probes, trainings that resume."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from datasets.labels import audioset_labels
from helpers.training import finetuning
from models.errors import UserError
from studies import esc10, few_clips
from tests.finetuning import tone, write, write_table

NAMES = list(esc10.CLASSES)


@pytest.fixture(scope="module")
def audio_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ESC-10's folders with one clip of 0.3 s in each fold of each class."""
    folder = tmp_path_factory.mktemp("esc10")
    for k, name in enumerate(NAMES):
        for fold in range(1, 6):
            write(folder / f"{k + 1:03d} - {name}" / f"{fold}-{k}-A.wav", tone(k, 0.3, 100 * k + fold))
    return folder


def test_folds_are_those_of_the_names(audio_dir: Path, tmp_path: Path) -> None:
    data = esc10.open_clips(audio_dir, tmp_path)
    assert sorted(data.class_names) == sorted(NAMES) and len(data.paths) == 50
    assert all(fold == path.name[0] for fold, path in zip(data.folds, data.paths, strict=True))
    training, test = esc10.divide(data, "2")
    assert len(training) == 40 and {data.paths[i].name[0] for i in test} == {"2"}
    assert not {data.paths[i].name[0] for i in training} & {"2"}


def test_esc50_gives_the_same_ten_classes(audio_dir: Path, tmp_path: Path) -> None:
    rows = [("1-1-A-30.wav", 1, 30, "door_wood_knock")]
    for k, (category, _) in enumerate(esc10.CLASSES.values()):
        rows += [(f"{fold}-{k}-A.wav", fold, k, category) for fold in (1, 2)]
    write_table(tmp_path / "esc50" / "meta" / "esc50.csv", ("filename", "fold", "target", "category"), *rows)
    for number, (name, *_) in enumerate(rows):
        write(tmp_path / "esc50" / "audio" / name, tone(number, 0.3, number))
    data = esc10.open_clips(tmp_path / "esc50", tmp_path)
    assert set(data.class_names) == set(NAMES) and len(data.paths) == 20 and set(data.folds) == {"1", "2"}


def test_other_folders_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "001 - Dog bark" / "1-1-A.wav", tone(0, 0.3, 0))
    with pytest.raises(UserError, match="Sea waves"):
        esc10.open_clips(tmp_path, tmp_path)
    for k, name in enumerate(NAMES):
        write(tmp_path / f"{k + 1:03d} - {name}" / "dog.wav", tone(k, 0.3, k))
    with pytest.raises(UserError, match="dog.wav"):
        esc10.open_clips(tmp_path, tmp_path)


def test_the_score_of_a_class_is_the_highest_of_its_labels() -> None:
    labels = audioset_labels()
    scores = np.zeros((2, 527), np.float32)
    scores[0, labels.index("Raindrop")], scores[1, labels.index("Clock")] = 0.7, 0.4
    by_class = esc10.class_scores(scores, labels, ("Clock tick", "Rain"))
    np.testing.assert_array_equal(by_class, np.array([[0, 0.7], [0.4, 0]], np.float32))
    with pytest.raises(UserError, match="AudioSet"):
        esc10.check_labels(("cat", "dog"))
    esc10.check_labels(labels)


def test_a_probe_learns_from_the_chosen_clips_alone() -> None:
    classes = np.arange(40) % 2
    embeddings = np.random.default_rng(0).normal(0, 0.1, (40, 3)) + 5 * classes[:, None]
    test = np.arange(20, 40)
    assert esc10.probe_accuracy(embeddings, classes, np.arange(20), test) == 1
    assert esc10.probe_accuracy(embeddings, classes[::-1], np.arange(20), np.arange(20)) == 1  # the classes of those clips
    assert esc10.probe_accuracy(embeddings, np.r_[classes[:20], 1 - classes[20:]], np.arange(20), test) == 0


def test_the_study_prints_each_method_and_resumes(
    audio_dir: Path, tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trainings are replaced by their options; two models of one architecture share those from scratch."""
    trained: list[tuple[str, float, list[object], int, int]] = []

    def train(name, budget, start, data, chosen, test, *, max_lr, seed):  # noqa: ANN001, ANN202
        trained.append((name, max_lr, list(start), len(chosen), len(test)))
        return {"accuracy": 0.5}

    class Here:
        """In the place of the pool of processes."""

        __init__ = __exit__ = lambda self, *args, **options: None
        __enter__ = lambda self: self  # noqa: E731
        map = staticmethod(map)

    monkeypatch.setattr(few_clips, "train", train)
    monkeypatch.setattr(few_clips, "ProcessPoolExecutor", Here)
    second = tmp_path / "second.pt"
    second.write_bytes(tiny_checkpoint.read_bytes())
    models = [str(tiny_checkpoint), str(second)]
    argv = ["--audio_dir", str(audio_dir), "--output_dir", str(tmp_path / "out"), "--model_name", *models]
    assert esc10.main(argv) == 0
    table = capsys.readouterr().out
    assert len({name for name, *_ in trained}) == len(trained) == 5 * 5 * (2 + 1)
    assert {lr for _, lr, start, *_ in trained if "--pretrained_name" in start} == {1e-3}
    assert {lr for _, lr, start, *_ in trained if "--model_width" in start} == {3e-3}
    assert {(count, test) for *_, count, test in trained} == {(10, 10), (20, 10), (40, 10)}  # 4 of each class in training
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    of_probes, of_all = lines[:6], lines[6:]  # the first is printed before the trainings
    for rows, columns in ((of_probes, 2), (of_all, 5)):
        assert [line.split(" | ")[0] for line in rows[1:]] == ["| 1", "| 2", "| 5", "| 10", "| all"]
        assert all(line.count("±") == columns for line in rows[1:])
    with open(tmp_path / "out" / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(trained) + 2 * 5 + 2 * 25
    assert (tmp_path / "out" / "esc10.png").read_bytes().startswith(b"\x89PNG")


def test_a_training_that_is_complete_is_not_repeated(
    audio_dir: Path, tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(esc10, "EPOCH_CLIPS", 16)
    argv = ["--audio_dir", str(audio_dir), "--output_dir", str(tmp_path), "--n_epochs", "1"]
    args = esc10.build_parser().parse_args(argv)
    monkeypatch.setattr(esc10.esc50, "CLIP_SECONDS", 0.3)
    data = esc10.open_clips(audio_dir, tmp_path)
    job = esc10.Job(esc10.TUNED, "tiny", 1, "1")
    start = few_clips.start_options(str(tiny_checkpoint), scratch=False)
    accuracy = esc10.train(args, data, job, start)
    assert 0 <= accuracy <= 1
    monkeypatch.setattr(finetuning, "mixed_loss", lambda *_: pytest.fail("trained again"))
    assert esc10.train(args, data, job, start) == accuracy
