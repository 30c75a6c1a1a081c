"""What the fine-tuning scripts share: recipes, learning rates of parts, new heads, losses, Freq-MixStyle, accuracy."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import ex_dcase20
import ex_esc50
import ex_folder
import ex_fsd50k
from datasets.clip import Clip
from helpers.metrics import accuracy, accuracy_by
from helpers.training import finetuning
from helpers.training.evaluation import Predictions
from helpers.training.finetuning import Task, finetune
from helpers.training.mixing import freq_mixstyle
from helpers.training.objectives import CLASSIFICATION, TAGGING, Objective, cross_entropy_per_clip
from helpers.training.optimization import parameter_groups
from helpers.training.run import Run
from models import checkpoints
from models.config import DyMNArch
from models.MobileNetV3 import get_model

pytestmark = pytest.mark.usefixtures("in_temporary_folder")
HEADS = ("mlp", "fully_convolutional", "multihead_attention_pooling")
TUNED = {"mixup_alpha": 0.3, "roll": 4000, "wavmix": True, "gain_augment": 12.0}
PLAIN = {"mixup_alpha": 0.3, "roll": 0, "wavmix": False, "gain_augment": 0.0}
SCHEDULE = ("max_lr", "n_epochs", "batch_size", "warm_up_len", "ramp_down_start", "ramp_down_len")
PUBLISHED = {  # learning rate, epochs, batch, warm-up, ramp-down start and length
    (ex_esc50, "first_release"): (1e-5, 50, 64, 10, 20, 20),
    (ex_fsd50k, "first_release"): (5e-5, 20, 64, 0, 6, 9),
    (ex_dcase20, "first_release"): (2e-5, 50, 16, 6, 6, 20),
    (ex_esc50, "later_tuned"): (6e-5, 80, 128, 10, 10, 65),
    (ex_fsd50k, "later_tuned"): (7e-5, 80, 64, 10, 10, 65),
    (ex_dcase20, "later_tuned"): (8e-4, 80, 64, 10, 10, 65),
}
SCRIPTS = (ex_esc50, ex_fsd50k, ex_dcase20)


# Recipes


def options_of(script, *argv: str) -> argparse.Namespace:
    return finetuning.parse(script.build_parser(), ["--wandb", "disabled", *argv], script.RECIPES)


@pytest.mark.parametrize(("script", "recipe"), PUBLISHED)
def test_recipes_are_the_published_ones(script, recipe: str) -> None:
    args = options_of(script, "--recipe", recipe)
    assert tuple(getattr(args, name) for name in SCHEDULE) == PUBLISHED[script, recipe]
    assert {name: getattr(args, name) for name in TUNED} == (TUNED if recipe == "later_tuned" else PLAIN)
    assert (args.weight_decay, args.last_lr_value, args.batch_norm_momentum) == (0, 0.01, 0.01)
    assert (args.mixstyle_p, args.mixstyle_alpha) == (0, 0.4)
    assert (args.features_lr, args.classifier_lr, args.last_layer_lr, args.linear_probe) == (None, None, None, False)


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_later_recipe_is_the_default_and_options_beat_either(script) -> None:
    tuned = options_of(script)
    assert tuned == options_of(script, "--recipe=later_tuned")
    for recipe in ("later_tuned", "first_release"):
        changed = {"max_lr": 0.5, "n_epochs": 3, "batch_size": 7, "warm_up_len": 1, "ramp_down_len": 0, "roll": 5, "mixup_alpha": 0}
        argv = [text for name, value in changed.items() for text in (f"--{name}", str(value))]
        for order in ([*argv, "--no-wavmix", "--recipe", recipe], ["--recipe", recipe, *argv, "--no-wavmix"]):
            args = options_of(script, *order)
            expected = vars(options_of(script, "--recipe", recipe)) | changed | {"wavmix": False}
            assert vars(args) == expected


@pytest.mark.parametrize("argv", [["--recipe", "published"], ["--recipe"], ["--recipe", ""]])
def test_other_recipes_are_refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        options_of(ex_esc50, *argv)
    assert end.value.code == 2 and "--recipe" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_resumed_run_keeps_its_recipe(script) -> None:
    started = options_of(script, "--recipe", "first_release", "--gain_augment", "3")
    with Run(started) as run:
        run.open()
    expected = vars(started) | {"resume": run.folder}
    assert vars(options_of(script, "--resume", str(run.folder))) == expected
    assert vars(options_of(script, "--resume", str(run.folder), "--n_epochs", "99")) == expected | {"n_epochs": 99}
    for changed in (["--recipe", "later_tuned"], ["--gain_augment", "12"], ["--linear_probe"], ["--features_lr", "1e-3"]):
        with pytest.raises(ValueError, match=changed[0][2:]):
            options_of(script, "--resume", str(run.folder), *changed)


@pytest.mark.parametrize(
    "argv",
    ["--evaluate a.pt --train", "--linear_probe --features_lr 1", "--linear_probe --classifier_lr 1"],
)
def test_options_that_contradict_each_other(argv: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        options_of(ex_esc50, *argv.split())
    assert end.value.code == 2 and argv.split()[0] in capsys.readouterr().err.splitlines()[-1]


# Training


class Clips(list):
    @property
    def names(self) -> list[str]:
        return [clip.name for clip in self]


def noise(count: int = 8, num_classes: int = 2, samples: int = 8000) -> Clips:
    """Clips of one class each, or of one or none, whose amplitude determines the class."""
    generator = torch.Generator().manual_seed(0)
    classes = [i % max(num_classes, 2) for i in range(count)]
    targets = torch.eye(num_classes)[classes] if num_classes > 1 else torch.tensor(classes)[:, None].float()
    waveforms = [0.1 * (1 + 5 * k) * torch.randn(samples, generator=generator) for k in classes]
    return Clips(Clip(waveform, targets[i], f"clip{i}", i) for i, waveform in enumerate(waveforms))


def options(*argv: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    finetuning.add_options(parser, experiment_name="test")
    small = "--wandb disabled --num_workers 0 --batch_size 4 --n_epochs 1 --n_mels 32 --warm_up_len 0 --max_lr 0.001"
    return finetuning.parse(parser, [*small.split(), *map(str, argv)])


def train(args: argparse.Namespace, num_classes: int = 2, objective: Objective = CLASSIFICATION, count: int = 8) -> Path:
    labels = [f"class {k}" for k in range(num_classes)]
    clips = noise(count, num_classes)
    task = Task(objective, num_classes, labels, 0.25, lambda rate: clips, lambda rate: clips, lambda rate: clips)
    return finetune(args, torch.device("cpu"), task)[1]


@pytest.fixture(scope="module")
def starts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint of five classes without names for each head."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("starts")
    for head in HEADS:
        checkpoints.save(folder / f"{head}.pt", get_model(5, width_mult=0.1, head_type=head, input_dim_f=32).eval())
    return {head: folder / f"{head}.pt" for head in HEADS}


def changes(start: Path, folder: Path) -> dict[str, float]:
    """Largest change of each tensor that both checkpoints have in one shape; counters of batches included."""
    before, after = checkpoints.load(start).state, checkpoints.load(folder / "last.pt").state
    same = [key for key in before if before[key].shape == after[key].shape]
    return {key: (after[key].double() - before[key].double()).abs().max().item() for key in same}


def part_of(name: str, head: str) -> str:
    if name.startswith("features."):
        return "features"
    return "classifier" if name in ("classifier.2.weight", "classifier.2.bias") and head == "mlp" else "last_layer"


@pytest.mark.parametrize("head", HEADS)
def test_each_parameter_is_in_one_group_with_the_rate_of_its_part(head: str) -> None:
    for argv, rates in (
        ((), {"features": 1e-3, "classifier": 1e-3, "last_layer": 1e-3}),
        (("--features_lr", 1e-5, "--classifier_lr", 1e-4), {"features": 1e-5, "classifier": 1e-4, "last_layer": 1e-3}),
        (("--last_layer_lr", 0.5), {"features": 1e-3, "classifier": 1e-3, "last_layer": 0.5}),
        (("--features_lr", 0), {"features": 0, "classifier": 1e-3, "last_layer": 1e-3}),
        (("--last_layer_lr", 0), {"features": 1e-3, "classifier": 1e-3, "last_layer": 0}),
        (("--linear_probe",), {"features": 0, "classifier": 0, "last_layer": 1e-3}),
        (("--linear_probe", "--last_layer_lr", 0.5, "--features_lr", 0), {"features": 0, "classifier": 0, "last_layer": 0.5}),
    ):
        network = get_model(3, width_mult=0.1, head_type=head)
        groups = parameter_groups(network, options(*argv))
        rate_of = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
        assert len(rate_of) == sum(len(group["params"]) for group in groups)
        for name, parameter in network.named_parameters():
            rate = rates[part_of(name, head)]
            assert rate_of.pop(id(parameter), 0) == rate and parameter.requires_grad == (rate > 0), name
        assert not rate_of and all(group["params"] for group in groups)


def test_what_a_network_does_not_use_stays_frozen() -> None:
    """Several ranks would wait for its gradients."""
    network = DyMNArch(3, 0.1, no_ca=True).build()
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    groups = parameter_groups(network, options())
    assert frozen and frozen == {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters())) - len(frozen)


@pytest.mark.parametrize("head", HEADS)
def test_nothing_to_train_is_an_error(head: str) -> None:
    network = get_model(3, width_mult=0.1, head_type=head)
    for argv in ("--features_lr 0 --classifier_lr 0 --last_layer_lr 0", "--linear_probe --last_layer_lr 0"):
        with pytest.raises(ValueError, match="nothing to train"):
            parameter_groups(network, options(*argv.split()))


def test_each_part_moves_at_its_rate(starts: dict[str, Path]) -> None:
    """The first step of Adam moves a parameter by its learning rate, whatever the gradient is."""
    rates = {"features": 1e-5, "classifier": 1e-4, "last_layer": 1e-2}
    argv = [text for part, rate in rates.items() for text in (f"--{part}_lr", rate)]
    folder = train(options("--pretrained_name", starts["mlp"], "--batch_size", 8, *argv), num_classes=5)
    moved = {key: change for key, change in changes(starts["mlp"], folder).items() if key.endswith((".weight", ".bias"))}
    assert {part_of(key, "mlp") for key in moved} == set(rates)
    for part, rate in rates.items():
        of_part = [change for key, change in moved.items() if part_of(key, "mlp") == part]
        assert max(of_part) == pytest.approx(rate, rel=0.02) and np.median(of_part) > 0.5 * rate, part


@pytest.mark.parametrize("head", HEADS)
def test_a_linear_probe_changes_the_last_layer_alone(head: str, starts: dict[str, Path]) -> None:
    """Also after an evaluation in between; batch norms keep their statistics, and their counts of batches."""
    folder = train(options("--pretrained_name", starts[head], "--linear_probe", "--n_epochs", 2), num_classes=5)
    changed = changes(starts[head], folder)
    assert changed.keys() == checkpoints.load(starts[head]).state.keys()
    for key, change in changed.items():
        assert (change > 0) == (part_of(key, head) == "last_layer"), key


def test_frozen_features_let_the_head_learn_and_frozen_heads_the_features(starts: dict[str, Path]) -> None:
    for number, (frozen, parts) in enumerate((("features", {"features"}), ("last_layer", {"last_layer"}))):
        argv = ("--pretrained_name", starts["mlp"], f"--{frozen}_lr", 0, "--experiment_name", f"run{number}")
        for key, change in changes(starts["mlp"], train(options(*argv), num_classes=5)).items():
            assert (change == 0) == (part_of(key, "mlp") in parts), key


@pytest.mark.parametrize(("num_classes", "objective"), [(2, CLASSIFICATION), (1, TAGGING)])
@pytest.mark.parametrize("head", HEADS)
def test_a_new_head_on_old_features(head: str, num_classes: int, objective: Objective, starts: dict[str, Path]) -> None:
    """The rest of the network is what it was: with next to no learning rate, but for the statistics of its batch norms."""
    folder = train(options("--pretrained_name", starts[head], "--max_lr", 1e-12), num_classes, objective)
    start = checkpoints.load(starts[head])
    for name in ("last.pt", "best.pt"):
        model = checkpoints.load_model(folder / name)
        assert model.labels == tuple(f"class {k}" for k in range(num_classes)) and model.clip_seconds == 0.25
        assert model.single_label is objective.single_label and model.arch.num_classes == num_classes
        assert model.arch.head_type == head
        for key, parameter in model.named_parameters():
            if part_of(key, head) != "last_layer":
                torch.testing.assert_close(parameter.data, start.state[key], atol=1e-9, rtol=0)
        logits, _ = model(torch.randn(3, 1, 32, 25))
        scores = model.scores(logits)
        assert logits.shape == (3, num_classes) and scores.min() >= 0 and scores.max() <= 1
        assert torch.allclose(scores.sum(1), torch.ones(3)) == objective.single_label


def test_a_fine_tuned_model_can_be_fine_tuned_for_another_task() -> None:
    """From a single-label model to a tagger: the scores follow the new task, not the checkpoint."""
    first = train(options("--model_width", 0.1))
    assert checkpoints.load_model(first / "last.pt").single_label
    second = train(options("--pretrained_name", first / "last.pt"), 2, TAGGING)
    assert not checkpoints.load_model(second / "last.pt").single_label


@pytest.mark.parametrize("momentum", [0.0, 0.01, 0.5, 1.0])
def test_batch_norms_follow_with_their_momentum(momentum: float, starts: dict[str, Path]) -> None:
    """After one step, the statistics are a mean of the start's (0 and 1 in a new head) and the batch's."""
    start = checkpoints.load(starts["fully_convolutional"]).state["features.0.1.running_mean"]
    means = []
    for number, value in enumerate((momentum, 1.0)):
        argv = ("--pretrained_name", starts["fully_convolutional"], "--batch_size", 8, "--experiment_name", f"run{number}")
        state = checkpoints.load(train(options(*argv, "--batch_norm_momentum", value), num_classes=5) / "last.pt").state
        means.append((state["features.0.1.running_mean"], state["classifier.1.running_mean"]))
    torch.testing.assert_close(means[0][0], (1 - momentum) * start + momentum * means[1][0])
    torch.testing.assert_close(means[0][1], momentum * means[1][1], atol=1e-6, rtol=1e-4)
    assert (means[1][0] - start).abs().max() > 1e-3


def test_mixstyle_reaches_the_training(starts: dict[str, Path]) -> None:
    first = {}
    for p in (0, 1):
        folder = train(options("--pretrained_name", starts["mlp"], "--mixstyle_p", p, "--experiment_name", f"p{p}"))
        first[p] = checkpoints.load(folder / "last.pt").state["features.0.1.running_mean"]
    assert not torch.equal(first[0], first[1])


# Losses


def softmax_loss(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Cross entropy of each row, by its definition."""
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return -(targets * np.log(probabilities)).sum(1)


