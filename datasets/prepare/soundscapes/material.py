"""What scenes are mixed from: the corpus's clips by part and class, and its backgrounds."""

from collections import defaultdict
from pathlib import Path

import numpy as np

from datasets.prepare.corpus import Corpus, CorpusClip
from datasets.prepare.opensounds.tables import with_ancestors
from models.errors import UserError

PARTS = ("train", "validation", "eval")
VALIDATION_FOLD = 5  # of the corpus's training clips, as in its own validation split
ENOUGH_RECORDINGS = {"train": 8, "validation": 2, "eval": 4}  # of a class
BACKGROUNDS = {
    "Cricket", "Crowd", "Engine", "Environmental noise", "Fire", "Helicopter", "Hum", "Jet engine", "Mains hum", "Pink noise",
    "Rain", "Ship", "Static", "Steam", "Stream", "Traffic noise, roadway noise", "Water", "Waves, surf", "White noise", "Wind",
}  # fmt: skip
MIXTURES = {"Drum kit", "Electronic music", "Music", "Rock music", "Techno", "Video game music"}  # of sounds of several classes
SHORTEST_BACKGROUND = 3.0  # seconds


class Material:
    """Clips that events and backgrounds are taken from.

    A class is a label with enough recordings in each part; labels that another implies are left out, as Drum next to Rimshot.
    Parts share no recording: validation has a fold of the corpus's training clips, evaluation the corpus's evaluation split.
    """

    def __init__(self, corpus: Corpus) -> None:
        """Raises UserError for a corpus without a class that has enough recordings."""
        self.corpus = corpus
        recordings: dict[str, dict[str, set[str]]] = {part: defaultdict(set) for part in PARTS}
        for clip in corpus.clips:
            for label in clip.labels:
                recordings[part_of(clip)][label].add(clip.recording)
        enough = {
            label for label in recordings["train"] if all(len(recordings[part][label]) >= ENOUGH_RECORDINGS[part] for part in PARTS)
        } - (BACKGROUNDS | MIXTURES)
        implied = {ancestor for label in enough for ancestor in with_ancestors((label,))[1:]}
        self.labels = tuple(sorted(enough - implied))
        if not self.labels:
            needed = ", ".join(f"{count} in {part}" for part, count in ENOUGH_RECORDINGS.items())
            raise UserError(f"no class of the corpus has enough recordings, which are {needed}; build it with all packages")
        self._events: dict[tuple[str, str], dict[str, list[CorpusClip]]] = defaultdict(lambda: defaultdict(list))
        self._backgrounds: dict[str, dict[str, list[CorpusClip]]] = {part: defaultdict(list) for part in PARTS}
        for clip in corpus.clips:
            part = part_of(clip)
            if BACKGROUNDS.issuperset(clip.labels):
                self._backgrounds[part][clip.labels[0]].append(clip)
            elif MIXTURES.isdisjoint(clip.labels):
                for label in self.labels:
                    if label in clip.labels:
                        self._events[part, label][clip.recording].append(clip)

    def event(self, part: str, rng: np.random.Generator) -> CorpusClip:
        """A random clip of a random class: classes have equal shares, and so have the recordings of a class."""
        of_class = self._events[part, self.labels[rng.integers(len(self.labels))]]
        clips = list(of_class.values())[rng.integers(len(of_class))]
        return clips[rng.integers(len(clips))]

    def background(self, part: str, rng: np.random.Generator) -> CorpusClip | None:
        """A random clip of a random kind of background; None if the part has none."""
        kinds = list(self._backgrounds[part].values())
        if not kinds:
            return None
        clips = kinds[rng.integers(len(kinds))]
        return clips[rng.integers(len(clips))]

    def classes_of(self, clip: CorpusClip) -> list[int]:
        """The classes of an event, by index."""
        return [k for k, label in enumerate(self.labels) if label in clip.labels]


def open_material(folder: Path) -> Material:
    """The material of a corpus's folder."""
    return Material(Corpus(folder))


def part_of(clip: CorpusClip) -> str:
    """The part whose scenes a clip may be in."""
    return "eval" if clip.is_eval else "validation" if clip.fold == VALIDATION_FOLD else "train"
