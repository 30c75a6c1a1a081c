"""Shared by the benchmarks: description of the machine, interleaved runs, processes and their memory, bar charts."""

from __future__ import annotations

import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any, TypeVar

from helpers.costs.tables import table
from helpers.devices import available_cores
from models.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent.parent
RECORDINGS = ROOT / "resources" / "recordings"
LAUNCHER = Path(__file__).resolve().parent / "launch.py"
MB = 1e6  # bytes
THIS, BASELINE = "this", "baseline"  # checkouts

T = TypeVar("T")
Key = TypeVar("Key", bound=Hashable)
Measured = TypeVar("Measured")


@dataclass(frozen=True)
class ProcessRun:
    """One process from its start to its end."""

    seconds: float
    peak: int  # bytes of its resident set, at most
    samples: list[Sequence[float]]  # seconds since its start, bytes of its resident set
    printed: str


def version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"


def machine(*packages: str) -> str:
    """Describe the machine; the load is the average over the last minute, and shows other work."""
    versions = [f"{package} {version(package)}" for package in packages]
    parts = [platform.machine(), f"{available_cores()} cores", f"load {os.getloadavg()[0]:.1f}"]
    return ", ".join([*parts, f"Python {platform.python_version()}", *versions])


def interleaved(items: Sequence[T], rounds: int) -> Iterator[tuple[int, T]]:
    """Yield each item once per round, with the round's number: 0 is the warm-up, 1 to `rounds` are measured.

    The order is random in each round, because the previous run determines what is in the cache and how much memory is mapped.
    """
    shuffle = random.Random(0).shuffle
    for number in range(rounds + 1):
        order = list(items)
        shuffle(order)
        for item in order:
            yield number, item


def wall_seconds(work: Callable[[], object]) -> float:
    """Return the elapsed time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def processor_seconds(work: Callable[[], object]) -> float:
    """Return the processor time of one call, of all threads."""
    start = time.process_time()
    work()
    return time.process_time() - start


def measure_interleaved(
    works: Mapping[Key, Callable[[], object]],
    rounds: int,
    measure: Callable[[Callable[[], object]], Measured] = wall_seconds,
    before: Callable[[Key], object] = lambda key: None,
) -> dict[Key, list[Measured]]:
    """Return what `measure` reports of each of `works` in each round, without the warm-up; `before` runs first, unmeasured."""
    results: dict[Key, list[Measured]] = {key: [] for key in works}
    for number, key in interleaved(list(works), rounds):
        before(key)
        result = measure(works[key])
        if number:
            results[key].append(result)
    return results


def ratios(values: Sequence[float], others: Sequence[float]) -> list[float]:
    """Divide round by round: other work on the machine slows down both."""
    return [value / other for value, other in zip(values, others, strict=True)]


def run_process(arguments: Sequence[object], *, interval: float = 0.0, cwd: Path = ROOT) -> ProcessRun:
    """Run Python with `arguments`; sample its memory every `interval` seconds (0: never).

    Raises `ValueError` with the last line of its errors if it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-I", "-S", LAUNCHER, report, interval, sys.executable, *arguments]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        result = subprocess.run([str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True)
        if result.returncode != 0:
            reason = (result.stderr.strip().splitlines() or [f"exit code {result.returncode}"])[-1]
            what = " ".join(str(part) for part in arguments if "\n" not in str(part))
            raise UserError(f"python {what} failed: {reason.removeprefix('error: ')}")
        return ProcessRun(**json.loads(report.read_text()), printed=result.stdout)


class CheckoutProcess:
    """A Python process that imports a checkout's modules and answers tasks.

    `code` reads a task as JSON from each line of its input and prints the answer as JSON.
    """

    def __init__(self, checkout: Path, code: str) -> None:
        environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", code], cwd=checkout, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, task: Mapping[str, object]) -> Any:
        """Return the answer; raises `UserError` where the process ended instead."""
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise UserError("one of the checkouts could not do its task; see the error above")
        return json.loads(answer)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def spread(values: Sequence[float]) -> tuple[str, str]:
    """Return the median of values, and their quartiles."""
    low, _, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return f"{median(values):.3f}", f"{low:.3f} to {high:.3f}"


def draw_bars(panels: Mapping[str, Mapping[str, Sequence[float]]], title: str, path: Path) -> None:
    """Draw a panel for each quantity: a bar as long as the median of each variant's values, annotated, and the values as dots."""
    from matplotlib.figure import Figure

    rows = max(len(variants) for variants in panels.values())
    figure = Figure(figsize=(9, 1.2 + 0.5 * rows), layout="constrained")
    figure.suptitle(title, fontsize=10)
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (quantity, variants) in zip(all_axes, panels.items(), strict=True):
        for place, values in enumerate(variants.values()):
            axes.barh(place, median(values), color=f"C{place}", alpha=0.7)
            axes.plot(values, [place] * len(values), ".", color="black", markersize=3)
            axes.text(1, place, f"{median(values):.3g}", transform=axes.get_yaxis_transform(), ha="right", va="center")
        axes.set_yticks(range(len(variants)), list(variants))
        axes.set_ylim(len(variants) - 0.4, -0.6)
        axes.set_xlim(0, 1.2 * max(max(values) for values in variants.values()))
        axes.set_xlabel(quantity)
        axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def print_table(title: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    print(f"\n{title}\n{table([dict(zip(header, row, strict=True)) for row in rows])}", flush=True)


def save_figure(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=120)
    print(f"\nfigure: {path}")
