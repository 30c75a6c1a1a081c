"""Does anything grow in hours of recordings that are good, damaged or made to do harm?

    python -m benchmarks.soak --minutes 60 --figure soak.png

Feeds a tagger of each backend, and a stream on it, with good recordings, the attacks and the random damage of tests/fuzz, in turn;
now and then it also loads checkpoints and ONNX files that are attacks. After each piece of work the resident memory, the open file
descriptors and the threads of this process are counted. The table compares the second fifth of the time with the last one: the
first fifth fills caches. Ends with 1 if anything grew, or if an error was not the project's own. For Linux.
"""

from __future__ import annotations

import argparse
import io
import itertools
import logging
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np

from benchmarks import common
from datasets.streams.pipes import open_stream
from helpers import cli
from helpers.tagger.audio_tagger import AudioTagger
from helpers.tagger.streaming import StreamTagger
from models.errors import UserError
from tests.fuzz import attacks_models, attacks_sound, mutations, undamaged
from tests.fuzz.cases import Attack
from tests.fuzz.sandbox import OWNED

BACKENDS = ("torch", "onnx")
MEMORY_GROWTH = 0.05  # share of the resident memory that may come in three fifths of the time
MODEL_SHARE = 0.1  # of the pieces of work that load a model
LABELS = {"memory": "memory (MB)", "files": "file descriptors", "threads": "threads"}
OUTCOMES = (UserError, FileNotFoundError)


