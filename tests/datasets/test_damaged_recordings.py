"""Random damage to recordings of every kind: what is left is read whole, or with a warning, or refused, never less in silence."""

from __future__ import annotations

import time
from functools import cache

import av
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from studies.recordings import damage, kinds
from studies.recordings.kinds import FORMATS
from studies.recordings.reading import LOST, judge, read

SECONDS = 1.0
TIME_LIMIT = 20.0  # seconds for a recording of a second or two, on a busy machine

kind = st.sampled_from(list(FORMATS))
place = st.floats(0.0, 1.0)  # share of the file
seed = st.integers(0, 1 << 16)


@pytest.fixture(autouse=True)
def quiet_reference() -> None:
    av.logging.set_level(av.logging.PANIC)


def examples(count: int) -> settings:
    return settings(max_examples=count, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))


@cache
def content_of(kind: str, seed: int = 0) -> bytes:
    return kinds.encode(kind, SECONDS, seed=seed)


def check(content: bytes, what: str) -> None:
    """Other exceptions than the project's own for bad recordings pass through `read` and fail."""
    begin = time.monotonic()
    reading = read(content, name="rec")
    assert time.monotonic() - begin < TIME_LIMIT, what
    assert reading.error or reading.found.samples.size, what
    for line in [*reading.warnings, reading.error]:
        assert "\n" not in line, what
    verdict = judge(reading, content)
    assert verdict.outcome != LOST, f"{what}: {verdict.reason}"


def check_cut(kind: str, place: float) -> None:
    content = content_of(kind)
    check(content[: int(place * len(content))], f"{kind} cut at {place}")


def check_overwritten(kind: str, place: float, seed: int) -> None:
    content = content_of(kind)
    check(damage.overwritten(content, int(place * len(content)), seed), f"{kind} overwritten at {place}, seed {seed}")


def check_overwritten_header(kind: str, offset: int, seed: int) -> None:
    check(damage.overwritten(content_of(kind), offset, seed), f"{kind} overwritten at byte {offset}, seed {seed}")


def check_joined(first: str, second: str) -> None:
    check(content_of(first) + content_of(second, 1), f"{first} joined with {second}")


@examples(40)
@given(kind, place)
def test_cut_anywhere(kind: str, place: float) -> None:
    check_cut(kind, place)


@examples(40)
@given(kind, place, seed)
def test_overwritten_anywhere(kind: str, place: float, seed: int) -> None:
    check_overwritten(kind, place, seed)


@examples(40)
@given(kind, st.integers(0, 400), seed)
def test_overwritten_in_the_header(kind: str, offset: int, seed: int) -> None:
    check_overwritten_header(kind, offset, seed)


@examples(40)
@given(kind, kind)
@example("mp3, VBR", "mp3, VBR")
@example("mp3, CBR without Xing", "mp3, CBR")
@example("wav, 16 bit", "wav, 16 bit")
@example("flac, 16 bit", "flac, 16 bit")
@example("ogg, Vorbis", "ogg, Vorbis")
def test_joined_with_any_other(first: str, second: str) -> None:
    check_joined(first, second)


@pytest.mark.slow
@examples(3000)
@given(kind, place)
def test_cut_anywhere_often(kind: str, place: float) -> None:
    check_cut(kind, place)


@pytest.mark.slow
@examples(3000)
@given(kind, place, seed)
def test_overwritten_anywhere_often(kind: str, place: float, seed: int) -> None:
    check_overwritten(kind, place, seed)


@pytest.mark.slow
@examples(3000)
@given(kind, st.integers(0, 400), seed)
def test_overwritten_in_the_header_often(kind: str, offset: int, seed: int) -> None:
    check_overwritten_header(kind, offset, seed)


@pytest.mark.slow
@pytest.mark.parametrize("first", FORMATS)
def test_joined_with_every_other(first: str) -> None:
    for second in FORMATS:
        check_joined(first, second)
