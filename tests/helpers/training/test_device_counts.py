"""What a step gives a GPU to do, and how often it waits for it, on a device that is not there; see `tests.pretended_cuda`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import RandomSampler

from datasets import views
from datasets.clip import Clip
from helpers.distillation.online_teacher import OnlineTeacher
from helpers.distillation.writer import LogitsWriter, write_logits
from helpers.tagger.torch_backend import TorchBackend
from helpers.training.evaluation import default_precision, predict
from helpers.training.loop import _Stepper
from helpers.training.mixing import freq_mixstyle, mixed_loss, mixup
from helpers.training.objectives import bce_per_clip
from helpers.training.optimization import MovingAverage
from helpers.training.sampling import TrainingBatches
from models import checkpoints
from models.config import Arch, MelConfig
from models.ensemble import get_ensemble_model
from models.interrupts import Interruption
from models.network import MobileNetV3
from models.preprocess import AugmentMelSTFT
from models.waveform import WaveformModel
from tests.pretended_cuda import Counts, PretendedCuda

CUDA = torch.device("cuda")
CLIPS, SAMPLES, CLASSES = 2, 6400, 527  # 20 frames each


def tiny() -> MobileNetV3:
    """A network with as many layers as mn10: the number of operations does not depend on their size."""
    return MobileNetV3(Arch(width_mult=0.1, input_dim_f=32), MelConfig(n_mels=32))


class Batches(list):
    """A loader's batches, from pinned memory."""

    def __init__(self, count: int) -> None:
        names = [f"clip {i}" for i in range(CLIPS)]
        for number in range(count):
            index = torch.arange(CLIPS * number, CLIPS * (number + 1))
            self.append(Clip(torch.rand(CLIPS, SAMPLES).pin_memory(), torch.zeros(CLIPS, CLASSES).pin_memory(), names, index))
        self.dataset = range(CLIPS * count)


def network_passes(network: nn.Module, cuda: PretendedCuda) -> int:
    """Operations of a forward and a backward pass of the network alone."""
    network.zero_grad(set_to_none=True)
    with cuda.counting() as counts:
        network(torch.rand(CLIPS, 1, 32, 20, device=CUDA))[0].sum().backward()
    return counts.operations.total()


