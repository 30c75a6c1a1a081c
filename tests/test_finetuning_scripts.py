"""The four fine-tuning scripts on small folders of the published layouts: they train, evaluate, resume, and name what is wrong."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

import ex_dcase20
import ex_esc50
import ex_folder
import ex_fsd50k
import inference
from datasets import audio, dcase20, fsd50k
from datasets.hdf5_mp3 import Mp3Writer
from helpers.tagger.audio_tagger import AudioTagger
from models import checkpoints
from models.MobileNetV3 import get_model
from models.waveform import WaveformModel
from tests.finetuning import (
    ALWAYS,
    FRONT_END,
    RATE,
    RECORDINGS,
    SCHEDULE,
    TINY,
    assert_same_run,
    metrics,
    run,
    scores,
    tone,
    write,
    write_table,
)

pytestmark = pytest.mark.usefixtures("in_temporary_folder", "figures_not_drawn")
PRETRAINED = ("--pretrained_name", "mn04_distilled", *FRONT_END)
SHORT_HOP = ("--hop_size", 400, "--win_length", 400, "--n_fft", 512)


# Data


@pytest.fixture(scope="module")
def esc50_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """50 classes, a clip of each in two of the five folds."""
    folder = tmp_path_factory.mktemp("ESC-50-master")
    rows: list[Sequence[object]] = [("filename", "fold", "target", "category", "esc10", "src_file", "take")]
    for fold in range(1, 6):
        for k in (k for k in range(50) if (k + fold) % 5 < 2):
            source = 1000 * fold + k
            rows.append((f"{fold}-{source}-A-{k}.wav", fold, k, f"sound_{k:02}", k < 10, source, "A"))
            write(folder / "audio" / rows[-1][0], tone(k, 2.0, source))
    write_table(folder / "meta" / "esc50.csv", *rows)
    return folder


FSD50K_CLASSES = (0, 7, 63, 199)


@pytest.fixture(scope="module")
def fsd50k_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of 0.3 to 2 s with one or two of four of the 200 classes."""
    folder = tmp_path_factory.mktemp("fsd50k")
    rows = [(k, f"Label_{k:03}_(of)_them", f"/m/{k}") for k in range(200)]
    write_table(folder / "FSD50K.ground_truth" / "vocabulary.csv", *rows)
    for number, (part, count) in enumerate((("train", 32), ("val", 12), ("eval", 16))):
        with Mp3Writer(folder / f"FSD50K.{part}_mp3.hdf", 200) as writer:
            for i in range(count):
                seconds = 1.0 if part == "train" else (0.3, 0.61, 1.234, 2.0)[(i + i // 4) % 4]
                which = {i % 4, (i // 4) % 4}
                sound = sum(tone(3 * k + 1, seconds, 100 * number + i) for k in which) / len(which)
                target = np.zeros(200)
                target[[FSD50K_CLASSES[k] for k in which]] = 1
                writer.add(f"{number}{i:03}.mp3", audio.encode_mp3(sound, RATE), target)
    return folder


@pytest.fixture(scope="module")
def dcase20_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten scenes in two cities by two devices, tested in a city that was seen and one that was not, by two other devices."""
    folder = tmp_path_factory.mktemp("TAU-urban-acoustic-scenes-2020-mobile-development")
    parts = {
        "train": [(city, device) for city in ("barcelona", "lyon") for device in ("a", "s1")],
        "evaluate": [("lyon", "b"), ("lyon", "s6"), ("milan", "s6")],
    }
    meta: list[Sequence[object]] = [("filename", "scene_label", "identifier", "source_label")]
    for part, entries in parts.items():
        rows: list[Sequence[object]] = [("filename", "scene_label")]
        for k, scene in enumerate(dcase20.SCENES):
            for city, device in entries:
                number = len(meta)
                name = f"audio/{scene}-{city}-{number}-{40 * number}-{device}.wav"
                rows.append((name, scene))
                meta.append((name, scene, f"{city}-{number}", device))
                write(folder / name, tone(k, 3.0, number))
        write_table(folder / "evaluation_setup" / f"fold1_{part}.csv", *rows, delimiter="\t")
    write_table(folder / "meta.csv", *meta, delimiter="\t")
    return folder


@dataclass(frozen=True)
class Script:
    """A script, how it is run here, and what it is expected to reach."""

    module: ModuleType
    data: str  # fixture
    options: tuple[object, ...]
    tested: str  # the checkpoint whose scores are printed after training
    at_least: float  # of the first score that is printed; well above chance


SCRIPTS = {
    "esc50": Script(
        ex_esc50, "esc50_dir", (*PRETRAINED, *SHORT_HOP, "--linear_probe", "--batch_size", 4, "--lr", 0.1), "last", 0.1
    ),
    "fsd50k": Script(
        ex_fsd50k, "fsd50k_dir", (*PRETRAINED, "--clip_seconds", 1, "--batch_size", 8, "--lr", 0.003, "--no-wavmix"), "best", 0.4
    ),
    "dcase20": Script(
        ex_dcase20, "dcase20_dir",
        (
            *PRETRAINED, "--recipe", "first_release", "--features_lr", 1e-4, "--last_layer_lr", 0.01, "--mixstyle_p", 0.5,
            "--batch_size", 8, "--batch_norm_momentum", 0.1,
        ),
        "last", 0.3,
    ),
    "folder": Script(ex_folder, "folder_dir", (*PRETRAINED, *SHORT_HOP, "--lr", 3e-3), "best", 0.6),
}  # fmt: skip
LABELS = {
    "esc50": tuple(f"sound_{k:02}" for k in range(50)),
    "fsd50k": tuple(f"Label_{k:03}_(of)_them" for k in range(200)),
    "dcase20": dcase20.SCENES,
    "folder": ("rock", "speech", "wind"),
}


def data_argument(script: ModuleType, folder: Path) -> tuple[object, ...]:
    return (folder,) if script is ex_folder else ("--dataset_dir", folder)


@pytest.fixture(scope="module")
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, list[str]]]:
    """Train a script for two epochs, once; return the run's folder and what was printed."""
    done: dict[str, tuple[Path, list[str]]] = {}

    def train(name: str, capsys: pytest.CaptureFixture[str]) -> tuple[Path, list[str]]:
        if name not in done:
            script = SCRIPTS[name]
            place = tmp_path_factory.mktemp(name)
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(place)
                data = data_argument(script.module, request.getfixturevalue(script.data))
                capsys.readouterr()
                run(script.module, *data, *ALWAYS, *script.options, *SCHEDULE, "--n_epochs", 2)
            done[name] = place / "runs" / name, capsys.readouterr().out.splitlines()
        return done[name]

    return train


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_training_learns_and_its_checkpoint_scores_the_same(
    name: str, trained: Callable, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    script = SCRIPTS[name]
    folder, printed = trained(name, capsys)
    files = {"config.json", "log.txt", "metrics.csv", "last.pt", "best.pt"}
    if name == "folder":
        files |= {"validation_classes.csv", "validation_confusion.csv", "validation_confusion.png"}
        printed = printed[len(printed) // 2 :]  # the scores of the best epoch, behind those of the last one
    assert {path.name for path in folder.iterdir()} == files
    last = checkpoints.load(folder / "last.pt")
    assert last.labels == LABELS[name] and last.epoch == 1 and last.mel.sample_rate == RATE and last.arch.width_mult == 0.4
    assert last.single_label == (name != "fsd50k")
    measured = scores(printed)
    assert len(measured) == len(printed) - 1 >= 2 and next(iter(measured.values())) >= script.at_least
    if script.tested == "last":
        for key, value in measured.items():
            assert last.metrics[key.replace(" ", "_")] == pytest.approx(value, abs=6e-4)

    data = data_argument(script.module, request.getfixturevalue(script.data))
    seconds = ("--clip_seconds", 1) if name == "fsd50k" else ()
    run(script.module, *data, *ALWAYS, "--evaluate", folder / f"{script.tested}.pt", "--batch_size", 3, *seconds)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == printed[1:] and lines[0].endswith(f"{script.tested}.pt")


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_resumed_run_is_the_run_without_interruption(
    name: str, trained: Callable, request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command that resumes gives no options but the epochs: the recipe and the data's folder are the run's own.

    Own recordings are moved in between.
    """
    script = SCRIPTS[name]
    whole, printed = trained(name, capsys)
    data = data_argument(script.module, request.getfixturevalue(script.data))
    run(script.module, *data, *ALWAYS, *script.options, *SCHEDULE, "--n_epochs", 1)
    capsys.readouterr()
    moved = (shutil.copytree(data[0], tmp_path / "moved"),) if name == "folder" else ()
    run(script.module, *moved, "--resume", f"runs/{name}", "--n_epochs", 2)
    assert [path.name for path in Path("runs").iterdir()] == [name]
    assert_same_run(whole, Path("runs") / name)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == printed[1:]
    run(script.module, "--resume", f"runs/{name}")  # complete: prints the same again
    assert capsys.readouterr().out.splitlines() == lines


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_fine_tuned_checkpoint_tags(name: str, trained: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The bundled speech; scores of classes that exclude each other sum to 1."""
    folder, _ = trained(name, capsys)
    path = RECORDINGS / "speech.ogg"
    run(inference, "--model_name", folder / "last.pt", "--audio_path", path)
    printed = [re.fullmatch(r"(.+): ([01]\.\d{3})", line) for line in capsys.readouterr().out.splitlines()[1:-1]]
    labels = LABELS[name]
    assert len(printed) == min(10, len(labels)) and {match[1] for match in printed} <= set(labels)
    tags = AudioTagger(folder / "last.pt").tag(path, top_k=len(labels))
    assert sorted(tag.label for tag in tags) == sorted(labels)
    for match, tag in zip(printed, tags, strict=False):
        assert match[1] == tag.label and float(match[2]) == pytest.approx(tag.score, abs=6e-4)
    model = WaveformModel(checkpoints.load_model(folder / "last.pt")).eval()
    with torch.no_grad():
        waveform = audio.load(path, RATE)
        waveform = audio.crop_or_pad(waveform, max(len(waveform), round(model.clip_seconds * RATE)))
        logits = model(torch.from_numpy(waveform)[None])[0][0].double().numpy()
    if name == "fsd50k":
        expected = 1 / (1 + np.exp(-logits))
    else:
        assert sum(tag.score for tag in tags) == pytest.approx(1, abs=1e-5)
        assert sum(float(match[2]) for match in printed) <= 1 + 6e-4 * len(printed)
        expected = np.exp(logits) / np.exp(logits).sum()
    assert [tag.score for tag in tags] == pytest.approx(sorted(expected, reverse=True), abs=1e-5)


# ESC-50


def test_five_folds_one_after_the_other(esc50_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = (*PRETRAINED, "--linear_probe", "--batch_size", 16, "--lr", 0.04, *SCHEDULE, "--n_epochs", 1)
    run(ex_esc50, *ALWAYS, "--dataset_dir", esc50_dir, "--fold", "all", *options)
    folder = Path("runs/esc50")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", *(f"fold_{k}" for k in range(1, 6))]
    lines = capsys.readouterr().out.splitlines()
    rows = []
    for k in range(1, 6):
        with open(folder / f"fold_{k}" / "metrics.csv", newline="") as file:
            rows += csv.DictReader(file)
    accuracies = [float(row["accuracy"]) for row in rows]
    assert len({row["val_loss"] for row in rows}) == 5
    printed = [float(line.split()[-1]) for line in lines if line.startswith("  accuracy: ")]
    assert printed[:6] == pytest.approx([*accuracies, np.mean(accuracies)], abs=6e-4)
    assert len(printed) == 7 and printed[6] == pytest.approx(np.std(accuracies, ddof=1), abs=6e-4)

    run(ex_esc50, *ALWAYS, "--dataset_dir", esc50_dir, "--evaluate", folder / "fold_5" / "last.pt")  # on its own fold
    assert scores(capsys.readouterr().out.splitlines())["accuracy"] == pytest.approx(accuracies[4], abs=6e-4)

    for k in (4, 5):
        (folder / f"fold_{k}").rename(f"first_{k}")
    kept = {path: path.stat().st_mtime_ns for path in folder.rglob("*.pt")}
    run(ex_esc50, "--resume", folder)
    assert capsys.readouterr().out.splitlines() == lines
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert [path.name for path in Path("runs").iterdir()] == ["esc50"]
    run(ex_esc50, "--train", "--resume", folder / "fold_3")
    assert scores(capsys.readouterr().out.splitlines())["accuracy"] == pytest.approx(accuracies[2], abs=6e-4)
    assert not [path for path in (folder / "fold_3").iterdir() if path.is_dir()]
    for k in (4, 5):
        first, again = (checkpoints.load(path / "last.pt").state for path in (Path(f"first_{k}"), folder / f"fold_{k}"))
        assert all(torch.equal(tensor, again[key]) for key, tensor in first.items())


@pytest.mark.parametrize("argv", ["--fold 6", "--fold 0", "--evaluate mn04_distilled --fold all"])
def test_folds_that_are_not_there(argv: str, esc50_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run(ex_esc50, "--dataset_dir", esc50_dir, *argv.split())
    assert end.value.code == 2 and "--fold" in capsys.readouterr().err.splitlines()[-1]


# DCASE20


def test_accuracy_by_device_and_city(trained: Callable, dcase20_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """b and s6 in lyon, s6 in milan, ten clips each; only milan was not trained on."""
    folder, printed = trained("dcase20", capsys)
    model = WaveformModel(checkpoints.load_model(folder / "last.pt")).eval()
    right: dict[tuple[str, str], list[bool]] = {}
    with torch.no_grad():
        for clip in dcase20.test_set(dcase20_dir, sample_rate=RATE):
            _, city, *_, device = clip.name.removesuffix(".wav").split("-")
            logits, _ = model(clip.waveform[None])
            right.setdefault((city, device), []).append(dcase20.SCENES[logits.argmax()] == clip.name.split("-")[0])
    in_lyon = right["lyon", "b"] + right["lyon", "s6"]
    assert {key: len(values) for key, values in right.items()} == {("lyon", "b"): 10, ("lyon", "s6"): 10, ("milan", "s6"): 10}
    everything = in_lyon + right["milan", "s6"]
    assert scores(printed) == {
        "accuracy": pytest.approx(np.mean(everything), abs=6e-4),
        "accuracy class mean": pytest.approx(np.mean(everything), abs=6e-4),
        "accuracy device b": pytest.approx(np.mean(right["lyon", "b"]), abs=6e-4),
        "accuracy device s6": pytest.approx(np.mean(right["lyon", "s6"] + right["milan", "s6"]), abs=6e-4),
        "accuracy seen cities": pytest.approx(np.mean(in_lyon), abs=6e-4),
        "accuracy unseen cities": pytest.approx(np.mean(right["milan", "s6"]), abs=6e-4),
    }


# FSD50K


def mean_average_precision(checkpoint: Path, folder: Path, seconds: float | None) -> float:
    """mAP of clips that are heard one by one, cut to `seconds` or whole."""
    model = WaveformModel(checkpoints.load_model(checkpoint)).eval()
    logits, targets = [], []
    with torch.no_grad():
        for clip in fsd50k.evaluation_set(folder, sample_rate=RATE, clip_seconds=seconds):
            logits.append(model(clip.waveform[None])[0][0].numpy())
            targets.append(clip.target.numpy())
    pairs = zip(np.array(targets).T, np.array(logits).T, strict=True)
    return float(np.mean([average_precision_score(target, score) for target, score in pairs if target.any()]))


def test_whole_clips_are_evaluated_at_their_own_length(
    trained: Callable, fsd50k_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = trained("fsd50k", capsys)[0] / "best.pt"
    argv = (*ALWAYS, "--dataset_dir", fsd50k_dir, "--evaluate", checkpoint, "--batch_size", 5)
    found = {}
    for seconds, options in ((None, ("--variable_eval_length",)), (1.0, ("--clip_seconds", 1)), (0.4, ("--clip_seconds", 0.4))):
        run(ex_fsd50k, *argv, *options)
        found[seconds] = scores(capsys.readouterr().out.splitlines())["mAP"]
        expected = mean_average_precision(checkpoint, fsd50k_dir, seconds)
        assert found[seconds] == pytest.approx(expected, abs=1e-3 if seconds else 0.03)  # whole clips: 10 ms are rounded
    assert len(set(found.values())) == 3


def test_training_can_validate_on_whole_clips(fsd50k_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = (*TINY, "--clip_seconds", 0.5, "--batch_size", 8, "--variable_eval_length")
    run(ex_fsd50k, *ALWAYS, "--dataset_dir", fsd50k_dir, *options)
    printed = capsys.readouterr().out.splitlines()
    run(ex_fsd50k, *ALWAYS, "--dataset_dir", fsd50k_dir, "--evaluate", "runs/fsd50k/best.pt", "--variable_eval_length")
    assert capsys.readouterr().out.splitlines() == printed


# Teachers


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_fine_tuned_network_teaches_a_smaller_one(
    name: str, trained: Callable, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    script = SCRIPTS[name]
    larger, _ = trained(name, capsys)
    data = data_argument(script.module, request.getfixturevalue(script.data))
    learn = ("--teacher", larger / "last.pt", "--temperature", 2, "--batch_size", 8)
    own = {"dcase20": ("--mixstyle_p", 1), "fsd50k": ("--clip_seconds", 1), "folder": ("--from_scratch",)}.get(name, ())
    run(script.module, *data, *ALWAYS, *TINY, *SHORT_HOP, *learn, *own)
    (row,) = metrics(Path("runs") / name)
    assert row["train_loss"] == pytest.approx(0.1 * row["label_loss"] + 0.9 * row["distillation_loss"], rel=1e-5)
    assert 0 < row["divergence"] < row["distillation_loss"]
    student = checkpoints.load(Path("runs") / name / "last.pt")
    assert student.labels == LABELS[name] and student.arch.width_mult == 0.1


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize(
    "argv",
    [
        "--kd_lambda 0.5",
        "--temperature 2",
        "--feature_kd 1",
        "--kd_lambda 1 --teacher a.pt",
        "--feature_kd 1 --teacher a.pt --compile",
    ],
)
def test_options_of_teachers_that_contradict_each_other(name: str, argv: str, capsys: pytest.CaptureFixture[str]) -> None:
    script = SCRIPTS[name].module
    with pytest.raises(SystemExit) as end:
        run(script, *data_argument(script, Path("nowhere")), *ALWAYS, *argv.split())
    assert end.value.code == 2 and argv.split()[0] in capsys.readouterr().err.splitlines()[-1]


# Mistakes


@pytest.fixture
def foreign(tmp_path: Path) -> Callable[[int, str], Path]:
    """Write a checkpoint whose classes have names of the given form."""

    def save(num_classes: int, form: str) -> Path:
        model = get_model(num_classes, width_mult=0.1)
        model.labels = tuple(form.format(k) for k in range(num_classes))
        checkpoints.save(tmp_path / "foreign.pt", model)
        return tmp_path / "foreign.pt"

    return save


@pytest.mark.parametrize("name", SCRIPTS)
def test_models_of_other_classes_are_refused(
    name: str, request: pytest.FixtureRequest, foreign: Callable, tiny_checkpoint: Path, failing_message: Callable[..., str]
) -> None:
    script = SCRIPTS[name]
    data = data_argument(script.module, request.getfixturevalue(script.data))
    num_classes = {"esc50": 50, "fsd50k": 200, "dcase20": 10, "folder": 3}[name]
    message = failing_message(script.module.main, *data, *ALWAYS, "--evaluate", tiny_checkpoint)
    assert "527" in message and str(num_classes) in message
    message = failing_message(script.module.main, *data, *ALWAYS, "--evaluate", foreign(num_classes, "thing {}"))
    assert "thing 0" in message
    assert "nowhere.pt" in failing_message(script.module.main, *data, *ALWAYS, "--evaluate", "nowhere.pt")
    assert not Path("runs").exists()


@pytest.mark.parametrize("name", SCRIPTS)
def test_folders_that_are_not_there_are_named(
    name: str, tmp_path: Path, foreign: Callable, monkeypatch: pytest.MonkeyPatch, failing_message: Callable[..., str]
) -> None:
    script = SCRIPTS[name].module
    for action in ((), ("--evaluate", foreign(200, "{}"))):
        for folder in ("nowhere", "empty"):
            (tmp_path / "empty").mkdir(exist_ok=True)
            assert folder in failing_message(script.main, *data_argument(script, tmp_path / folder), *ALWAYS, *TINY, *action)
    if script is not ex_folder:
        monkeypatch.setenv(f"{name.upper()}_DIR", str(tmp_path / "elsewhere"))
        assert "elsewhere" in failing_message(script.main, *ALWAYS, *TINY)
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (("--pretrained_name", "mn04_distilled", "--head_type", "fully_convolutional"), "head_type"),
        (("--pretrained_name", "nowhere.pt"), "nowhere.pt"),
        (("--model_width", 0.1, "--no_ca"), "--no_ca means nothing"),
        (("--model_width", 0.1, "--batch_size", 500), "--batch_size"),
        (
            ("--model_width", 0.1, "--batch_size", 8, "--features_lr", 0, "--classifier_lr", 0, "--last_layer_lr", 0),
            "--last_layer_lr",
        ),
        (("--resume", "runs/nowhere"), "runs/nowhere"),
    ],
)
def test_options_that_cannot_work(argv: tuple, named: str, dcase20_dir: Path, failing_message: Callable[..., str]) -> None:
    assert named in failing_message(ex_dcase20.main, "--dataset_dir", dcase20_dir, *ALWAYS, *FRONT_END, *argv)
    assert not Path("runs").exists() or not list(Path("runs").iterdir())


def test_a_run_does_not_resume_with_other_classes(
    folder_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], failing_message: Callable[..., str]
) -> None:
    """A class that was renamed, one that is new, and recordings that are new."""
    own = Path(shutil.copytree(folder_dir, tmp_path / "own"))
    run(ex_folder, own, *ALWAYS, *TINY, "--from_scratch")
    capsys.readouterr()
    last = Path("runs/folder/last.pt").read_bytes()
    resume = ("--resume", "runs/folder", "--n_epochs", 2)
    (own / "rock").rename(own / "stone")
    assert "rock" in failing_message(ex_folder.main, *resume)
    (own / "stone").rename(own / "rock")
    write(own / "new" / "a.wav", tone(1, 1.0, 1))
    assert "4" in failing_message(ex_folder.main, *resume)
    shutil.rmtree(own / "new")
    first, *_ = sorted((own / "rock").iterdir())
    first.rename(own / "rock" / "renamed.wav")  # as many as before, but another split of training and validation clips
    assert "training clips" in failing_message(ex_folder.main, *resume)
    (own / "rock" / "renamed.wav").rename(first)
    for k in range(12):
        write(own / "rock" / f"new{k}.wav", tone(1, 1.0, 50 + k))
    assert "training clips" in failing_message(ex_folder.main, *resume)
    assert Path("runs/folder/last.pt").read_bytes() == last
