from __future__ import annotations

import argparse
import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile

from datasets import audio
from models import checkpoints
from models.config import MelConfig
from models.network import MobileNetV3
from studies import scarce_data

RECORDINGS = Path(__file__).resolve().parents[2] / "resources" / "recordings"
COUNTS = {"rock": 5, "speech": 7}


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of pieces of 0.5 s of the bundled recordings."""
    folder = tmp_path_factory.mktemp("recordings")
    for name, count in COUNTS.items():
        waveform = audio.load(RECORDINGS / f"{name}.ogg", 8000)
        (folder / name).mkdir()
        for i in range(count):
            soundfile.write(folder / name / f"{i}.wav", waveform[4000 * i : 4000 * (i + 1)], 8000)
    return folder


@pytest.fixture
def args(recordings: Path, tmp_path: Path, tiny_checkpoint: Path) -> argparse.Namespace:
    """Options of a toy study, from a network of random weights with a coarse front end."""
    network = checkpoints.load_model(tiny_checkpoint)
    network.mel = MelConfig(n_mels=32, sample_rate=8000, hop_size=200, win_length=400, n_fft=512)
    small = MobileNetV3(network.arch.__class__(num_classes=527, width_mult=0.1, input_dim_f=32), network.mel)
    small.load_state_dict(network.state_dict())
    checkpoints.save(tmp_path / "start.pt", small)
    argv = ["--data_dir", recordings, "--output_dir", tmp_path / "out", "--pretrained_name", tmp_path / "start.pt"]
    argv += ["--seeds", 1, "--n_epochs", 1, "--clip_seconds", 0.5, "--jobs", 1]
    return scarce_data.build_parser().parse_args([str(option) for option in argv])


def labels_of(targets: np.ndarray, chosen: np.ndarray) -> list[int]:
    return targets[chosen].sum(0).tolist()


def test_so_many_recordings_of_each_class_and_none_to_test_on(args: argparse.Namespace) -> None:
    data, training, test = scarce_data.open_data(args)
    assert not set(training) & set(test) and len(training) + len(test) == sum(COUNTS.values())
    available = labels_of(data.targets, training)
    assert labels_of(data.targets, test) == [2, 2] and available == [3, 5]  # 0.3 of 5 and 7
    again = scarce_data.open_data(args)
    np.testing.assert_array_equal(again[1], training)
    for clips in (1, 2, 4, 10, None):
        chosen = scarce_data.choose(data.targets, training, clips, seed=0)
        assert len(set(chosen)) == len(chosen) and set(chosen) <= set(training)
        assert labels_of(data.targets, chosen) == [min(count, clips or count) for count in available]
        np.testing.assert_array_equal(chosen, scarce_data.choose(data.targets, training, clips, seed=0))
    seeds = {tuple(sorted(scarce_data.choose(data.targets, training, 2, seed))) for seed in range(8)}
    assert len(seeds) > 1


def test_fewer_recordings_are_a_part_of_more() -> None:
    targets = np.eye(3, dtype=np.uint8)[np.arange(60) % 3]
    training = np.arange(0, 60, 2)
    nested = [set(scarce_data.choose(targets, training, clips, seed=5)) for clips in (2, 5, 10)]
    assert nested[0] < nested[1] < nested[2] and [len(part) for part in nested] == [6, 15, 30]


def test_both_arms_train_on_the_same_recordings(args: argparse.Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same steps, batches and schedule, and one architecture; they start elsewhere and learn at their own rates."""
    monkeypatch.setattr(scarce_data, "EPOCH_CLIPS", 32)
    seen: dict[str, list[np.ndarray]] = {}
    make_task = scarce_data.make_task

    def spy(run_args, data, train, test):
        seen["finetune" if run_args.pretrained_name else "train"] = [train, test]
        return make_task(run_args, data, train, test)

    monkeypatch.setattr(scarce_data, "make_task", spy)
    found = {arm: scarce_data.train(args, (arm, 2, 0)) for arm in scarce_data.ARMS}
    for one, other in zip(seen["train"], seen["finetune"], strict=True):
        np.testing.assert_array_equal(one, other)
    train, test = seen["train"]
    assert len(train) == 32 and len(set(train)) == 4 and not set(train) & set(test)
    assert [np.sum(train == index) for index in sorted(set(train))] == [8] * 4
    for scores in found.values():
        assert {"accuracy", scarce_data.MEASURE, "val_loss"} <= scores.keys() and 0 <= scores[scarce_data.MEASURE] <= 1
    runs = {arm: args.output_dir / "runs" / f"{arm}_2_0" for arm in scarce_data.ARMS}
    models = {arm: checkpoints.load(folder / "last.pt") for arm, folder in runs.items()}
    assert models["pretrained"].arch.width_mult == models["scratch"].arch.width_mult == 0.1
    assert models["pretrained"].arch.head_type == models["scratch"].arch.head_type
    assert models["pretrained"].labels == ("rock", "speech")
    options = {arm: json.loads((folder / "config.json").read_text())["args"] for arm, folder in runs.items()}
    differing = {name for name, value in options["scratch"].items() if options["pretrained"][name] != value}
    named = {"experiment_name", "pretrained_name", "max_lr", "model_width", "head_type", "se_dims"}
    assert differing == named and (options["pretrained"]["max_lr"], options["scratch"]["max_lr"]) == (1e-3, 3e-3)

    before = {arm: (folder / "last.pt").stat().st_mtime_ns for arm, folder in runs.items()}
    assert {arm: scarce_data.train(args, (arm, 2, 0)) for arm in scarce_data.ARMS} == found  # a complete training is not repeated
    assert {arm: (folder / "last.pt").stat().st_mtime_ns for arm, folder in runs.items()} == before