def soft_targets() -> tuple[Tensor, Tensor]:
    """Logits (6, 11), and targets of one class, of two in unequal parts, and of all."""
    rng = np.random.default_rng(0)
    targets = np.eye(11)[rng.integers(11, size=6)]
    targets[2:4] = 0.7 * targets[2:4] + 0.3 * targets[:2]
    targets[4:] = rng.dirichlet(np.ones(11), 2)
    return torch.from_numpy(rng.normal(0, 3, (6, 11))).float(), torch.from_numpy(targets).float()


def test_cross_entropy_of_each_clip() -> None:
    logits, targets = soft_targets()
    loss = cross_entropy_per_clip(logits, targets)
    assert loss.shape == (6,) and loss.dtype == torch.float32
    np.testing.assert_allclose(loss, softmax_loss(logits.double().numpy(), targets.double().numpy()), rtol=1e-5)
    half = cross_entropy_per_clip(logits.half(), targets)
    assert half.dtype == torch.float32
    np.testing.assert_allclose(half, loss, rtol=1e-2)
    assert cross_entropy_per_clip(torch.zeros(1, 4), torch.eye(4)[:1]).item() == pytest.approx(math.log(4))


# Freq-MixStyle


def drawn(monkeypatch: pytest.MonkeyPatch, shares: np.ndarray, partner: list[int]) -> None:
    monkeypatch.setattr(torch.distributions.Beta, "sample", lambda self, shape: torch.from_numpy(shares).float().view(shape))
    monkeypatch.setattr(torch, "randperm", lambda count: torch.tensor(partner))


