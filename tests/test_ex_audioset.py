import csv
import pickle
import re
import shutil
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import ex_audioset
import export
from datasets import audioset
from datasets.hdf5_mp3 import Mp3Writer, read_entries
from datasets.labels import audioset_labels
from datasets.prepare import audioset_shards
from helpers.distillation.soft_targets import INDEX_ASSET, PREDS_ASSET
from helpers.export import cache
from helpers.tagger import AudioTagger
from models import checkpoints
from models.errors import UserError
from models.MobileNetV3 import get_model

pytestmark = pytest.mark.usefixtures("in_temporary_folder")
SHORT = ("--clip_seconds", 0.5, "--num_workers", 0, "--batch_size", 16, "--n_epochs", 1, "--wandb", "disabled")


def run(*argv: object) -> int:
    return ex_audioset.main([str(argument) for argument in argv])


def test_tiny_example_trains_and_evaluates(tiny_audioset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = ("--dataset_dir", tiny_audioset, "--clip_seconds", 0.5, "--num_workers", 0, "--batch_size", 4, "--wandb", "disabled")
    tiny = ("--train", "--pretrained_name", "mn04_distilled", "--n_mels", 64, "--experiment_name", "tiny")
    augmented = ("--roll", "--wavmix", "--gain_augment", 6, "--freqm", 4, "--timem", 10)
    assert run(*tiny, *short, *augmented, "--kd_lambda", 1, "--n_epochs", 4, "--max_lr", 0.001, "--warm_up_len", 0) == 0
    last = checkpoints.load(tmp_path / "runs/tiny/last.pt")
    assert last.labels == audioset_labels() and last.epoch == 3
    assert last.metrics["mAP"] > 0.5  # 0.25 is chance

    capsys.readouterr()
    drawn = ("--per_class", "classes.csv", "--per_class_figure", "classes.png")
    assert run(*short, "--model_name", "runs/tiny/last.pt", *drawn) == 0
    assert (tmp_path / "classes.png").read_bytes().startswith(b"\x89PNG")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Results on AudioSet test split for loaded model: runs/tiny/last.pt"
    assert re.fullmatch(r"  mAP: [01]\.\d{3}", lines[1]) and re.fullmatch(r"  ROC: [01]\.\d{3}", lines[2])
    assert "523 of 527" in lines[3]
    rows = (tmp_path / "classes.csv").read_text().splitlines()
    assert len(rows) == 1 + 4 and sum(int(row.split(",")[-3]) for row in rows[1:]) == 12
    assert float(lines[1].split()[-1]) == pytest.approx(last.metrics["mAP"], abs=6e-4)


@pytest.mark.parametrize("kind", ["parquet", "tar"])
def test_shards_give_what_hdf5_gives(tiny_audioset: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    audioset_shards.main(["--from", str(tiny_audioset), "--format", kind, "--output_dir", "shards"])
    printed = []
    for folder in (tiny_audioset, "shards"):
        capsys.readouterr()
        run("--model_name", "mn04_distilled", "--clip_seconds", 1, "--num_workers", 0, "--dataset_dir", folder)
        printed.append(capsys.readouterr().out)
    assert "mAP" in printed[0] and printed[0] == printed[1]


def test_a_network_that_the_options_describe_is_trained(tiny_audioset: Path) -> None:
    network = ("--model_width", 0.1, "--head_type", "fully_convolutional", "--se_dims", "f", "--n_mels", 32)
    assert run("--train", "--dataset_dir", tiny_audioset, *SHORT, *network, "--batch_norm_momentum", 0, "--kd_lambda", 1) == 0
    last = checkpoints.load("runs/audioset/last.pt")
    assert (last.arch.width_mult, last.arch.head_type, last.arch.se_dims) == (0.1, "fully_convolutional", "f")
    assert (last.arch.input_dim_f, last.mel.n_mels) == (32, 32)
    assert not last.state["features.0.1.running_mean"].any()  # as at the start


def test_a_dynamic_network_is_trained_resumed_and_used_like_others(
    tiny_audioset: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The temperature falls at each epoch's start, in a resumed run too, and is that of the evaluation."""
    network = ("--arch", "dymn", "--model_width", 0.1, "--use_dy_blocks", "replace_se", "--T_max", 3, "--n_mels", 32)
    data = ("--dataset_dir", tiny_audioset)
    assert run("--train", *data, *SHORT, *network, "--kd_lambda", 1) == 0
    assert checkpoints.load("runs/audioset/last.pt").arch.temperature == 3
    assert run("--train", *data, "--resume", "runs/audioset", "--n_epochs", 3) == 0
    last = checkpoints.load("runs/audioset/last.pt")
    assert (last.arch.family, last.arch.use_dy_blocks, last.arch.T_max, last.arch.temperature) == ("dymn", "replace_se", 3, 1)
    capsys.readouterr()
    assert run(*data, "--clip_seconds", 0.5, "--num_workers", 0, "--model_name", "runs/audioset/last.pt") == 0
    assert float(capsys.readouterr().out.splitlines()[1].split()[-1]) == pytest.approx(last.metrics["mAP"], abs=6e-4)
    again = ("--arch", "dymn", "--pretrained_name", "runs/audioset/last.pt", "--pretrain_final_temp", 2)
    assert run("--train", *data, *SHORT, *again, "--kd_lambda", 1, "--experiment_name", "again") == 0
    assert checkpoints.load("runs/again/last.pt").arch.temperature == 2
    with pytest.raises(UserError, match="--arch mn"):
        run("--train", *data, *SHORT, *again, "--arch", "mn")
    with pytest.raises(SystemExit):  # the temperature of no checkpoint
        run("--train", *data, *SHORT, *network, "--pretrain_final_temp", 2)
    sound = 0.1 * np.random.default_rng(0).standard_normal(32000).astype(np.float32)
    # Exported in this process: another one takes seconds to start.
    monkeypatch.setattr(cache, "_export", lambda name, path: export.main(["--model_name", name, "--output", str(path)]))
    tags = [AudioTagger("runs/audioset/last.pt", backend=backend).tag(sound, 32000, top_k=527) for backend in ("torch", "onnx")]
    scores = [{tag.label: tag.score for tag in found} for found in tags]
    assert scores[0] == pytest.approx(scores[1], abs=1e-4) and len(scores[0]) == 527
    embedding = AudioTagger("runs/audioset/last.pt", layers="block4+block16").embed(sound, 32000)
    assert embedding.shape == (8 + 96,)


def test_training_continues_from_a_checkpoint_with_another_front_end(
    tiny_audioset: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    code = run(
        "--train", "--dataset_dir", tiny_audioset, "--clip_seconds", 0.5, "--num_workers", 0, "--batch_size", 32, "--n_epochs", 1,
        "--pretrained_name", tiny_checkpoint, "--hop_size", 640, "--n_mels", 64, "--max_lr", 1e-9,
        "--kd_lambda", 1, "--wandb", "disabled",
    )  # fmt: skip
    assert code == 0
    start, last = checkpoints.load(tiny_checkpoint), checkpoints.load(tmp_path / "runs/audioset/last.pt")
    assert (last.mel.hop_size, last.mel.n_mels, last.arch.input_dim_f, last.clip_seconds) == (640, 64, 64, 0.5)
    torch.testing.assert_close(last.state["classifier.5.weight"], start.state["classifier.5.weight"], atol=1e-6, rtol=0)


def test_the_published_training_command_distils_from_what_the_release_holds(
    tiny_audioset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """From a release on the disk: ImageNet weights, a teacher's logits and their pickled index, all downloaded when missing."""
    release = tmp_path / "release"
    release.mkdir()
    torch.save(get_model().state_dict(), release / "mn10_im_pytorch.pt")
    names = audioset.training_set(tiny_audioset).names[::2]  # the teacher knows every other clip
    np.save(release / PREDS_ASSET, np.random.default_rng(0).normal(-6, 2, (len(names), 527)).astype(np.float16))
    (release / INDEX_ASSET).write_bytes(pickle.dumps({name: row for row, name in enumerate(names)}))
    monkeypatch.setenv("EFFICIENTAT_RELEASE_URL", release.as_uri())
    monkeypatch.setenv("EFFICIENTAT_RESOURCES", str(tmp_path / "resources"))
    caplog.set_level("INFO")
    published = ("--cuda", "--train", "--pretrained_name=mn10_im_pytorch", "--max_lr=0.0004")
    small = ("--batch_size", 16, "--clip_seconds", 0.5, "--n_epochs", 1, "--num_workers", 0, "--wandb", "disabled")
    assert run(*published, *small, "--dataset_dir", tiny_audioset) == 0
    assert "16 of 32" in caplog.text
    metrics = checkpoints.load(tmp_path / "runs/audioset/last.pt").metrics
    assert metrics["train_loss"] == pytest.approx(0.1 * metrics["label_loss"] + 0.9 * metrics["distillation_loss"], rel=1e-5)
    assert set(metrics) >= {"learning_rate", "mAP", "ROC_AUC", "val_loss"}


def write_teacher(path: Path, names: Sequence[str], seed: int) -> Path:
    """Logits for some clips."""
    path.parent.mkdir(exist_ok=True)
    np.save(path, np.random.default_rng(seed).normal(-6, 2, (len(names), 527)).astype(np.float16))
    path.with_suffix(".txt").write_text("".join(f"{name}\n" for name in names))
    return path


def test_a_training_resumes_with_the_same_teacher_alone(
    tiny_audioset: Path, tmp_path: Path, failing_message: Callable[..., str]
) -> None:
    names = audioset.training_set(tiny_audioset).names
    teacher = write_teacher(tmp_path / "teacher.npy", names, seed=0)
    assert run("--train", "--dataset_dir", tiny_audioset, *SHORT, "--model_width", 0.1, "--teacher_preds", teacher) == 0
    resume = ("--train", "--resume", "runs/audioset", "--n_epochs", 2, "--teacher_preds")
    for other in (write_teacher(tmp_path / "other.npy", names, seed=1), write_teacher(tmp_path / "half.npy", names[::2], seed=0)):
        assert "--teacher_preds" in failing_message(ex_audioset.main, *resume, other)
    assert checkpoints.load("runs/audioset/last.pt").epoch == 0
    assert run(*resume, write_teacher(tmp_path / "moved" / "renamed.npy", names, seed=0)) == 0
    assert checkpoints.load("runs/audioset/last.pt").epoch == 1


@pytest.fixture
def unlabelled_folder(tiny_audioset: Path, tmp_path: Path) -> Path:
    """The tiny AudioSet with 16 clips without labels, and with a validation part that is its evaluation part."""
    folder = tmp_path / "unlabelled"
    shutil.copytree(tiny_audioset, folder)
    shutil.copy(folder / "eval_segments_mp3.hdf", folder / "validation_segments_mp3.hdf")
    (folder / "eval_segments_mp3.hdf").unlink()  # nobody needs it
    with Mp3Writer(folder / "unlabelled_segments_mp3.hdf", 527) as writer:
        for name, mp3, target in islice(read_entries(folder / "unbalanced_train_segments_mp3.hdf", 527), 16):
            writer.add(name, mp3, 0 * target)
    return folder


def test_an_online_teacher_needs_no_labels(unlabelled_folder: Path, tiny_checkpoint: Path) -> None:
    """Block-wise first, then end to end; interrupted between, and resumed with the same teacher alone."""
    online = ("--teacher", tiny_checkpoint, "--kd_lambda", 0, "--mixup_alpha", 0, "--max_lr", 0.01, "--warm_up_len", 0)
    learn = ("--views", 0.3, 0.5, "--feature_kd", 1, "--blockwise_epochs", 1, "--model_width", 0.1)
    assert run("--train", "--dataset_dir", unlabelled_folder, *SHORT, *online, *learn) == 0
    assert run("--train", "--resume", "runs/audioset", "--n_epochs", 2) == 0
    rows = list(csv.DictReader(Path("runs/audioset/metrics.csv").open()))
    assert len(rows) == 2 and "label_loss" not in rows[0]
    for row in rows:
        losses = {name: float(value) for name, value in row.items()}
        assert losses["train_loss"] == pytest.approx(losses["distillation_loss"] + losses["feature_loss"], rel=1e-4)
        assert losses["divergence"] < losses["distillation_loss"] and losses["block_0"] > 0


def test_labels_are_not_evaluated_on_the_validation_part(unlabelled_folder: Path, failing_message: Callable[..., str]) -> None:
    """Its clips are in the training parts."""
    message = failing_message(ex_audioset.main, "--train", "--dataset_dir", unlabelled_folder, *SHORT, "--kd_lambda", 1)
    assert "eval_segments_mp3.hdf" in message


def test_an_online_teacher_next_to_labels(tiny_audioset: Path, tiny_checkpoint: Path, failing_message: Callable[..., str]) -> None:
    online = ("--teacher", tiny_checkpoint, tiny_checkpoint, "--model_width", 0.1, "--n_mels", 64, "--freqm", 8)
    assert run("--train", "--dataset_dir", tiny_audioset, *SHORT, *online) == 0
    metrics = checkpoints.load("runs/audioset/last.pt").metrics
    assert metrics["train_loss"] == pytest.approx(0.1 * metrics["label_loss"] + 0.9 * metrics["distillation_loss"], rel=1e-5)
    torch.manual_seed(5)
    other, same = Path("other.pt"), Path("same.pt")
    checkpoints.save(other, get_model(width_mult=0.1).eval())
    shutil.copy(tiny_checkpoint, same)
    resume = ("--train", "--resume", "runs/audioset", "--n_epochs", 2, "--teacher")
    assert "--teacher" in failing_message(ex_audioset.main, *resume, other, other)
    assert run(*resume, same, same) == 0


def test_ensemble_evaluates(tiny_audioset: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--ensemble", tiny_checkpoint, tiny_checkpoint, "--dataset_dir", tiny_audioset, "--num_workers", 0) == 0
    assert "mAP" in capsys.readouterr().out


def test_every_command_of_the_published_page_parses() -> None:
    for command in (
        "--cuda --train --pretrained_name=mn10_im_pytorch --batch_size=60 --max_lr=0.0004",
        "--cuda --train --model_width=0.1 --head_type=fully_convolutional --se_dims=f",
        "--cuda --model_name=mn10_as",
        "--cuda --ensemble mn40_as_ext mn40_as_ext(2) mn40_as_ext(3)",
        "--cuda --model_name=mn10_as_hop_15 --hop_size=480",
        "--cuda --model_name=mn10_as_mels_40 --n_mels=40",
    ):
        ex_audioset.build_parser().parse_args(command.split())
    args = ex_audioset.build_parser().parse_args("--train --resample_rate=16000 --window_size=400".split())
    assert (args.sample_rate, args.win_length) == (16000, 400)


@pytest.mark.parametrize(
    "case", ["unknown model", "no folder", "empty folder", "damaged", "corrupt entry", "contradiction", "se_dims contradiction"]
)
def test_mistakes_end_in_one_line(
    case: str, tiny_audioset: Path, tiny_checkpoint: Path, tmp_path: Path, failing_message: Callable[..., str]
) -> None:
    argv, expected = {
        "unknown model": (["--model_name", "mn11_as", "--dataset_dir", tiny_audioset], "mn10_as"),
        "se_dims contradiction": (
            ["--train", "--pretrained_name", tiny_checkpoint, "--dataset_dir", tiny_audioset, "--se_dims", "f"],
            "contradict",
        ),
        "no folder": (["--model_name", tiny_checkpoint, "--dataset_dir", tmp_path / "none"], "--dataset_dir"),
        "empty folder": (["--model_name", tiny_checkpoint, "--dataset_dir", tmp_path], "eval_segments_mp3.hdf"),
        "damaged": (["--model_name", tiny_checkpoint, "--dataset_dir", tmp_path], "eval_segments_mp3.hdf"),
        "corrupt entry": (["--model_name", tiny_checkpoint, "--dataset_dir", tmp_path, "--num_workers", 1], "Yeval0000005.mp3"),
        "contradiction": (["--model_name", tiny_checkpoint, "--dataset_dir", tiny_audioset, "--hop_size", 480], "contradict"),
    }[case]
    if case in ("damaged", "corrupt entry"):
        path = tmp_path / "eval_segments_mp3.hdf"
        path.write_bytes(b"not HDF5 at all" if case == "damaged" else (tiny_audioset / path.name).read_bytes())
    if case == "corrupt entry":
        with h5py.File(path, "r+") as file:
            file["mp3"][5] = file["mp3"][5][:40] * 0
    assert expected in failing_message(ex_audioset.main, *argv)


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("", "--train"),
        ("--train --batch_size 0", "--batch_size"),
        ("--train --model_name mn10_as", "--model_name"),
        ("--model_name mn10_as --ensemble mn10_as", "--ensemble"),
        ("--model_name mn10_as --pretrained_name mn10_im", "--pretrained_name"),
        ("--model_name mn10_as --per_class no/such/folder.csv", "--per_class"),
        ("--train --per_class classes.csv", "--per_class"),
        ("--model_name mn10_as --per_class_figure classes.docx", "--per_class_figure"),
        ("--train --kd_lambda 2", "--kd_lambda"),
        ("--train --kd_lambda 1 --teacher mn04_as", "--kd_lambda"),
        ("--train --teacher mn04_as --teacher_preds teacher.npy", "--teacher_preds"),
        ("--train --feature_kd 1", "--teacher"),
        ("--train --teacher mn04_as --blockwise_epochs 1", "--feature_kd"),
        ("--train --teacher mn04_as --feature_kd 1 --compile", "--compile"),
        ("--train --teacher mn04_as --views 2 4", "--kd_lambda"),
        ("--train --teacher mn04_as --kd_lambda 0 --views 4 2", "--views"),
        ("--train --seed -1", "--seed"),
        ("--model_name mn10_as --precision fp8", "--precision"),
    ],
)
def test_bad_options_are_refused_by_the_parser(command: str, named: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run(*command.split())
    assert end.value.code == 2 and named in capsys.readouterr().err.splitlines()[-1]