class Sample(NamedTuple):
    seconds: float  # since the start
    memory: float  # MB
    files: int
    threads: int


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("--minutes", type=cli.positive_float, default=60.0, help="how long")
    parser.add_argument(
        "--figure", type=cli.figure_path, help="also draw memory, file descriptors and threads over time into this file"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    print(common.machine("torch", "onnxruntime", "av", "soundfile"))
    logging.disable()  # a warning for each damaged recording
    with tempfile.TemporaryDirectory() as folder:
        samples, outcomes = soak(Path(folder), 60 * args.minutes)
    common.print_table("Pieces of work", ("what", "right result", "refused", "other errors"), outcome_rows(outcomes))
    rows = growth(samples)
    common.print_table("Second fifth and last fifth of the time", ("what", "second", "last", "flat"), rows)
    if args.figure:
        draw(samples, args.figure)
    others = [what for _, what in outcomes if what not in ("right result", "refused")]
    print(*sorted(set(others)), sep="\n")
    return int(bool(others) or not all(flat for *_, flat in rows))


def soak(folder: Path, seconds: float) -> tuple[list[Sample], Counter[tuple[str, str]]]:
    """Work for so long; return a sample after each piece of work, and how often each kind of work ended how."""
    good = folder / "good"
    good.mkdir()
    undamaged.write(good, quick=True)
    taggers = {"torch": AudioTagger(good / "model.pt", "cpu"), "onnx": AudioTagger(good / "model.onnx", backend="onnx")}
    secret = folder / "elsewhere" / "secret"
    samples, outcomes = [], Counter()
    start = time.monotonic()
    for kind, work in pieces_of_work(good, folder, secret, taggers):
        try:
            work()
            outcome = "right result"
        except OUTCOMES:
            outcome = "refused"
        except Exception as error:  # what no input may raise
            outcome = f"{type(error).__name__}: {str(error)[:200]}"
        outcomes[kind, outcome] += 1
        samples.append(Sample(time.monotonic() - start, *_counted()))
        if samples[-1].seconds > seconds:
            break
    if (folder / OWNED).exists() or secret.with_name(OWNED).exists():
        outcomes["attack", "an attack wrote a file"] += 1
    return samples, outcomes


def pieces_of_work(
    good: Path, folder: Path, secret: Path, taggers: dict[str, AudioTagger]
) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield what is done next and a function that does it, without end."""
    random = Random(0)
    recordings = sorted(common.RECORDINGS.glob("*.ogg"))
    hostile = list(attacks_sound.recording_attacks())
    models = [*attacks_models.checkpoint_attacks(), *attacks_models.onnx_attacks()]
    for number in itertools.count():
        backend = BACKENDS[number % len(BACKENDS)]
        if random.random() < MODEL_SHARE:
            yield "load a model", partial(_load, random.choice(models), good, folder, secret)
            continue
        match number // len(BACKENDS) % 3:
            case 0:
                content = random.choice(recordings).read_bytes()
            case 1:
                content = random.choice(hostile).make(b"", secret)
            case _:
                content = mutations.recording(b"", random)
        work = random.choice((_tag, _tag_files, _listen))
        yield f"{work.__name__.strip('_')}, {backend}", partial(work, taggers[backend], content)


def _tag(tagger: AudioTagger, content: bytes) -> None:
    _check(tagger.scores(content))
    tagger.tag_windows(content, window=1.0, hop=0.5)


def _tag_files(tagger: AudioTagger, content: bytes) -> None:
    for result in tagger.tag_files([content, content], workers=2):
        if error := getattr(result, "error", None):
            raise error


def _listen(tagger: AudioTagger, content: bytes) -> None:
    stream = open_stream(io.BytesIO(content))
    live = StreamTagger(tagger, stream.rate, channels=stream.channels, window=1.0, hop=0.5)
    for piece in stream.blocks:
        for _, _, scores in live.windows(piece):
            _check(scores)
    for _, _, scores in live.last_windows():
        _check(scores)


def _load(attack: Attack, good: Path, folder: Path, secret: Path) -> None:
    path = folder / attack.kind.file
    path.write_bytes(attack.make((good / attack.kind.undamaged).read_bytes(), secret))
    tagger = AudioTagger(path, backend="onnx") if path.suffix == ".onnx" else AudioTagger(path, "cpu")
    _check(tagger.scores(np.zeros(8000, np.float32), 8000))


def _check(scores: np.ndarray) -> None:
    if not (np.isfinite(scores).all() and (scores >= 0).all() and (scores <= 1).all()):
        raise ArithmeticError("scores that are no scores")


def _counted() -> tuple[float, int, int]:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(status["VmRSS"].split()[0]) / 1000, len(list(Path("/proc/self/fd").iterdir())), int(status["Threads"])


def growth(samples: Sequence[Sample]) -> list[tuple[str, str, str, bool]]:
    """Compare the second with the last fifth of the time: medians, and whether they are alike."""
    seconds = np.array([sample.seconds for sample in samples])
    fifths = np.minimum(5 * seconds / max(seconds[-1], 1e-9), 4).astype(int)
    second, last = ((fifths == fifth) if (fifths == fifth).any() else seconds == seconds[-1] for fifth in (1, 4))
    rows = []
    for what, unit, allowed in (("memory", " MB", MEMORY_GROWTH), ("files", "", 0.0), ("threads", "", 0.0)):
        values = np.array([getattr(sample, what) for sample in samples])
        before, after = np.median(values[second]), np.median(values[last])
        rows.append((what, f"{before:.0f}{unit}", f"{after:.0f}{unit}", bool(after <= before * (1 + allowed))))
    return rows


def outcome_rows(outcomes: Counter[tuple[str, str]]) -> list[tuple[str, int, int, int]]:
    rows = []
    for kind in sorted({kind for kind, _ in outcomes}):
        right, refused = outcomes[kind, "right result"], outcomes[kind, "refused"]
        rows.append((kind, right, refused, sum(count for (one, _), count in outcomes.items() if one == kind) - right - refused))
    return rows


def draw(samples: Sequence[Sample], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    minutes = [sample.seconds / 60 for sample in samples]
    all_axes = figure.subplots(3, 1, sharex=True)
    for axes, what, label in zip(
        all_axes, ("memory", "files", "threads"), ("memory (MB)", "file descriptors", "threads"), strict=True
    ):
        axes.plot(minutes, [getattr(sample, what) for sample in samples], linewidth=0.8)
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
    all_axes[-1].set_xlabel("minutes")
    common.save_figure(figure, path)


if __name__ == "__main__":
    cli.run(main)
