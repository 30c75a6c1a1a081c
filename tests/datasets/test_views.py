"""datasets.views: what is made of recordings without labels."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch

from datasets import views
from datasets.views import random_views

RATE = 32000


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Nothing at all is done to a recording, except for what a test switches on."""
    for name in ("SPEED_RATE", "FILTER_RATE", "ROOM_RATE", "NOISE_RATE", "COARSE_RATE", "FAINT_RATE", "SILENCE_RATE"):
        monkeypatch.setattr(views, name, 0.0)
    monkeypatch.setattr(views, "SOURCES", (1.0, 0.0, 0.0))
    monkeypatch.setattr(views, "GAIN_DB", (0.0, 0.0))
    return monkeypatch


def tone(frequency: float, seconds: float = 2.0, amplitude: float = 0.1) -> torch.Tensor:
    return amplitude * torch.sin(2 * math.pi * frequency * torch.arange(round(seconds * RATE)) / RATE)


def loudest_frequency(waveform: torch.Tensor) -> float:
    return float(torch.fft.rfft(waveform * torch.hann_window(len(waveform))).abs().argmax()) * RATE / len(waveform)


def test_views_follow_the_seed_and_stay_in_range() -> None:
    recordings = torch.stack([tone(440 * (k + 1), amplitude=0.9) for k in range(6)])
    recordings[3] = 0.0
    torch.manual_seed(0)
    first = random_views(recordings, RATE, (0.5, 2.0))
    again = random_views(recordings, RATE, (0.5, 2.0))
    torch.manual_seed(0)
    torch.testing.assert_close(random_views(recordings, RATE, (0.5, 2.0)), first, rtol=0, atol=0)
    assert again.shape != first.shape or not torch.equal(again, first)
    assert first.isfinite().all() and first.abs().max() <= 1
    assert len(first) == 6 and 0.5 * RATE <= first.shape[1] <= 2 * RATE


def test_a_plain_view_is_a_piece_of_its_recording(plain: pytest.MonkeyPatch) -> None:
    recordings = torch.stack([tone(440), tone(1000)])
    recordings[0, RATE:] = 0.0  # padding
    for _ in range(8):
        heard = random_views(recordings, RATE, (0.5, 0.5))
        assert [round(loudest_frequency(view)) for view in heard] == pytest.approx([440, 1000], abs=4)
        assert heard[0].square().mean() > 0.1**2 / 2 * 0.4  # half of it at least is sound
        assert heard[1].abs().max() == pytest.approx(0.1, rel=0.01)


def test_recordings_are_mixed_at_levels_of_their_own(plain: pytest.MonkeyPatch) -> None:
    plain.setattr(views, "SOURCES", (0.0, 1.0, 0.0))
    plain.setattr(views, "LEVELS", (6.0, 6.0))
    torch.manual_seed(0)
    recordings = torch.stack([tone(500, amplitude=0.1), tone(2000, amplitude=0.001)])
    mixed = [
        heard for heard in (random_views(recordings, RATE, (1.0, 1.0))[0] for _ in range(8)) if loudest_frequency(heard) > 1000
    ]
    assert mixed  # the other one, as loud as that and 6 dB more
    spectrum = torch.fft.rfft(mixed[0]).abs() / RATE * 2
    assert float(spectrum[500]) == pytest.approx(0.1, rel=0.02) and float(spectrum[2000]) == pytest.approx(0.2, rel=0.02)


def test_another_speed_is_another_pitch_at_the_same_level(plain: pytest.MonkeyPatch) -> None:
    plain.setattr(views, "SPEED_RATE", 1.0)
    for speed in (0.75, 1.25):
        plain.setattr(views, "SPEEDS", (speed, speed))
        (heard,) = random_views(tone(1000, 4.0)[None], RATE, (1.0, 1.0))
        assert loudest_frequency(heard) == pytest.approx(1000 * speed, abs=2)
        assert heard[8000:-8000].abs().max() == pytest.approx(0.1, rel=0.02)


def test_what_disturbs_changes_a_view(plain: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    noise = 0.1 * torch.randn(1, RATE)
    for name in ("FILTER_RATE", "ROOM_RATE", "NOISE_RATE", "COARSE_RATE"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(views, name, 1.0)
            heard = random_views(noise, RATE, (1.0, 1.0))
        difference = (heard - noise).square().mean() / noise.square().mean()
        assert 1e-5 < difference, name
        assert heard.square().mean().sqrt() > 0.01, name


def test_views_become_faint_and_silent(plain: pytest.MonkeyPatch) -> None:
    recordings = tone(440)[None]
    plain.setattr(views, "FAINT_RATE", 1.0)
    assert random_views(recordings, RATE, (1.0, 1.0)).abs().max() < 0.1 * 10 ** (-30 / 20)
    plain.setattr(views, "SILENCE_RATE", 1.0)
    assert not random_views(recordings, RATE, (1.0, 1.0)).any()
