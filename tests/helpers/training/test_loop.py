from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, RandomSampler

from datasets.clip import Clip
from helpers.training import loop as training
from helpers.training.builders import make_loader, make_training_loader
from helpers.training.evaluation import PRECISIONS, predict
from helpers.training.loop import fit
from helpers.training.objectives import bce_per_clip
from helpers.training.optimization import MovingAverage
from helpers.training.run import Run
from models import checkpoints
from models.config import Arch, MelConfig
from models.MobileNetV3 import MobileNetV3
from models.waveform import WaveformModel

pytestmark = pytest.mark.usefixtures("in_temporary_folder")
OPTIONS = {
    "experiment_name": "test", "resume": None, "wandb": "disabled", "seed": 0, "accumulate": 1, "batch_size": 4, "num_workers": 0,
    "cuda": False,
}  # fmt: skip


def clips(count: int = 8, samples: int = 6400) -> list[Clip]:
    """Noise of 20 frames: maps of 16 or fewer shrink to one, where oneDNN 3.12 reads what nothing wrote (bf16, depthwise)."""
    generator = torch.Generator().manual_seed(0)
    return [
        Clip(torch.randn(samples, generator=generator), torch.tensor([i % 2, 1.0 - i % 2]), f"clip{i}", i) for i in range(count)
    ]


def new_model() -> WaveformModel:
    torch.manual_seed(0)
    return WaveformModel(MobileNetV3(Arch(num_classes=2, width_mult=0.1, input_dim_f=40), MelConfig(n_mels=40)))


def plain_loss(network: nn.Module, model: WaveformModel, batch: Clip) -> torch.Tensor:
    return bce_per_clip(network(model.front_end(batch.waveform).unsqueeze(1))[0], batch.target).mean()


def train(
    scores: Sequence[float],
    *,
    model: WaveformModel | None = None,
    loss: Callable[[nn.Module, WaveformModel, Clip], torch.Tensor] = plain_loss,
    options: dict | None = None,
    done: int = 0,
    number: int = 8,
    **fit_options,
) -> tuple[WaveformModel, dict[str, float], Path]:
    """Train two steps an epoch, with the given score after each epoch; `done` epochs were evaluated in an earlier run."""
    args = argparse.Namespace(**OPTIONS | (options or {}))
    model = model or new_model()
    remaining = iter(scores[done:])
    with Run(args) as run:
        metrics = fit(
            model,
            make_training_loader(clips(number), RandomSampler(range(number)), args),
            lambda network, batch: {"loss": loss(network, model, batch)},
            lambda: {"score": next(remaining)},
            optimizer=torch.optim.Adam(model.parameters(), lr=1e-3),
            schedule=lambda epoch: 1.0 / (epoch + 1),
            n_epochs=len(scores),
            run=run,
            selection="score",
            **fit_options,
        )
    return model, metrics, run.folder


def weights(model: WaveformModel) -> torch.Tensor:
    return torch.cat([tensor.flatten().double() for tensor in model.network.state_dict().values()])


def test_fit_moves_weights_and_keeps_last_and_best() -> None:
    before = weights(new_model())
    model, metrics, folder = train([0.1, 0.9, 0.5])
    assert metrics["score"] == 0.5 and metrics["learning_rate"] == pytest.approx(1e-3 / 3)
    assert not torch.equal(before, weights(model))
    last, best = (checkpoints.load(folder / f"{name}.pt") for name in ("last", "best"))
    assert (last.epoch, last.metrics["score"], best.epoch, best.metrics["score"]) == (2, 0.5, 1, 0.9)
    for name, tensor in model.network.state_dict().items():
        torch.testing.assert_close(last.state[name], tensor)
    rows = (folder / "metrics.csv").read_text().splitlines()
    assert len(rows) == 4 and rows[0].startswith("epoch,train_loss,learning_rate,skipped_steps,score")


