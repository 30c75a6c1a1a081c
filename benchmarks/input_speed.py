"""Speed of the input pipeline from the HDF5 file to the network, and of the metrics.

    python -m benchmarks.input_speed

Makes mp3s from the bundled recordings and prints four tables: the stages of one clip, decoding next to PyAV, loaders next to
training steps of mn10 on the same cores, and the metrics of an evaluation. Runs of what is compared are interleaved, so that other
work on the machine slows down both; ratios are medians over the rounds. "cpu" is processor time, "wall" is elapsed time.
"""

from __future__ import annotations

import argparse
import io
import itertools
import os
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import soundfile
import torch
from torch.utils.data import DataLoader, RandomSampler, default_collate

from benchmarks.common import RECORDINGS, available_cores, machine, measure_interleaved, print_table, ratios, version
from datasets import audio
from datasets.augment import Augmented
from datasets.clip import Clip
from datasets.hdf5_mp3 import Mp3Dataset, Mp3Writer, read_entries
from helpers import cli
from helpers.metrics import tagging_metrics
from helpers.training.objectives import bce_per_clip
from models.MobileNetV3 import get_model
from models.waveform import WaveformModel

RATE = 32000  # Hz
NUM_CLASSES = 527
DECODINGS = 5  # in each round: they are short
LABELS_A_CLIP = 2.7  # in AudioSet's evaluation set
AUGMENTATION = {"roll": 10000, "gain_db": 7.0, "wavmix": True}  # all there is: the slowest loader


