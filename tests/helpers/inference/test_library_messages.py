from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

import inference
from datasets.decoding.mp3 import frame_bytes
from helpers.inference.library_messages import told_with_name

ROOT = Path(inference.__file__).parent

PROGRAM = """
import logging, os, sys
from helpers.inference.library_messages import told_with_name
logging.basicConfig(format="%(message)s")
try:
    with told_with_name("x.mp3"):
        os.write(2, b"of a library\\n\\n")
        print("of Python", file=sys.stderr)
        logging.warning("of the log")
        os.write(2, b"another\\n")
        raise KeyError
except KeyError:
    pass
with told_with_name("y.mp3"):
    pass
os.write(2, b"later\\n")
logging.warning("at the end")
"""


def test_messages_of_libraries_get_the_name_and_those_of_python_are_left_alone() -> None:
    result = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout) == (0, "")
    assert result.stderr.splitlines() == [
        "of Python",
        "of the log",
        "warning: x.mp3: of a library (and 1 more)",
        "later",
        "at the end",
    ]


def test_where_standard_error_is_closed_nothing_happens() -> None:
    program = "import os; os.close(2); " + PROGRAM.replace("os.write(2, ", "str(").replace("sys.stderr", "None")
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, timeout=60)
    assert result.returncode == 0


def noisy_mp3() -> bytes:
    """An mp3 with a damaged frame, about which libmpg123 prints lines without a name."""
    file = io.BytesIO()
    samples, rate = soundfile.read(ROOT / "resources" / "recordings" / "rock.ogg", frames=100_000)
    soundfile.write(file, samples, rate, format="MP3")
    content, position = bytearray(file.getvalue()), 0
    for _ in range(20):
        position += frame_bytes(bytes(content[position : position + 3]))
    content[position + 6 : position + 8] = b"\xff\xff"  # of its side information
    return bytes(content)


def test_what_a_decoder_prints_about_a_single_file_gets_its_name(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "noisy.mp3").write_bytes(noisy_mp3())
    options = ["--backend", "onnx", "--model_name", "mn04_distilled", "--audio_path"]
    assert inference.main([*options, str(tmp_path / "noisy.mp3")]) == 0
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("warning: ") and "noisy.mp3" in lines[0]
    os.write(2, b"free again")
    assert capfd.readouterr().err == "free again"


def test_an_error_comes_behind_the_messages(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="no sound"), told_with_name("x.mp3"):
        os.write(2, b"not decoded\n")
        raise ValueError("no sound")
    assert capfd.readouterr().err == "warning: x.mp3: not decoded\n"
