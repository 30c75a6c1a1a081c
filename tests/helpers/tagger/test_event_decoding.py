"""Events from frames: the reference's, and the same whether scores come at once or in pieces."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from helpers.median_filter import median_filter
from helpers.tagger.event_decoding import EventDecoder, decode
from helpers.tagger.events import Event, sorted_events
from models.errors import UserError
from tests.golden.sed_example import scores as example_scores

STEP = 0.04
GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "golden_framewise.json").read_text())


@pytest.mark.parametrize("name", ["decode", "decode_long"])
def test_events_are_those_of_the_reference(name: str) -> None:
    entry = GOLDEN[name]
    scores = np.concatenate([example_scores(seed).T.astype(np.float32) for seed in entry["seeds"]])
    for threshold, expected in entry["events"].items():
        found = decode(
            scores, STEP, float(threshold), entry["median_window"], entry["audio_len"], labels=entry["classes"], source="x.wav"
        )
        kept = [event for event in expected if event[1] < event[2]]  # the reference's events of no length are dropped
        assert sorted((e.label, round(e.start, 6), round(e.end, 6)) for e in found) == sorted(map(tuple, kept))
        assert all(e.source == "x.wav" and float(threshold) < e.mean <= e.score for e in found)


def test_an_event_has_the_score_of_the_filtered_frames() -> None:
    scores = np.zeros((20, 2), np.float32)
    scores[4:9, 1] = (0.6, 0.9, 0.7, 0.8, 0.6)
    [event] = decode(scores, 0.5, 0.5, 3)
    assert (event.label, event.start, event.end) == ("class 1", 2.0, 4.5)
    assert event.score == pytest.approx(0.8) and event.mean == pytest.approx(np.mean([0.6, 0.7, 0.8, 0.7, 0.6]))


def test_classes_and_their_thresholds() -> None:
    scores = np.tile(np.array([0.4, 0.4, 0.4], np.float32), (30, 1))
    decoder = EventDecoder(("a", "b", "c"), STEP, np.array([0.3, 0.5, 0.1]), classes=(1, 2), start=60.0)
    [begin] = decoder.push(scores)
    assert begin == Event("c", 60.0, None, pytest.approx(0.4))
    [event] = decoder.finish(61.1)
    assert (event.label, event.start, event.end) == ("c", 60.0, 61.1)


@pytest.mark.parametrize("length", [1, 3, 4, 5, 9, 40])
@pytest.mark.parametrize("frames", [1, 3, 9])
def test_the_filter_is_scipys(length: int, frames: int) -> None:
    scores = np.random.default_rng(length).random((length, 2), np.float32)
    np.testing.assert_array_equal(median_filter(scores, frames), ndimage.median_filter(scores, (frames, 1), mode="reflect"))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.lists(st.integers(0, 12), min_size=1, max_size=12), st.sampled_from([1, 3, 9]))
def test_scores_in_pieces_give_the_same_events(seed: int, sizes: list[int], frames: int) -> None:
    scores = np.random.default_rng(seed).random((sum(sizes), 2), np.float32)
    filtered, expected = median_filter(scores, frames), []
    for k, column in enumerate((filtered > 0.5).T):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], column, [0]]))).reshape(-1, 2)
        runs = [(first, last, filtered[first:last, k]) for first, last in edges]
        expected += [(f"class {k}", STEP * first, STEP * last, run.max(), run.mean()) for first, last, run in runs]
    decoder = EventDecoder(("class 0", "class 1"), STEP, 0.5, frames)
    changes = [decoder.push(piece) for piece in np.split(scores, np.cumsum(sizes)[:-1])]
    changes = sum([*changes, decoder.finish()], [])
    begun, ended = ([e for e in changes if (e.end is None) == is_begin] for is_begin in (True, False))
    assert sorted((e.label, e.start) for e in begun) == sorted((e.label, e.start) for e in ended)
    found = [(e.label, e.start, e.end, e.score, e.mean) for e in ended]
    np.testing.assert_allclose([e[1:] for e in sorted(found)], [e[1:] for e in sorted(expected)], rtol=1e-5)
    at_once = decode(scores, STEP, 0.5, frames, labels=("class 0", "class 1"))
    assert [(e.label, e.start, e.end) for e in sorted_events(ended)] == [(e.label, e.start, e.end) for e in at_once]


def test_mistakes() -> None:
    scores = np.zeros((5, 2), np.float32)
    for thresholds, frames in ((1.5, 9), (np.zeros(3), 9), (0.5, 8), (0.5, 0), (float("nan"), 9)):
        with pytest.raises(UserError):
            decode(scores, STEP, thresholds, frames)
