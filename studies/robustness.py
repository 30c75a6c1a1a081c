"""How much do scores suffer from padding, short windows, half precision, mp3, level and noise? One table.

python -m studies.robustness --audio_dir data/ESC-10 --dataset_dir data/opensounds --model_name mn04_as --output results.csv

Every recording is scored as it is and under each condition: accuracy on ESC-10 (or ESC-50's part of it), mAP on the evaluation
split of the open corpus, and the mean absolute difference of the scores of all classes from those of the recordings as they are.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import soundfile
import torch
from tqdm import tqdm

from datasets import audio, audioset
from datasets.clip import ClipDataset
from datasets.csv_table import write_table
from helpers import cli
from helpers.metrics import accuracy, tagging_metrics
from helpers.tagger.audio_tagger import AudioTagger
from helpers.tagger.torch_backend import TorchBackend
from studies import esc10

PADDED_SECONDS = (1, 2, 3, 5, 10)
WINDOW_SECONDS = (0.5, 1, 2, 3, 5, 10)
MP3_KBITS = (32, 64, 128)
LAME_DELAY = 1105  # samples, of encoder and decoder
LEVELS_DB = (0, -20, -40, -60)
SNRS_DB = (40, 30, 20, 10, 0)
AS_IT_IS, UNPADDED = "as it is", "without padding"

# (samples,) and the number of the recording -> scores (K,); None: those without padding, as there is nothing to pad
Compute = Callable[[np.ndarray, int], np.ndarray | None]


class Row(NamedTuple):
    """A condition's scores on a data set."""

    score: float  # accuracy or mAP
    difference: float  # mean |score - score as it is| over recordings and classes


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("--model_name", nargs="+", default=["mn10_as"], help="released or bundled names, or paths of checkpoints")
    parser.add_argument("--audio_dir", type=cli.absolute_path, help="folder of ESC-10 or ESC-50")
    parser.add_argument("--dataset_dir", type=cli.absolute_path, help="folder of HDF5 files with an evaluation split")
    parser.add_argument("--output", type=Path, help="also write the table to this CSV file")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    if not (args.audio_dir or args.dataset_dir):
        parser.error("give --audio_dir, --dataset_dir or both")
    taggers = {name: AudioTagger(name, backend="onnx") for name in args.model_name}
    data = {name: list(open_data(args, tagger)) for name, tagger in taggers.items()}  # which fails early
    rows: dict[tuple[str, str], dict[str, Row]] = {}
    for name, tagger in taggers.items():
        for measure, clips, score in data[name]:
            scores = compute_scores(conditions(name, tagger), clips, f"{name}, {measure}")
            rows[name, measure] = compare(scores, score)
            if args.output:
                write_csv(args.output, rows)
        print_table(name, {measure: table for (model, measure), table in rows.items() if model == name})
    return 0


def open_data(args: argparse.Namespace, tagger: AudioTagger) -> Iterator[tuple[str, ClipDataset, Callable[[np.ndarray], float]]]:
    """Measure, recordings of full length, and a function from scores (N, K) to the measure."""
    whole = {"sample_rate": tagger.sample_rate, "clip_seconds": None}
    if args.audio_dir:
        with TemporaryDirectory() as folder:
            data = esc10.open_clips(args.audio_dir, Path(folder))
        esc10.check_labels(tagger.labels)

        def score(scores: np.ndarray) -> float:
            return accuracy(data.targets, esc10.class_scores(scores, tagger.labels, data.class_names))

        yield "ESC-10 accuracy", data.clips(range(len(data.paths)), **whole), score
    if args.dataset_dir:
        evaluation = audioset.evaluation_set(args.dataset_dir, **whole)
        yield "evaluation split mAP", evaluation, lambda scores: tagging_metrics(evaluation.targets(), scores).mAP


def conditions(name: str, tagger: AudioTagger) -> dict[str, Compute]:
    """The rows of the table, in order; the first one is the recording as it is, as users get it."""
    rate = tagger.sample_rate

    def changed(change: Callable[[np.ndarray, int], np.ndarray]) -> Compute:
        return lambda waveform, number: tagger.scores(change(waveform, number), rate)

    def windows(seconds: float) -> Compute:
        return lambda waveform, number: tagger.tag_windows(waveform, rate, window=seconds, hop=seconds).scores.mean(0)

    def filled(fill: Callable[[np.ndarray, int], np.ndarray], seconds: float) -> Compute:
        length = round(seconds * rate)
        return lambda waveform, number: tagger.backend([fill(waveform, length)])[0][0] if len(waveform) < length else None

    found: dict[str, Compute] = {
        AS_IT_IS: changed(lambda waveform, number: waveform),
        UNPADDED: lambda waveform, number: tagger.backend([waveform])[0][0],
    }
    found |= {f"padded with zeros to {seconds:g} s": filled(audio.crop_or_pad, seconds) for seconds in PADDED_SECONDS}
    found |= {f"repeated to {seconds:g} s": filled(np.resize, seconds) for seconds in PADDED_SECONDS}
    found |= {f"mean of windows of {seconds:g} s": windows(seconds) for seconds in WINDOW_SECONDS}
    found |= half_precision(name, tagger)
    found |= {f"mp3, {kbits} kbit/s": changed(lambda w, _, kbits=kbits: through_mp3(w, rate, kbits)) for kbits in MP3_KBITS}
    found |= {f"peak at {level} dB": changed(lambda w, _, level=level: at_level(w, level)) for level in LEVELS_DB}
    return found | {f"white noise, SNR {snr} dB": changed(lambda w, n, snr=snr: with_noise(w, snr, n)) for snr in SNRS_DB}