def test_the_same_seed_gives_the_same_weights_and_another_one_others() -> None:
    first, again, other = (weights(train([0.0] * 2, options={"seed": seed})[0]) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_micro_batches_have_the_gradient_of_the_whole_batch() -> None:
    """With batch norms in evaluation mode, whose statistics would differ, micro-batches make no difference but rounding."""

    def frozen(network: nn.Module, model: WaveformModel, batch: Clip) -> torch.Tensor:
        network.eval()
        return plain_loss(network, model.eval(), batch)

    whole, cut = (weights(train([0.0] * 2, loss=frozen, options={"accumulate": n})[0]) for n in (1, 4))
    torch.testing.assert_close(whole, cut, atol=1e-6, rtol=1e-4)
    assert not torch.equal(cut, weights(new_model()))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_trains_the_network_and_leaves_the_front_end_alone(precision: str) -> None:
    seen = []

    def loss(network: nn.Module, model: WaveformModel, batch: Clip) -> torch.Tensor:
        spectrogram = model.front_end(batch.waveform)
        hidden = network.features[0](spectrogram.unsqueeze(1))
        seen.append((spectrogram.dtype, hidden.dtype))
        return plain_loss(network, model, batch)

    model, metrics, _ = train([0.0] * 2, loss=loss, precision=precision)
    assert set(seen) == {(torch.float32, PRECISIONS[precision])}
    assert {tensor.dtype for tensor in model.network.parameters()} == {torch.float32}
    assert metrics["train_loss"] == pytest.approx(train([0.0] * 2)[1]["train_loss"], rel=0.02)


def test_a_loss_that_is_not_finite_skips_its_step_without_a_trace() -> None:
    """A NaN in the second step of an epoch of two: weights and statistics are those of the first step alone."""
    steps = []

    def loss(network: nn.Module, model: WaveformModel, batch: Clip) -> torch.Tensor:
        steps.append(batch)
        poisoned = batch._replace(waveform=batch.waveform * (float("nan") if len(steps) == 2 else 1.0))
        return plain_loss(network, model, poisoned)

    model, metrics, _ = train([0.0], loss=loss)
    assert metrics["skipped_steps"] == 1 and np.isfinite(metrics["train_loss"])
    assert torch.isfinite(weights(model)).all()
    assert all(norm.num_batches_tracked == 1 for norm in model.network.modules() if isinstance(norm, nn.BatchNorm2d))
    assert not torch.equal(weights(model), weights(new_model()))


class BadGradient(torch.autograd.Function):
    """A finite loss whose gradient is not."""

    @staticmethod
    def forward(context, loss):
        return loss.clone()

    @staticmethod
    def backward(context, gradient):
        return gradient * float("nan")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_gradients_that_are_not_finite_skip_their_step(precision: str) -> None:
    steps = []

    def loss(network: nn.Module, model: WaveformModel, batch: Clip) -> torch.Tensor:
        steps.append(batch)
        value = plain_loss(network, model, batch)
        return BadGradient.apply(value) if len(steps) == 2 else value

    model, metrics, _ = train([0.0] * 2, loss=loss, precision=precision)
    assert metrics["skipped_steps"] == 0 and torch.isfinite(weights(model)).all()
    assert model.network.features[0][1].num_batches_tracked == 3
    with open("runs/test/metrics.csv", newline="") as file:
        assert [row["skipped_steps"] for row in csv.DictReader(file)] == ["1", "0"]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_gradients_that_are_never_finite_end_the_training(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "MAX_SKIPPED_STEPS", 5)
    with pytest.raises(ValueError):
        train([0.0] * 9, loss=lambda *arguments: BadGradient.apply(plain_loss(*arguments)), precision=precision)


def test_losses_that_are_never_finite_end_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "MAX_SKIPPED_STEPS", 5)
    before = new_model()
    with pytest.raises(ValueError, match="max_lr"):
        train([0.0] * 9, model=(model := new_model()), loss=lambda *arguments: plain_loss(*arguments) * float("inf"))
    assert torch.equal(weights(before), weights(model))
    assert checkpoints.load("runs/test/last.pt").epoch == 1  # two epochs of two skipped steps had been completed


def test_an_epoch_whose_score_is_nan_is_never_the_best() -> None:
    _, _, folder = train([float("nan"), 0.2, float("nan")])
    assert checkpoints.load(folder / "best.pt").epoch == 1


def test_where_no_epoch_has_a_score_the_first_is_the_best() -> None:
    _, _, folder = train([float("nan"), float("nan")])
    assert checkpoints.load(folder / "best.pt").epoch == 0


def averaging(decay: float = 0.9) -> dict:
    model = new_model()
    return {"model": model, "average": MovingAverage(model.network, decay)}


