"""The benchmark's parts at toy size: they run and give times; what the times are is not tested."""

from __future__ import annotations

import math
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from benchmarks import common, input_speed
from benchmarks.input_speed import Seconds
from datasets import audio

SECONDS, CLIPS = 0.5, 4


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("benchmark") / "clips.hdf"
    input_speed.write_clips(path, CLIPS, SECONDS, seed=0)
    return path


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def assert_times(times: list[Seconds], number: int) -> None:
    assert len(times) == number
    assert all(one.wall > 0 and one.cpu >= 0 and math.isfinite(one.wall + one.cpu) for one in times)


def test_clips_are_varied_mp3s_of_one_length(corpus: Path) -> None:
    with h5py.File(corpus) as file:
        waveforms = [audio.decode(mp3.tobytes())[0] for mp3 in file["mp3"]]
    assert [len(waveform) for waveform in waveforms] == [16000] * CLIPS
    assert len({waveform.tobytes() for waveform in waveforms}) == CLIPS and min(map(np.ptp, waveforms)) > 0


def test_targets_are_as_dense_as_asked_for_and_every_class_has_one() -> None:
    targets = input_speed.random_targets(5000, seed=0)
    assert targets.sum(1).mean() == pytest.approx(2.7, abs=0.3)
    assert targets.sum(0).min() >= 1


def test_stages(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with h5py.File(corpus, locking=False) as file:
        times = common.measure_interleaved(input_speed.stages(file, SECONDS, batch_size=2), 2, input_speed.measure)
    for one in times.values():
        assert_times(one, 2)
    input_speed.print_stages(times, CLIPS)
    assert len(capsys.readouterr().out.strip().splitlines()) == 2 + len(times)


def test_pyav_decodes_the_same_samples(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("av")
    with h5py.File(corpus) as file:
        mp3 = file["mp3"][0].tobytes()
    np.testing.assert_allclose(input_speed.decode_with_pyav(mp3), audio.decode(mp3)[0], atol=1e-4)
    np.testing.assert_allclose(input_speed.load_with_pyav(mp3), audio.load(mp3, 32000), atol=1e-4)
    times = input_speed.compare_decoders(corpus, 2)
    assert len(times) == CLIPS
    for decoders in times.values():
        for one in decoders.values():
            assert_times(one, 2)
    input_speed.print_decoding(times)


def test_loader_and_training_step(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = input_speed.get_model
    monkeypatch.setattr(input_speed, "get_model", lambda num_classes: small(num_classes, width_mult=0.1))
    times = input_speed.measure_feeding(corpus, SECONDS, batch_size=2, cores=1, rounds=2)
    for one in times.values():
        assert_times(one, 2)
    input_speed.print_feeding(times, 1)


def test_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_speed, "NUM_CLASSES", 20)
    assert 0 < input_speed.evaluation(60, seed=0)().mAP < 1


def test_the_median_of_the_ratios() -> None:
    times = [Seconds(1, 2), Seconds(6, 1), Seconds(3, 3)]
    others = [Seconds(2, 1), Seconds(2, 1), Seconds(3, 1)]
    assert input_speed.ratio(times, others, "wall") == 1 and input_speed.ratio(times, others, "cpu") == 2


@pytest.mark.parametrize("option", [["--clips", "0"], ["--rounds", "-1"], ["--seconds", "nan"]])
def test_impossible_options(option: list[str]) -> None:
    with pytest.raises(SystemExit):
        input_speed.main(option)