@dataclass(frozen=True)
class Seconds:
    wall: float
    cpu: float  # of all threads


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("--clips", type=cli.positive_int, default=32, help="number of mp3s")
    parser.add_argument("--seconds", type=cli.positive_float, default=10.0, help="length of each")
    parser.add_argument("--batch_size", type=cli.positive_int, default=16, help="clips in a batch")
    parser.add_argument("--rounds", type=cli.positive_int, default=5, help="timed runs of each variant")
    parser.add_argument("--metric_clips", type=cli.positive_int, default=20_000, help="clips of the evaluation")
    parser.add_argument("--seed", type=int, default=0, help="seed of the clips, crops, augmentation, weights and scores")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    torch.manual_seed(args.seed)
    cores = available_cores()
    print(machine("torch", "numpy", "scikit-learn", "h5py", "soundfile", "soxr", "av"))
    print(f"seed {args.seed}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clips_mp3.hdf"
        write_clips(path, args.clips, args.seconds, args.seed)
        torch.set_num_threads(1)  # as in a loader's worker
        print_stages(measure_interleaved(stages(path, args.seconds, args.batch_size), args.rounds, measure), args.clips)
        if version("av") == "missing":
            print("\nPyAV is missing, so decoding is not compared with it; pip install av")
        else:
            print_decoding(compare_decoders(path, DECODINGS * args.rounds))
        for count in sorted({1, cores}):
            print_feeding(measure_feeding(path, args.seconds, args.batch_size, count, args.rounds), count)
    targets = random_targets(args.metric_clips, args.seed)
    scores = np.random.default_rng(args.seed).standard_normal(targets.shape, np.float32) + targets  # correlated with the targets
    seconds = measure(partial(tagging_metrics, targets, scores))
    print(f"\nmetrics of {args.metric_clips} x {NUM_CLASSES} scores: {seconds.wall:.2f} s wall, {seconds.cpu:.2f} s cpu")
    return 0


def bundled_waveforms(seconds: float, count: int, seed: int) -> dict[str, np.ndarray]:
    """Bundled recordings one after the other, each shifted and scaled, repeated to `seconds`; keys are their names."""
    generator = np.random.default_rng(seed)
    recordings = {path.stem: audio.load(path, RATE) for path in sorted(RECORDINGS.glob("*.ogg"))}
    waveforms = {}
    for number, (name, recording) in zip(range(count), itertools.cycle(recordings.items()), strict=False):
        shifted = np.roll(recording, generator.integers(len(recording))) * np.float32(generator.uniform(0.5, 1))
        waveforms[f"{name} {number}"] = np.resize(shifted, round(seconds * RATE))
    return waveforms


def write_clips(path: Path, count: int, seconds: float, seed: int) -> None:
    """Write `count` mono mp3s of `seconds` at 32 kHz, with random labels."""
    targets = random_targets(count, seed)
    with Mp3Writer(path, NUM_CLASSES) as writer:
        for (name, waveform), target in zip(bundled_waveforms(seconds, count, seed).items(), targets, strict=True):
            writer.add(name, audio.encode_mp3(waveform, RATE), target)


def random_targets(count: int, seed: int) -> np.ndarray:
    """Multi-hot targets (count, K) float32, classes as unequally frequent as AudioSet's, each with a positive clip or more."""
    generator = np.random.default_rng(seed)
    share = 1 / np.arange(1, NUM_CLASSES + 1)
    share *= LABELS_A_CLIP / share.sum()
    targets = generator.random((count, NUM_CLASSES)) < share
    targets[generator.integers(count, size=NUM_CLASSES), np.arange(NUM_CLASSES)] = True
    return targets.astype(np.float32)


def measure(work: Callable[[], object]) -> Seconds:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def ratio(times: Sequence[Seconds], others: Sequence[Seconds], clock: str) -> float:
    """Median over the rounds of the first's time over the second's, by the "wall" or the "cpu" clock."""
    return median(ratios(*([getattr(one, clock) for one in of_one] for of_one in (times, others))))


def stages(path: Path, seconds: float, batch_size: int) -> dict[str, Callable[[], object]]:
    """Stages of loading a clip, each run over all clips of the file."""
    dataset = Mp3Dataset(path, num_classes=NUM_CLASSES, clip_seconds=seconds)
    rows = range(len(dataset))
    clips = [dataset[row] for row in rows]
    waveforms = [clip.waveform.numpy() for clip in clips]
    entries = [dataset.read(row)[0] for row in rows]
    at_44k = [audio.resample(waveform, RATE, 44100) for waveform in waveforms]
    half = round(seconds * RATE) // 2

    def over(items: Sequence[Any], work: Callable[[Any], object]) -> Callable[[], object]:
        return lambda: deque(map(work, items), maxlen=0)  # keeps no results

    return {
        "read name, mp3 and target from HDF5": over(rows, dataset.read),
        "decode mp3": over(entries, audio.decode),
        "crop": over(waveforms, lambda waveform: audio.crop_or_pad(waveform, half, half // 2)),
        "pad": over(waveforms, lambda waveform: audio.crop_or_pad(waveform[:half], 2 * half)),
        "a whole clip (read, decode, crop)": over(rows, dataset.__getitem__),
        "gain": over(rows, Augmented(clips, gain_db=AUGMENTATION["gain_db"]).__getitem__),
        "wavmix (mixes half of the clips)": over(rows, Augmented(clips, wavmix=True).__getitem__),
        "roll": over(rows, Augmented(clips, roll=AUGMENTATION["roll"]).__getitem__),
        "collate": over([clips[row : row + batch_size] for row in rows[::batch_size]], default_collate),
        "other mp3s: decode and downmix 44.1 kHz stereo": over([encode_stereo_mp3(w, 44100) for w in at_44k], audio.decode),
        "other mp3s: resample 44.1 to 32 kHz": over(at_44k, lambda waveform: audio.resample(waveform, 44100, RATE)),
    }


def encode_stereo_mp3(waveform: np.ndarray, rate: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.stack([waveform, waveform[::-1]], axis=1), rate, format="MP3")
    return file.getvalue()


def print_stages(times: Mapping[str, Sequence[Seconds]], clips: int) -> None:
    rows = []
    for name, rounds in times.items():
        rows.append((name, *(f"{median(getattr(one, clock) for one in rounds) / clips * 1e6:.0f}" for clock in ("cpu", "wall"))))
    print_table("microseconds per clip", ("stage", "cpu", "wall"), rows)


def decode_with_pyav(mp3: bytes) -> np.ndarray:
    """Return a mono mp3 as (samples,) float32 at its own rate, by PyAV."""
    import av

    with av.open(io.BytesIO(mp3)) as container:
        return np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)[0]


def load_with_pyav(mp3: bytes) -> np.ndarray:
    """Return an mp3 of any rate and channels as (samples,) float32, mono, at the data set's rate, by PyAV."""
    import av

    resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
    with av.open(io.BytesIO(mp3)) as container:
        frames = [part for frame in [*container.decode(audio=0), None] for part in resampler.resample(frame)]
    return np.concatenate([frame.to_ndarray() for frame in frames], axis=1)[0]


def compare_decoders(path: Path, rounds: int) -> dict[str, dict[str, list[Seconds]]]:
    """Time the decoders of one mp3 of each bundled recording; keys are the mp3 and the decoder."""
    first = itertools.islice(read_entries(path, NUM_CLASSES), len(list(RECORDINGS.glob("*.ogg"))))
    entries = {name: mp3 for name, mp3, _ in first}
    return {
        f"{name}, {len(mp3) / 1000:.0f} kB": measure_interleaved(
            {
                "here": partial(audio.decode, mp3),
                "PyAV": partial(decode_with_pyav, mp3),
                "here, as an entry": partial(audio.load, mp3, RATE),
                "PyAV, as an entry": partial(load_with_pyav, mp3),
            },
            rounds,
            measure,
        )
        for name, mp3 in entries.items()
    }


def print_decoding(times: Mapping[str, Mapping[str, Sequence[Seconds]]]) -> None:
    """Print the time to decode a mono 32 kHz mp3, without and with what makes any other mp3 mono and 32 kHz."""
    names = list(next(iter(times.values())))
    rows = []
    for mp3, decoders in times.items():
        cpu = [1e3 * median(one.cpu for one in decoders[name]) for name in names]
        compared = [ratio(decoders[names[i]], decoders[names[i + 1]], "cpu") for i in (0, 2)]
        rows.append([mp3, *(f"{value:.2f}" for value in (*cpu, *compared))])
    means = [f"{np.mean([float(row[column]) for row in rows]):.2f}" for column in (-2, -1)]
    rows.append(["mean", *[None] * len(names), *means])
    print_table("cpu milliseconds for one mp3", ("mp3", *names, "bare ratio", "entry ratio"), rows)


def training_step(seconds: float, batch_size: int) -> Callable[[], None]:
    """A step of mn10 (random weights) from waveforms to updated weights, in float32 on the CPU."""
    model = WaveformModel(get_model(NUM_CLASSES)).train()
    model.network.to(memory_format=torch.channels_last)  # as in training
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    waveform = 0.1 * torch.randn(batch_size, round(seconds * RATE))
    target = torch.zeros(batch_size, NUM_CLASSES)

    def step() -> None:
        logits, _ = model(waveform)
        optimizer.zero_grad()
        bce_per_clip(logits, target).mean().backward()
        optimizer.step()

    return step


def load_batches(path: Path, seconds: float, batch_size: int, workers: int, batches: int) -> Seconds:
    """Time of one clip from a loader with all augmentations, in its steady state.

    "cpu" is what all the worker processes take a clip, their start included.
    """
    clips = Mp3Dataset(path, num_classes=NUM_CLASSES, clip_seconds=seconds, random_crop=True)
    number = (batches + 1) * workers * batch_size
    sampler = RandomSampler(clips, replacement=True, num_samples=number)
    before = os.times()
    batches_of_clips = iter(DataLoader(Augmented(clips, **AUGMENTATION), batch_size, sampler=sampler, num_workers=workers))
    clip: Clip
    for _ in range(workers):  # each worker's first
        clip = next(batches_of_clips)
    start = time.perf_counter()
    for clip in batches_of_clips:
        assert clip.waveform.shape == (batch_size, round(seconds * RATE))
    wall = time.perf_counter() - start
    del batches_of_clips  # ends the workers, whose time is known then
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Seconds(wall / (batches * workers * batch_size), cpu / number)


def measure_feeding(path: Path, seconds: float, batch_size: int, cores: int, rounds: int) -> dict[str, list[Seconds]]:
    """Time of one clip in a loader with as many workers, and in a training step with as many threads, as `cores`."""
    torch.set_num_threads(cores)
    step = training_step(seconds, batch_size)
    step()
    times: dict[str, list[Seconds]] = {"loader": [], "training step": []}
    for _ in range(rounds):
        times["loader"].append(load_batches(path, seconds, batch_size, cores, batches=4))
        of_batch = measure(step)
        times["training step"].append(Seconds(of_batch.wall / batch_size, of_batch.cpu / batch_size))
    return times


def print_feeding(times: Mapping[str, Sequence[Seconds]], cores: int) -> None:
    rows = [
        (name, f"{1 / median(one.wall for one in rounds):.1f}", f"{1e3 * median(one.cpu for one in rounds):.2f}")
        for name, rounds in times.items()
    ]
    step, loader = times["training step"], times["loader"]
    rows.append(("the loader is faster by", *(f"{ratio(step, loader, clock):.1f}" for clock in ("wall", "cpu"))))
    print_table(f"on {cores} core{'s' if cores > 1 else ''}", ("", "clips/s (wall)", "cpu ms per clip"), rows)


if __name__ == "__main__":
    cli.run(main)