def spectrograms(count: int = 4) -> np.ndarray:
    """(count, 7, 50), each band of its own mean and deviation."""
    rng = np.random.default_rng(0)
    return rng.normal(0, 2, (count, 7, 1)) + rng.uniform(0.5, 3, (count, 7, 1)) * rng.standard_normal((count, 7, 50))


def test_freq_mixstyle_is_its_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    x, partner, shares = spectrograms(), [2, 0, 3, 1], np.array([0.0, 0.3, 0.9, 1.0])
    drawn(monkeypatch, shares, partner)
    result, style = freq_mixstyle(torch.from_numpy(x), 1.0, 0.4)
    assert torch.equal(result, style.apply(torch.from_numpy(x)))
    for i in range(4):
        for band in range(7):
            own, other = x[i, band], x[partner[i], band]
            mean = shares[i] * np.mean(own) + (1 - shares[i]) * np.mean(other)
            deviation = shares[i] * np.std(own, ddof=1) + (1 - shares[i]) * np.std(other, ddof=1)
            expected = (own - np.mean(own)) / np.std(own, ddof=1) * deviation + mean
            np.testing.assert_allclose(result[i, band], expected, atol=1e-4)


def test_freq_mixstyle_comes_with_its_probability() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8)
    assert freq_mixstyle(x, 0.0, 0.4)[0] is x
    untouched = sum(freq_mixstyle(x, 0.3, 0.4)[0] is x for _ in range(2000))
    assert untouched == pytest.approx(1400, abs=80)
    assert not any(freq_mixstyle(x, 1.0, 0.4)[0] is x for _ in range(50))
    assert torch.isfinite(freq_mixstyle(torch.zeros(2, 3, 8), 1.0, 0.4)[0]).all()  # silence


