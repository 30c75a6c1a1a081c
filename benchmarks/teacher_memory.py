"""Peak memory of a training process with a teacher file of AudioSet's size, mapped as the scripts do it and loaded whole.

    python -m benchmarks.teacher_memory

Makes a sparse file of 2,000,000 rows of logits with its pickled index, and trains mn01 on a few clips that are in it: without a
teacher, with the teacher, and with the teacher while numpy and pickle hold both files. Each training is a process
of its own. For Linux.
"""

from __future__ import annotations

import argparse
import pickle
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.common import run_process
from datasets import audio
from datasets.hdf5_mp3 import Mp3Writer
from helpers import cli

NUM_CLASSES = 527
TRAIN = r"""
import pickle, re, sys
import numpy as np
import ex_audioset
folder, variant = sys.argv[1:3]
held = (np.load(f"{folder}/teacher.npy"), pickle.load(open(f"{folder}/teacher.pkl", "rb"))) if variant == "loaded whole" else None
ex_audioset.main(sys.argv[3:])
print(int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]) / 1024)  # before the libraries are unloaded
"""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("--rows", type=cli.positive_int, default=2_000_000, help="rows of the teacher's file")
    parser.add_argument("--clips", type=cli.positive_int, default=64, help="clips to train on")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_clips(folder, args.clips)
        write_teacher(folder, args.rows, args.clips)
        peaks = {variant: train(folder, variant) for variant in ("no teacher", "mapped", "loaded whole")}
    print(f"{args.rows} x {NUM_CLASSES} float16: {2 * args.rows * NUM_CLASSES / 2**20:.0f} MiB")
    for variant, peak in peaks.items():
        print(f"{variant:>12}: peak {peak:6.0f} MiB, {peak - peaks['no teacher']:+6.0f} MiB")
    return 0


def write_clips(folder: Path, count: int) -> None:
    """Write a training and an evaluation file of noise."""
    rng = np.random.default_rng(0)
    for part in ("balanced_train", "eval"):
        with Mp3Writer(folder / f"{part}_segments_mp3.hdf", NUM_CLASSES) as writer:
            for number in range(count):
                target = rng.random(NUM_CLASSES) < 0.01
                target[number] = True
                noise = rng.uniform(-0.5, 0.5, 32000).astype(np.float32)
                writer.add(f"Y{number:011d}.mp3", audio.encode_mp3(noise, 32000), target)


def write_teacher(folder: Path, rows: int, clips: int) -> None:
    """Write zeros that take no space on the disk, and an index in which the clips are spread over all rows."""
    np.lib.format.open_memmap(folder / "teacher.npy", "w+", np.float16, (rows, NUM_CLASSES)).flush()
    spread = {number * (rows // clips): number for number in range(clips)}
    index = {f"{spread.get(row, clips + row):011d}": row for row in range(rows)}  # by YouTube id
    with open(folder / "teacher.pkl", "wb") as file:
        pickle.dump(index, file)


def train(folder: Path, variant: str) -> float:
    """Return the peak of the resident memory of an epoch of training, in MiB."""
    teacher = ["--teacher_preds", folder / "teacher.npy", "--fname_to_index", folder / "teacher.pkl"]
    options = ["--kd_lambda", 1] if variant == "no teacher" else teacher
    arguments = [
        "-c", TRAIN, folder, variant, "--train", "--dataset_dir", folder, "--clip_seconds", 1, "--model_width", 0.1,
        "--batch_size", 16, "--n_epochs", 1, "--num_workers", 0, "--wandb", "disabled", "--experiment_name", "memory", *options,
    ]  # fmt: skip
    return float(run_process(arguments, cwd=folder).printed.splitlines()[-1])


if __name__ == "__main__":
    cli.run(main)
