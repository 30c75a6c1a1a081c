from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from datasets.clip import Clip
from helpers.losses import bce_per_clip
from helpers.run import Run
from helpers.training import fit, predict
from models import checkpoints
from models.config import Arch, MelConfig
from models.MobileNetV3 import MobileNetV3
from models.waveform import WaveformModel


def clips(count: int = 8, samples: int = 3200) -> list[Clip]:
    generator = torch.Generator().manual_seed(0)
    return [
        Clip(torch.randn(samples, generator=generator), torch.tensor([i % 2, 1.0 - i % 2]), f"clip{i}", i) for i in range(count)
    ]


@pytest.fixture
def model() -> WaveformModel:
    torch.manual_seed(0)
    return WaveformModel(MobileNetV3(Arch(num_classes=2, width_mult=0.1, input_dim_f=40), MelConfig(n_mels=40)))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    import argparse

    monkeypatch.chdir(tmp_path)
    return Run("test", argparse.Namespace(seed=0))


def train(model: WaveformModel, run: Run, scores: list[float], loss_scale: float = 1.0) -> dict[str, float]:
    remaining = iter(scores)

    def training_loss(batch: Clip) -> dict[str, torch.Tensor]:
        assert model.training
        return {"loss": loss_scale * bce_per_clip(model(batch.waveform)[0], batch.target).mean()}

    return fit(
        model,
        DataLoader(clips(), batch_size=4),
        training_loss,
        lambda: {"score": next(remaining)},
        optimizer=torch.optim.Adam(model.parameters(), lr=1e-3),
        schedule=lambda epoch: 1.0 / (epoch + 1),
        n_epochs=len(scores),
        run=run,
        selection="score",
    )


def test_fit_moves_weights_and_keeps_last_and_best(model: WaveformModel, run: Run) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    metrics = train(model, run, scores=[0.1, 0.9, 0.5])
    assert metrics["score"] == 0.5 and metrics["learning_rate"] == pytest.approx(1e-3 / 3)
    assert any(not torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    last, best = (checkpoints.load(run.folder / f"{name}.pt") for name in ("last", "best"))
    assert (last.epoch, last.metrics["score"], best.epoch, best.metrics["score"]) == (2, 0.5, 1, 0.9)
    for name, tensor in model.network.state_dict().items():
        torch.testing.assert_close(last.state[name], tensor)
    rows = (run.folder / "metrics.csv").read_text().splitlines()
    assert len(rows) == 4 and rows[0].startswith("epoch,train_loss,learning_rate,score")


def test_a_loss_that_is_not_finite_ends_the_training(model: WaveformModel, run: Run) -> None:
    with pytest.raises(ValueError):
        train(model, run, scores=[0.1], loss_scale=float("nan"))
    assert not (run.folder / "last.pt").exists()


def test_no_batch_is_an_error(model: WaveformModel, run: Run) -> None:
    with pytest.raises(ValueError):
        fit(
            model, DataLoader(clips(2), batch_size=4, drop_last=True), lambda batch: {}, dict,
            optimizer=torch.optim.Adam(model.parameters()), schedule=lambda epoch: 1.0, n_epochs=1, run=run, selection="score",
        )  # fmt: skip


def test_predict_keeps_order_and_mode_and_does_not_depend_on_the_batch_size(model: WaveformModel) -> None:
    model.train()
    whole, single = (predict(model, DataLoader(clips(), batch_size=size)) for size in (8, 1))
    assert model.training
    assert whole.names == [f"clip{i}" for i in range(8)]
    assert whole.logits.shape == whole.targets.shape == (8, 2)
    np.testing.assert_allclose(whole.logits, single.logits, atol=1e-5)


def test_runs_do_not_overwrite_each_other(run: Run) -> None:
    import argparse

    assert Run("test", argparse.Namespace()).folder != run.folder
    with pytest.raises(ValueError):
        Run("../elsewhere", argparse.Namespace())