# Accuracy

TARGETS = np.eye(3, dtype=np.float32)[[0, 0, 0, 0, 1, 2]]
SCORES = np.array([[9, 1, 1], [3, 2, 1], [1, 2, 0], [-1, -3, -2], [5, 4, 6], [-9, -8, -7]], np.float32)  # right: 0, 1, 3, 5


def test_accuracy_by_hand() -> None:
    assert accuracy(TARGETS, SCORES) == pytest.approx(4 / 6)
    assert accuracy_by(list("aabbab"), TARGETS, SCORES) == pytest.approx({"a": 2 / 3, "b": 2 / 3})
    assert accuracy_by(["s1", "a", "s1", "a", "s1", "a"], TARGETS, SCORES) == pytest.approx({"a": 1.0, "s1": 1 / 3})
    assert accuracy(0.4 + 0.2 * TARGETS, SCORES) == pytest.approx(4 / 6)  # soft targets: the largest counts


def test_scores_of_classification_by_hand() -> None:
    """Class 0 has 3 of 4 clips right, class 1 none of one, class 2 one of one; a class without clips does not count."""
    for extra in (0, 1):
        targets, scores = (np.pad(array, ((0, 0), (0, extra))) for array in (TARGETS, SCORES))
        scores[:, 3:] = -50
        measured = CLASSIFICATION.scores(Predictions(list("abcdef"), targets, scores))
        assert measured["accuracy"] == pytest.approx(4 / 6)
        assert measured["accuracy_class_mean"] == pytest.approx((3 / 4 + 0 + 1) / 3)
        assert measured["val_loss"] == pytest.approx(softmax_loss(scores.astype(float), targets).mean(), rel=1e-5)
    assert CLASSIFICATION.selection == "accuracy" and TAGGING.selection == "mAP"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused(bad: float) -> None:
    scores = SCORES.copy()
    scores[3, 1] = bad
    for measure in (
        lambda: accuracy(TARGETS, scores),
        lambda: accuracy_by(list("aabbab"), TARGETS, scores),
        lambda: CLASSIFICATION.scores(Predictions(list("abcdef"), TARGETS, scores)),
    ):
        with pytest.raises(ValueError, match="finite"):
            measure()


