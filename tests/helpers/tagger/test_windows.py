from __future__ import annotations

import numpy as np
import pytest

from helpers.tagger.events import EventTracker, cell_edges
from helpers.tagger.windows import cut_windows, to_samples


def starts_by_rule(length: int, window: int, hop: int) -> list[int]:
    starts = [start for start in range(0, length, hop) if start + window <= length]
    if not starts:
        return [0]
    return starts if starts[-1] + window == length else [*starts, length - window]


@pytest.mark.parametrize("length", [1, 2, 9, 10, 11, 19, 20, 23, 50, 101])
@pytest.mark.parametrize(("window", "hop"), [(10, 3), (10, 10), (10, 1), (1, 1), (3, 10), (10, 17)])
def test_windows_follow_the_rule_however_sound_is_cut(length: int, window: int, hop: int) -> None:
    sound = np.arange(length, dtype=np.float32)
    for size in (1, 2, 7, 10, 1000):
        pieces = [sound[i : i + size] for i in range(0, length, size)]
        found = list(cut_windows(pieces, window, hop))
        assert [start for start, _ in found] == starts_by_rule(length, window, hop)
        for start, samples in found:
            np.testing.assert_array_equal(samples, sound[start : start + window])


@pytest.mark.parametrize("values", [(0, 1), (1, 0), (-1, 1), (float("nan"), 1), (1, float("inf")), (1e-9, 1)])
def test_impossible_windows_are_refused(values: tuple[float, float]) -> None:
    with pytest.raises(ValueError):
        to_samples(*values, 32000)


def track(rows: list[list[float]], window: float = 10, hop: float = 2.5, **options: float) -> tuple[list, list]:
    tracker, begun, ended = EventTracker(("a", "b"), **options), [], []
    for i, row in enumerate(rows):
        ends, begins = tracker.push(i * hop, i * hop + window, np.array(row))
        ended += ends
        begun += begins
    return begun, ended + tracker.finish()


def test_overlapping_windows_make_one_event() -> None:
    begun, ended = track([[0.1, 0], [0.6, 0], [0.9, 0], [0.7, 0], [0.1, 0]], threshold=0.5)
    assert [(event.label, event.start, event.end) for event in begun] == [("a", 6.25, None)]
    assert [(event.label, event.start, event.end, event.score) for event in ended] == [("a", 6.25, 13.75, 0.9)]


def test_hysteresis_keeps_a_wavering_event() -> None:
    wavering = [[score, 0] for score in (0.6, 0.4, 0.6, 0.4, 0.6, 0.2, 0.4)]
    assert len(track(wavering, threshold=0.5)[0]) == 1
    assert len(track(wavering, threshold=0.5, off_threshold=0.5)[0]) == 3


def test_the_first_and_last_cells_reach_the_ends() -> None:
    begun, ended = track([[0.9, 0.1], [0.9, 0.9]], threshold=0.5)
    assert {(event.label, event.start, event.end) for event in ended} == {("a", 0.0, 12.5), ("b", 6.25, 12.5)}
    np.testing.assert_array_equal(cell_edges(np.array([0, 2.5]), np.array([10, 12.5])), [0, 6.25, 12.5])


@pytest.mark.parametrize("thresholds", [(0.5, 0.6), (1.1, 0.5), (0.5, -0.1), (float("nan"), 0.1)])
def test_impossible_thresholds_are_refused(thresholds: tuple[float, float]) -> None:
    with pytest.raises(ValueError):
        EventTracker(("a",), *thresholds)
