"""What the open corpus is made of: the tables of resources/opensounds as typed rows.

`packages.tsv` names the Debian packages with their split, licence and reader. `rules.tsv` says which files of a package
carry which AudioSet labels: the first matching pattern wins, and one without labels keeps a file out. `gm_presets.tsv`
says the same for the General MIDI sounds of a soundfont, `resources/audioset_parents.tsv` which label implies which.
"""

import csv
import functools
import re
from dataclasses import dataclass
from pathlib import Path

from datasets.labels import audioset_labels
from models.errors import UserError

RESOURCES = Path(__file__).resolve().parents[3] / "resources"


@dataclass(frozen=True)
class Package:
    """A source of sounds: a Debian package, a speech synthesizer or a set of computed signals."""

    name: str
    split: str  # train or eval: a package is in one of them only
    licence: str
    licence_class: str  # permissive, share-alike or copyleft
    reader: str  # files, zip, soundfont, espeak, flite or signals
    segments: int  # at most this many 10 s segments of a long recording
    amount: int  # phrases per instrument (soundfont), clips (espeak, flite) or clips per kind (signals)

    @property
    def is_deb(self) -> bool:
        """Whether the sounds are in a package file; the others are made here."""
        return self.reader in ("files", "zip", "soundfont")


@dataclass(frozen=True)
class Rule:
    """Files whose path matches `pattern` carry `labels`."""

    pattern: str
    labels: tuple[str, ...]
    combine: str  # speech: join prompts of one speaker; steps: let steps on one ground become a walk; else empty
    per_clip: int  # join at most this many files; 0: as many as fit
    cap: int  # use at most this many files, drawn with a fixed seed; 0: all


@dataclass(frozen=True)
class Preset:
    """A General MIDI sound: an instrument and its range of MIDI pitches, or one key (low = high) of every drum kit."""

    bank: int
    program: int | None  # None: every drum kit
    labels: tuple[str, ...]
    low: int
    high: int
    style: str  # melodic, polyphonic, effect (one recording, at any pitch) or drum


def _rows(name: str) -> list[dict[str, str]]:
    with open(RESOURCES / name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def parse_labels(text: str) -> tuple[str, ...]:
    """Split 'Bleat;Sheep'; ValueError if one is not an AudioSet label."""
    labels = tuple(label for label in text.split(";") if label)
    unknown = set(labels) - set(audioset_labels())
    if unknown:
        raise UserError(f"not among the AudioSet labels: {', '.join(sorted(unknown))}")
    return labels


@functools.cache
def packages() -> tuple[Package, ...]:
    """All packages: those for training come first, so evaluation gives way where two have the same sound."""
    return tuple(
        Package(
            row["package"], row["split"], row["licence"], row["licence_class"], row["reader"],
            segments=int(row["segments"] or 3), amount=int(row["amount"] or 0),
        )
        for row in _rows("opensounds/packages.tsv")
    )  # fmt: skip


@functools.cache
def rules(package: str) -> tuple[Rule, ...]:
    """The file name rules of a package, in the order in which they apply."""
    return tuple(
        Rule(
            row["pattern"], parse_labels(row["labels"]), row["combine"],
            per_clip=int(row["per_clip"] or 0), cap=int(row["cap"] or 0),
        )
        for row in _rows("opensounds/rules.tsv")
        if row["package"] == package
    )  # fmt: skip


def rule_for(path: str, package: str) -> Rule | None:
    """The rule that labels a file, None if it is not used."""
    rule = next((rule for rule in rules(package) if re.search(rule.pattern, path)), None)
    return rule if rule and rule.labels else None


@functools.cache
def presets() -> tuple[Preset, ...]:
    """All General MIDI instruments, effects and drums that have AudioSet labels."""
    return tuple(
        Preset(
            int(row["bank"]), None if row["program"] == "*" else int(row["program"]), parse_labels(row["labels"]),
            int(row["low"]), int(row["high"]), row["style"],
        )
        for row in _rows("opensounds/gm_presets.tsv")
    )  # fmt: skip


@functools.cache
def sentences() -> tuple[str, ...]:
    """Sentences for the speech synthesizers."""
    return tuple((RESOURCES / "opensounds" / "sentences.txt").read_text(encoding="utf-8").splitlines())


@functools.cache
def parents() -> dict[str, tuple[str, ...]]:
    """The direct parents of a label in the AudioSet ontology, as far as they are labels themselves."""
    found: dict[str, tuple[str, ...]] = {}
    for row in _rows("audioset_parents.tsv"):
        found[row["child"]] = (*found.get(row["child"], ()), row["parent"])
    return found


@functools.cache
def with_ancestors(labels: tuple[str, ...]) -> tuple[str, ...]:
    """The labels and all that they imply, each once."""
    found = dict.fromkeys(labels)
    for label in labels:
        found |= dict.fromkeys(with_ancestors(parents().get(label, ())))
    return tuple(found)
