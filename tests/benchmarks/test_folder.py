"""The benchmark on a few seconds of sound: all variants process the same recordings and agree; speeds are not tested."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from benchmarks import common, folder
from benchmarks.folder import PLAIN, VariantResult
from datasets import audio


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Three usable wav files, one deep down, and three that are not."""
    place = tmp_path / "recordings"
    (place / "deep" / "down").mkdir(parents=True)
    for name, bundled in {"speech.wav": "speech", "wind.WAV": "wind", "deep/down/rock.wav": "rock"}.items():
        waveform, rate = soundfile.read(common.RECORDINGS / f"{bundled}.ogg")
        soundfile.write(place / name, waveform[: 2 * rate], rate, format="WAV")
    soundfile.write(place / "short.wav", np.ones(100), 32000)
    soundfile.write(place / "long.wav", np.zeros(61 * 8000), 8000)
    (place / "broken.wav").write_bytes(b"RIFF, but no more")
    (place / "notes.txt").write_text("no recording")
    return place


@pytest.fixture
def plain_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("librosa") is None:
        monkeypatch.setattr(folder, "read_plainly", audio.load)
        monkeypatch.setattr(common, "version", lambda package: "present")


def test_variants_agree_on_what_is_usable(
    recordings: Path, plain_reader: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    figure = tmp_path / "folder.png"
    options = ["--audio_path", str(recordings), "--rounds", "1", "--threads", "2", "--figure", str(figure)]
    assert folder.main(options) == 0
    assert torch.get_num_threads() == threads
    out = capsys.readouterr().out
    assert all(f"{name}.wav" in line for name, line in zip("broken long short".split(), sorted_left_out(out), strict=True))
    assert "3 recordings, 0.00 hours, of 2.0 s" in out
    rows = {
        name.strip(): line.removeprefix(name).split() for line in out.splitlines() if line.endswith("%") for name in [line[:18]]
    }
    assert list(rows) == [PLAIN, "tag_files, torch", "tag_files, onnx"]
    assert rows[PLAIN][2:] == ["1.00", "100.0%"] and all(row[3] == "100.0%" for row in rows.values())
    assert all(0 < float(files) < float(sound) for files, sound, *_ in rows.values())
    assert figure.read_bytes().startswith(b"\x89PNG")


def sorted_left_out(out: str) -> list[str]:
    return sorted((line for line in out.splitlines() if line.startswith("left out: ")), key=lambda line: line.split("/")[-1])


def test_librosa_reads_the_same_samples(recordings: Path) -> None:
    pytest.importorskip("librosa")
    path = recordings / "speech.wav"
    np.testing.assert_allclose(folder.read_plainly(path, 32000), audio.load(path, 32000), atol=1e-4)


def test_recordings_are_drawn_at_random(recordings: Path) -> None:
    drawn = [tuple(folder.choose([recordings], 2, seed)) for seed in range(8)]
    assert all(len(paths) == 2 for paths in drawn) and len(set(drawn)) > 1
    assert drawn[0] == tuple(folder.choose([recordings, recordings / "deep"], 2, seed=0))
    assert folder.choose([recordings / "deep"], 2, seed=0) == {recordings / "deep" / "down" / "rock.wav": 2.0}
    with pytest.raises(ValueError, match="no usable recordings in .*gone"):
        folder.choose([recordings / "gone"], 2, seed=0)


def test_a_recording_that_fails_only_later_is_an_error(recordings: Path) -> None:
    tagger = folder.AudioTagger("mn04_opensounds", backend="onnx")
    with pytest.raises(ValueError, match="broken.wav"):
        folder.tag_files(tagger, [recordings / "speech.wav", recordings / "broken.wav"])


def test_groups_are_nearly_equal() -> None:
    paths = [Path(str(number)) for number in range(7)]
    groups = folder.cut(paths, 3)
    assert [path for group in groups for path in group] == paths and sorted(map(len, groups)) == [2, 2, 3]
    assert folder.cut(paths, 100) == [[path] for path in paths]


def test_each_variant_runs_on_each_group_without_the_warm_up() -> None:
    calls = []
    groups = [[Path("a"), Path("b")], [Path("c")]]
    variants = {
        name: lambda paths, name=name: calls.append((name, *map(str, paths))) or [name for _ in paths] for name in (PLAIN, "fast")
    }
    for name, result in folder.measure(variants, groups).items():
        assert [call[1:] for call in calls if call[0] == name] == [("a", "b"), ("a", "b"), ("c",)]
        assert len(result.seconds) == 2 and min(result.seconds) >= 0 and result.classes == [name] * 3


def test_variants_are_compared_group_by_group(capsys: pytest.CaptureFixture[str]) -> None:
    plain, fast = VariantResult([2.0, 8.0, 10.0], ["x", "y", "x", "y"]), VariantResult([1.0, 1.0, 2.0], ["x", "y", "y", "y"])
    folder.print_table("title", {PLAIN: plain, "fast": fast}, [2, 1, 1], [30.0, 20.0, 50.0])
    rows = [line.removeprefix(PLAIN).removeprefix("fast").split() for line in capsys.readouterr().out.splitlines()[-2:]]
    assert rows == [["0.1", "5", "1.00", "100.0%"], ["1.0", "25", "5.00", "75.0%"]]  # 25 of 30, 20 and 25; 5 of 2, 8 and 5
