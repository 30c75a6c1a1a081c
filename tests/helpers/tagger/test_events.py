from __future__ import annotations

import numpy as np
import pytest

from helpers.tagger.events import EventTracker, RecordingEvents
from helpers.tagger.results import Tagging, Timeline


def test_an_event_has_the_peak_and_the_mean_of_its_windows() -> None:
    tracker = EventTracker(["a"], 0.5, 0.2)
    for start, score in enumerate((0.1, 0.6, 0.9, 0.3, 0.1)):
        ended, _ = tracker.push(10.0 + start, 12.0 + start, np.array([score]))
    [event] = ended
    assert (event.start, event.end, event.score) == (11.5, 14.5, 0.9) and event.mean == pytest.approx(0.6)


def test_events_of_a_part_begin_with_the_part() -> None:
    scores = np.full((3, 1), 0.9, np.float32)
    timeline = Timeline("x.wav", ("a",), np.array([60.0, 61, 62]), np.array([62.0, 63, 64]), scores)
    [event] = timeline.events()
    assert (event.start, event.end) == (60, 64) and timeline.to_dict()["start"] == 60


def test_nothing_found_is_a_row_without_label() -> None:
    nothing = [
        Tagging("x.wav", 0.0, 2.0, ()),
        RecordingEvents("x.wav", 0.0, 2.0, (), 8000),
        RecordingEvents("x.wav", 0.0, 2.0, (), 8000, channel=2),
    ]
    for result in nothing:
        [row] = result.to_rows()
        assert (row["source"], row["start"], row["end"], row["label"], row["score"]) == ("x.wav", 0, 2, None, None)
        assert result.to_csv().splitlines()[1].startswith("x.wav,0.0,2.0,,")
    assert row["channel"] == 2 and nothing[2].to_csv().splitlines()[0].endswith("mean,channel")


def test_warnings_and_channel_are_named_where_there_are_any() -> None:
    assert Tagging("x.wav", 0.0, 2.0, ()).to_dict().keys() == {"source", "start", "end", "tags"}
    named = Tagging("x.wav", 0.0, 2.0, (), ("x.wav is short",), 1).to_dict()
    assert named["warnings"] == ["x.wav is short"] and named["channel"] == 1