def half_precision(name: str, tagger: AudioTagger) -> dict[str, Compute]:
    """Weights that are stored as, and networks that compute in, numbers of 16 bits; the front end computes in float32."""
    shortest = round(tagger.min_seconds * tagger.sample_rate)

    def compute(backend: TorchBackend) -> Compute:
        return lambda waveform, number: backend([audio.crop_or_pad(waveform, max(len(waveform), shortest))])[0][0]

    found = {}
    for dtype, text in ((torch.float16, "float16"), (torch.bfloat16, "bfloat16")):
        stored, computing = TorchBackend(name, "cpu"), TorchBackend(name, "cpu")
        stored.model.network.to(dtype).float()
        computing.model.network.to(dtype)
        found |= {f"{text} weights": compute(stored), f"{text} weights and computation": compute(computing)}
    return found


def through_mp3(waveform: np.ndarray, rate: int, kbits: int) -> np.ndarray:
    """Encode with a constant bit rate, and decode."""
    file = io.BytesIO()
    # libsndfile's compression 0 to 1 stands for LAME's 320 to 32 kbit/s, below 32 kHz for 160 to 8 kbit/s; 1 itself it refuses.
    highest, lowest = (320, 32) if rate >= 32000 else (160, 8)
    compression = min((highest - kbits) / (highest - lowest), 0.999)
    soundfile.write(file, waveform, rate, format="MP3", bitrate_mode="CONSTANT", compression_level=compression)
    decoded = audio.load(file.getvalue(), rate)
    # A frame of 32 kbit/s has no room for the length of the recording, so the encoder's delay comes back as well.
    return audio.crop_or_pad(decoded, len(waveform), LAME_DELAY if len(decoded) > len(waveform) else 0)


def at_level(waveform: np.ndarray, decibels: float) -> np.ndarray:
    """Scale to a peak of so many decibels below full scale; digital silence stays."""
    peak = np.abs(waveform).max()
    return waveform * np.float32(10 ** (decibels / 20) / peak) if peak > 0 else waveform


def with_noise(waveform: np.ndarray, snr: float, seed: int) -> np.ndarray:
    """Add white noise whose power is `snr` decibels below that of the recording."""
    noise = np.random.default_rng(seed).standard_normal(len(waveform), dtype=np.float32)
    return waveform + noise * np.float32(np.sqrt(np.mean(waveform**2)) * 10 ** (-snr / 20))


def compute_scores(rows: Mapping[str, Compute], clips: ClipDataset, description: str) -> dict[str, np.ndarray]:
    """Scores (N, K) of all recordings under each condition; one recording at a time is in memory."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in rows}
    for number in tqdm(range(len(clips)), desc=description, disable=None):
        waveform = clips[number].waveform.numpy()
        for name, compute in rows.items():
            scores = compute(waveform, number)
            found[name].append(found[UNPADDED][-1] if scores is None else scores)
    return {name: np.stack(scores) for name, scores in found.items()}


def compare(scores: Mapping[str, np.ndarray], score: Callable[[np.ndarray], float]) -> dict[str, Row]:
    """The table: measure of each condition, and difference from the recordings as they are."""
    reference = scores[AS_IT_IS]
    return {name: Row(score(values), float(np.abs(values - reference).mean())) for name, values in scores.items()}


def write_csv(path: Path, rows: Mapping[tuple[str, str], Mapping[str, Row]]) -> None:
    """Write the rows of all models and measures so far."""
    lines = [
        (name, measure, condition, *(f"{value:.5f}" for value in row))
        for (name, measure), table in rows.items()
        for condition, row in table.items()
    ]
    write_table(path, [("model", "measure", "condition", "score", "mean_difference"), *lines])


def print_table(name: str, tables: Mapping[str, Mapping[str, Row]]) -> None:
    """Print a model's rows as Markdown; `tables` are by measure."""
    print(f"| {name} | {' | '.join(f'{measure} | mean difference' for measure in tables)} |\n|{'---|' * (2 * len(tables) + 1)}")
    for condition in next(iter(tables.values())):
        cells = [f"{table[condition].score:.4f} | {table[condition].difference:.5f}" for table in tables.values()]
        print(f"| {condition} | {' | '.join(cells)} |")


if __name__ == "__main__":
    cli.run(main)
