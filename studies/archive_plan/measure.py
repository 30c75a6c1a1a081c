"""Measure what the stages of an archive cost on this machine.

    python -m studies.archive_plan.measure costs.json

Decoding, by the processes that archive.py uses, of a bundled recording in several formats; networks on one thread, bundled ones by
both backends and others with random weights by PyTorch; writing and compaction of rows; listing, planning and comparing of empty
files; and the driver, which really hands out tasks that do nothing. CPU seconds, in which other work on the machine shows little.
Each is a slope, from few to many, medians of rounds; so what happens once does not count.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.common import RECORDINGS, machine
from datasets import audio
from datasets.decoding.isolated import Decoders
from helpers import cli
from helpers.archive.output import Output
from helpers.archive.parcels import Address
from helpers.archive.schema import Settings, schema, to_table
from models.MobileNetV3 import get_model
from models.waveform import WaveformModel
from studies.archive_plan import driver
from studies.archive_plan.costs import Costs, write_costs
from studies.archive_plan.simulation import RATE
from studies.recordings.encoders import by_pyav, by_soundfile

if TYPE_CHECKING:
    import pyarrow as pa

SECONDS = 60  # length of the recordings that are decoded
SHORT_SECONDS = 0.1  # of those whose opening is measured
BATCH, WINDOW = 4, 10  # windows in a batch, and their seconds
BUNDLED = ("mn04_distilled",)
WIDTHS = {"mn04": 0.4, "mn10": 1.0, "mn40": 4.0}

ENCODERS: dict[str, Callable[[np.ndarray], bytes]] = {
    "wav": lambda samples: by_soundfile(samples, RATE, "WAV", "PCM_16"),
    "flac": lambda samples: by_soundfile(samples, RATE, "FLAC"),
    "mp3": lambda samples: audio.encode_mp3(samples[:, 0], RATE),
    "ogg": lambda samples: by_soundfile(samples, RATE, "OGG", "VORBIS"),
    "aac": lambda samples: by_pyav(samples, RATE, "mp4", "aac", bit_rate=96_000),
    "mp3 44.1 kHz": lambda samples: by_soundfile(audio.resample(samples[:, 0], RATE, 44_100)[:, None], 44_100, "MP3"),
}


def cpu_seconds() -> float:
    """CPU seconds of this process and of those that it has waited for."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def slope(work: Callable[[int], object], few: int, many: int, rounds: int, clock: Callable[[], float] = cpu_seconds) -> float:
    """Return what one more costs: the median over rounds of work(many) - work(few), divided by their difference."""

    def cost(count: int) -> float:
        start = clock()
        work(count)
        return clock() - start

    return max(0.0, statistics.median((cost(many) - cost(few)) / (many - few) for _ in range(rounds)))


def sound(seconds: float) -> np.ndarray:
    """Return (samples, 1) float32 of a bundled recording, repeated."""
    scene = audio.load(RECORDINGS / "scene.ogg", RATE)
    return np.resize(scene, round(seconds * RATE))[:, None]


def decode(content: bytes, count: int) -> None:
    """Decode a recording `count` times, in a process of its own."""
    with Decoders() as decoders:
        for _ in range(count):
            for _ in decoders.open(content, RATE).blocks:
                pass


def measure_formats(rounds: int) -> tuple[float, dict[str, float], dict[str, float]]:
    """Return the cost of a recording, and by format that of a second of sound and its bytes."""
    short = ENCODERS["wav"](sound(SHORT_SECONDS))
    opening = slope(lambda count: decode(short, count), 1, 201, rounds)
    contents = {name: encode(sound(SECONDS)) for name, encode in ENCODERS.items()}
    seconds = {
        name: slope(lambda count, content=content: decode(content, count), 1, 6, rounds) / SECONDS
        for name, content in contents.items()
    }
    return opening, seconds, {name: len(content) / SECONDS for name, content in contents.items()}


def measure_networks(rounds: int) -> dict[str, float]:
    """Return the cost of a second of sound, by model and backend."""
    import torch

    from helpers.tagger.backends import BACKENDS, load_backend

    torch.set_num_threads(1)
    windows = list(sound(BATCH * WINDOW).reshape(BATCH, -1))
    computing: dict[str, Callable[[], object]] = {}
    for name in BUNDLED:
        for backend in BACKENDS:
            loaded = load_backend(name, None if backend == "onnx" else "cpu", backend, "embedding", "mean")
            computing[f"{name} {backend}"] = lambda loaded=loaded: loaded(windows)
    for name, width in WIDTHS.items():
        model = WaveformModel(get_model(width_mult=width)).eval()
        computing[f"{name} torch"] = lambda model=model: model(torch.from_numpy(np.stack(windows)))
    with torch.inference_mode():
        for compute in computing.values():
            compute()
        return {
            name: slope(lambda count, compute=compute: [compute() for _ in range(count)], 0, 1, rounds) / (BATCH * WINDOW)
            for name, compute in computing.items()
        }


