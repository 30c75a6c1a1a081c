"""Fine-tuning on own recordings: folders and tables as people have them."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ex_folder
import inference
from helpers.distillation.online_teacher import OnlineTeacher
from models import checkpoints
from models.config import MelConfig
from models.MobileNetV3 import get_model
from models.waveform import WaveformModel
from tests.finetuning import (
    ALWAYS,
    RATE,
    SCHEDULE,
    TINY,
    assert_same_run,
    metrics,
    piece,
    run,
    scores,
    tone,
    write,
    write_table,
)

pytestmark = pytest.mark.usefixtures("in_temporary_folder", "figures_not_drawn")
OWN = ("--from_scratch", *TINY)


def own_run(caplog: pytest.LogCaptureFixture, *argv: object) -> tuple[int, int, int]:
    """Train on own recordings; return how many are trained, validated and tested on."""
    caplog.clear()
    with caplog.at_level("INFO"):
        run(ex_folder, *ALWAYS, *OWN, *argv)
    found = re.search(r"(\d+) clips to train, (\d+) to validate, (\d+) to test on", caplog.text)
    return tuple(map(int, found.groups()))


def test_a_folder_as_people_have_it(tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "mine"
    for name, recording in (("Vögel im Grünen", "speech"), ("日本", "rock")):
        for i in range(4):
            write(root / name / f"Aufnahme ü {i}.wav", piece(recording, i))
    write(tmp_path / "elsewhere" / "linked.wav", tone(1, 1.0, 1))
    (root / "日本" / "link").symlink_to(tmp_path / "elsewhere")
    (root / "日本" / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    (root / "日本" / "cut.wav").write_bytes((root / "日本" / "Aufnahme ü 0.wav").read_bytes()[:5000])
    (root / "日本" / "._cut.wav").write_bytes(b"what macOS writes")
    (root / "日本" / "text.mp3").write_text("no sound")
    (root / "日本" / "notes.txt").write_text("no sound")
    (root / "empty class").mkdir()
    assert own_run(caplog, root) == (8, 2, 0)
    assert "._cut.wav" not in caplog.text
    for what in ("gone.wav: is a broken link", "cut.wav: it is shorter", "text.mp3", "empty class", "no audio: .txt (1)"):
        assert what in caplog.text
    assert checkpoints.load("runs/folder/best.pt").labels == ("Vögel im Grünen", "日本")
    capsys.readouterr()
    run(inference, "--model_name", "runs/folder/best.pt", "--audio_path", root / "日本" / "Aufnahme ü 1.wav")
    lines = capsys.readouterr().out.splitlines()[1:-1]
    assert {line.partition(":")[0] for line in lines} == {"Vögel im Grünen", "日本"}
    assert sum(float(line.split()[-1]) for line in lines) == pytest.approx(1, abs=2e-3)


def test_a_dynamic_network_from_scratch_lowers_its_temperature(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "mine"
    for name, recording in (("a", "speech"), ("b", "rock")):
        for i in range(4):
            write(root / name / f"{i}.wav", piece(recording, i))
    own_run(caplog, root, "--arch", "dymn", "--T_max", 3, "--T0_slope", 0.5, "--n_epochs", 2)
    assert checkpoints.load("runs/folder/last.pt").arch.temperature == 2.5


def pieces(root: Path, count: int) -> list[str]:
    """Write pieces of rock and speech in turn."""
    for i in range(count):
        write(root / f"{i}.wav", piece(("rock", "speech")[i % 2], 0.3 * (i // 2)))
    return [f"{i}.wav" for i in range(count)]


def test_a_table_of_several_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    names = pieces(tmp_path / "mine", 12)
    rows = [(name, ("a", "b", "a;b", "")[i % 4]) for i, name in enumerate(names)]
    table = write_table(tmp_path / "labels.csv", ("path", "labels"), *rows)
    assert own_run(caplog, tmp_path / "mine", "--csv", table)[2] == 0
    assert set(scores(capsys.readouterr().out.splitlines())) >= {"mAP", "ROC"}
    last = checkpoints.load("runs/folder/last.pt")
    assert last.labels == ("a", "b") and not last.single_label
    assert {row["label"] for row in rows_of(Path("runs/folder/validation_classes.csv"))} == {"a", "b"}
    assert Path("runs/folder/validation_classes.png").exists()


def test_a_table_of_one_class(tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    """There or not: one logit, whose score is its sigmoid."""
    names = pieces(tmp_path / "mine", 12)
    table = write_table(
        tmp_path / "labels.csv", ("path", "labels"), *((name, "rock" if i % 2 else "") for i, name in enumerate(names))
    )
    own_run(caplog, tmp_path / "mine", "--csv", table)
    assert "mAP" in scores(capsys.readouterr().out.splitlines())
    last = checkpoints.load("runs/folder/best.pt")
    assert last.labels == ("rock",) and last.arch.num_classes == 1
    run(inference, "--model_name", "runs/folder/best.pt", "--audio_path", tmp_path / "mine" / "1.wav")
    (line,) = capsys.readouterr().out.splitlines()[1:-1]
    assert re.fullmatch(r"rock: 0\.\d{3}", line)


def test_a_table_with_test_clips(tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    names = pieces(tmp_path / "mine", 16)
    parts = ["train"] * 8 + ["validation"] * 2 + ["test"] * 6
    rows = [(name, ("rock", "speech")[i % 2], parts[i]) for i, name in enumerate(names)]
    table = write_table(tmp_path / "labels.csv", ("path", "labels", "split"), *rows)
    assert own_run(caplog, tmp_path / "mine", "--csv", table) == (8, 2, 6)
    lines = capsys.readouterr().out.splitlines()
    args = ex_folder.parse_options([str(tmp_path / "mine"), "--csv", str(table), "--clip_seconds", "1"])
    data = ex_folder.folder.scan(args.dataset_dir, args.csv)
    task = ex_folder.make_task(args, data, ex_folder.folder.split(data))
    assert [part(RATE).names for part in (task.training_set, task.validation_set, task.test_set)] == [
        names[:8], names[8:10], names[10:],
    ]  # fmt: skip
    at = next(i for i, line in enumerate(lines) if line.startswith("Results on the test clips"))
    assert "validation" in lines[0] and lines[at].endswith("best.pt")
    clips = {
        part: sum(int(row["clips"]) for row in rows_of(Path(f"runs/folder/{part}_classes.csv"))) for part in ("validation", "test")
    }
    assert clips == {"validation": 2, "test": 6}
    run(ex_folder, tmp_path / "mine", *ALWAYS, "--evaluate", "runs/folder/best.pt")  # by the table that it was trained with
    assert capsys.readouterr().out.splitlines()[1:] == lines[at + 1 :]


def test_tables_of_folds_and_of_groups(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = pieces(tmp_path / "mine", 12)
    rows = [(name, ("rock", "speech")[i % 2], (1, 2, 2, 3, 3, 3)[i // 2]) for i, name in enumerate(names)]
    table = write_table(tmp_path / "folds.csv", ("path", "labels", "fold"), *rows)
    argv = (tmp_path / "mine", "--csv", table)
    assert own_run(caplog, *argv) == (10, 2, 0)
    assert own_run(caplog, *argv, "--fold", "3", "--experiment_name", "third") == (6, 6, 0)
    rows = [(name, ("rock", "speech")[i % 2], f"{i % 2}{i // 6}") for i, name in enumerate(names)]  # groups of three clips
    table = write_table(tmp_path / "groups.csv", ("path", "labels", "group"), *rows)
    assert own_run(caplog, tmp_path / "mine", "--csv", table, "--experiment_name", "groups") == (6, 6, 0)


def test_a_table_of_segments(tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    """Each recording holds both sounds, one after the other."""
    rows = []
    for i in range(6):
        sounds = ("low", "high") if i % 2 else ("high", "low")
        halves = [tone({"low": 0, "high": 9}[sound], 1.0, i) for sound in sounds]
        write(tmp_path / "mine" / f"{i}.wav", np.concatenate(halves))
        rows += [(rf"{i}.wav", start, str(start + 1).replace(".", ","), sound) for start, sound in enumerate(sounds)]
    table = write_table(tmp_path / "labels.csv", ("Path", "Start", "End", "Labels"), *rows, delimiter=";")
    assert own_run(caplog, tmp_path / "mine", "--csv", table) == (10, 2, 0)
    assert "12 segments of 6 recordings" in caplog.text
    trained = capsys.readouterr().out.splitlines()[-3:]
    run(ex_folder, tmp_path / "mine", *ALWAYS, "--evaluate", "runs/folder/best.pt")
    assert capsys.readouterr().out.splitlines()[1:] == trained[1:]


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def confusion(folder: Path) -> np.ndarray:
    return np.array([list(row.values())[1:] for row in rows_of(folder / "validation_confusion.csv")], int)


def test_a_training_for_each_fold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a table whose folds have names that folders cannot have."""
    folds = ("a", "b/c", "..")
    rows = [(name, ("rock", "speech")[i % 2], folds[i // 4 % 3]) for i, name in enumerate(pieces(tmp_path / "mine", 12))]
    table = write_table(tmp_path / "folds.csv", ("path", "labels", "fold"), *rows)
    run(ex_folder, tmp_path / "mine", "--csv", table, "--fold", "all", *ALWAYS, *OWN)
    lines = capsys.readouterr().out.splitlines()
    experiment = Path("runs/folder")
    parts = sorted(path for path in experiment.iterdir() if path.is_dir())
    assert [path.name for path in parts] == ["fold_..", "fold_a", "fold_b%2Fc"]
    assert (confusion(experiment) == sum(map(confusion, parts))).all() and confusion(experiment).sum() == 12
    written = {(row["fold"], row["epoch"]): float(row["accuracy"]) for row in rows_of(experiment / "folds.csv")}
    last = [checkpoints.load(path / "last.pt").metrics["accuracy"] for path in parts]
    assert [written[fold, "last"] for fold in ("..", "a", "b/c")] == pytest.approx(last, abs=1e-4)
    assert written["mean", "last"] == pytest.approx(np.mean(last), abs=1e-4)
    assert written["standard deviation", "last"] == pytest.approx(np.std(last, ddof=1), abs=1e-4)
    assert written["mean", "best"] == pytest.approx(np.trace(confusion(experiment)) / 12, abs=1e-4)
    shutil.rmtree(parts[1])
    run(ex_folder, "--resume", experiment)
    assert capsys.readouterr().out.splitlines() == lines
    run(ex_folder, tmp_path / "mine", *ALWAYS, "--evaluate", parts[2] / "best.pt")  # on its own fold
    assert scores(capsys.readouterr().out.splitlines())["accuracy"] == pytest.approx(written["b/c", "best"], abs=6e-4)


def test_drawn_folds_validate_each_clip_once(folder_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(ex_folder, folder_dir, "--folds", 3, *ALWAYS, *OWN, "--seed", 1)
    experiment = Path("runs/folder")
    assert confusion(experiment).sum(1).tolist() == [10, 10, 10]
    assert all(confusion(experiment / f"fold_{k}").sum(1).min() >= 3 for k in (1, 2, 3))
    capsys.readouterr()
    run(ex_folder, folder_dir, *ALWAYS, "--evaluate", experiment / "fold_3" / "best.pt")  # on the fold that was drawn for it
    measured = scores(capsys.readouterr().out.splitlines())["accuracy"]
    assert measured == pytest.approx(np.trace(confusion(experiment / "fold_3")) / confusion(experiment / "fold_3").sum(), abs=6e-4)


def test_classes_of_unequal_size_are_balanced(tmp_path: Path) -> None:
    """Another training than without, which resumes; the best epoch is that of the best mean over the classes."""
    for i in range(15):
        write(tmp_path / "mine" / ("rock" if i % 5 else "speech") / f"{i}.wav", piece("rock" if i % 5 else "speech", 0.3 * i))
    losses = set()
    for way in ("none", "weights", "sampling"):
        run(ex_folder, tmp_path / "mine", *ALWAYS, *OWN, *SCHEDULE, "--balance", way, "--experiment_name", way)
        losses.add(checkpoints.load(f"runs/{way}/last.pt").metrics["train_loss"])
    assert len(losses) == 3
    run(ex_folder, tmp_path / "mine", *ALWAYS, *OWN, *SCHEDULE, "--balance", "sampling", "--n_epochs", 2)
    run(ex_folder, "--resume", "runs/sampling", "--n_epochs", 2)
    assert_same_run(Path("runs/folder"), Path("runs/sampling"))
    args = ex_folder.parse_options([str(tmp_path / "mine"), "--balance", "weights"])
    assert ex_folder.open_task(args, ex_folder.folder.scan(tmp_path / "mine"))[0].objective.selection == "accuracy_class_mean"


@pytest.mark.parametrize("counts", [(1, 1), (2,), (1,)])
def test_too_few_recordings_are_one_line(counts: tuple[int, ...], tmp_path: Path, failing_message: Callable[..., str]) -> None:
    for k, count in enumerate(counts):
        for i in range(count):
            write(tmp_path / "mine" / f"class {k}" / f"{i}.wav", tone(k, 0.5, i))
    assert failing_message(ex_folder.main, tmp_path / "mine", *ALWAYS, *OWN)
    assert not Path("runs").exists()


@pytest.mark.parametrize("counts", [(2, 1), (2, 2), (1, 1, 3)])
def test_few_recordings_train(counts: tuple[int, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for k, count in enumerate(counts):
        for i in range(count):
            write(tmp_path / "mine" / f"class {k}" / f"{i}.wav", tone(k, 0.5, i))
    assert sum(own_run(caplog, tmp_path / "mine")) == sum(counts)
    assert checkpoints.load("runs/folder/last.pt").arch.num_classes == len(counts)


def test_the_shortest_and_whole_recordings(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for i, seconds in enumerate((0.002, 0.01, 0.3, 1.0, 2.0, 0.002, 0.01, 0.3)):
        write(tmp_path / "mine" / f"class {i % 2}" / f"{i}.wav", tone(i, seconds, i))
    assert own_run(caplog, tmp_path / "mine", "--variable_eval_length", "--val_share", 0.5) == (4, 4, 0)


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (("--val_share", 0), "val_share"),
        (("--val_share", 1), "val_share"),
        (("--fold", "1"), "fold"),
        (("--fold", "all"), "--folds"),
        (("--folds", 1), "folds"),
        (("--folds", 31), "30"),
        (("--folds", 3, "--fold", "4"), "1, 2, 3"),
        (("--csv", "nowhere.csv"), "nowhere.csv"),
        (("--batch_size", 100), "--batch_size"),
    ],
)
def test_own_mistakes_are_one_line(argv: tuple, named: str, folder_dir: Path, failing_message: Callable[..., str]) -> None:
    assert named in failing_message(ex_folder.main, folder_dir, *ALWAYS, *OWN, *argv)


def test_an_evaluation_on_other_clips_than_those_held_out_warns(folder_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(ex_folder, folder_dir, *ALWAYS, *OWN)
    for argv, warned in (((), False), (("--seed", 0), False), (("--seed", 1), True), (("--val_share", 0.5), True)):
        caplog.clear()
        run(ex_folder, folder_dir, *ALWAYS, "--evaluate", "runs/folder/best.pt", *argv)
        assert any("trained with" in record.message for record in caplog.records) == warned


def test_one_model_is_evaluated_at_a_time(folder_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(ex_folder, folder_dir, *ALWAYS, *OWN)
    for argv in (("--fold", "all"), ("--folds", 3)):
        with pytest.raises(SystemExit) as end:
            run(ex_folder, folder_dir, *ALWAYS, "--evaluate", "runs/folder/best.pt", *argv)
        assert end.value.code == 2 and "--fold" in capsys.readouterr().err.splitlines()[-1]


def test_random_weights_or_a_pretrained_model(folder_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run(ex_folder, folder_dir, "--from_scratch", "--pretrained_name", "mn04_distilled")
    assert end.value.code == 2 and "--from_scratch" in capsys.readouterr().err.splitlines()[-1]


# Teachers


@pytest.fixture(scope="module")
def larger(folder_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of twice the width, fine-tuned on the same recordings."""
    place = tmp_path_factory.mktemp("larger")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        run(ex_folder, folder_dir, *ALWAYS, *OWN, "--model_width", 0.2, "--n_epochs", 3, "--max_lr", 0.01, *SCHEDULE)
    return place / "runs/folder/last.pt"


def test_a_training_resumes_with_the_same_teacher_alone(
    folder_dir: Path, larger: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], failing_message: Callable[..., str]
) -> None:
    """Interrupted after an epoch, and resumed with the same teacher alone, whatever its file is called."""
    learn = (*ALWAYS, *OWN, "--teacher", larger, "--kd_lambda", 0, "--max_lr", 0.01, *SCHEDULE)
    run(ex_folder, folder_dir, *learn, "--n_epochs", 2, "--experiment_name", "whole")
    run(ex_folder, folder_dir, *learn, "--n_epochs", 1)
    for epoch in metrics(Path("runs/whole")):
        assert epoch["divergence"] > 0 and "label_loss" not in epoch
    moved = shutil.copy(larger, tmp_path / "moved.pt")
    capsys.readouterr()
    resume = ("--resume", "runs/folder", "--n_epochs", 2)
    assert "--teacher" in failing_message(ex_folder.main, *resume, "--teacher", "runs/folder/last.pt")
    assert "--kd_lambda" in failing_message(ex_folder.main, *resume, "--kd_lambda", 0.5)
    run(ex_folder, *resume, "--teacher", moved)
    assert_same_run(Path("runs/whole"), Path("runs/folder"))


def test_a_run_without_a_teacher_does_not_resume_with_one(larger: Path, failing_message: Callable[..., str]) -> None:
    resume = ("--resume", larger.parent, "--n_epochs", 4)
    assert "--teacher" in failing_message(ex_folder.main, *resume, "--teacher", larger)


@pytest.mark.slow
def test_each_fold_has_the_teacher_of_its_fold(folder_dir: Path, larger: Path) -> None:
    """Which has not heard the clips that the student is validated on."""
    network = checkpoints.load_model(larger)
    for fold in ("fold_1", "fold_2"):
        network.classifier[-1].bias.data += 1  # another network
        checkpoints.save(Path("teachers") / fold / "last.pt", network)
    run(ex_folder, folder_dir, "--folds", 2, *ALWAYS, *OWN, "--teacher", "teachers/{fold}/last.pt")
    for fold in ("fold_1", "fold_2"):
        student = Path("runs/folder") / fold / "last.pt"
        expected = OnlineTeacher(
            [Path("teachers") / fold / "last.pt"], WaveformModel(checkpoints.load_model(student))
        ).fingerprint()
        assert checkpoints.load_training(student)[1]["fingerprints"]["teacher"] == expected


def audioset_teacher(path: Path) -> Path:
    """A network with AudioSet's 527 classes, whose front end is that of the tests."""
    network = get_model(527, width_mult=0.2, input_dim_f=32)
    network.mel = MelConfig(n_mels=32, sample_rate=RATE, win_length=800, hop_size=800, n_fft=1024)
    checkpoints.save(path, network)
    return path


def test_a_teacher_of_some_of_the_classes(folder_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Speech and Wind are AudioSet's; its features are learnt as well."""
    with caplog.at_level("INFO"):
        run(ex_folder, folder_dir, *ALWAYS, *OWN, "--teacher", audioset_teacher(tmp_path / "a.pt"), "--feature_kd", 0.5)
    assert "2 of 3 classes" in caplog.text and "'rock'" in caplog.text
    (row,) = metrics(Path("runs/folder"))
    parts = 0.1 * row["label_loss"] + 0.9 * row["distillation_loss"] + 0.5 * row["feature_loss"]
    assert row["train_loss"] == pytest.approx(parts, rel=1e-4) and row["block_0"] > 0


def test_a_teacher_of_other_classes_is_refused(tmp_path: Path, failing_message: Callable[..., str]) -> None:
    """The message names classes of both."""
    for i, name in enumerate(pieces(tmp_path / "mine", 8)):
        (tmp_path / "mine" / f"own {i % 2}").mkdir(exist_ok=True)
        (tmp_path / "mine" / name).rename(tmp_path / "mine" / f"own {i % 2}" / name)
    message = failing_message(ex_folder.main, tmp_path / "mine", *ALWAYS, *OWN, "--teacher", audioset_teacher(tmp_path / "a.pt"))
    assert "'own 0'" in message and "'Speech'" in message
    assert not Path("runs").exists()
