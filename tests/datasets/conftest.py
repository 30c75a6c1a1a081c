"""A tiny open corpus, for what is made of one."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from datasets import audio
from datasets.prepare.opensounds.build import write_corpus
from datasets.prepare.opensounds.clips import EncodedClip

RESOURCES = Path(__file__).resolve().parents[2] / "resources"


@pytest.fixture(scope="session")
def write_tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write a corpus of 0.3 s pieces of the bundled recordings; rows of a split are (labels, package) or those and a recording."""
    sound = np.concatenate([audio.load(path, 32000) for path in sorted((RESOURCES / "recordings").glob("*.ogg"))])
    starts = np.linspace(0, len(sound) - 9600, 61, dtype=int)
    mp3s = [audio.encode_mp3(sound[start : start + 9600], 32000) for start in starts]

    def write(splits: dict[str, list[tuple[object, ...]]]) -> Path:
        numbers = count()

        def clip(is_eval: bool, labels: tuple[str, ...], package: str, recording: str = "") -> EncodedClip:
            number = next(numbers)
            return EncodedClip(
                name=f"Y{number * 7919 % 10007:011d}.mp3",
                labels=labels,
                package=package,
                version="1",
                source="",
                recording=f"{package}/{recording or number}",
                fold=1 + number % 5,
                kind="recording",
                licence="CC0",
                licence_class="permissive",
                seconds=0.3,
                original_rate=32000,
                sha1="",
                is_eval=is_eval,
                mp3=mp3s[number % len(mp3s)],
                fingerprint=np.zeros(0),
            )

        folder = tmp_path_factory.mktemp("corpus")
        write_corpus(folder, {split: [clip(split == "eval", *row) for row in rows] for split, rows in splits.items()}, [])
        return folder

    return write