@pytest.mark.parametrize("decay", [0.2, 0.9])
def test_the_average_of_the_weights_is_kept_and_weights_move_as_without_it(decay: float) -> None:
    """Against the definition: after step t the average keeps min(decay, (1 + t) / (10 + t)) of itself, statistics included."""
    seen = []

    def loss(network: nn.Module, model: WaveformModel, batch: Clip) -> torch.Tensor:
        seen.append(weights(model))  # as they are before the step
        return plain_loss(network, model, batch)

    model, _, folder = train([0.1, 0.2, 0.3], loss=loss, **averaging(decay))
    after_steps = [*seen[1:], weights(model)]
    expected = after_steps[0]
    for t, current in enumerate(after_steps[1:], 1):
        kept = min(decay, (1 + t) / (10 + t))
        expected = kept * expected + (1 - kept) * current
    stored = torch.cat([tensor.flatten().double() for tensor in checkpoints.load(folder / "last.pt").state.values()])
    floats = torch.cat([torch.full((t.numel(),), t.is_floating_point()) for t in model.network.state_dict().values()])
    torch.testing.assert_close(stored[floats], expected[floats], atol=1e-6, rtol=1e-5)
    assert not torch.allclose(stored[floats], weights(model)[floats], atol=1e-5)
    assert torch.equal(weights(model), weights(train([0.1, 0.2, 0.3])[0]))
    best = checkpoints.load(folder / "best.pt").state
    assert all(torch.equal(tensor, best[name]) for name, tensor in checkpoints.load(folder / "last.pt").state.items())


def test_a_step_that_is_skipped_does_not_reach_the_average() -> None:
    steps = []

    def loss(network: nn.Module, model: WaveformModel, batch: Clip) -> torch.Tensor:
        steps.append(batch)
        return plain_loss(network, model, batch) * (float("nan") if len(steps) > 1 else 1.0)

    options = averaging()
    train([0.0, 0.0], loss=loss, **options)
    assert options["average"].n_averaged == 1 and len(steps) == 4
    assert torch.isfinite(weights(WaveformModel(options["average"].module))).all()


