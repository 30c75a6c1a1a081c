"""The conditions change what they say they change, and the table compares with the recordings as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datasets import audio
from helpers.tagger.audio_tagger import AudioTagger
from models.registry import BUNDLED
from studies import robustness

RECORDINGS = Path(__file__).resolve().parents[2] / "resources" / "recordings"
RATE = 32000
BUNDLED_NAME = next(iter(BUNDLED))


@pytest.fixture(scope="module")
def waveform() -> np.ndarray:
    return audio.load(RECORDINGS / "rock.ogg", RATE)[: 2 * RATE]


def decibels(waveform: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(waveform.astype(np.float64) ** 2)))


@pytest.mark.parametrize("snr", [30, 0])
def test_noise_is_so_much_below_the_recording(snr: int, waveform: np.ndarray) -> None:
    noisy = robustness.with_noise(waveform, snr, 3)
    assert noisy.dtype == np.float32
    assert decibels(waveform) - decibels(noisy - waveform) == pytest.approx(snr, abs=0.1)
    np.testing.assert_array_equal(noisy, robustness.with_noise(waveform, snr, 3))
    assert not np.array_equal(noisy, robustness.with_noise(waveform, snr, 4))


def test_levels_are_peaks_and_silence_stays(waveform: np.ndarray) -> None:
    for level in robustness.LEVELS_DB:
        assert 20 * np.log10(np.abs(robustness.at_level(waveform, level)).max()) == pytest.approx(level, abs=1e-3)
    silence = np.zeros(100, np.float32)
    np.testing.assert_array_equal(robustness.at_level(silence, -20), silence)


@pytest.mark.parametrize("rate", [32000, 16000])
def test_mp3_keeps_length_and_place_and_is_better_at_higher_rates(rate: int, waveform: np.ndarray) -> None:
    sound = audio.resample(waveform, RATE, rate)
    errors = []
    for kbits in robustness.MP3_KBITS:
        decoded = robustness.through_mp3(sound, rate, kbits)
        assert decoded.shape == sound.shape
        errors.append(np.sqrt(np.mean((decoded - sound) ** 2) / np.mean(sound**2)))
    assert errors[0] > errors[1] > errors[2] and errors[0] < 0.5  # out of place the error is above 1


@pytest.fixture(scope="module")
def tagger() -> AudioTagger:
    return AudioTagger(BUNDLED_NAME, "cpu", min_seconds=0)


def test_half_precision_is_near_and_not_equal(tagger: AudioTagger, waveform: np.ndarray) -> None:
    exact = tagger.scores(waveform, RATE)
    found = robustness.half_precision(BUNDLED_NAME, tagger)
    differences = {name: np.abs(compute(waveform, 0) - exact).max() for name, compute in found.items()}
    assert len(differences) == 4 and all(0 < value < 0.1 for value in differences.values())
    assert differences["float16 weights"] < differences["bfloat16 weights"]


def test_short_recordings_alone_are_padded(tagger: AudioTagger, waveform: np.ndarray) -> None:
    rows = robustness.conditions(BUNDLED_NAME, tagger)
    assert rows["padded with zeros to 2 s"](waveform, 0) is None and rows["repeated to 1 s"](waveform, 0) is None
    fillings = {"padded with zeros to 3 s": np.pad(waveform, (0, RATE)), "repeated to 3 s": np.resize(waveform, 3 * RATE)}
    plain = rows[robustness.UNPADDED](waveform, 0)
    for name, filled in fillings.items():
        scores = rows[name](waveform, 0)
        np.testing.assert_allclose(scores, tagger.backend([filled])[0][0], atol=1e-6)
        assert np.abs(scores - plain).max() > 1e-3
    pieces = [tagger.backend([half])[0][0] for half in (waveform[:RATE], waveform[RATE:])]
    np.testing.assert_allclose(rows["mean of windows of 1 s"](waveform, 0), np.mean(pieces, 0), atol=1e-6)


def test_the_table_has_a_row_for_each_condition(
    tiny_audioset: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def conditions(name: str, tagger: AudioTagger) -> dict[str, robustness.Compute]:
        return {
            robustness.AS_IT_IS: lambda waveform, number: tagger.scores(waveform, tagger.sample_rate),
            robustness.UNPADDED: lambda waveform, number: np.full(527, number / 100, np.float32),
            "padded": lambda waveform, number: None,
        }

    monkeypatch.setattr(robustness, "conditions", conditions)
    monkeypatch.setattr(robustness, "AudioTagger", lambda name, backend: AudioTagger(name, "cpu"))  # which needs no export
    output = tmp_path / "table.csv"
    argv = ["--model_name", tiny_checkpoint, "--dataset_dir", tiny_audioset, "--output", output]
    assert robustness.main([str(one) for one in argv]) == 0
    as_it_is, unpadded, padded = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert float(as_it_is[2].strip("| ")) == 0 and float(unpadded[2].strip("| ")) > 0
    assert padded[1:] == unpadded[1:]
    assert len(output.read_text().splitlines()) == 4


def test_a_wrong_name_or_folder_is_found_before_anything_is_computed(
    tiny_audioset: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(robustness, "AudioTagger", lambda name, backend: AudioTagger(name, "cpu"))
    monkeypatch.setattr(robustness, "compute_scores", lambda *_: pytest.fail("computed"))
    for models, folder in (([tiny_checkpoint, tmp_path / "no.pt"], tiny_audioset), ([tiny_checkpoint], tmp_path / "no")):
        with pytest.raises((ValueError, OSError), match="no"):
            robustness.main(["--model_name", *map(str, models), "--dataset_dir", str(folder)])


def test_what_is_measured_is_written_before_the_next_model(
    tiny_audioset: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def conditions(name: str, tagger: AudioTagger) -> dict[str, robustness.Compute]:
        if name.endswith("second.pt"):
            raise KeyboardInterrupt
        return {robustness.AS_IT_IS: lambda waveform, number: tagger.scores(waveform, tagger.sample_rate)}

    monkeypatch.setattr(robustness, "conditions", conditions)
    monkeypatch.setattr(robustness, "AudioTagger", lambda name, backend: AudioTagger(name, "cpu"))
    second, output = tmp_path / "second.pt", tmp_path / "table.csv"
    second.write_bytes(tiny_checkpoint.read_bytes())
    with pytest.raises(KeyboardInterrupt):
        argv = ["--model_name", tiny_checkpoint, second, "--dataset_dir", tiny_audioset, "--output", output]
        robustness.main([str(one) for one in argv])
    assert len(output.read_text().splitlines()) == 2


def test_data_are_needed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        robustness.main([])
    assert "--audio_dir" in capsys.readouterr().err
