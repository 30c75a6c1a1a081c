"""The benchmark at toy size: it runs and gives times; what the times are is not tested."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from benchmarks import input_speed
from benchmarks.input_speed import Seconds
from datasets import audio


def test_all_tables_are_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    small = input_speed.get_model
    monkeypatch.setattr(input_speed, "get_model", lambda num_classes: small(num_classes, width_mult=0.1))
    monkeypatch.setattr(input_speed, "available_cores", lambda: 1)
    options = "--clips 4 --seconds 0.5 --batch_size 2 --rounds 1 --metric_clips 60"
    assert input_speed.main(options.split()) == 0
    out = capsys.readouterr().out
    assert all(text in out for text in ("decode mp3", "wavmix", "the loader is faster by", "metrics of 60 x 527 scores"))


def test_clips_are_varied_and_every_class_has_a_target(tmp_path: Path) -> None:
    input_speed.write_clips(tmp_path / "clips.hdf", 4, 0.5, seed=0)
    with h5py.File(tmp_path / "clips.hdf") as file:
        waveforms = [audio.decode(mp3.tobytes())[0] for mp3 in file["mp3"]]
    assert [len(waveform) for waveform in waveforms] == [16000] * 4
    assert len({waveform.tobytes() for waveform in waveforms}) == 4 and min(map(np.ptp, waveforms)) > 0
    targets = input_speed.random_targets(5000, seed=0)
    assert targets.sum(1).mean() == pytest.approx(2.7, abs=0.3) and targets.sum(0).min() >= 1


def test_pyav_decodes_the_same_samples() -> None:
    pytest.importorskip("av")
    mp3 = audio.encode_mp3(np.random.default_rng(0).uniform(-0.5, 0.5, 16000).astype(np.float32), 32000)
    np.testing.assert_allclose(input_speed.decode_with_pyav(mp3), audio.decode(mp3)[0], atol=1e-4)
    np.testing.assert_allclose(input_speed.load_with_pyav(mp3), audio.load(mp3, 32000), atol=1e-4)


def test_the_median_of_the_ratios() -> None:
    times = [Seconds(1, 2), Seconds(6, 1), Seconds(3, 3)]
    others = [Seconds(2, 1), Seconds(2, 1), Seconds(3, 1)]
    assert input_speed.ratio(times, others, "wall") == 1 and input_speed.ratio(times, others, "cpu") == 2
