"""Pre-training on scikit-learn's digits, which are real images, and what follows it."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import ex_audioset
import ex_imagenet
from datasets.prepare import characters
from helpers.training.builders import make_loader
from helpers.training.evaluation import predict
from models import checkpoints
from models.image import ImageModel, standardise
from models.MobileNetV3 import get_model

pytestmark = pytest.mark.usefixtures("in_temporary_folder")
TINY = (
    "--model_width", 0.1, "--image_size", 16, "--eval_crop", 1, "--min_crop_area", 0.7, "--no-flip", "--batch_size", 24,
    "--max_lr", 6e-3, "--warm_up_len", 1, "--batch_norm_momentum", 0.2, "--num_workers", 0, "--wandb", "disabled",
)  # fmt: skip


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torchvision")
    folder = tmp_path_factory.mktemp("images") / "digits"
    assert characters.main(["digits", "--output_dir", str(folder)]) == 0
    return folder


def choose(source: Path, folder: Path, *, train: int, val: int) -> Path:
    """A folder with links to so many images of each of the digits 0, 1, 3, 4, 6 and 7."""
    for part, count in (("train", train), ("val", val)):
        for label in "013467":
            (folder / part / label).mkdir(parents=True)
            for path in sorted((source / part / label).iterdir())[:count]:
                (folder / part / label / path.name).symlink_to(path)
    return folder


@pytest.fixture(scope="module")
def few_digits(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 images to train and 24 to validate on."""
    return choose(digits, tmp_path_factory.mktemp("few"), train=8, val=4)


def run(*argv: object) -> int:
    return ex_imagenet.main([str(argument) for argument in argv])


