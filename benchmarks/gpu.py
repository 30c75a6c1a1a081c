"""Speed of training, evaluation and tagging on a GPU, and what the time goes to.

    python -m benchmarks.gpu --figure gpu.png

Of networks with random weights: training clips a second with data in memory, by precision; evaluation clips a second; peak memory
of a training step; the share of a step's time in its parts; training from mp3s, as fast as the loader's workers decode; training
with `--compile`; tagging a folder of recordings of all lengths; the largest difference of a score from the CPU's in float32.
What the minutes do not suffice for is left out, and said so. Without CUDA it runs on the CPU, on few and short clips.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor, nn
from torch.utils.data import RandomSampler

from benchmarks.common import draw_bars, machine, print_table
from benchmarks.input_speed import AUGMENTATION, NUM_CLASSES, RATE, bundled_waveforms, write_clips
from datasets.augment import Augmented
from datasets.clip import Clip
from datasets.hdf5_mp3 import Mp3Dataset
from helpers import cli
from helpers.devices import copied_ahead, loader_workers, pick_device, synchronize, training_algorithms
from helpers.tagger.audio_tagger import AudioTagger
from helpers.training.builders import make_training_loader
from helpers.training.evaluation import PRECISIONS, autocast, default_precision, predict
from helpers.training.loop import _Stepper, to_device
from helpers.training.mixing import mixed_loss, mixup
from helpers.training.objectives import bce_per_clip
from helpers.training.sampling import TrainingBatches
from models import checkpoints
from models.interrupts import Interruption
from models.MobileNetV3 import get_model
from models.waveform import WaveformModel

GPU_DEFAULTS = {"models": ["mn04", "mn10", "mn40"], "batch_size": 120, "seconds": 10.0, "measured_seconds": 3.0, "recordings": 500}
CPU_DEFAULTS = {"models": ["mn04"], "batch_size": 4, "seconds": 2.0, "measured_seconds": 1.0, "recordings": 8}
MB = 1e6  # bytes


@dataclass(frozen=True)
class Setting:
    """Of a training."""

    width: float
    precision: str
    compiled: bool = False


class Bench:
    """Measures on one device, with clips of random noise."""

    def __init__(self, args: argparse.Namespace, device: torch.device) -> None:
        self.args, self.device = args, device
        torch.manual_seed(args.seed)
        waveform = 0.1 * torch.randn(args.batch_size, round(args.seconds * RATE))
        target = (torch.rand(args.batch_size, NUM_CLASSES) < 0.005).float()
        if device.type == "cuda":
            waveform, target = waveform.pin_memory(), target.pin_memory()
        names = [f"clip {i}" for i in range(args.batch_size)]
        self.batch = Clip(waveform, target, names, torch.arange(args.batch_size))

    def model(self, width: float) -> WaveformModel:
        torch.manual_seed(self.args.seed)
        return WaveformModel(get_model(NUM_CLASSES, width_mult=width)).to(self.device)

    def steps(self, setting: Setting) -> tuple[Callable[[Iterator[Clip]], None], WaveformModel, _Stepper]:
        """Return what trains one step on the next batch, its model, and the stepper of all trainings."""
        model = self.model(setting.width).train()
        model.network.to(memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=self.device.type == "cuda")

        def training_loss(network: nn.Module, clips: Clip) -> dict[str, Tensor]:
            spectrogram, mix = mixup(model.front_end(clips.waveform), 0.3)
            logits, _ = network(spectrogram.unsqueeze(1))
            return {"loss": mixed_loss(bce_per_clip, logits, mix, clips.target).mean()}

        stepper = _Stepper(model, training_loss, optimizer, None, setting.precision, setting.compiled)
        batches = TrainingBatches(RandomSampler(range(self.args.batch_size)), self.args.batch_size, seed=self.args.seed)
        return lambda clips: stepper(clips, batches, 0, Interruption()), model, stepper

    def training(self, setting: Setting, batches: Iterable[Clip] | None = None) -> tuple[float, float, float]:
        """Train on batches (None: one in memory, again and again).

        Returns clips a second, the share of the time that the data were waited for, and the peak memory in MB (0 on the CPU).
        """
        waited = 0.0

        def timed(clips: Iterator[Clip]) -> Iterator[Clip]:
            nonlocal waited
            for _ in repeat(None):
                start = time.perf_counter()
                batch = next(clips)
                waited += time.perf_counter() - start
                yield batch

        step, *_ = self.steps(setting)
        source = iter(batches) if batches is not None else repeat(self.batch)
        clips = copied_ahead(timed(source), lambda batch: to_device(batch, self.device), self.device)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        with training_algorithms(self.device, deterministic=False):
            for _ in range(3):
                step(clips)
            waited = 0.0
            seconds = self.seconds_of(lambda: step(clips), share=True)
        peak = torch.cuda.max_memory_allocated() / MB if self.device.type == "cuda" else 0.0
        return self.args.batch_size / seconds.of_one, waited / seconds.of_all, peak

    def parts(self, setting: Setting) -> dict[str, float]:
        """Seconds of a step that its front end, the network's passes and the optimizer take, each one measured alone."""
        _, model, stepper = self.steps(setting)
        waveform = self.batch.waveform.to(self.device)
        spectrogram = model.front_end(waveform).unsqueeze(1)

        def network_passes() -> None:
            with autocast(self.device, setting.precision):
                logits, _ = model.network(spectrogram)
                loss = logits.float().square().mean()
            loss.backward()

        with training_algorithms(self.device, deterministic=False):
            works = {"front end": lambda: model.front_end(waveform), "network": network_passes, "optimizer": stepper.optimizer.step}
            return {name: self.seconds_of(work).of_one for name, work in works.items()}

    def evaluation(self, setting: Setting) -> float:
        """Clips a second, with data in memory."""
        model = self.model(setting.width)

        def evaluate(count: int) -> float:
            start = time.perf_counter()
            predict(model, _InMemory(self.batch, count), setting.precision)
            return time.perf_counter() - start

        evaluate(1)
        count = max(2, round(self.args.measured_seconds / max(evaluate(2) / 2, 1e-3)))
        return count * self.args.batch_size / evaluate(count)

    def distance(self, width: float, precision: str) -> float:
        """The largest difference of a score from that of the CPU in float32, over a batch."""
        clips = _InMemory(self.batch, 1)
        here = predict(self.model(width), clips, precision).logits
        there = predict(self.model(width).cpu(), clips, "fp32").logits
        return float(np.abs(1 / (1 + np.exp(-here)) - 1 / (1 + np.exp(-there))).max())

    def loader(self, path: Path) -> Iterator[Clip]:
        """Batches of mp3s with all augmentation of waveforms, without end."""
        stored = Mp3Dataset(path, num_classes=NUM_CLASSES, clip_seconds=self.args.seconds, random_crop=True)
        clips = Augmented(stored, **AUGMENTATION)
        options = {"accumulate": 1, "num_workers": loader_workers(), "cuda": self.device.type == "cuda"}
        args = argparse.Namespace(**vars(self.args) | options)
        loader = make_training_loader(clips, RandomSampler(clips, replacement=True, num_samples=100 * args.batch_size), args)
        while True:
            yield from loader

    def tagging(self, width: float, folder: Path) -> tuple[float, float]:
        """Recordings and seconds of sound a second, of wavs of 1 to 30 s."""
        generator = np.random.default_rng(self.args.seed)
        seconds = generator.uniform(1, 30, self.args.recordings)
        [sound] = bundled_waveforms(30.0, 1, self.args.seed).values()
        paths = [folder / f"{number}.wav" for number in range(len(seconds))]
        for path, length in zip(paths, seconds, strict=True):
            soundfile.write(path, sound[: round(length * RATE)], RATE)
        model = self.model(width).cpu().network.eval()
        checkpoints.save(folder / "model.pt", model)
        tagger = AudioTagger(folder / "model.pt", self.device, batch_size=32)
        list(tagger.tag_files(paths[:2]))
        start = time.perf_counter()
        list(tagger.tag_files(paths))
        passed = time.perf_counter() - start
        return len(paths) / passed, seconds.sum() / passed

    def seconds_of(self, work: Callable[[], object], share: bool = False) -> _Time:
        """Time of one call, and of all that were made in `--measured_seconds`, after one to warm up."""
        work()
        synchronize(self.device)
        count, start = 0, time.perf_counter()
        while not count or time.perf_counter() - start < self.args.measured_seconds:
            work()
            count += 1
            if not share and count % 10 == 0:
                synchronize(self.device)  # so that no more is queued than is measured
        synchronize(self.device)
        passed = time.perf_counter() - start
        return _Time(passed / count, passed)