def epochs(folder: Path) -> list[int]:
    with open(folder / "metrics.csv", newline="") as file:
        return [int(row["epoch"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    ("scores", "patience", "expected"),
    [
        ([0.1, 0.3, 0.2, 0.3, 0.9], 2, 4),  # as good as the best is not better
        ([float("nan"), float("nan"), 0.5], 2, 2),
        ([0.3, 0.2], None, 2),
    ],
)
def test_a_training_ends_when_its_score_does_not_improve(scores: list[float], patience: int | None, expected: int) -> None:
    _, metrics, folder = train(scores, patience=patience)
    assert epochs(folder) == list(range(expected))
    assert metrics["score"] == pytest.approx(scores[expected - 1], nan_ok=True)


def test_patience_is_counted_on_in_a_resumed_run() -> None:
    scores = [0.5, 0.4, 0.3, 0.6]
    _, _, folder = train(scores[:2], patience=2)
    for patience, expected in ((2, 3), (2, 3), (3, 4)):  # ends, is complete, continues with more patience
        done = len(epochs(folder))
        train(scores, done=done, options={"resume": folder, "patience": patience}, patience=patience)
        assert epochs(folder) == list(range(expected))
    assert checkpoints.load(folder / "best.pt").epoch == 3


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[WaveformModel, Path]]:
    """Train three epochs, once, with an average or without; return the model and the run's folder."""

    @cache
    def run(options: Callable[[], dict]) -> tuple[WaveformModel, Path]:
        place = tmp_path_factory.mktemp("whole")
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(place)
            model, _, folder = train([0.1, 0.3, 0.2], **options())
        return model, place / folder

    return run


@pytest.mark.parametrize(("steps_done", "options"), [(1, dict), (2, dict), (5, averaging)])
def test_an_interrupted_run_resumes_to_the_same_weights(
    steps_done: int, options: Callable[[], dict], uninterrupted: Callable[..., tuple[WaveformModel, Path]]
) -> None:
    """Killed in the middle of an epoch, at its end, and before an epoch's end saved anything; with an average and without."""
    whole, whole_folder = uninterrupted(options)
    done = 0

    def loss(network: nn.Module, model: WaveformModel, batch: Clip) -> torch.Tensor:
        nonlocal done
        if done == steps_done:
            raise Killed
        done += 1
        return plain_loss(network, model, batch)

    with pytest.raises(Killed):
        train([0.1, 0.3, 0.2], loss=loss, save_minutes=0.0, options={"experiment_name": "killed"}, **options())
    folder = Path("runs/killed")
    (folder / ".last.pt.0123abcd.part").write_bytes(b"half a checkpoint")
    with open(folder / "metrics.csv", "a") as file:
        file.write("99,0.5,0.")  # a row that was being written
    torch.manual_seed(12345)
    resumed, _, _ = train([0.1, 0.3, 0.2], done=steps_done // 2, options={"resume": folder}, **options())
    assert torch.equal(weights(whole), weights(resumed))
    kept, kept_by_resumed = (checkpoints.load(path / "last.pt").state for path in (whole_folder, folder))
    assert all(torch.equal(tensor, kept_by_resumed[name]) for name, tensor in kept.items())
    names = ["train_loss", "score"]
    for path in (whole_folder, folder):
        assert not list(path.glob(".*"))
    assert _columns(folder, names) == _columns(whole_folder, names)
    assert checkpoints.load(folder / "best.pt").epoch == 1


def _columns(folder: Path, names: list[str]) -> list[list[str]]:
    with open(folder / "metrics.csv", newline="") as file:
        return [[row[name] for name in ["epoch", *names]] for row in csv.DictReader(file)]


def test_a_resumed_run_needs_the_same_clips() -> None:
    _, _, folder = train([0.1])
    with pytest.raises(ValueError, match="dataset_dir"):
        train([0.1, 0.2], done=1, options={"resume": folder}, number=12)


def test_a_state_that_no_such_training_wrote_is_one_error() -> None:
    """Its last.pt may come from anybody: nothing of it reaches the training that does not fit."""
    _, _, folder = train([0.1])
    content = torch.load(folder / "last.pt", weights_only=True)

    def of_optimizer(**values: object) -> dict:
        moments = content["training"]["optimizer"]["state"]
        return {"optimizer": {"state": moments | {0: moments[0] | values}}}

    shape = content["training"]["optimizer"]["state"][0]["exp_avg"].shape
    for change in (
        {"progress": {"epoch": 1, "step": 99}},
        {"progress": {"epoch": 1, "sums": {"loss": "x"}}},
        {"optimizer": {"state": {9999: content["training"]["optimizer"]["state"][0]}}},
        of_optimizer(exp_avg=torch.full(shape, torch.nan)),
        of_optimizer(exp_avg=torch.zeros(1).expand(shape)),
        of_optimizer(other=torch.zeros(())),
    ):
        torch.save(content | {"training": content["training"] | change}, folder / "last.pt")
        with pytest.raises(checkpoints.CheckpointError, match="last.pt is not of this training"):
            train([0.1, 0.2], options={"resume": folder})
    torch.save(content | {"training": content["training"] | {"optimizer": of_optimizer()["optimizer"]}}, folder / "last.pt")
    train([0.1, 0.2], options={"resume": folder}, done=1)


def test_a_run_can_resume_in_another_precision_and_for_longer() -> None:
    _, _, folder = train([0.1])
    _, metrics, _ = train([0.1, 0.2], done=1, options={"resume": folder, "n_epochs": 2}, precision="fp16")
    assert metrics["score"] == 0.2
    assert json.loads((folder / "config.json").read_text())["args"]["n_epochs"] == 2


def test_predict_keeps_order_and_mode_and_does_not_depend_on_the_batch_size() -> None:
    model = new_model().train()
    whole, single = (predict(model, make_loader(clips(), argparse.Namespace(**OPTIONS | {"batch_size": n}))) for n in (8, 1))
    assert model.training
    assert whole.names == [f"clip{i}" for i in range(8)]
    assert whole.logits.shape == whole.targets.shape == (8, 2)
    np.testing.assert_allclose(whole.logits, single.logits, atol=1e-5)


def test_predictions_that_lack_a_clip_are_refused() -> None:
    with pytest.raises(RuntimeError):
        predict(new_model(), DataLoader(clips(), batch_size=4, sampler=range(7)))


def test_runs_do_not_overwrite_each_other() -> None:
    folders = []
    for _ in range(2):
        with Run(argparse.Namespace(**OPTIONS)) as run:
            run.open()
            folders.append(run.folder)
    assert folders[0] != folders[1]
    with pytest.raises(ValueError):
        Run(argparse.Namespace(**OPTIONS | {"experiment_name": "../elsewhere"}))


@pytest.mark.slow
def test_a_compiled_network_trains_the_same_weights() -> None:
    plain, compiled = (weights(train([0.0] * 2, compile_network=choice)[0]) for choice in (False, True))
    torch.testing.assert_close(plain, compiled, atol=1e-3, rtol=1e-2)
    assert not torch.equal(compiled, weights(new_model()))


@pytest.mark.slow
def test_a_network_is_compiled_once_for_batches_and_clips_of_all_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clips are as long as their batch's number says; nothing but the compiler's count is looked at, so that it is quick."""
    from torch._dynamo.testing import CompileCounter

    counter = CompileCounter()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counter))
    lengths = iter([100, 131, 164, 200])

    def loss(network: nn.Module, model: WaveformModel, batch: Clip) -> torch.Tensor:
        spectrogram = model.front_end(batch.waveform).unsqueeze(1)
        frames = next(lengths)
        spectrogram = spectrogram.repeat(1 + frames % 2, 1, 1, 10)[..., :frames]
        return network(spectrogram)[0].square().mean()

    train([0.0] * 2, loss=loss, compile_network=True)
    assert next(lengths, None) is None
    assert counter.frame_count == 1
