"""Short pieces of work that write files, are resumed by doing them again, and can be compared bit by bit."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import RandomSampler

from datasets import audio
from datasets.clip import Clip
from datasets.hdf5_mp3 import Mp3Writer, read_entries
from datasets.prepare import audioset_shards
from datasets.prepare.conversion import Recording, Source, write_recordings, write_report, write_wavs
from helpers.distillation.writer import LogitsWriter
from helpers.tagger.run_files import RunFile
from helpers.training.builders import make_training_loader
from helpers.training.loop import fit
from helpers.training.objectives import bce_per_clip
from helpers.training.run import Run
from models import checkpoints
from models.config import Arch, MelConfig
from models.MobileNetV3 import MobileNetV3
from models.waveform import WaveformModel

NOISE = np.random.default_rng(0).standard_normal((6, 3200)).astype(np.float32) / 8
MP3S = [audio.encode_mp3(noise, 32000) for noise in NOISE]


@dataclass(frozen=True)
class Job:
    work: Callable[[Path], object]  # in a folder, from the beginning or from where it was interrupted
    result: Callable[[Path], object]
    inputs: Callable[[Path], object] = lambda folder: None  # what it reads, written before


def train(folder: Path) -> None:
    """Two epochs of two steps, with a checkpoint after each."""
    run_folder = folder / "run"
    torch.manual_seed(0)
    options = {"experiment_name": "run", "resume": None, "wandb": "disabled", "seed": 0, "accumulate": 1, "batch_size": 3}
    args = argparse.Namespace(**options, num_workers=0, cuda=False)

    def training_loss(network: nn.Module, batch: Clip) -> dict[str, torch.Tensor]:
        return {"loss": bce_per_clip(network(model.front_end(batch.waveform)[:, None])[0], batch.target).mean()}

    clips = [Clip(torch.from_numpy(noise), torch.tensor([i % 2, 1.0 - i % 2]), f"clip{i}", i) for i, noise in enumerate(NOISE)]
    scores = iter((0.25, 0.5))
    with Run(args, run_folder) as run:
        model = WaveformModel(MobileNetV3(Arch(num_classes=2, width_mult=0.1, input_dim_f=40), MelConfig(n_mels=40)))
        for _ in range(run.resumed[1]["progress"]["epoch"] if run.resumed else 0):
            next(scores)
        fit(
            model,
            make_training_loader(clips, RandomSampler(clips), args),
            training_loss,
            lambda: {"score": next(scores)},
            optimizer=torch.optim.Adam(model.parameters(), lr=1e-3),
            schedule=lambda epoch: 1.0,
            n_epochs=2,
            run=run,
            selection="score",
            save_minutes=0,
        )  # fmt: skip


def trained(folder: Path) -> object:
    found = [checkpoints.load(folder / "run" / name) for name in ("last.pt", "best.pt")]
    rows = (folder / "run" / "metrics.csv").read_text().splitlines()
    weights = [{name: tensor.numpy().tobytes() for name, tensor in checkpoint.state.items()} for checkpoint in found]
    return weights, [checkpoint.epoch for checkpoint in found], [row.rpartition(",")[0] for row in rows]


def pack(folder: Path) -> None:
    if (folder / "a.hdf").exists():
        return
    with Mp3Writer(folder / "a.hdf", 20) as writer:
        for number, mp3 in enumerate(MP3S):
            if f"clip{number}" not in writer.names:
                writer.add(f"clip{number}", mp3, np.eye(20)[number])


def packed(folder: Path) -> object:
    return [(name, mp3, target.tolist()) for name, mp3, target in read_entries(folder / "a.hdf", 20)]


def write_recordings_to_read(folder: Path) -> None:
    """Five recordings and one that is none."""
    (folder / "in").mkdir()
    for number, mp3 in enumerate([*MP3S[:5], b"no recording"]):
        (folder / "in" / f"{number}.mp3").write_bytes(mp3)


def prepare(folder: Path) -> None:
    output = folder / "a.hdf"
    found = [Recording(path.name, (Source(path),), (1,)) for path in sorted((folder / "in").iterdir())]
    if not output.exists():
        write_report(write_recordings(found, output, 20, num_workers=1), output)


def prepare_wavs(folder: Path) -> None:
    sources = {f"{path.stem}.wav": path for path in sorted((folder / "in").iterdir())[:5]}
    write_wavs(sources, folder / "out", 16000, num_workers=1)


def write_audioset(folder: Path) -> None:
    for part, number in (("balanced_train", 0), ("eval", 3)):
        with Mp3Writer(folder / "in" / f"{part}_segments_mp3.hdf", 527) as writer:
            for clip in range(number, number + 3):
                writer.add(f"Y{clip:011d}.mp3", MP3S[clip], np.eye(527)[clip])


def shards(folder: Path) -> None:
    audioset_shards.main(["--from", str(folder / "in"), "--format", "tar", "--output_dir", str(folder / "out")])


def written(folder: Path) -> object:
    """Names and content of the files below out/."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in (folder / "out").rglob("*") if path.is_file()}


def results(folder: Path) -> None:
    if (folder / "out" / "tags.csv").exists() and not (folder / "out" / "tags.csv.progress").exists():
        return
    with RunFile(folder / "out" / "tags.csv", {"top": 3}, resume=True) as file:
        for number in range(6):
            if f"{number}.wav" not in file.done:
                for row in range(number):
                    file.write(b"%d,%d\n" % (number, row))
                file.finish_recording(f"{number}.wav", rows=number, failed=False, warnings=0)


def logits(folder: Path) -> None:
    output = folder / "out" / "teacher.npy"
    if output.exists():
        return
    writer = LogitsWriter(output, 4, {"models": "a"})
    for start in range(len(writer.names), 6, 2):
        rows = range(start, min(start + 2, 6))
        writer.append([f"clip{row}" for row in rows], np.stack([np.full(4, row, np.float32) for row in rows]))
    writer.finish()


JOBS = {
    "training": Job(train, trained),
    "packing": Job(pack, packed),
    "preparation": Job(prepare, packed, write_recordings_to_read),
    "preparation of wavs": Job(prepare_wavs, written, write_recordings_to_read),
    "shards": Job(shards, written, write_audioset),
    "results": Job(results, written),
    "teacher logits": Job(logits, written),
}
