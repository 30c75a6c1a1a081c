from __future__ import annotations

import csv
import html
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import soundfile
import torch

import inference
from datasets.labels import audioset_labels
from helpers.tagger.audio_tagger import AudioTagger
from helpers.tagger.embedding_files import read_embeddings
from models import checkpoints
from models.preprocess import AugmentMelSTFT

SCRIPT = Path(inference.__file__)
NOISE = np.random.default_rng(0).uniform(-0.3, 0.3, 16000).astype(np.float32)


def test_prints_the_published_form(tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write(tmp_path / "noise.wav", NOISE, 16000)
    argv = ["--model_name", str(tiny_checkpoint), "--audio_path", str(tmp_path / "noise.wav"), "--cuda", "--batch_size", "1"]
    assert inference.main(argv) == 0  # also without CUDA
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "************* Acoustic Event Detected: *****************"
    assert lines[-1] == "********************************************************"
    scores = []
    for line in lines[1:-1]:
        label, score = re.fullmatch(r"(.+): ([01]\.\d{3})", line).groups()
        assert label in audioset_labels()
        scores.append(float(score))
    assert len(scores) == 10 and scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("case", ["missing", "text", "folder", "nan", "unknown model", "damaged model"])
def test_mistakes_end_in_one_line(case: str, tiny_checkpoint: Path, tmp_path: Path, failing_message: Callable[..., str]) -> None:
    path, model = tmp_path / "x.wav", str(tiny_checkpoint)
    soundfile.write(path, NOISE, 32000)
    match case:
        case "missing":
            path.unlink()
        case "text":
            path.write_text("this is no recording\n" * 100)
        case "folder":
            path.unlink()
            path.mkdir()
        case "nan":
            soundfile.write(path, np.full(32000, np.nan), 32000, subtype="FLOAT")
        case "unknown model":
            model = "mn11_as"
        case "damaged model":
            model = str(tmp_path / "damaged.pt")
            Path(model).write_bytes(tiny_checkpoint.read_bytes()[:5000])
    message = failing_message(inference.main, "--model_name", model, "--audio_path", path)
    assert (model if "model" in case else "x.wav") in message


def recordings(folder: Path) -> list[str]:
    """Write two good recordings into a folder and a subfolder, a broken one between them and a text that is none."""
    (folder / "b").mkdir(parents=True)
    soundfile.write(folder / "a.wav", NOISE, 32000)
    soundfile.write(folder / "b" / "c.FLAC", NOISE[:8000], 16000, format="FLAC")
    (folder / "b" / "broken.mp3").write_bytes(b"\xff\xfb nothing to hear" * 30)
    (folder / "notes.txt").write_text("no recording")
    return [str(folder / "a.wav"), str(folder / "b" / "c.FLAC")]


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    code = inference.main([str(word) for word in argv])
    return code, *capsys.readouterr()


def test_a_broken_file_does_not_stop_a_folder(tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = recordings(tmp_path / "in")
    options = ["--model_name", tiny_checkpoint, "--top_k", 2]
    code, out, err = run(capsys, *options, "--audio_path", tmp_path / "in", tmp_path / "in" / "*.wav")
    assert code == 1 and "broken.mp3" in err and ".txt (1)" in err and len(err.strip().splitlines()) == 2
    lines = out.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == good and len(lines) == 6
    code, out, err = run(capsys, *options, "--audio_path", *good, "--output", tmp_path / "tags.jsonl")
    assert (code, out) == (0, "") and "2 of 2" in err
    results = [json.loads(line) for line in (tmp_path / "tags.jsonl").read_text().splitlines()]
    assert [result["source"] for result in results] == good and [len(result["tags"]) for result in results] == [2, 2]


def test_timelines_into_a_table(tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = recordings(tmp_path / "in")
    argv = ["--model_name", tiny_checkpoint, "--audio_path", tmp_path / "in" / "**", "--window", 0.2, "--hop", 0.1]
    code, _, err = run(capsys, *argv, "--labels", "speech", "Dog", "--output", tmp_path / "tags.csv")
    assert code == 1 and len(err.strip().splitlines()) == 3  # the text file is named by the pattern as well
    with open(tmp_path / "tags.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["source"] for row in rows} == set(good) and {row["label"] for row in rows} == {"Speech", "Dog"}
    starts = [float(row["start"]) for row in rows if row["source"] == good[0]]
    np.testing.assert_allclose(starts, [0, 0, 0.1, 0.1, 0.2, 0.2, 0.3, 0.3], atol=1e-3)
    code, out, _ = run(capsys, *argv[:2], "--audio_path", good[0], *argv[4:], "--threshold", 1)
    assert code == 0 and [line.split() for line in out.splitlines()[1:3]] == [["0.00", "0.20", "-"], ["0.10", "0.30", "-"]]


def test_long_recordings_in_one_piece_if_wished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene, rate = soundfile.read(SCRIPT.parent / "resources" / "recordings" / "scene.ogg", dtype="float32")
    soundfile.write(tmp_path / "x.wav", np.resize(scene, 12 * rate), rate)
    options = ["--backend", "onnx", "--model_name", "mn04_distilled", "--audio_path", tmp_path / "x.wav"]
    printed = [run(capsys, *options, *words)[1].splitlines()[1] for words in ([], ["--whole"])]
    for whole in (False, True):
        [tag] = AudioTagger("mn04_distilled", backend="onnx", whole=whole).tag(tmp_path / "x.wav", top_k=1)
        assert printed[whole] == f"{tag.label}: {tag.score:.3f}"
    assert printed[0] != printed[1]


class Pipe(io.BytesIO):
    """Standard input that gives what it likes."""

    @property
    def buffer(self) -> Pipe:
        return self

    def read1(self, size: int = -1) -> bytes:
        return self.read(min(size, 777))


def test_standard_input_is_a_recording(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "x.wav", NOISE, 16000)
    options = ["--model_name", tiny_checkpoint, "--audio_path"]
    expected = run(capsys, *options, tmp_path / "x.wav")
    monkeypatch.setattr(sys, "stdin", Pipe((tmp_path / "x.wav").read_bytes()))
    assert run(capsys, *options, "-") == expected
    monkeypatch.setattr(sys, "stdin", Pipe(b""))
    with pytest.raises(ValueError, match="standard input"):
        run(capsys, *options, "-")


def test_events_of_a_stream(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pcm = (NOISE * 32767).astype("<i2").tobytes()
    options = ["--model_name", tiny_checkpoint, "--stream", "--rate", 16000, "--window", 0.3, "--hop", 0.1]
    monkeypatch.setattr(sys, "stdin", Pipe(pcm))
    code, out, err = run(capsys, *options, "--threshold", 0.1, "--off_threshold", 0, "--labels", "Speech", "Music")
    assert code == 0 and "latency is 0.1 to 0.2 s" in err
    lines = [line.split() for line in out.splitlines()]
    assert [line[0] for line in lines] == ["begin", "begin", "end", "end"] and {line[2] for line in lines} == {"Speech", "Music"}
    assert {line[1] for line in lines} == {"0.00", "1.00"}
    monkeypatch.setattr(sys, "stdin", Pipe(b""))
    assert run(capsys, *options)[:2] == (0, "")


def test_a_figure_of_the_timeline(tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write(tmp_path / "x.wav", np.tile(NOISE, 4), 16000)
    options = ["--model_name", tiny_checkpoint, "--audio_path", tmp_path / "x.wav"]
    published = run(capsys, *options)
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        assert run(capsys, *options, "--plot", tmp_path / "x.svg") == published
    names = [line.rpartition(":")[0] for line in published[1].splitlines()[1:-1]]
    text = html.unescape((tmp_path / "x.svg").read_text())
    for name in names:
        assert name[:31] in text
    assert "seconds" in text and "Hz, mel scale" in text


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no such pipes")
def test_a_figure_of_what_comes_from_a_pipe(tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write(tmp_path / "x.wav", NOISE, 16000)
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes((tmp_path / "x.wav").read_bytes()), daemon=True)
    writer.start()
    options = ["--model_name", tiny_checkpoint, "--plot", tmp_path / "x.svg", "--audio_path"]
    assert run(capsys, *options, tmp_path / "pipe")[:2] == run(capsys, *options, tmp_path / "x.wav")[:2]


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--stream", "--audio_path", "x.wav"],
        ["--stream", "--output", "x.csv"],
        ["--audio_path", "x.wav", "--hop", "1"],
        ["--audio_path", "x.wav", "-"],
        ["--audio_path", "x.wav", "y.wav", "--plot", "x.png"],
        ["--audio_path", "x.wav", "--backend", "onnx", "--ensemble", "mn01_as", "mn02_as"],
        ["--audio_path", "x.wav", "--embed", "x.npy", "--labels", "Speech"],
        ["--stream", "--embed", "x.npy"],
        ["--audio_path", "x.wav", "--layers", "mel"],
        ["--audio_path", "x.wav", "--embed", "x.npy", "--pooling", "median"],
        ["--audio_path", "x.wav", "--rate", "16000"],
        ["--audio_path", "x.wav", "--off_threshold", "0.1"],
        ["--audio_path", "x.wav", "--window", "10", "--whole"],
    ],
)
def test_contradicting_options_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        inference.main(words)
    assert end.value.code == 2 and "error: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["--labels", "Speach"],
        ["--audio_path", "*.no"],
        ["--embed", "rows.txt"],
        ["--layers", "block99", "--embed", "rows.npy"],
    ],
)
def test_further_mistakes_end_in_one_line(
    words: list[str], tiny_checkpoint: Path, tmp_path: Path, failing_message: Callable[..., str]
) -> None:
    soundfile.write(tmp_path / "x.wav", NOISE, 32000)
    message = failing_message(inference.main, "--model_name", tiny_checkpoint, "--audio_path", tmp_path / "x.wav", *words)
    assert words[1] in message


NO_TORCH = """
import sys
sys.modules["torch"] = None  # importing it is an error
import inference
path, table = sys.argv[1:]
for words in ([], ["--window", "0.2"], [path, "--output", table]):
    assert inference.main(["--backend", "onnx", "--model_name", "mn04_distilled", "--audio_path", path, *words]) == 0
assert not {name.partition(".")[0] for name in sys.modules} & {"matplotlib", "sklearn", "h5py", "pandas", "onnx"}
"""


def test_the_onnx_backend_does_without_torch(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", NOISE, 32000)
    command = [sys.executable, "-c", NO_TORCH, tmp_path / "x.wav", tmp_path / "x.csv"]
    result = subprocess.run(command, cwd=SCRIPT.parent, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert len((tmp_path / "x.csv").read_text().splitlines()) == 11


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_no_utf8_from_any_folder(tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    folder.mkdir()
    for name in (b"a.wav", b"caf\xe9.wav"):
        soundfile.write(os.fsencode(folder) + b"/" + name, NOISE, 32000, format="WAV")
    (folder / os.fsdecode(b"br\xf6ken.wav")).write_text("nothing")
    options = ["--backend", "onnx", "--model_name", "mn04_distilled", "--audio_path"]
    result = subprocess.run([sys.executable, SCRIPT, *options, folder.name], cwd=tmp_path, capture_output=True)
    assert result.returncode == 1 and result.stderr.count(b"error: ") == 1 and b"Traceback" not in result.stderr
    assert result.stdout.splitlines()[11] == b"recordings/caf\\udce9.wav"
    assert inference.main([*options, str(folder), "--output", str(tmp_path / "tags.jsonl")]) == 1
    rows = [json.loads(line) for line in (tmp_path / "tags.jsonl").read_text().splitlines()]
    assert ["tags" in row for row in rows] == [True, False, True]


@pytest.mark.parametrize("name", ["tags.txt", "folder.csv"])
def test_a_wrong_output_is_refused_before_anything_is_computed(
    name: str, tmp_path: Path, failing_message: Callable[..., str]
) -> None:
    (tmp_path / "folder.csv").mkdir()
    assert name in failing_message(inference.main, "--audio_path", tmp_path / "not_even_there.wav", "--output", tmp_path / name)


def test_ctrl_c_ends_the_events_of_a_stream() -> None:
    command = [sys.executable, SCRIPT, "--backend", "onnx", "--model_name", "mn04_distilled", "--stream", "--rate", "16000"]
    process = subprocess.Popen(
        [*command, "--window", "1", "--hop", "1", "--threshold", "0.02"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # what runs in the background inherits that it is ignored
    )  # fmt: skip
    try:
        process.stdin.write((20000 * np.resize(NOISE, 40000)).astype("<i2").tobytes())
        process.stdin.flush()
        lines = [process.stdout.readline().decode()]
        time.sleep(0.5)  # until it waits for more
        process.send_signal(signal.SIGINT)
        lines += process.stdout.read().decode().splitlines()
        assert process.wait(60) == 130
    finally:
        process.kill()
    assert sum(line.startswith("begin") for line in lines) == sum(line.startswith("end") for line in lines) > 0


def test_embeddings_of_files_and_of_windows(tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, samples in (("a.wav", NOISE), ("c.wav", NOISE[:9000])):
        soundfile.write(tmp_path / name, samples, 32000, subtype="FLOAT")
    (tmp_path / "b.wav").write_text("no sound")
    layers = ("--layers", "block5+mel", "--pooling", "both")
    options = ["--model_name", tiny_checkpoint, "--audio_path", tmp_path, *layers, "--embed"]
    code, _, err = run(capsys, *options, tmp_path / "rows.h5")
    assert code == 1 and "b.wav" in err
    stored = read_embeddings(tmp_path / "rows.h5")
    assert [Path(source).name for source in stored.sources] == ["a.wav", "c.wav"] and stored.info["layers"] == "block5+mel"
    np.testing.assert_allclose(stored.ends, [0.5, 9000 / 32000])
    model = checkpoints.load_model(tiny_checkpoint)
    with torch.no_grad():
        mel = AugmentMelSTFT.from_config(model.mel).eval()(torch.from_numpy(NOISE)[None])
        maps = model.features[:6](mel[:, None])[0].flatten(1)
    np.testing.assert_allclose(stored.columns("mel")[0], torch.cat([mel[0].mean(1), mel[0].amax(1)]), atol=1e-5)
    np.testing.assert_allclose(stored.columns("block5")[0], torch.cat([maps.mean(1), maps.amax(1)]), atol=1e-5)

    (tmp_path / "b.wav").unlink()
    assert run(capsys, *options, tmp_path / "rows.npy", "--window", 0.1, "--hop", 0.05)[0] == 0
    windows = read_embeddings(tmp_path / "rows.npy")
    assert [Path(source).name for source in windows.sources] == ["a.wav"] * 9 + ["c.wav"] * 5
    np.testing.assert_allclose(windows.starts[:9], np.arange(9) * 0.05, atol=1e-9)
    np.testing.assert_allclose(windows.ends[-1], 9000 / 32000)
    clips = AudioTagger(tiny_checkpoint, "cpu", layers="block5+mel", pooling="both").embed(NOISE, 32000, window=0.1, hop=0.05)
    np.testing.assert_allclose(windows.embeddings[:9], clips, atol=1e-5)


def test_an_ensemble_embeds_side_by_side(tiny_checkpoint: Path) -> None:
    alone, twice = (AudioTagger(names, "cpu", layers="block5+mel") for names in (tiny_checkpoint, [tiny_checkpoint] * 2))
    embedding = alone.embed(NOISE, 32000)
    np.testing.assert_allclose(twice.embed(NOISE, 32000), np.tile(embedding, 2), atol=1e-6)
    assert twice.backend.columns == {"0:block5": (0, 8), "0:mel": (8, 136), "1:block5": (136, 144), "1:mel": (144, 272)}
