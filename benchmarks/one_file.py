"""One recording from the command line, and its parts: what the ONNX backend takes beside PyTorch.

    python -m benchmarks.one_file

Prints two tables. The first is a whole process, from its start to the printed events, with each backend; its exports are made
before. The second is front end, network and both together for batches of clips of 10 s, eager PyTorch beside ONNX Runtime.
What is compared is measured in turns, so that other work on the machine meets both; figures are medians over the turns.
Memory is the peak of the resident set that the kernel kept for the process itself (VmHWM).
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime
import torch

from helpers import cli, export, model_cache, onnx_backend
from models.MobileNetV3 import get_model
from models.network import MobileNetV3
from models.preprocess import AugmentMelSTFT

ROOT = Path(__file__).resolve().parent.parent
CLIP_SAMPLES = 320_000

# Each prints the likeliest events and then its own peak memory in kB.
PEAK = """
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""
WITH_ONNX = """
import sys
import numpy as np
from datasets import audio
from helpers.onnx_backend import load_backend
backend = load_backend(sys.argv[1])
scores, _ = backend(audio.load(sys.argv[2], backend.sample_rate)[None])
for k in scores[0].argsort()[::-1][:10]:
    print(f"{backend.labels[k]}: {scores[0, k]:.3f}")
"""
WITH_TORCH = """
import sys
from helpers.tagger import AudioTagger
for tag in AudioTagger(sys.argv[1]).tag(sys.argv[2]):
    print(f"{tag.label}: {tag.score:.3f}")
"""
PROGRAMS = {"torch": WITH_TORCH + PEAK, "onnx": WITH_ONNX + PEAK}


@dataclass(frozen=True)
class Run:
    """One process."""

    seconds: float
    megabytes: float  # peak of its resident set
    printed: str


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("--model_name", default="mn04_opensounds", help="of the processes: a name, or the path of a checkpoint")
    parser.add_argument("--audio_path", type=Path, default=ROOT / "resources" / "recordings" / "scene.ogg", help="a recording")
    parser.add_argument(
        "--widths", type=cli.positive_float, nargs="*", default=[1.0, 0.4], help="of the networks of the second table"
    )
    parser.add_argument("--batch_sizes", type=cli.positive_int, nargs="+", default=[1, 8], help="clips of 10 s in a batch")
    parser.add_argument("--threads", type=cli.positive_int, default=available_cores(), help="to compute with, second table")
    parser.add_argument("--rounds", type=cli.positive_int, default=9, help="turns to take")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "onnxruntime", "numpy"))
    load = os.getloadavg()[0]  # of the minute before: other work on the machine
    print(f"{platform.machine()}, {available_cores()} cores, load {load:.1f}, Python {platform.python_version()}, {versions}")
    model_cache.exported(args.model_name)
    print_runs(f"{args.audio_path.name} with {args.model_name}", run_in_turns(args.model_name, args.audio_path, args.rounds))
    torch.set_num_threads(args.threads)
    for width in args.widths:
        network = get_model(width_mult=width).eval()
        for batch_size in args.batch_sizes:
            print_times(f"width {width:g}, batch {batch_size}", time_parts(network, batch_size, args.threads, args.rounds))
    return 0


def available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_in_turns(model_name: str, audio_path: Path, rounds: int) -> dict[str, list[Run]]:
    """Run each program once a round, after a round that fills the disk cache and does not count."""
    runs: dict[str, list[Run]] = {name: [] for name in PROGRAMS}
    for number in range(rounds + 1):
        for name, program in PROGRAMS.items():
            command = [sys.executable, "-c", program, model_name, os.fspath(Path(audio_path).absolute())]
            start = time.perf_counter()
            result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            seconds = time.perf_counter() - start
            if result.returncode != 0:
                raise ValueError(f"the {name} program failed: {result.stderr.strip().splitlines()[-1]}")
            printed, _, peak = result.stdout.strip().rpartition("\n")
            if number:
                runs[name].append(Run(seconds, int(peak) * 1.024e-3, printed))
    return runs


def print_runs(title: str, runs: Mapping[str, Sequence[Run]]) -> None:
    print(f"\n{title:<44} {'seconds':>9} {'peak MB':>9}")
    for name, of_one in runs.items():
        print(f"{name:<44} {median(run.seconds for run in of_one):9.2f} {median(run.megabytes for run in of_one):9.0f}")
    ratios = [torch.seconds / onnx.seconds for torch, onnx in zip(runs["torch"], runs["onnx"], strict=True)]
    print(f"{'onnx is faster by':<44} {median(ratios):9.2f}")


def time_parts(network: MobileNetV3, batch_size: int, threads: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of front end, network, and both, each by PyTorch and by ONNX Runtime; the whole first, alternating."""
    front_end = AugmentMelSTFT.from_config(network.mel).eval()
    waveform = 0.1 * torch.randn(batch_size, CLIP_SAMPLES)
    spectrogram = front_end(waveform)[:, None]
    graphs = {
        "front end": export.front_end_to_onnx(network.mel),
        "network": export.to_onnx(network, "network", network_only=True),
        "both": export.to_onnx(network, "both"),
    }
    given = {"front end": waveform, "network": spectrogram, "both": waveform}
    eager: dict[str, Callable[[torch.Tensor], object]] = {
        "front end": front_end, "network": network, "both": lambda x: network(front_end(x)[:, None]),
    }  # fmt: skip
    times: dict[str, dict[str, list[float]]] = {}
    for part, graph in graphs.items():
        session = onnxruntime.InferenceSession(graph.SerializeToString(), onnx_backend.session_options(threads))
        feed = {session.get_inputs()[0].name: given[part].numpy()}

        def run_eager(part: str = part) -> None:
            with torch.inference_mode():
                eager[part](given[part])

        def run_onnx(session: onnxruntime.InferenceSession = session, feed: dict[str, np.ndarray] = feed) -> None:
            session.run(None, feed)

        times[part] = {"torch": [], "onnx": []}
        for number in range(rounds + 1):
            for name, work in (("torch", run_eager), ("onnx", run_onnx)):
                start = time.perf_counter()
                work()
                if number:
                    times[part][name].append(time.perf_counter() - start)
    return times


def print_times(title: str, times: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    print(f"\n{title:<24} {'torch ms':>10} {'onnx ms':>10} {'faster by':>10}")
    for part, of_part in times.items():
        milliseconds = [1e3 * median(of_part[name]) for name in ("torch", "onnx")]
        ratio = median(torch / onnx for torch, onnx in zip(of_part["torch"], of_part["onnx"], strict=True))
        print(f"{part:<24} {milliseconds[0]:10.1f} {milliseconds[1]:10.1f} {ratio:10.2f}")


if __name__ == "__main__":
    cli.run(main)
