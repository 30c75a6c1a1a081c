"""The tables of the open corpus and the ontology."""

import re

import pytest

from datasets.labels import audioset_labels
from datasets.prepare.opensounds import tables
from datasets.prepare.opensounds.soundfonts import DRUM_BANK
from datasets.prepare.opensounds.tables import packages, parents, presets, rules, sentences, with_ancestors


def test_every_package_is_in_one_split_and_can_be_read():
    assert len({package.name for package in packages()}) == len(packages())
    assert {package.split for package in packages()} == {"train", "eval"}
    assert {package.licence_class for package in packages()} == {"permissive", "share-alike", "copyleft"}
    assert {package.reader for package in packages()} <= {"files", "zip", "soundfont", "espeak", "flite", "signals"}
    splits = [package.split for package in packages()]
    assert splits == sorted(splits, reverse=True), "training comes first, so that evaluation gives way to it"


def test_rules_compile_and_belong_to_packages_with_files():
    with_files = [package.name for package in packages() if package.reader in ("files", "zip")]
    rows = tables._rows("opensounds/rules.tsv")
    assert {row["package"] for row in rows} == set(with_files)
    assert sum(len(rules(name)) for name in with_files) == len(rows)  # parsing them checks that the labels exist
    for name in with_files:
        assert len({rule.pattern for rule in rules(name)}) == len(rules(name))
        for rule in rules(name):
            re.compile(rule.pattern)
            assert rule.combine in ("", "speech", "steps")


def test_presets_are_within_midi():
    assert len({(p.bank, p.program, p.low if p.style == "drum" else 0) for p in presets()}) == len(presets())
    for preset in presets():
        assert 0 <= preset.low <= preset.high <= 127 and preset.labels
        assert preset.style in ("melodic", "polyphonic", "effect", "drum")
        assert (preset.program is None) == (preset.style == "drum") == (preset.bank == DRUM_BANK)


def test_ontology_has_only_labels_and_no_cycles():
    assert {*parents(), *(parent for found in parents().values() for parent in found)} <= set(audioset_labels())
    for label in parents():
        assert label not in with_ancestors(parents()[label])


@pytest.mark.parametrize(
    ("label", "ancestors"),
    [  # by hand, from the ontology as published
        ("Moo", {"Cattle, bovinae", "Livestock, farm animals, working animals", "Animal"}),
        ("Hi-hat", {"Cymbal", "Percussion", "Musical instrument", "Music"}),
        ("Police car (siren)", {"Siren", "Alarm", "Emergency vehicle", "Motor vehicle (road)", "Vehicle"}),
        ("Speech", set()),
    ],
)
def test_ancestors(label, ancestors):
    assert with_ancestors((label,))[0] == label
    assert set(with_ancestors((label,))) == {label, *ancestors}
    assert len(with_ancestors((label, *ancestors))) == 1 + len(ancestors)


def test_unknown_labels_are_named():
    with pytest.raises(ValueError, match="Mooo"):
        tables.parse_labels("Moo;Mooo")


def test_there_is_something_to_say():
    assert len(sentences()) >= 5 and all(sentences())
