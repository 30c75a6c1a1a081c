"""Label tables, read when first asked for from resources/."""

from functools import cache
from pathlib import Path

_RESOURCES = Path(__file__).resolve().parent.parent / "resources"


@cache
def _audioset_rows() -> tuple[tuple[str, str], ...]:
    """(MID, display name) of each AudioSet class, in the order of the targets and of the logits."""
    lines = (_RESOURCES / "audioset_labels.tsv").read_text(encoding="utf-8").splitlines()
    return tuple((mid, name) for _, mid, name in (line.split("\t") for line in lines[1:]))


@cache
def audioset_labels() -> tuple[str, ...]:
    """Display names of the 527 AudioSet classes ("Speech", "Male speech, man speaking", ...), by class index."""
    return tuple(name for _, name in _audioset_rows())


@cache
def audioset_mids() -> tuple[str, ...]:
    """Ontology identifiers of the 527 AudioSet classes ("/m/09x0r", ...), by class index."""
    return tuple(mid for mid, _ in _audioset_rows())


@cache
def _audioset_strong_rows() -> tuple[tuple[str, str], ...]:
    """(MID, display name) of each class of AudioSet Strong, in the order of the logits of the released frame-wise models."""
    lines = (_RESOURCES / "audioset_strong_labels.tsv").read_text(encoding="utf-8").splitlines()
    return tuple((mid, name) for _, mid, name, _ in (line.split("\t") for line in lines[1:]))


@cache
def audioset_strong_labels() -> tuple[str, ...]:
    """Display names of the 447 classes of AudioSet Strong, by class index."""
    return tuple(name for _, name in _audioset_strong_rows())


@cache
def audioset_strong_mids() -> tuple[str, ...]:
    """Ontology identifiers of the 447 classes of AudioSet Strong, by class index."""
    return tuple(mid for mid, _ in _audioset_strong_rows())


def default_labels(num_classes: int) -> tuple[str, ...]:
    """Names of a model's classes that has none of its own: AudioSet's, or numbers where there are more or fewer."""
    labels = audioset_labels()
    return labels if num_classes == len(labels) else tuple(f"class {k}" for k in range(num_classes))
