"""Label tables, read when first asked for from resources/."""

from functools import cache
from pathlib import Path

_RESOURCES = Path(__file__).resolve().parent.parent / "resources"


@cache
def _rows(table: str) -> tuple[tuple[str, str], ...]:
    """(MID, display name) of each class of a table, in the order of the targets and of the logits."""
    lines = (_RESOURCES / table).read_text(encoding="utf-8").splitlines()
    return tuple((mid, name) for _, mid, name, *_ in (line.split("\t") for line in lines[1:]))


@cache
def audioset_labels() -> tuple[str, ...]:
    """Display names of the 527 AudioSet classes ("Speech", "Male speech, man speaking", ...), by class index."""
    return tuple(name for _, name in _rows("audioset_labels.tsv"))


@cache
def audioset_mids() -> tuple[str, ...]:
    """Ontology identifiers of the 527 AudioSet classes ("/m/09x0r", ...), by class index."""
    return tuple(mid for mid, _ in _rows("audioset_labels.tsv"))


@cache
def audioset_strong_labels() -> tuple[str, ...]:
    """Display names of the 447 classes of AudioSet Strong's training set, by class index."""
    return tuple(name for _, name in _rows("audioset_strong_labels.tsv"))


@cache
def audioset_strong_mids() -> tuple[str, ...]:
    """Ontology identifiers of the 447 classes of AudioSet Strong; those of AudioSet may have another name there."""
    return tuple(mid for mid, _ in _rows("audioset_strong_labels.tsv"))


def default_labels(num_classes: int) -> tuple[str, ...]:
    """Names of a model's classes that has none of its own: AudioSet's or AudioSet Strong's, whose number is theirs, or numbers."""
    found = (labels for labels in (audioset_labels(), audioset_strong_labels()) if len(labels) == num_classes)
    return next(found, None) or tuple(f"class {k}" for k in range(num_classes))
