"""Tables of events: AudioSet Strong's, DESED's and others; bad input; events as targets of frames."""

import logging

import numpy as np
import pytest

from datasets.strong_labels import (
    ClipRows,
    LabelledEvent,
    encode,
    merged,
    read_strong_labels,
    table_labels,
    write_strong_labels,
)
from models.errors import UserError

LABELS, MIDS = ("Bark", "Speech", "Water"), ("/m/05tny_", "/m/09x0r", "/m/0838f")
# The label encoding of the published training: events, and the frames [first, last) that are active in 250 of 40 ms.
PUBLISHED_EVENTS = [(0.0, 0.5, 0), (1.23, 1.25, 1), (4.999, 6.0, 0), (9.97, 10.3, 2)]
PUBLISHED_FRAMES = {0: [(0, 13), (124, 150)], 1: [(30, 32)], 2: [(249, 250)]}


def table(tmp_path, *rows, header="segment_id\tstart_time_seconds\tend_time_seconds\tlabel"):
    path = tmp_path / "events.tsv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def test_three_kinds_of_tables_give_the_same_events(tmp_path):
    expected = {"a_30000": [LabelledEvent(0.5, 2.0, 1), LabelledEvent(1.0, 3.25, 0)]}
    audioset = table(tmp_path, "a_30000\t1.0\t3.25\t/m/05tny_", "a_30000\t0.5\t2.0\t/m/09x0r")
    assert read_strong_labels(audioset, LABELS, MIDS) == expected
    desed = table(tmp_path, "a_30000\t1.0\t3.25\tBark", "a_30000\t0.5\t2.0\tSpeech", header="filename\tonset\toffset\tevent_label")
    assert read_strong_labels(desed, LABELS) == expected
    own = table(tmp_path, "a_30000;1,0;3,25;Bark", "a_30000;0,5;2,0;Speech", header="Path;Start;End;Labels")
    assert read_strong_labels(own, LABELS) == expected
    assert table_labels(own) == ("Bark", "Speech")


def test_clips_without_events_are_kept(tmp_path):
    events = read_strong_labels(table(tmp_path, "silent\t\t\t", "loud\t0\t1\tBark"), LABELS)
    assert events == {"silent": [], "loud": [LabelledEvent(0, 1, 0)]}
    assert not encode(events["silent"], 3).any()


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("a\t1\t2\tBarks", r"line 3.*'Barks'.*Bark, Speech, Water"),
        ("a\t-0.5\t2\tBark", r"line 3.*-0.5 s"),
        ("a\t2\t1\tBark", r"line 3.*1 s.*2 s"),
        ("a\t\t1\tBark", r"line 3"),
        ("a\t0\tnan\tBark", r"line 3.*nan"),
        ("\t0\t1\tBark", r"line 3.*segment_id"),
        ("a\t0\t1", r"line 3"),
    ],
)  # fmt: skip
def test_bad_rows_are_one_line_that_names_the_row(tmp_path, row, said):
    with pytest.raises(UserError, match=said) as error:
        read_strong_labels(table(tmp_path, "a\t0\t1\tBark", row), LABELS)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("header", ["segment_id\tstart\tlabel", "name\tonset\toffset\tevent_label"])
def test_tables_without_a_column_are_refused(tmp_path, header):
    with pytest.raises(UserError, match="no column"):
        read_strong_labels(table(tmp_path, "\t".join("1" for _ in header.split("\t")), header=header), LABELS)


def test_what_is_changed_is_counted_and_said(tmp_path, caplog):
    rows = ["a\t8\t12\tBark", "a\t10.5\t11\tBark", "a\t3\t3\tWater", "a\t1\t2\tMeow", "a\t0\t2\tSpeech", "a\t1\t3\tSpeech"]
    with caplog.at_level(logging.WARNING):
        events = read_strong_labels(table(tmp_path, *rows), LABELS, seconds=10.0, leave_out_unknown=True)
    assert events == {"a": [LabelledEvent(0, 3, 1), LabelledEvent(8, 10, 0)]}
    kinds = ["other classes", "behind the end", "without any length", "beyond the end", "overlap"]
    assert len(caplog.messages) == len(kinds)
    assert all(sum(kind in message and " 1 events" in message for message in caplog.messages) == 1 for kind in kinds)


def test_lengths_of_single_clips_cut_their_events(tmp_path):
    events = read_strong_labels(table(tmp_path, "a\t1\t9\tBark", "b\t1\t9\tBark"), LABELS, seconds={"a": 4.0})
    assert [of_clip[0].offset for of_clip in events.values()] == [4.0, 9.0]


def test_overlapping_and_touching_events_of_a_class_are_merged():
    events = [
        LabelledEvent(2, 3, 0),
        LabelledEvent(0, 2, 0),
        LabelledEvent(1, 1.5, 0),
        LabelledEvent(1, 4, 1),
        LabelledEvent(3.1, 5, 0),
    ]
    assert merged(events) == [LabelledEvent(0, 3, 0), LabelledEvent(1, 4, 1), LabelledEvent(3.1, 5, 0)]


def test_encoding_is_the_published_one():
    target = encode([LabelledEvent(*event) for event in PUBLISHED_EVENTS], 3)
    expected = np.zeros((3, 250), np.float32)
    for k, ranges in PUBLISHED_FRAMES.items():
        for first, last in ranges:
            expected[k, first:last] = 1
    np.testing.assert_array_equal(target, expected)


def test_events_on_the_frames_grid_get_no_further_frame():
    for first in range(250):
        onset, offset = round(first * 0.04, 2), round((first + 1) * 0.04, 2)
        assert encode([LabelledEvent(onset, offset, 0)], 1)[0].nonzero()[0].tolist() == [first]


def test_events_of_any_length_are_encoded():
    assert encode([LabelledEvent(0.04, 1e308, 0), LabelledEvent(1e307, 1e308, 1)], 2, frames=3).tolist() == [[0, 1, 1], [0, 0, 0]]


def test_written_tables_are_read_back(tmp_path):
    events = {"a": [LabelledEvent(0.125, 2.5, 2)], "b": [], "c": [LabelledEvent(0, 10, 0), LabelledEvent(1, 2, 1)]}
    for names in (LABELS, MIDS):
        write_strong_labels(tmp_path / "written.tsv", events, names)
        assert read_strong_labels(tmp_path / "written.tsv", LABELS, MIDS) == events


@pytest.mark.parametrize(
    ("row", "name", "found"),
    [
        ("---1_cCGK4M_30000", "Y---1_cCGK4M.mp3", True),
        ("Y---1_cCGK4M.wav", "Y---1_cCGK4M.mp3", True),
        ("Y---1_cCGK4M.wav", "---1_cCGK4M_0", True),
        ("---1_cCGK4M.wav", "Y---1_cCGK4M.mp3", True),
        ("Y---1_cCGK4M_30000.wav", "Y---1_cCGK4M.mp3", True),
        ("---1_cCGK4M_30000", "Y---1_cCGK4M_30000.wav", True),
        ("soundscapes_1", "soundscapes_2.wav", False),
        ("scenes/a.flac", "a.mp3", True),
        ("scene_train_00012", "scene_train_00013.mp3", False),
        ("a", "b", False),
    ],
)  # fmt: skip
def test_names_of_one_clip(row: str, name: str, found: bool) -> None:
    assert (ClipRows(["scene_train_00000", row]).find(name) == 1) is found
