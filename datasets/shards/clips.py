"""A clip in a shard, its YouTube id and its classes, whatever names the shard's maker gave them."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from datasets.labels import audioset_labels, audioset_mids
from datasets.shards.stored import Stored
from models.errors import UserError

ID_KEYS = ("video_id", "youtube_id", "ytid", "id", "key")
LABEL_KEYS = ("labels", "mids", "positive_labels", "label", "tags", "tag", "human_labels")  # the first that fits is used

# Names as downloaders give them: YouTube ids have 11 characters.
_YOUTUBE_NAME = re.compile(r"Y?([A-Za-z0-9_-]{11})(?:_\d+(?:\.\d+)?){0,2}")


class ShardError(UserError):
    """A shard cannot be read, or is not laid out as clips."""


class ShardClip(NamedTuple):
    """A recording with what its shard says about it."""

    key: str  # its id or name there
    record: Mapping[str, Any]  # columns or JSON
    stored: Stored | None  # None where there is no recording

    def classes(self) -> tuple[int, ...]:
        """Indices of its classes. Raises ShardError when it has none of the labels' names, or labels of other kinds."""
        given = [(key, self.record[key]) for key in LABEL_KEYS if self.record.get(key) is not None]
        for _, labels in given:
            classes = _classes(labels)
            if classes is not None:
                return classes
        found = (
            "; ".join(f"{key}: {str(labels)[:80]}" for key, labels in given) or f"there is {', '.join(self.record) or 'no JSON'}"
        )
        raise ShardError(
            f"{self.key} has no labels that are AudioSet's MIDs or names ({found}); give AudioSet's --csv to prepare it"
        )


def clip_key(record: Mapping[str, Any], file_name: str) -> str:
    """A clip's id by its record, else its file's name without suffix."""
    ids = (record[key] for key in ID_KEYS if isinstance(record.get(key), str) and record[key])
    name = PurePosixPath(file_name).name
    return next(ids, name[: -len(PurePosixPath(name).suffix)] if PurePosixPath(name).suffix else name)


def clip_name(key: str) -> str:
    """Name of a clip as in AudioSet's HDF5 files, Y<YouTube id>.mp3, for an id or a name that a downloader gave; others stay."""
    match = _YOUTUBE_NAME.fullmatch(key)
    return f"Y{match[1]}.mp3" if match else key


def _classes(labels: Any) -> tuple[int, ...] | None:
    """Class indices of MIDs or display names, a list or a string of one or of several MIDs; None for anything else."""
    if isinstance(labels, str):
        labels = [labels] if labels in _class_of() else [part for part in re.split(r"[,\s]+", labels) if part]
    if not isinstance(labels, Sequence) or not all(isinstance(label, str) and label in _class_of() for label in labels):
        return None
    return tuple(sorted({_class_of()[label] for label in labels}))


@cache
def _class_of() -> dict[str, int]:
    return {name: index for names in (audioset_labels(), audioset_mids()) for index, name in enumerate(names)}
