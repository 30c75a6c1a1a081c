"""Which tags are asked for: how many, from which score on, of which classes."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from helpers.tagger.results import Tag, top_tags
from models.config import is_number, is_whole
from models.errors import UserError


@dataclass(frozen=True)
class Selection:
    """Picks tags from scores."""

    labels: tuple[str, ...]  # of all classes
    top_k: int | None  # None: all
    threshold: float  # lowest score
    classes: tuple[int, ...] | None  # to choose from (None: all)

    def __post_init__(self) -> None:
        if self.top_k is not None and not (is_whole(self.top_k) and self.top_k >= 1):
            raise UserError(f"top_k is {self.top_k!r:.50}; it must be 1 or more, or None for all classes")
        if not is_number(self.threshold) or not 0 <= self.threshold <= 1:
            raise UserError(f"threshold is {self.threshold!r:.50}; it must be from 0 to 1")

    def __call__(self, scores: np.ndarray) -> tuple[Tag, ...]:
        """(K,) -> the tags that are asked for, highest score first."""
        return top_tags(self.labels, scores, self.top_k, self.threshold, self.classes)


def find_classes(names: Sequence[str] | None, labels: Sequence[str]) -> tuple[int, ...] | None:
    """Return the indices of names among labels, in any case; `UserError` for an unknown name, with similar ones."""
    if names is None:
        return None
    if not isinstance(names, Collection) or isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise UserError(f"labels are {names!r}; pass a list of names of classes")
    known = {label.lower(): k for k, label in reversed(list(enumerate(labels)))}
    found = []
    for name in names:
        if name.lower() not in known:
            similar = [labels[known[near]] for near in difflib.get_close_matches(name.lower(), known, n=3)]
            containing = [label for label in labels if name.lower() in label.lower()][:3]
            hint = " or ".join(dict.fromkeys(repr(label) for label in containing + similar))
            raise UserError(f"unknown label {name!r}; " + (f"did you mean {hint}?" if hint else "the model has no such class"))
        found.append(known[name.lower()])
    return tuple(dict.fromkeys(found))
