"""Events from the outputs of a probe, and their F-measure; the kit's numbers of small examples, computed by hand."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.strong_labels import LabelledEvent
from helpers.probing.scoring import EventScoring, count_matches, detect_onsets, frame_targets

TIMES = np.arange(0, 2000, 50.0)  # ms


def test_targets_include_both_ends() -> None:
    targets = frame_targets([LabelledEvent(0.1, 0.2, 1), LabelledEvent(0.31, 0.34, 0)], TIMES, 2)
    assert np.flatnonzero(targets[:, 1]).tolist() == [2, 3, 4] and not targets[:, 0].any()


def test_onsets_are_filtered_and_long_enough() -> None:
    logits = np.full((40, 2), -1.0)
    logits[4:12, 0] = 1  # 200 to 550 ms, with a gap that the filter closes
    logits[8, 0] = -1
    logits[20:23, 0] = 1  # too short for a median over 5 timestamps and 250 ms
    logits[30, 1] = 1  # a single timestamp
    assert [onsets.tolist() for onsets in detect_onsets(logits, TIMES, 250, 125)] == [[200], []]
    assert [onsets.tolist() for onsets in detect_onsets(logits, TIMES, 0, 0)] == [[200, 450, 1000], [1500]]
    assert [onsets.tolist() for onsets in detect_onsets(logits, TIMES, 0, 150)] == [[200], []]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 30), max_size=5), st.lists(st.integers(0, 30), max_size=5))
def test_as_many_as_possible_are_paired(events: list[int], detections: list[int]) -> None:
    events, detections = sorted(events), sorted(detections)
    padded = detections + [1000] * len(events)
    most = max(sum(abs(a - b) <= 3 for a, b in zip(events, order, strict=False)) for order in permutations(padded, len(events)))
    assert count_matches([e / 10 for e in events], [d / 10 for d in detections], 0.3) == most


def test_f_measure_of_all_recordings_and_the_choice_of_postprocessing() -> None:
    truth = [[LabelledEvent(0.5, 0.8, 0), LabelledEvent(1.0, 1.5, 1)], [LabelledEvent(0.2, 0.4, 0)], []]
    recordings, times = np.repeat([0, 1, 2], 40), np.tile(TIMES, 3)
    scoring = EventScoring(recordings, times, truth, collar=0.2, median_filter_ms=[0], min_duration_ms=[0, 125])
    rows = np.arange(120)
    logits = np.concatenate([frame_targets(events, TIMES, 2) for events in truth]) * 2.0 - 1
    assert scoring.choose(rows, logits) == (1.0, (0, 125)) and scoring.highest(rows) == 1
    logits[[5, 100], 1] = 1  # two detections of 0 ms
    assert scoring.score(rows, logits, (0, 0)) == pytest.approx(2 * 3 / (3 + 5))
    assert scoring.choose(rows, logits) == (1.0, (0, 125))
    assert scoring.score(rows[:40], -np.ones((40, 2)), (0, 0)) == 0
    assert np.isnan(scoring.highest(rows[80:]))
    shifted = np.roll(logits[:40], 5, axis=0)  # by 250 ms
    assert scoring.score(rows[:40], shifted, (0, 125)) == 0
