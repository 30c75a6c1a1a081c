from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from datasets import audio
from models import checkpoints
from models.config import MelConfig
from models.network import MobileNetV3
from studies import few_clips, scarce_data

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
        chosen = few_clips.choose(data.targets, training, clips, seed=0)
        assert len(set(chosen)) == len(chosen) and set(chosen) <= set(training)
        assert labels_of(data.targets, chosen) == [min(count, clips or count) for count in available]
        np.testing.assert_array_equal(chosen, few_clips.choose(data.targets, training, clips, seed=0))
    seeds = {tuple(sorted(few_clips.choose(data.targets, training, 2, seed))) for seed in range(8)}
    assert len(seeds) > 1


def test_fewer_recordings_are_a_part_of_more() -> None:
    targets = np.eye(3, dtype=np.uint8)[np.arange(60) % 3]
    training = np.arange(0, 60, 2)
    nested = [set(few_clips.choose(targets, training, clips, seed=5)) for clips in (2, 5, 10)]
    assert nested[0] < nested[1] < nested[2] and [len(part) for part in nested] == [6, 15, 30]


def test_both_arms_share_the_architecture_and_learn_at_their_own_rates(
    args: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scarce_data, "EPOCH_CLIPS", 32)
    found = {arm: scarce_data.train(args, (arm, 2, 0)) for arm in scarce_data.ARMS}
    assert all({"accuracy", scarce_data.MEASURE, "val_loss"} <= scores.keys() for scores in found.values())
    runs = {arm: args.output_dir / "runs" / f"{arm}_2_0" for arm in scarce_data.ARMS}
    models = {arm: checkpoints.load(folder / "last.pt") for arm, folder in runs.items()}
    for field in ("width_mult", "head_type", "se_dims"):
        assert getattr(models["pretrained"].arch, field) == getattr(models["scratch"].arch, field)
    assert models["pretrained"].labels == ("rock", "speech")
    options = {arm: json.loads((folder / "config.json").read_text())["args"] for arm, folder in runs.items()}
    differing = {name for name, value in options["scratch"].items() if options["pretrained"][name] != value}
    named = {"experiment_name", "pretrained_name", "max_lr", "model_width", "head_type", "se_dims"}
    assert differing == named and (options["pretrained"]["max_lr"], options["scratch"]["max_lr"]) == (1e-3, 3e-3)


def test_mean_deviation_range_and_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    means = {("pretrained", 2): 0.8, ("scratch", 2): 0.5, ("pretrained", None): 0.9, ("scratch", None): 0.6}
    scores = {
        (*key, seed): {"accuracy": 0.1, scarce_data.MEASURE: mean + 0.05 * (seed - 1), "val_loss": 1.5}
        for key, mean in means.items()
        for seed in range(3)
    }
    assert scarce_data.summarise(scores, "pretrained", 2, 3) == pytest.approx((0.8, 0.05, 0.75, 0.85))
    assert scarce_data.summarise(scores, "scratch", 2, 1) == pytest.approx((0.45, 0, 0.45, 0.45))
    names = {2: "2", None: "all (3 to 5)"}
    scarce_data.print_table(scores, names, 3)
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:] == ["| 2 | 0.800 ± 0.050 | 0.500 ± 0.050 |", "| all (3 to 5) | 0.900 ± 0.050 | 0.600 ± 0.050 |"]
    scarce_data.draw(tmp_path / "figure.png", scores, names, 3, chance=0.5)
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    scarce_data.write_csv(tmp_path / "results.csv", scores)
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 13


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