@dataclass(frozen=True)
class _Time:
    of_one: float  # seconds
    of_all: float


class _InMemory:
    """A loader of one batch, several times."""

    def __init__(self, batch: Clip, count: int) -> None:
        self.batches, size = [], len(batch.name)
        for number in range(count):
            self.batches.append(batch._replace(index=torch.arange(number * size, (number + 1) * size)))
        self.dataset = range(count * size)

    def __iter__(self) -> Iterator[Clip]:
        return iter(self.batches)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("--models", nargs="+", type=_width, metavar="mnXX", help="networks (mn04 mn10 mn40; CPU: mn04)")
    parser.add_argument("--batch_size", type=cli.positive_int, help="clips in a batch (120; CPU: 4)")
    parser.add_argument("--seconds", type=cli.positive_float, help="length of a clip (10; CPU: 2)")
    parser.add_argument("--measured_seconds", type=cli.positive_float, help="time of one measurement (3; CPU: 1)")
    parser.add_argument("--recordings", type=cli.positive_int, help="recordings in the folder that is tagged (500; CPU: 8)")
    parser.add_argument("--minutes", type=cli.positive_float, default=5.5, help="after which no further measurement begins")
    parser.add_argument("--seed", type=cli.seed, default=0, help="seed of weights and clips")
    parser.add_argument("--figure", type=cli.figure_path, help="also draw the clips a second into this file")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    deadline = time.monotonic() + 60 * args.minutes
    is_cuda = torch.cuda.is_available()
    device = pick_device(is_cuda)
    for name, value in (GPU_DEFAULTS if is_cuda else CPU_DEFAULTS).items():
        if getattr(args, name) is None:
            setattr(args, name, [_width(one) for one in value] if name == "models" else value)
    print(machine("torch"), torch.cuda.get_device_name() if is_cuda else "no GPU: on the CPU", sep=", ")
    print(f"seed {args.seed}, batches of {args.batch_size} clips of {args.seconds:g} s")
    bench = Bench(args, device)
    chosen = default_precision(device)
    precisions = [chosen, *(name for name in PRECISIONS if name != chosen)] if is_cuda else ["fp32", "bf16"]
    bars: dict[str, dict[str, list[float]]] = {"training clips a second": {}, "evaluation clips a second": {}}

    def in_time(what: str) -> bool:
        if time.monotonic() > deadline:
            print(f"left out, as {args.minutes:g} minutes are over: {what}")
        return time.monotonic() <= deadline

    def train(setting: Setting, how: str, batches: Iterable[Clip] | None = None) -> None:
        label = f"{_name(setting.width)}, {setting.precision}{', ' * bool(how)}{how}"
        if in_time(f"training of {label}"):
            speed, waiting, peak = bench.training(setting, batches)
            bars["training clips a second"][label] = [speed]
            row = (label, f"{speed:.1f}", f"{waiting:.0%}", f"{peak:.0f}")
            print_table("training", ("", "clips/s", "waiting for data", "peak MB"), [row])

    with tempfile.TemporaryDirectory() as folder:
        for precision in precisions:
            for width in args.models:
                setting = Setting(width, precision)
                train(setting, "")
                if in_time(f"evaluation of {_name(width)}, {precision}"):
                    speed, distance = bench.evaluation(setting), bench.distance(width, precision)
                    bars["evaluation clips a second"][f"{_name(width)}, {precision}"] = [speed]
                    header = ("", "clips/s", "largest difference of a score from the CPU's")
                    print_table("evaluation", header, [(f"{_name(width)}, {precision}", f"{speed:.1f}", f"{distance:.2g}")])
                if precision == chosen and in_time(f"parts of {_name(width)}"):
                    parts = bench.parts(setting)
                    total = sum(parts.values())
                    rows = [(name, f"{1e3 * seconds:.2f}", f"{seconds / total:.0%}") for name, seconds in parts.items()]
                    print_table(f"parts of a step of {_name(width)}", ("", "ms", "share"), rows)
            if precision == chosen:
                path = Path(folder) / "clips_mp3.hdf"
                write_clips(path, max(64, args.batch_size), args.seconds, args.seed)
                middle = Setting(args.models[len(args.models) // 2], chosen)
                train(middle, f"{loader_workers()} workers decode mp3s", bench.loader(path))
                if in_time("tagging"):
                    speed, sound = bench.tagging(middle.width, Path(folder))
                    print(f"\ntagging a folder with {_name(middle.width)}: {speed:.1f} recordings, {sound:.0f} s of sound a second")
        if is_cuda:  # on a CPU the compiler alone takes minutes
            train(replace(middle, compiled=True), "compiled")
    if args.figure:
        draw_bars({name: values for name, values in bars.items() if values}, f"batches of {args.batch_size} clips", args.figure)
    return 0


def _width(name: str) -> float:
    if not (name.startswith("mn") and name[2:].isdecimal() and int(name[2:])):
        raise argparse.ArgumentTypeError(f"{name!r} is no network such as mn10")
    return int(name[2:]) / 10


def _name(width: float) -> str:
    return f"mn{round(10 * width):02}"


if __name__ == "__main__":
    cli.run(main)