@pytest.mark.parametrize(("targets", "scores"), [(TARGETS, SCORES[:, :2]), (TARGETS[0], SCORES[0]), (TARGETS[:0], SCORES[:0])])
def test_shapes_that_do_not_fit_are_refused(targets: np.ndarray, scores: np.ndarray) -> None:
    with pytest.raises(ValueError, match="shape"):
        accuracy(targets, scores)


# ex_folder's defaults


def default_options(training_clips: int, seconds: list[float] | None = None, *argv: str) -> argparse.Namespace:
    args = ex_folder.parse_options(["recordings", *argv])
    ex_folder.fill_in(args, argparse.Namespace(seconds=np.array(seconds or [3.0])), training_clips)
    return args


@pytest.mark.parametrize("training_clips", [1, 2, 7, 8, 50, 2000, 50_000])
def test_defaults_for_folders_of_any_size(training_clips: int) -> None:
    args = default_options(training_clips)
    steps = training_clips // args.batch_size
    assert steps >= (2 if training_clips >= 8 else 1) and 1 <= args.batch_size <= 64
    assert 20 <= args.n_epochs <= 80
    assert 0 <= args.warm_up_len <= args.ramp_down_start < args.n_epochs
    assert args.ramp_down_start + args.ramp_down_len <= args.n_epochs
    if training_clips == 50:
        assert args.n_epochs == 80 and steps >= 5
    if training_clips == 50_000:
        assert (args.n_epochs, args.batch_size) == (20, 64)


def test_defaults_leave_what_is_given_alone() -> None:
    args = default_options(
        50, [2.0], *"--batch_size 3 --n_epochs 5 --warm_up_len 1 --ramp_down_start 2 --ramp_down_len 0 --clip_seconds 0.5".split()
    )
    assert (args.batch_size, args.n_epochs, args.warm_up_len, args.ramp_down_start, args.ramp_down_len) == (3, 5, 1, 2, 0)
    assert args.clip_seconds == 0.5


@pytest.mark.parametrize(
    ("seconds", "expected"), [([0.2] * 9, 1.0), ([2.5] * 19 + [60.0], 3.0), ([30.0] * 9, 10.0), ([4.0] * 9 + [1.0], 4.0)]
)
def test_clips_are_as_long_as_most_recordings(seconds: list[float], expected: float) -> None:
    assert default_options(50, seconds).clip_seconds == expected
