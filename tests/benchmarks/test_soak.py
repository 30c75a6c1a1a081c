"""The soak with a second of work, and what it calls flat."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import soak
from benchmarks.soak import Sample


def samples(memory: float, files: float, threads: float) -> list[Sample]:
    """100 samples whose values grow by so much in the end."""
    return [Sample(float(n), 500 + memory * n / 100, round(20 + files * n / 100), round(8 + threads * n / 100)) for n in range(100)]


@pytest.mark.parametrize(
    ("grown", "flat"),
    [
        ((10, 0, 0), [True, True, True]),
        ((300, 0, 0), [False, True, True]),
        ((0, 5, 0), [True, False, True]),
        ((0, 0, 3), [True, True, False]),
    ],
)
def test_what_grows_is_found(grown: tuple[float, float, float], flat: list[bool]) -> None:
    assert [is_flat for *_, is_flat in soak.growth(samples(*grown))] == flat


def test_a_second_of_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(soak, "MODEL_SHARE", 0.0)
    found, outcomes = soak.soak(tmp_path, 1.0)
    assert sum(outcomes.values()) == len(found) >= 1
    assert {outcome for _, outcome in outcomes} <= {"right result", "refused"}
    soak.draw(found, tmp_path / "soak.png")
    assert (tmp_path / "soak.png").stat().st_size > 1000
