"""Speed of reading clips at random from parquet files and tars, next to HDF5.

    python -m benchmarks.shard_speed

Makes mp3s (mono, 32 kHz) and FLACs (stereo, 48 kHz, 24 bits, as on the Hugging Face Hub) from the bundled recordings, stores the
same ones in HDF5, in parquet files and in tars, and prints the processor time of a clip, in random order, and the speed against
HDF5 with mp3s. Runs of the variants are interleaved; ratios are medians over the rounds. The files are in the page cache.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import soundfile
import torch

from benchmarks.common import machine, measure_interleaved, print_table
from benchmarks.input_speed import NUM_CLASSES, RATE, Seconds, bundled_waveforms, measure, random_targets, ratio
from datasets import audio
from datasets.clip import ClipDataset
from datasets.hdf5_mp3 import Mp3Dataset, Mp3Writer
from datasets.prepare.audioset_shards import StoredClip, write_parquet, write_tar
from datasets.shards.dataset import ShardDataset
from helpers import cli


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("--clips", type=cli.positive_int, default=64, help="clips in each file")
    parser.add_argument("--seconds", type=cli.positive_float, default=10.0, help="length of each")
    parser.add_argument("--rounds", type=cli.positive_int, default=5, help="timed runs of each variant")
    parser.add_argument("--seed", type=int, default=0, help="seed of the clips and of their order")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    torch.set_num_threads(1)  # as in a loader's worker
    print(machine("torch", "numpy", "h5py", "soundfile", "soxr", "pyarrow"))
    with tempfile.TemporaryDirectory() as folder:
        datasets = write_datasets(Path(folder), args.clips, args.seconds, args.seed)
        order = np.random.default_rng(args.seed).permutation(args.clips).tolist()
        for title, work in (("read the recording", read_all), ("a whole clip (read, decode, resample, crop)", load_all)):
            runs = {name: partial(work, dataset, order) for name, dataset in datasets.items()}
            print_times(title, measure_interleaved(runs, args.rounds, measure), args.clips)
    return 0


def write_datasets(folder: Path, count: int, seconds: float, seed: int) -> dict[str, ClipDataset]:
    """The same clips in files of all kinds."""
    waveforms = list(bundled_waveforms(seconds, count, seed).values())
    contents = {".mp3": [audio.encode_mp3(waveform, RATE) for waveform in waveforms], ".flac": list(map(encode_flac, waveforms))}
    classes = [tuple(target.nonzero()[0].tolist()) for target in random_targets(count, seed)]
    found: dict[str, ClipDataset] = {}
    with Mp3Writer(folder / "mp3.hdf", NUM_CLASSES) as writer:
        for number in range(count):
            target = np.isin(np.arange(NUM_CLASSES), classes[number])
            writer.add(f"Y{number:011d}.mp3", contents[".mp3"][number], target)
    found["mp3 in HDF5"] = Mp3Dataset(folder / "mp3.hdf", num_classes=NUM_CLASSES, clip_seconds=seconds)
    for suffix, recordings in contents.items():
        for kind, write in (("parquet", write_parquet), ("tar", write_tar)):
            path = folder / f"{suffix[1:]}.{kind}"
            clips = (StoredClip(f"{number:011d}", recordings[number], suffix, labels) for number, labels in enumerate(classes))
            write(path, clips)
            index = folder / f"{suffix[1:]}_{kind}"
            found[f"{suffix[1:]} in {kind}"] = ShardDataset([path], index, num_classes=NUM_CLASSES, clip_seconds=seconds)
    return found


def encode_flac(waveform: np.ndarray) -> bytes:
    """Stereo, 48 kHz, 24 bits, of (samples,) float32 at 32 kHz."""
    file = io.BytesIO()
    at_48k = audio.resample(waveform, RATE, 48000)
    stereo = np.stack([at_48k, 0.8 * np.roll(at_48k, 30)], axis=1)
    soundfile.write(file, stereo, 48000, format="FLAC", subtype="PCM_24")
    return file.getvalue()


def read_all(dataset: Mp3Dataset | ShardDataset, order: Sequence[int]) -> None:
    for row in order:
        dataset.read(row)


def load_all(dataset: ClipDataset, order: Sequence[int]) -> None:
    for row in order:
        dataset[row]


def print_times(title: str, times: dict[str, list[Seconds]], clips: int) -> None:
    """Print processor time and the median ratio of HDF5's time to each variant's."""
    first = next(iter(times.values()))
    rows = [
        (name, f"{median(one.cpu for one in rounds) / clips * 1e6:.0f}", f"{ratio(first, rounds, 'cpu'):.2f}")
        for name, rounds in times.items()
    ]
    print_table(title, ("clips", "cpu microseconds", "speed against HDF5"), rows)


if __name__ == "__main__":
    cli.run(main)
