"""datasets.folders.label_files: what Raven and Audacity write."""

from __future__ import annotations

from pathlib import Path

import pytest

from datasets.folders.label_files import Label, parse_labels, recording_stem
from models.errors import UserError

PATH = Path("rec.txt")


def selections(*rows: tuple, columns: str = "Selection,View,Channel,Begin Time (s),End Time (s),Annotation") -> str:
    return "\n".join("\t".join(map(str, row)) for row in (columns.split(","), *rows)) + "\n"


def test_label_tracks():
    text = "0.500000\t2.500000\tdog; cat\n\\\t100.0\t2000.0\n\n3,5\t4\n5\t5\tpoint \n"
    assert parse_labels(text, PATH) == [
        Label(1, 0.5, 2.5, "dog; cat", ""), Label(4, 3.5, 4, "", ""), Label(5, 5, 5, "point", ""),
    ]  # fmt: skip
    for line in ("dog\n", "1\tx\tdog\n", "1,2,3\t4\tdog\n"):
        with pytest.raises(UserError, match="rec.txt, line 2"):
            parse_labels("0.5\t2.5\tdog\n" + line, PATH)


def test_selection_tables():
    rows = [(1, "Waveform 1", 1, 0.5, 2.5, "dog"), (1, "Spectrogram 1", 1, 0.5, 2.5, "dog"), (2, "Spectrogram 1", 1, 9, 12.25, "")]
    assert parse_labels(selections(*rows), PATH) == [Label(2, 0.5, 2.5, "dog", ""), Label(4, 9, 12.25, "", "")]
    assert parse_labels(selections(), PATH) == []
    columns = "Begin Time (s),End Time (s),Low Freq (Hz),Common Name,Species Code,Begin File,Begin Path"
    rows = [(0, 3, 0, "Tawny Owl", "tawowl", "a.wav", r"C:\night\a.wav"), (3, 6, 0, "Tawny Owl", "tawowl", "b.wav", "")]
    assert parse_labels(selections(*rows, columns=columns), PATH) == [
        Label(2, 0, 3, "Tawny Owl", r"C:\night\a.wav"), Label(3, 3, 6, "Tawny Owl", "b.wav"),
    ]  # fmt: skip


def test_times_of_a_sequence_of_files_are_those_of_the_file():
    columns = "Begin Time (s),End Time (s),Species,Begin File,File Offset (s)"
    (label,) = parse_labels(selections((610, 612.5, "owl", "second.wav", 10), columns=columns), PATH)
    assert label == Label(2, 10, 12.5, "owl", "second.wav")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (selections((1, 2, 3), columns="Selection,Begin Time (s),End Time (s)"), "annotation, .*species.*there are selection"),
        (selections((1, 2), columns="Begin Time (s),Species"), r"end time \(s\) is missing"),
        (selections((1, "W", 1, "early", 3, "dog")), "line 2: 'early'"),
    ],
)
def test_bad_selection_tables_are_named(text, message):
    with pytest.raises(UserError, match=f"rec.txt.*{message}"):
        parse_labels(text, PATH)


@pytest.mark.parametrize("text", ["", "path,labels\na,b\n", "path\tstart\tend\n", "Notes on 3\tMay\n"])
def test_other_texts_are_no_labels(text):
    assert parse_labels(text, PATH) is None


def test_labels_are_named_like_their_recording():
    names = ("rec.1.txt", "rec.1.Table.1.selections.txt", "rec.1.selections.txt", "rec.1.BirdNET.selection.table.txt")
    assert {recording_stem(Path("folder", name)) for name in names} == {"rec.1"}
    assert recording_stem(Path("rec.wav.txt")) == "rec.wav"
