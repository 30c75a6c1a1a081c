from __future__ import annotations

from pathlib import Path

import pytest

import peak_memory

pytestmark = pytest.mark.usefixtures("empty_resources")


@pytest.mark.parametrize(
    ("options", "subject", "peak_kb"),
    [
        ("--model_name mn10_as", "'mn10_as' inference", "5120.00"),
        ("--model_name mn10_as --memory_efficient_inference", "'mn10_as' inference (memory efficient)", "2048.00"),
        ("--model_name mn10_as --bits_per_elem 32", "'mn10_as' inference", "10240.00"),
        ("--model_name mn10_as_mels_40", "'mn10_as_mels_40' inference", "1600.00"),
        ("--model_width 4 --bits_per_elem 8", "'width 4.0, mlp head' inference", "10240.00"),
        ("--n_mels 64 --hop_size 640 --se_dims ft", "'width 1.0, mlp head, se_dims ft' inference", "1280.00"),
    ],
)
def test_last_line(capsys: pytest.CaptureFixture[str], options: str, subject: str, peak_kb: str) -> None:
    assert peak_memory.main(options.split()) == 0
    expected = f"Model {subject} of a single 10-seconds audio clip has a peak memory of {peak_kb} kB."
    assert capsys.readouterr().out.splitlines()[-1] == expected


def test_reports_where_the_peak_is(capsys: pytest.CaptureFixture[str]) -> None:
    peak_memory.main([])
    *rows, first, last = capsys.readouterr().out.splitlines()
    assert rows[0].split() == ["block", "kB", "at", "tensors"] and len(rows) == 1 + 17
    assert rows[3].split()[:3] == ["features.2", "5120.00", "block.0.0"]
    assert first == "The peak is at features.2.block.0.0: input 1024.00 kB, output 4096.00 kB."
    assert last.startswith("Model 'width 1.0, mlp head'")


def test_a_checkpoint_by_its_path(capsys: pytest.CaptureFixture[str], tiny_checkpoint: Path) -> None:
    peak_memory.main(["--model_name", str(tiny_checkpoint), "--memory_efficient_inference"])
    assert capsys.readouterr().out.endswith("peak memory of 896.00 kB.\n")


def test_two_passes(capsys: pytest.CaptureFixture[str]) -> None:
    peak_memory.main("--strides 2 2 1 1 --memory_efficient_inference".split())
    assert capsys.readouterr().out.endswith("peak memory of 5120.00 kB.\n")
    peak_memory.main("--strides 2 2 1 1 --two_passes".split())
    assert capsys.readouterr().out.endswith("peak memory of 4480.00 kB.\n")


def test_analysis_next_to_measurement_and_a_figure(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    figure = tmp_path / "memory.png"
    options = "--model_width 0.1 --hop_size 3200 --memory_efficient_inference --measure --rounds 1 --bits_per_elem 32"
    assert peak_memory.main([*options.split(), "--plot", str(figure)]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines[:4]]
    assert [(row[0], row[1]) for row in rows] == [
        ("plain", "32"), ("memory-efficient", "32"), ("plain", "16"), ("memory-efficient", "16"),
    ]  # fmt: skip
    for row in rows[:2]:
        analytic, measured = (float(cell) for cell in row[2:4])
        assert analytic <= measured  # by how much is up to the processor's kernels
    assert float(rows[1][-1]) < 5e-5 and 1e-4 < float(rows[3][-1]) < 1
    blocks = [line.split() for line in lines if line.startswith("features.")]
    assert all(float(row[4 if "and" in row else 2]) > 0 for row in blocks) and len(blocks) == 16
    assert figure.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--model_name mn10_ass", "did you mean mn10_as"),
        ("--model_name mn10_as --n_mels 64", "contradict mn10_as"),
        ("--se_dims q", "letters c, f and t"),
    ],
)
def test_mistakes(options: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        peak_memory.main(options.split())