def measure_listing(folder: Path, rounds: int, count: int) -> dict[str, float]:
    """Return what the driver spends on a recording."""
    few = count // 10
    for number in (few, count):
        driver.make_files(folder / str(number), number)
    folders = iter(range(1000))

    def plan(number: int) -> None:
        driver.make_plan(folder / f"plan{next(folders)}", number)

    plans = {number: driver.make_plan(folder / f"planned{number}", number) for number in (few, count)}
    sizes = [sum(path.stat().st_size for path in (folder / f"planned{number}").rglob("*.parquet")) for number in (few, count)]
    return {
        "list_seconds": slope(lambda number: driver.list_folder(folder / str(number)), few, count, rounds),
        "plan_seconds": slope(plan, few, count, rounds),
        "compare_seconds": slope(lambda number: plans[number].compare(driver.entries(number)), few, count, rounds),
        "plan_bytes": (sizes[1] - sizes[0]) / (count - few),
        "held_bytes": max(0.0, (peak_of_driver(folder, 5 * count) - peak_of_driver(folder, count)) / (4 * count)),
    }


def peak_of_driver(folder: Path, count: int) -> int:
    """Return the largest memory, in bytes, of a process that plans so many recordings and compares them."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_plan_and_compare, folder / f"peak{count}", count).result()


def _plan_and_compare(folder: Path, count: int) -> int:
    driver.make_plan(folder, count).compare(driver.entries(count))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure_writing(folder: Path, rounds: int) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Return the cost of a row in its parcel and in its shard, and its bytes there, by what is asked."""
    asked = {"tags": {}, "top 10": {"top_k": 10}, "tags and embeddings": {"embed": True}}
    write_seconds, compact_seconds, row_bytes = {}, {}, {}
    for name, options in asked.items():
        table = rows_of(Settings(("mn10",), **options))
        writing, compacting = [], []
        for number in range(rounds):
            output = Output(folder / f"{name} {number}")
            plan = driver.make_plan(Path(output.address), driver.SHARD_RECORDINGS)
            begin = cpu_seconds()
            for task in range(plan.tasks(0)):
                output.write_parcel(Address(0, task, 0, True), table.slice(task * driver.TASK_RECORDINGS, driver.TASK_RECORDINGS))
            middle = cpu_seconds()
            output.compact(0)
            writing.append(middle - begin)
            compacting.append(cpu_seconds() - middle)
        write_seconds[name] = statistics.median(writing) / len(table)
        compact_seconds[name] = statistics.median(compacting) / len(table)
        row_bytes[name] = sum(path.stat().st_size for path in Path(output.address, "data").iterdir()) / len(table)
    return write_seconds, compact_seconds, row_bytes


def rows_of(settings: Settings) -> pa.Table:
    """Return the rows of a shard, with few high scores, and embeddings of which half the values are 0."""
    random = np.random.default_rng(0)
    count = driver.SHARD_RECORDINGS
    scores = 1 / (1 + np.exp(-random.normal(-7, 2, (count, 527)))).astype(np.float32)
    order = np.argsort(-scores, axis=1)[:, : settings.top_k or 0]
    columns = {
        "source": [entry.source for entry in driver.entries(count)],
        "start": np.zeros(count),
        "end": np.full(count, 10.0),
        "scores": scores,
        "labels": order.astype(np.int16),
        "label_scores": np.take_along_axis(scores, order, axis=1),
        "embedding": np.maximum(0, random.normal(0, 1, (count, 960))).astype(np.float32),
        "model": ["mn10"] * count,
        "model_hash": ["0" * 64] * count,
        "version": ["1.0"] * count,
    }
    labels = [[f"class {number}" for number in range(527)]]
    return to_table(columns, schema(settings, labels, [960]))


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m studies.archive_plan.measure", description=__doc__, formatter_class=cli.HelpFormatter
    )
    parser.add_argument("output", type=Path, help="JSON file to write")
    parser.add_argument("--rounds", type=cli.positive_int, default=5, help="rounds, whose median counts")
    parser.add_argument("--recordings", type=cli.positive_int, default=20_000, help="empty files that are listed and planned")
    parser.add_argument("--tasks", type=cli.positive_int, default=2_000, help="tasks that the driver hands out")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print("rows", flush=True)
        write_seconds, compact_seconds, row_bytes = measure_writing(folder / "rows", args.rounds)
        print("listing and planning", flush=True)
        of_recordings = measure_listing(folder / "listed", args.rounds, args.recordings)
        print("driver", flush=True)
        of_driver = driver.drive(folder / "driven", args.tasks)
    print("formats", flush=True)
    open_seconds, decode_seconds, sound_bytes = measure_formats(args.rounds)
    print("networks", flush=True)
    costs = Costs(
        machine=machine("torch", "onnxruntime", "soundfile", "av", "ray", "pyarrow"),
        **of_recordings,
        **asdict(of_driver),
        open_seconds=open_seconds,
        decode_seconds=decode_seconds,
        network_seconds=measure_networks(args.rounds),
        write_seconds=write_seconds,
        compact_seconds=compact_seconds,
        sound_bytes=sound_bytes,
        row_bytes=row_bytes,
    )
    write_costs(args.output, costs)
    print(f"{args.output}: costs of {costs.machine}")
    return 0


if __name__ == "__main__":
    cli.run(main)