def test_an_interrupted_training_resumes(args: argparse.Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scarce_data, "EPOCH_CLIPS", 32)
    args.n_epochs, whole = 2, args.output_dir
    expected = scarce_data.train(args, ("scratch", None, 1))
    args.output_dir = whole.with_name("interrupted")

    class Killed(Exception):
        pass

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        save = scarce_data.finetune.__globals__["Run"].save
        patch.setattr("helpers.training.run.Run.save", lambda run, model, epoch, *rest: save(run, model, epoch, *rest) or killed())
        scarce_data.train(args, ("scratch", None, 1))
    found = scarce_data.train(args, ("scratch", None, 1))
    timed = {"clips_per_second"}
    assert {name: found[name] for name in found.keys() - timed} == {name: expected[name] for name in expected.keys() - timed}


def made_up(seeds: int) -> dict[scarce_data.Job, dict[str, float]]:
    """Means over the seeds: 0.8 and 0.5 for two recordings, 0.9 and 0.6 for all."""
    means = {("pretrained", 2): 0.8, ("scratch", 2): 0.5, ("pretrained", None): 0.9, ("scratch", None): 0.6}
    return {
        (arm, clips, seed): {"accuracy": 0.1, scarce_data.MEASURE: mean + 0.05 * (seed - (seeds - 1) / 2), "val_loss": 1.5}
        for (arm, clips), mean in means.items()
        for seed in range(seeds)
    }


def test_mean_deviation_and_range() -> None:
    assert scarce_data.summarise(made_up(3), "pretrained", 2, 3) == pytest.approx((0.8, 0.05, 0.75, 0.85))
    assert scarce_data.summarise(made_up(2), "scratch", None, 2) == pytest.approx((0.6, 0.05 / math.sqrt(2), 0.575, 0.625))
    assert scarce_data.summarise(made_up(1), "scratch", 2, 1) == pytest.approx((0.5, 0, 0.5, 0.5))


def test_table_figure_and_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = {2: "2", None: "all (3 to 5)"}
    scarce_data.print_table(made_up(3), names, 3)
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()]
    assert cells[0] == ["clips of a class", "fine-tuned", "from scratch"]
    assert cells[2:] == [["2", "0.800 ± 0.050", "0.500 ± 0.050"], ["all (3 to 5)", "0.900 ± 0.050", "0.600 ± 0.050"]]
    scarce_data.draw(tmp_path / "figure.png", made_up(3), names, 3, chance=0.5)
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    scarce_data.write_csv(tmp_path / "results.csv", made_up(3))
    with open(tmp_path / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12 and rows[0]["training"] == "pretrained" and rows[-1]["clips_of_a_class"] == "all"
    assert [float(row[scarce_data.MEASURE]) for row in rows[:3]] == pytest.approx([0.75, 0.8, 0.85])


def test_recordings_of_several_classes_are_refused(args: argparse.Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = scarce_data.folder.scan
    table = args.output_dir.with_name("labels.csv")
    table.write_text("path,labels\nrock/0.wav,a;b\nrock/1.wav,a\nspeech/1.wav,b\nspeech/2.wav,b\n")
    monkeypatch.setattr(scarce_data.folder, "scan", lambda root: scan(root, table))
    with pytest.raises(ValueError, match="several classes"):
        scarce_data.open_data(args)


@pytest.mark.slow
def test_the_study_runs_and_resumes(args: argparse.Namespace, capsys: pytest.CaptureFixture[str]) -> None:
    argv = [text for name, value in vars(args).items() if value is not None for text in (f"--{name}", str(value))]
    assert scarce_data.main(argv) == 0
    table = capsys.readouterr().out
    assert "all (3 to 5)" in table and table.count("±") == 2 * len(scarce_data.CLIPS_OF_A_CLASS)
    files = list((args.output_dir / "runs").rglob("last.pt"))
    before = {path: path.stat().st_mtime_ns for path in files}
    assert len(files) == 8 and scarce_data.main(argv) == 0
    assert capsys.readouterr().out == table and {path: path.stat().st_mtime_ns for path in files} == before