def training_step(cuda: PretendedCuda, precision: str, average: bool = False, teacher: Path | None = None) -> tuple[Counts, int]:
    """What a step with all augmentation there is does, and how many of its operations are not the network's own."""
    network = tiny()
    model = WaveformModel(network, AugmentMelSTFT.from_config(network.mel, freqm=8, timem=8)).train()
    with cuda.counting():
        model.to(CUDA)
        network.to(memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(network.parameters(), fused=True)
        online = OnlineTeacher([teacher, teacher], model) if teacher else None

        def training_loss(network: nn.Module, clips: Clip) -> dict[str, Tensor]:
            spectrogram, style = freq_mixstyle(model.front_end(clips.waveform), 1.0, 0.4)
            spectrogram, mix = mixup(spectrogram, 0.3)
            if online:
                return online.training_losses(network, spectrogram, clips.waveform, mix, lambda logits: logits.mean(), style=style)
            logits, _ = network(spectrogram.unsqueeze(1))
            return {"loss": mixed_loss(bce_per_clip, logits, mix, clips.target).mean()}

        take_step = _Stepper(model, training_loss, optimizer, MovingAverage(network, 0.99) if average else None, precision, False)
        batches = TrainingBatches(RandomSampler(range(CLIPS)), CLIPS, seed=0)
        [clip] = Batches(1)
        for step in range(2):  # the first one makes what is kept
            take_step(on_device(clip), batches, step, Interruption())
    with cuda.counting() as counts:
        losses, finite, _ = take_step(on_device(clip), batches, 2, Interruption())
    assert finite
    return counts, counts.operations.total() - network_passes(network, cuda)


def test_views_wait_once(pretended_cuda: PretendedCuda) -> None:
    """For the ends of recordings."""
    torch.manual_seed(0)
    with pretended_cuda.counting():
        recordings = torch.rand(6, 9000, device=CUDA)
    with pretended_cuda.counting() as counts:
        views.random_views(recordings, 32000, (0.2, 0.25))
    views._octave_positions.cache_clear()  # nothing of this device is left
    assert (counts.waits.total(), counts.pageable_copies) == (1, 0)
    assert counts.pinned_copies > 0  # filters are among the draws


def on_device(clip: Clip) -> Iterator[Clip]:
    return repeat(clip._replace(waveform=clip.waveform.to(CUDA, non_blocking=True), target=clip.target.to(CUDA, non_blocking=True)))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_training_step_waits_once_and_copies_nothing_pageable(precision: str, pretended_cuda: PretendedCuda) -> None:
    counts, beyond = training_step(pretended_cuda, precision)
    assert beyond <= 200
    assert counts.waits.total() == 1
    assert counts.pageable_copies == 0


def test_the_average_of_weights_adds_a_few_operations(pretended_cuda: PretendedCuda) -> None:
    counts, _ = training_step(pretended_cuda, "bf16", average=True)
    plain, _ = training_step(pretended_cuda, "bf16")
    assert counts.operations.total() - plain.operations.total() <= 8
    assert (counts.waits.total(), counts.pageable_copies) == (1, 0)


def test_an_evaluation_waits_once_for_all_batches(pretended_cuda: PretendedCuda) -> None:
    model = WaveformModel(tiny())
    with pretended_cuda.counting():
        model.to(CUDA)
        predict(model, Batches(1), "bf16")
        weight = model.network.features[0][0].weight
        assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_inference()
    totals = []
    for number in (1, 3):
        with pretended_cuda.counting() as counts:
            assert len(predict(model, Batches(number), "bf16").logits) == number * CLIPS
        assert (counts.waits.total(), counts.pageable_copies) == (1, 0)
        totals.append(counts.operations.total())
    assert (totals[1] - totals[0]) / 2 <= 200


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    """Two small models with one front end."""
    paths = [tmp_path / "one.pt", tmp_path / "two.pt"]
    for path in paths:
        checkpoints.save(path, tiny().eval())
    return paths


def test_a_teacher_batch_waits_once_and_shares_the_front_end(
    models: list[Path], tmp_path: Path, pretended_cuda: PretendedCuda
) -> None:
    """Of two teachers with one front end, the second one adds its network alone."""
    totals = {}
    for names in (models[:1], models):
        for number in (1, 2):
            clips, model = Clips(number * CLIPS), get_ensemble_model(names)
            with pretended_cuda.counting() as counts:
                model.to(CUDA)
                model(torch.rand(1, SAMPLES, device=CUDA))  # makes what is kept
                counts.__init__()
                writer = LogitsWriter(tmp_path / f"{len(names)}{number}.npy", CLASSES, {})
                write_logits(model, clips, writer, argparse.Namespace(batch_size=CLIPS, clip_seconds=0.2, num_workers=0), "bf16")
            assert (counts.waits.total(), counts.pageable_copies) == (number, 0)
            assert counts.pinned_copies == number
            assert model.members[0].network.features[0][0].weight.is_contiguous(memory_format=torch.channels_last)
            totals[len(names), number] = counts.operations
    batches = {count: totals[count, 2] - totals[count, 1] for count in (1, 2)}
    assert batches[1]["stft"] == batches[2]["stft"] == 1
    assert batches[2].total() <= 600


class Clips:
    """A data set of clips of full length."""

    def __init__(self, count: int) -> None:
        self.names = [f"clip {i}" for i in range(count)]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Clip:
        return Clip(torch.rand(SAMPLES), torch.zeros(CLASSES), self.names[index], index)


def test_an_online_teacher_does_not_wait(models: list[Path], pretended_cuda: PretendedCuda) -> None:
    counts, _ = training_step(pretended_cuda, "bf16", teacher=models[0])
    assert (counts.waits.total(), counts.pageable_copies) == (1, 0)
    assert counts.operations["_fft_r2c"] == 2  # of the student and of both teachers


def test_a_tagging_batch_waits_once(models: list[Path], pretended_cuda: PretendedCuda) -> None:
    clips = [np.random.default_rng(i).random(SAMPLES, np.float32) for i in range(CLIPS)]
    with pretended_cuda.counting() as counts:
        backend = TorchBackend(models[0], "cuda")
        backend(clips)
        counts.__init__()
        results = backend(clips)
    assert len(results) == CLIPS
    assert (counts.waits.total(), counts.pageable_copies) == (1, 0)
    assert counts.operations.total() <= 300


def test_recordings_of_all_lengths_are_tagged_in_one_batch(models: list[Path], pretended_cuda: PretendedCuda) -> None:
    clips = [np.random.default_rng(i).random(6400 + 517 * i, np.float32) for i in range(5)]
    expected = TorchBackend(models[0], "cpu")(clips)
    with pretended_cuda.counting() as counts:
        backend = TorchBackend(models[0], "cuda")
        backend(clips[:1])
        counts.__init__()
        results = backend(clips)
    assert (counts.waits.total(), counts.pageable_copies) == (1, 0)
    assert counts.operations["conv2d"] == 43  # as of one clip
    for result, of_one in zip(results, expected, strict=True):
        for values, alone in zip(result, of_one, strict=True):
            np.testing.assert_allclose(values, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("has_bf16", "precision"), [(True, "bf16"), (False, "fp16")])
def test_gpus_compute_in_bfloat16_where_they_have_it(
    has_bf16: bool, precision: str, pretended_cuda: PretendedCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: has_bf16 or including_emulation)
    assert default_precision(CUDA) == precision and default_precision(torch.device("cpu")) == "fp32"
