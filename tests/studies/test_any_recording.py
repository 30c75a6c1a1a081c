"""The study of a few kinds, and that it notices what it is there to notice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datasets.csv_table import read_table
from models.errors import UserError
from studies import any_recording
from studies.recordings.encoders import by_soundfile
from studies.recordings.kinds import Recording
from studies.recordings.reading import LOST, REFUSED, WARNED, WHOLE, Reading, judge
from studies.recordings.reference import Found, full_decoding
from studies.recordings.signals import make_sound

OPTIONS = ["--seconds", "0.5", "--only", "au"]


def test_every_recording_gets_a_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "recordings.csv"
    assert any_recording.main([*OPTIONS, "--output", str(table)]) == 0
    rows = read_table(table, ("group", "kind", "details", "bytes", "outcome", "reason"))
    assert {row["group"] for row in rows} == {"undamaged", "unusual, nothing missing", "damaged"} and len(rows) > 10
    assert all(row["outcome"] == WHOLE for row in rows if row["group"] == "undamaged")
    assert f"{len(rows)} recordings, no silent loss" in capsys.readouterr().out


def test_a_silent_loss_fails_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = any_recording.read

    def forgetful(content: bytes) -> Reading:
        found = honest(content).found
        return Reading(Found(found.samples[: len(found.samples) // 2], found.rate))

    monkeypatch.setattr(any_recording, "read", forgetful)
    monkeypatch.setattr(any_recording.kinds, "damaged", lambda seconds, only: [])
    with pytest.raises(UserError, match="au, mu-law, 8000 Hz"):
        any_recording.main(OPTIONS)


SOUND = make_sound(1.0, 16000)[:, 0]
WAV = by_soundfile(SOUND, 16000, "WAV", "PCM_16")
HOLE = np.where(np.abs(np.arange(16000) - 8000) < 2400, 0, SOUND)


@pytest.mark.parametrize(
    ("reading", "outcome"),
    [
        (Reading(Found(SOUND, 16000)), WHOLE),
        (Reading(Found(SOUND[100:], 16000)), WHOLE),
        (Reading(Found(SOUND[:14000], 16000)), LOST),
        (Reading(Found(np.concatenate([SOUND, SOUND]), 16000)), LOST),
        (Reading(Found(HOLE, 16000)), LOST),
        (Reading(Found(SOUND[::-1], 16000)), LOST),
        (Reading(Found(SOUND, 8000)), LOST),
        (Reading(Found(SOUND[:14000], 16000), ["x is shorter"]), WARNED),
        (Reading(None, [], "x cannot be decoded"), REFUSED),
    ],
)
def test_verdicts(reading: Reading, outcome: str) -> None:
    assert judge(reading, WAV, seconds=1.0, same_sound=True).outcome == outcome


def test_known_seconds_count_where_the_full_decoder_stops_early() -> None:
    assert judge(Reading(Found(SOUND, 16000)), WAV, seconds=2.0).outcome == LOST


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "FLOAT"])
def test_the_reference_gives_the_first_channel_at_its_level(subtype: str) -> None:
    found = full_decoding(by_soundfile(make_sound(1.0, 16000, 2), 16000, "WAV", subtype))
    np.testing.assert_allclose(found.samples, SOUND, atol=0.01 if subtype == "PCM_U8" else 1e-4)
    assert found.rate == 16000 and full_decoding(b"no sound") is None


def test_families_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    verdicts = [
        (Recording(kind, "", b""), any_recording.Verdict(outcome, "")) for kind, outcome in (("a, 1", WHOLE), ("a, 2", LOST))
    ]
    any_recording.print_group("group", verdicts)
    assert [line.split() for line in capsys.readouterr().out.splitlines()[-2:]] == [
        ["a", "2", "1", "0", "0", "1"],
        ["all", "2", "1", "0", "0", "1"],
    ]
