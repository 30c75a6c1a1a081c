"""Embeddings of data sets, computed once for each model, choice of layers and state of the data.

The cache has a folder for each of these. It holds info.json, which describes them, and arrays of `CHUNK_CLIPS` rows that are
written one after the other: an interrupted run resumes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from datasets.clip import Clip, ClipDataset
from helpers.probing.timestamps import timestamp_embeddings
from models.config import to_plain
from models.embeddings import EmbeddingModel
from models.files import write_atomically, write_bytes

CHUNK_CLIPS = 512
CLIPS_AT_ONCE = 64  # that are in memory
TIMES = "times"  # folder of the times of embeddings at timestamps
_VERSION = 2  # to be raised when embeddings come out otherwise than before


@dataclass(frozen=True)
class StoredClips:
    """The embeddings of a data set in the cache."""

    folder: Path
    info: dict[str, Any]  # all that they depend on, see `cache_info`
    columns: dict[str, slice]  # of each layer

    def read(self, layers: Sequence[str]) -> np.ndarray:
        """Return some layers of all clips side by side, (N, sum of their sizes) float32; the others are not read."""
        chunks = [np.load(path, mmap_mode="r") for path in sorted(self.folder.glob("*.npy"))]
        return np.concatenate([np.concatenate([chunk[:, self.columns[layer]] for layer in layers], 1) for chunk in chunks])

    def times(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the number of the clip (rows,) and the time in ms (rows,) of each embedding at timestamps."""
        rows = np.concatenate([np.load(path) for path in sorted((self.folder / TIMES).glob("*.npy"))])
        return rows[:, 0].astype(int), rows[:, 1]


def embed_clips(
    model: EmbeddingModel, clips: ClipDataset, cache_dir: str | Path, num_workers: int = 0, *, timestamps: bool = False
) -> StoredClips:
    """Compute `model.scenes`, or the embeddings at timestamps, of all clips that are not in the cache.

    Raises AudioError for a recording that cannot be used.
    """
    info = cache_info(model, clips) | ({"timestamps": True} if timestamps else {})
    folder = Path(cache_dir) / hashlib.sha256(json.dumps(info).encode()).hexdigest()[:32]
    write_bytes(folder / "info.json", json.dumps(info, indent=1).encode())
    with tqdm(total=len(clips), desc="embedding", unit="clip", disable=None, leave=False) as bar:
        for start in range(0, len(clips), CHUNK_CLIPS):
            rows = range(start, min(start + CHUNK_CLIPS, len(clips)))
            path = folder / f"{start:09d}.npy"
            times_path = folder / TIMES / path.name
            length = _length(times_path) if timestamps else len(rows)
            if length is None or not _is_whole(path, (length, model.embedding_size)):
                loader = DataLoader(Subset(clips, rows), CLIPS_AT_ONCE, num_workers=num_workers, collate_fn=list)
                if timestamps:
                    found = (_embed_timestamps(model, clip, bar) for batch in loader for clip in batch)
                    parts, moments = zip(*found, strict=True)
                    numbers = np.repeat(np.array(rows), [len(part) for part in parts])
                    times = np.stack([numbers, np.concatenate(moments)], 1)
                    write_atomically(times_path, lambda file, times=times: np.save(file, times))
                else:
                    parts = [_embed(model, batch, bar) for batch in loader]
                chunk = np.concatenate(parts)
                write_atomically(path, lambda file, chunk=chunk: np.save(file, chunk))
            bar.update(rows.stop - bar.n)
    return StoredClips(folder, info, model.columns)


def cache_info(model: EmbeddingModel, clips: ClipDataset) -> dict[str, Any]:
    """Return all that embeddings depend on."""
    weights = hashlib.sha256()
    for name, tensor in model.network.state_dict().items():
        weights.update(name.encode())
        weights.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    files = hashlib.sha256()
    for path in clips.paths:
        stat = os.stat(path)
        files.update(b"%s %d %d\n" % (os.fsencode(os.path.abspath(path)), stat.st_size, stat.st_mtime_ns))
    if any(segments := getattr(clips, "segments", ())):
        files.update(repr(segments).encode())
    return {
        "version": _VERSION,
        "layers": list(model.columns),
        "pooling": model.config.pooling,
        "arch": to_plain(model.network.arch),
        "mel": to_plain(model.network.mel),
        "weights": weights.hexdigest(),
        "clips": len(clips),
        "clip_seconds": clips.clip_seconds,
        "files": files.hexdigest(),
    }


def _is_whole(path: Path, shape: tuple[int, int]) -> bool:
    """Whether an array is there, and what it should be."""
    try:
        chunk = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return False
    return chunk.shape == shape and chunk.dtype == np.float32


def _length(path: Path) -> int | None:
    """Return how many timestamps are in an array; None where there is none."""
    try:
        return len(np.load(path, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError, EOFError):
        return None


def _embed_timestamps(model: EmbeddingModel, clip: Clip, bar: tqdm) -> tuple[np.ndarray, np.ndarray]:
    """Return embeddings (T, D) and times (T,) in ms."""
    embeddings, times = timestamp_embeddings(model, clip.waveform[None].to(model.device))
    bar.update()
    return embeddings[0].cpu().numpy(), times[0].double().cpu().numpy()


def _embed(model: EmbeddingModel, batch: list[Clip], bar: tqdm) -> np.ndarray:
    result = np.empty((len(batch), model.embedding_size), np.float32)
    lengths = np.array([len(clip.waveform) for clip in batch])
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        waveforms = torch.stack([batch[row].waveform for row in rows]).to(model.device)
        result[rows] = model.scenes(waveforms).cpu().numpy()
    bar.update(len(batch))
    return result
