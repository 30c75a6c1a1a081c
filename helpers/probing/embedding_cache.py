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
from models.config import to_plain
from models.embeddings import EmbeddingModel
from models.files import write_atomically, write_bytes

CHUNK_CLIPS = 512
CLIPS_AT_ONCE = 64  # that are in memory
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


def embed_clips(model: EmbeddingModel, clips: ClipDataset, cache_dir: str | Path, num_workers: int = 0) -> StoredClips:
    """Compute `model.scenes` of all clips that are not in the cache.

    Raises AudioError for a recording that cannot be used.
    """
    info = cache_info(model, clips)
    folder = Path(cache_dir) / hashlib.sha256(json.dumps(info).encode()).hexdigest()[:32]
    write_bytes(folder / "info.json", json.dumps(info, indent=1).encode())
    with tqdm(total=len(clips), desc="embedding", unit="clip", disable=None, leave=False) as bar:
        for start in range(0, len(clips), CHUNK_CLIPS):
            rows = range(start, min(start + CHUNK_CLIPS, len(clips)))
            path = folder / f"{start:09d}.npy"
            if not _is_whole(path, (len(rows), model.embedding_size)):
                loader = DataLoader(Subset(clips, rows), CLIPS_AT_ONCE, num_workers=num_workers, collate_fn=list)
                chunk = np.concatenate([_embed(model, batch, bar) for batch in loader])
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


def _embed(model: EmbeddingModel, batch: list[Clip], bar: tqdm) -> np.ndarray:
    result = np.empty((len(batch), model.embedding_size), np.float32)
    lengths = np.array([len(clip.waveform) for clip in batch])
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        waveforms = torch.stack([batch[row].waveform for row in rows]).to(model.device)
        result[rows] = model.scenes(waveforms).cpu().numpy()
    bar.update(len(batch))
    return result
