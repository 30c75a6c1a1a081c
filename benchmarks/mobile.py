"""Exported files side by side: size, time on one core, memory, and how far their scores are from PyTorch's.

    python -m benchmarks.mobile --model_name mn04_distilled model.onnx model.tflite model.pte
    python -m benchmarks.mobile --model_name mn04_distilled model.tflite --recordings recordings/
    python -m benchmarks.mobile --model_name mn04_distilled model.pte --planned

Needs the runtimes of the files. Time is CPU time of one thread for one clip, median over interleaved rounds, with the front end.
Memory is what the process grows by from before a file is loaded until a clip is computed: weights, packed once more by most
runtimes, and activations. `--planned` converts the model for ExecuTorch's portable operators, whose memory is planned when the file
is made, and prints it next to the analytic peak of `peak_memory.py`; it is not what XNNPACK needs. For Linux.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks import common
from helpers import cli
from helpers.costs.activation_memory import peak_memory
from helpers.export import comparison
from helpers.export.executorch import executorch_metadata, load_executorch, planned_bytes
from helpers.export.litert import litert_metadata, load_litert
from helpers.export.runtime import load_onnx
from helpers.export.static_model import CLIP_SECONDS, StaticModel, clip_samples
from models import checkpoints
from models.errors import UserError
from models.network import MobileNetV3

Compute = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="what export.py wrote for the model")
    parser.add_argument("--model_name", required=True, help="a released or bundled name, or the path of a checkpoint")
    parser.add_argument("--recordings", type=Path, nargs="+", default=[comparison.RECORDINGS], metavar="PATH", help="to compare on")
    parser.add_argument("--rounds", type=cli.positive_int, default=30, help="how often a clip is computed")
    parser.add_argument("--planned", action="store_true", help="also the memory that ExecuTorch plans without XNNPACK (minutes)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    network = checkpoints.load_model(args.model_name)
    print(common.machine("torch", "onnxruntime", "ai-edge-litert", "executorch"))
    clip = np.random.default_rng(0).uniform(-0.1, 0.1, round(CLIP_SECONDS * network.mel.sample_rate)).astype(np.float32)
    loaded = {path: load(path) for path in args.files}
    works = {path: lambda path=path: loaded[path][0](comparison.fit(clip, loaded[path][1] or len(clip))) for path in loaded}
    seconds = common.measure_interleaved(works, args.rounds, measure=common.processor_seconds)
    rows = []
    for path, (compute, samples) in loaded.items():
        difference = comparison.compare(compute, network, args.recordings, samples=samples)
        rows.append(
            (
                path.name, f"{path.stat().st_size / common.MB:.2f}", f"{1000 * median(seconds[path]):.1f}",
                f"{growth_in_new_process(path) / common.MB:.1f}", f"{difference.largest:.2g}", f"{difference.mean:.2g}",
                f"{difference.same_first:.3f}", difference.clips,
            )
        )  # fmt: skip
    header = ("file", "MB", "ms", "memory, MB", "largest difference", "mean", "same first tag", "clips")
    common.print_table(args.model_name, header, rows)
    if args.planned:
        print_planned(args.model_name, network)
    return 0


def load(path: Path, threads: int = 1) -> tuple[Compute, int | None]:
    """Return what computes scores and embedding of a waveform, and the number of samples it takes, None for any."""
    content = path.read_bytes()
    if path.suffix == ".tflite":
        return load_litert(content, threads), litert_metadata(content)["samples"]
    if path.suffix == ".pte":
        return load_executorch(content), executorch_metadata(content)["samples"]
    if path.suffix == ".onnx":
        return load_onnx(content, threads), None
    raise UserError(f"{path} is no .onnx, .tflite or .pte file")


def growth_in_new_process(path: Path) -> int:
    """Return the bytes by which a process grows that loads a file and computes a clip."""
    code = f"from pathlib import Path; from benchmarks import mobile; print(mobile.growth(Path({str(path.absolute())!r})))"
    return int(common.run_process(["-c", code]).printed.splitlines()[-1])


def growth(path: Path) -> int:
    """As `growth_in_new_process`, in this process, where the runtime has been used for nothing else."""
    first = load(path)  # and with it the libraries
    before = resident_bytes()
    compute, samples = load(path)
    for _ in range(2):
        compute(np.zeros(samples or 320000, np.float32))
    grown = resident_bytes() - before
    del first
    return grown


def resident_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmRSS:")[1].split()[0])


def print_planned(name: str, network: MobileNetV3) -> None:
    model = StaticModel(network, clip_samples(network, name, CLIP_SECONDS))
    waveform = model.example()
    rows = [
        ("analytic, network", peak_memory(network, bits_per_elem=32).peak_kb * 1000),
        ("planned, network", planned_bytes(model.network, model.front_end(waveform))),
        ("planned, front end and network", planned_bytes(model, waveform)),
    ]
    rows = [(what, f"{size / common.MB:.2f}") for what, size in rows]
    common.print_table(f"{name}, memory of activations in float32", ("", "MB"), rows)


if __name__ == "__main__":
    cli.run(main)