def test_digits_are_learned_evaluated_and_start_an_audio_training(
    digits: Path, tiny_audioset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = choose(digits, tmp_path / "images", train=40, val=20)
    assert run(images, *TINY, "--n_epochs", 10, "--randaugment", 0, "--mixup_alpha", 0) == 0
    last = checkpoints.load("runs/imagenet/last.pt")
    assert last.labels == tuple("013467") and last.single_label
    assert last.metrics["accuracy"] > 0.5 and last.metrics["accuracy_top5"] > 0.9  # 0.17 and 0.83 by chance

    capsys.readouterr()
    assert run(images, "--evaluate", "runs/imagenet/last.pt", "--num_workers", 0) == 0  # with the image size of the training
    printed = dict(re.findall(r"^  (.+): ([\d.]+)$", capsys.readouterr().out, flags=re.MULTILINE))
    assert float(printed["accuracy"]) == pytest.approx(last.metrics["accuracy"], abs=6e-4)
    assert float(printed["accuracy top5"]) == pytest.approx(last.metrics["accuracy_top5"], abs=6e-4)

    args = ex_imagenet.parse_options([str(images), "--evaluate", "runs/imagenet/last.pt", "--num_workers", "0"])
    loader = make_loader(ex_imagenet.validation_set(args), args)
    scores = ex_imagenet.scores(predict(ImageModel(checkpoints.load_model("runs/imagenet/last.pt")), loader))
    assert scores["val_loss"] == pytest.approx(last.metrics["val_loss"], rel=1e-4)  # what is kept is what was measured

    start = ("--train", "--pretrained_name", "runs/imagenet/last.pt", "--dataset_dir", str(tiny_audioset), "--kd_lambda", "1")
    short = ("--clip_seconds", "0.5", "--num_workers", "0", "--batch_size", "32", "--n_epochs", "1", "--max_lr", "1e-9")
    assert ex_audioset.main([*start, *short, "--wandb", "disabled"]) == 0
    audio = checkpoints.load("runs/audioset/last.pt")
    assert audio.arch.num_classes == 527 and not audio.single_label and audio.labels != last.labels
    for name in ("features.0.0.weight", "features.9.block.1.0.weight", "classifier.2.weight"):
        torch.testing.assert_close(audio.state[name], last.state[name], atol=1e-6, rtol=0)


def test_every_option_of_the_recipe_has_its_effect(few_digits: Path) -> None:
    """Two steps each: the first epoch's losses are other ones."""
    losses = set()
    variants = (
        (), ("--label_smoothing", 0.9), ("--mixup_alpha", 0), ("--randaugment", 0), ("--flip",), ("--min_crop_area", 0.3),
        ("--ema_decay", 0), ("--weight_decay", 5), ("--max_lr", 1e-3), ("--warm_up_len", 0), ("--seed", 1),
    )  # fmt: skip
    for variant in variants:
        assert run(few_digits, *TINY, "--n_epochs", 1, *variant, "--experiment_name", "variant") == 0
    for path in Path("runs").glob("variant*/last.pt"):
        metrics = checkpoints.load(path).metrics
        losses.add((metrics["train_loss"], metrics["val_loss"]))
    assert len(losses) == len(variants)


def test_an_interrupted_run_resumes_to_the_same_weights(few_digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted after the first step of the second epoch, with random crops, RandAugment, mixup and an average of the weights."""
    options = (*TINY, "--n_epochs", 2, "--save_minutes", 0)  # two steps each
    assert run(few_digits, *options, "--experiment_name", "whole") == 0
    steps = []

    def interrupted(pixels: torch.Tensor) -> torch.Tensor:
        steps.append(pixels)
        if len(steps) == 2 + 1 + 2:  # training, evaluation, training
            raise KeyboardInterrupt
        return standardise(pixels)

    with monkeypatch.context() as patch:
        patch.setattr(ex_imagenet, "standardise", interrupted)
        patch.setattr("models.image.standardise", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(few_digits, *options, "--experiment_name", "cut")
    assert torch.load("runs/cut/last.pt", weights_only=True)["training"]["progress"]["step"] == 1
    assert run("--resume", "runs/cut") == 0
    whole, cut = (torch.load(f"runs/{name}/last.pt", weights_only=True) for name in ("whole", "cut"))
    for one, other in ((whole["model"], cut["model"]), (whole["training"]["network"], cut["training"]["network"])):
        assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    moved = [name for name, tensor in whole["model"].items() if not torch.equal(tensor, whole["training"]["network"][name])]
    assert len(moved) > 100  # what is kept is the average, not the weights
    with open("runs/cut/metrics.csv", newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["0", "1"]


def test_black_and_white_have_about_the_range_of_spectrograms() -> None:
    pixels = torch.tensor([0, 117, 255], dtype=torch.uint8).view(1, 1, 1, 3)
    torch.testing.assert_close(standardise(pixels).flatten(), torch.tensor([-2.031, 0.0, 2.394]), atol=2e-3, rtol=0)
    network = get_model(5, width_mult=0.1).eval()
    logits, embedding = ImageModel(network)(torch.randint(256, (1, 1, 40, 24), dtype=torch.uint8))
    assert logits.shape == (1, 5) and embedding.shape == (1, network.embedding_size)


def test_norms_and_biases_do_not_decay() -> None:
    network = get_model(5, width_mult=0.1)
    decaying, others = ex_imagenet.parameter_groups(network, 0.05)
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.05, 0.0)
    matrices = [m.weight for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert {id(p) for p in decaying["params"]} == {id(p) for p in matrices}
    assert len(decaying["params"]) + len(others["params"]) == len(list(network.parameters()))


@pytest.mark.parametrize("case", ["no folder", "no val", "classes", "damaged", "other classes", "no checkpoint"])
def test_mistakes_end_in_one_line(
    case: str, few_digits: Path, tiny_checkpoint: Path, tmp_path: Path, failing_message: Callable[..., str]
) -> None:
    if case == "classes":
        for part, labels in (("train", "013"), ("val", "01")):
            (tmp_path / part).mkdir()
            for label in labels:
                (tmp_path / part / label).symlink_to(few_digits / part / label)
    elif case == "damaged":
        (tmp_path / "val" / "x").mkdir(parents=True)
        (tmp_path / "val" / "x" / "broken.png").write_bytes(b"no image")
        network = get_model(1, width_mult=0.1)
        network.labels = ("x",)
        checkpoints.save(tmp_path / "x.pt", network, args={"image_size": 16, "eval_crop": 1.0})
    argv, expected = {
        "no folder": ([tmp_path / "none", *TINY], "none/train"),
        "no val": ([few_digits / "train", *TINY], "train/<class>/"),
        "classes": ([tmp_path, *TINY], "in one alone: 3"),
        "damaged": ([tmp_path, "--evaluate", tmp_path / "x.pt", "--num_workers", 1], "broken.png"),
        "other classes": ([few_digits, "--evaluate", tiny_checkpoint], "classes"),
        "no checkpoint": ([few_digits, "--evaluate", tmp_path / "none.pt"], "not found"),
    }[case]
    assert expected in failing_message(ex_imagenet.main, *argv)


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("", "DATA"),
        ("images --se_dims f", "--se_dims"),
        ("images --randaugment 40", "--randaugment"),
        ("images --min_crop_area 0", "--min_crop_area"),
        ("--resume runs/none --evaluate runs/x.pt", "runs/none"),
    ],
)
def test_bad_options_are_refused(command: str, named: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises((SystemExit, FileNotFoundError)) as end:
        run(*command.split())
    assert named in str(end.value) + capsys.readouterr().err


def test_without_torchvision_one_line_names_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing_message: Callable[..., str]
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.delitem(sys.modules, "torchvision.datasets", raising=False)
    monkeypatch.delitem(sys.modules, "torchvision.transforms", raising=False)
    assert "requirements-imagenet.txt" in failing_message(ex_imagenet.main, tmp_path, *TINY)
