"""Time of frame-wise networks on one core next to the MobileNetV3 of the same width, in PyTorch and ONNX Runtime.

    python -m benchmarks.frame_wise --seconds 10

From waveforms: front end, network, scores. The MobileNetV3 scores the clip, a frame-wise network each 40 ms of it. Variants are
interleaved in one process; times are medians of the processor's time, and the real-time factor is a time over the length of the
sound. Weights are random. Differences between the scores of both backends are printed.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks import common
from helpers import cli
from helpers.export import onnx_writer
from helpers.export.graph import to_onnx
from helpers.export.runtime import OnnxBackend
from helpers.tagger.torch_backend import TorchBackend
from models import checkpoints
from models.config import Arch, Architecture, FrameWiseArch
from models.errors import UserError

SEQUENCE_SIZES = {0.4: 104, 0.6: 160, 1.0: 256, 2.0: 512, 3.0: 768}  # released
TOLERANCE = 1e-4


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("--width", type=float, choices=SEQUENCE_SIZES, default=0.4, help="width multiplier of all networks")
    parser.add_argument("--seconds", type=cli.positive_float, default=10.0, help="length of the sound")
    parser.add_argument("--rounds", type=cli.positive_int, default=10, help="timed runs of each variant")
    parser.add_argument("--seed", type=cli.seed, default=0, help="seed of weights and sound")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    print(common.machine("torch", "onnxruntime"))
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(architectures(args.width), args.seconds, args.rounds, Path(folder))
    columns = ("network", "backend", "ms", "real-time factor", "times the mn's time", "difference")
    common.print_table(f"{args.seconds:g} s of sound, 1 thread, median of {args.rounds}", columns, rows)
    return 0


def architectures(width: float) -> dict[str, Architecture]:
    size, number = SEQUENCE_SIZES[width], f"{round(10 * width):02d}"
    found: dict[str, Architecture] = {f"mn{number}": Arch(width_mult=width), f"fmn{number}": FrameWiseArch(width_mult=width)}
    for kind in ("tf", "gru", "hybrid"):
        found[f"fmn{number}+{kind}-{size}"] = FrameWiseArch(width_mult=width, sequence_model=kind, sequence_size=size)
    return found


def measure(archs: dict[str, Architecture], seconds: float, rounds: int, folder: Path) -> list[tuple[object, ...]]:
    """Return a row of the table for each network and backend; the first network is the one that scores clips."""
    runs: dict[tuple[str, str], Callable[[], list[tuple[np.ndarray, np.ndarray]]]] = {}
    differences = {}
    for name, arch in archs.items():
        network = arch.build().eval()
        checkpoints.save(folder / f"{name}.pt", network)
        onnx_writer.write(folder / f"{name}.onnx", to_onnx(network, name))
        backends = {"PyTorch": TorchBackend(folder / f"{name}.pt", "cpu"), "ONNX Runtime": OnnxBackend(folder / f"{name}.onnx", 1)}
        noise = np.random.default_rng(0).standard_normal(round(seconds * network.mel.sample_rate))
        clip = (0.1 * noise).astype(np.float32)
        for backend, model in backends.items():
            runs[name, backend] = partial(model if model.step_seconds is None else model.frames, [clip])
        (scores, _), (others, _) = (runs[name, backend]()[0] for backend in backends)
        differences[name] = float(np.abs(scores - others).max())
        if differences[name] > TOLERANCE:
            raise UserError(f"{name}: the backends' scores differ by {differences[name]:g}")
    times = common.measure_interleaved(runs, rounds, common.processor_seconds)
    clip_model = next(iter(archs))
    return [
        (
            name, backend, f"{1e3 * median(spent):.1f}", f"{median(spent) / seconds:.4f}",
            f"{median(common.ratios(spent, times[clip_model, backend])):.2f}", f"{differences[name]:.0e}",
        )
        for (name, backend), spent in times.items()
    ]  # fmt: skip


if __name__ == "__main__":
    cli.run(main)
