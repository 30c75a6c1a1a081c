"""What a device that is not there cannot show: results on a real one against those of the CPU. See also `test_device_counts`."""

from __future__ import annotations

import csv
import logging
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import ex_folder
from helpers.devices import pick_device
from helpers.tagger.torch_backend import TorchBackend
from helpers.training import loop
from models import checkpoints
from models.MobileNetV3 import get_model
from models.waveform import WaveformModel
from tests.finetuning import ALWAYS, TINY

NO_DROPOUT = ("--head_type", "fully_convolutional")  # which each device draws for itself
pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
    pytest.mark.usefixtures("in_temporary_folder"),
]


def train(folder: Path, name: str, *options: str) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Losses of the epochs, and the weights, of a short training."""
    fixed = [*TINY, "--n_epochs", 3, *NO_DROPOUT, *ALWAYS]
    argv = [str(folder), "--from_scratch", *map(str, fixed), "--experiment_name", name, *options]
    assert ex_folder.main(argv) == 0
    with open(f"runs/{name}/metrics.csv", newline="") as file:
        losses = [float(row["train_loss"]) for row in csv.DictReader(file)]
    return losses, checkpoints.load(f"runs/{name}/last.pt").state


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), ("bf16", 5e-2), ("fp16", 2e-2)])
def test_a_training_has_the_losses_of_the_cpu(precision: str, tolerance: float, folder_dir: Path) -> None:
    """All draws are those of the CPU."""
    expected, _ = train(folder_dir, "cpu", "--precision", "fp32")
    losses, _ = train(folder_dir, "gpu", "--cuda", "--precision", precision)
    np.testing.assert_allclose(losses, expected, rtol=tolerance)


def test_a_deterministic_training_repeats_its_bits(folder_dir: Path) -> None:
    (losses, weights), (again, others) = (train(folder_dir, name, "--cuda", "--deterministic") for name in ("one", "two"))
    assert losses == again
    for name, weight in weights.items():
        assert torch.equal(weight, others[name]), name


def test_a_compiled_training_has_the_losses_of_a_plain_one(folder_dir: Path) -> None:
    (plain, _), (compiled, _) = (train(folder_dir, name, "--cuda", *options) for name, *options in (("a",), ("b", "--compile")))
    np.testing.assert_allclose(compiled, plain, rtol=5e-2)


def test_a_step_waits_for_the_device_once(folder_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[int] = []
    step = loop._Stepper.__call__

    def counted(*args: object) -> object:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            result = step(*args)
            torch.cuda.set_sync_debug_mode("default")
        waits.append(sum("synchronizing" in str(warning.message) for warning in caught))
        return result

    monkeypatch.setattr(loop._Stepper, "__call__", counted)
    train(folder_dir, "counted", "--cuda", "--mixup_alpha", "0.3", "--mixstyle_p", "1")
    logging.getLogger(__name__).info("waits of each step: %s", waits)
    assert waits[-1] == 1  # the first steps make what is kept


@pytest.mark.parametrize("width", [0.4, 1.0])
def test_scores_are_those_of_the_cpu(width: float, tmp_path: Path) -> None:
    """In float32, also of recordings of different lengths that are computed in one batch."""
    torch.manual_seed(0)
    checkpoints.save(tmp_path / "model.pt", get_model(width_mult=width).eval())
    clips = [np.random.default_rng(i).uniform(-0.3, 0.3, 40000 + 7777 * i).astype(np.float32) for i in range(6)]
    results, expected = (TorchBackend(tmp_path / "model.pt", device)(clips) for device in ("cuda", "cpu"))
    for result, of_cpu in zip(results, expected, strict=True):
        for values, others in zip(result, of_cpu, strict=True):
            np.testing.assert_allclose(values, others, atol=1e-4, rtol=1e-3)


def test_the_front_end_is_that_of_the_cpu() -> None:
    device = pick_device(True)
    model = WaveformModel(get_model(width_mult=0.1)).train()
    waveform = 0.3 * torch.randn(4, 32000)
    spectrograms = []
    for place in (torch.device("cpu"), device):
        torch.manual_seed(0)  # of the moving edges of bands, drawn on the CPU
        with torch.autocast(device.type, torch.bfloat16):
            spectrograms.append(model.front_end(waveform.to(place)).cpu())
    assert spectrograms[1].dtype == torch.float32
    torch.testing.assert_close(*spectrograms, atol=1e-3, rtol=1e-3)
