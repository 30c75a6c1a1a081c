"""Paths that are pipes: `<(...)`, /dev/stdin and named pipes."""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile

import inference
from datasets.audio import AudioError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems name pipes otherwise")

OPTIONS = ["--backend", "onnx", "--model_name", "mn04_distilled", "--top_k", "1", "--audio_path"]
ROOT = Path(inference.__file__).parent


@contextmanager
def writing(open_to_write: Callable[[], int], content: bytes) -> Iterator[None]:
    """Write into a pipe from a thread, because a pipe holds 64 kB only."""

    def write() -> None:
        with open(open_to_write(), "wb") as file:
            file.write(content)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    yield
    thread.join(10)
    assert not thread.is_alive()


@contextmanager
def pipe(kind: str, folder: Path, content: bytes) -> Iterator[str]:
    """Yield the path of a pipe that gives the content."""
    if kind == "named":
        os.mkfifo(folder / "sound")
        with writing(lambda: os.open(folder / "sound", os.O_WRONLY), content):
            yield str(folder / "sound")
        return
    out, into = os.pipe()
    with writing(lambda: into, content):
        if kind == "substituted":  # as <(...) does
            yield f"/dev/fd/{out}"
        else:
            saved = os.dup(0)
            os.dup2(out, 0)
            try:
                yield "/dev/stdin"
            finally:
                os.dup2(saved, 0)
                os.close(saved)
        os.close(out)


@pytest.mark.parametrize("kind", ["named", "substituted", "standard input"])
def test_a_pipe_is_read_as_the_file(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = ROOT / "resources" / "recordings" / "scene.ogg"
    samples, rate = soundfile.read(scene)
    large = io.BytesIO()
    soundfile.write(large, np.stack([samples, samples], 1), rate, format="WAV", subtype="PCM_24")
    assert len(large.getvalue()) > 10 * 65536
    assert inference.main([*OPTIONS, str(scene)]) == 0
    expected = capsys.readouterr().out
    for number, content in enumerate((scene.read_bytes(), large.getvalue())):
        (tmp_path / str(number)).mkdir()
        with pipe(kind, tmp_path / str(number), content) as path:
            assert inference.main([*OPTIONS, path]) == 0
        assert capsys.readouterr().out == expected


@pytest.mark.parametrize("kind", ["named", "substituted", "standard input"])
def test_an_empty_pipe_is_an_error(kind: str, tmp_path: Path) -> None:
    with pipe(kind, tmp_path, b"") as path, pytest.raises(AudioError, match="empty"):
        inference.main([*OPTIONS, path])


@pytest.mark.parametrize("words", [["--rate", "16000"], ["--channels", "2"], ["--format", "u8"], ["--show_top", "3"]])
def test_options_of_streams_are_refused_with_files(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        inference.main([*OPTIONS, "x.wav", *words])
    assert end.value.code == 2 and words[0] in capsys.readouterr().err
