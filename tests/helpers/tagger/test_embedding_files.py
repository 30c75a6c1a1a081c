"""Files of embeddings: written, read by plain numpy and h5py, and never half there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from helpers.tagger import embedding_files
from helpers.tagger.embedding_files import embeddings_path, read_embeddings, write_embeddings
from helpers.tagger.results import Embedding

ROOT = Path(__file__).resolve().parents[3]
INFO = {"model": "any", "columns": {"mel": [0, 2], "block5": [2, 3]}}
VECTORS = np.arange(15, dtype=np.float32).reshape(5, 3)
SOURCES = ["a.wav", "a.wav", "b \udcff.wav", "c.wav", "a.wav"]  # one is no UTF-8


def rows() -> Iterator[Embedding]:
    for number, (source, vector) in enumerate(zip(SOURCES, VECTORS, strict=True)):
        yield Embedding(source, number / 2, number / 2 + 0.25, vector)


@pytest.mark.parametrize("name", ["rows.npy", "rows.h5", "rows.HDF5"])
def test_what_is_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(embedding_files, "ROWS_AT_ONCE", 2)
    assert write_embeddings(tmp_path / "new" / name, rows(), 3, INFO) == 5
    stored = read_embeddings(tmp_path / "new" / name)
    np.testing.assert_array_equal(stored.embeddings, VECTORS)
    assert stored.embeddings.dtype == np.float32 and stored.info == INFO
    assert [source.replace("\\udcff", "\udcff") for source in stored.sources] == SOURCES
    np.testing.assert_array_equal(stored.starts, [0, 0.5, 1, 1.5, 2])
    np.testing.assert_array_equal(stored.ends - stored.starts, [0.25] * 5)
    np.testing.assert_array_equal(stored.columns("block5"), VECTORS[:, 2:])
    assert not [path for path in (tmp_path / "new").iterdir() if path.suffix == ".part"]


def test_other_programs_read_them(tmp_path: Path) -> None:
    write_embeddings(tmp_path / "rows.npy", rows(), 3, INFO)
    write_embeddings(tmp_path / "rows.h5", rows(), 3, INFO)
    np.testing.assert_array_equal(np.load(tmp_path / "rows.npy", allow_pickle=False), VECTORS)
    about = json.loads((tmp_path / "rows.npy.json").read_text())
    assert about["rows"][3] == ["c.wav", 1.5, 1.75] and about["info"] == INFO
    with h5py.File(tmp_path / "rows.h5") as file:
        np.testing.assert_array_equal(file["embeddings"], VECTORS)
        assert file["sources"].asstr()[file["source"][3]] == "c.wav" and json.loads(file.attrs["info"]) == INFO


def test_both_files_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", full)
    with pytest.raises(OSError, match="no space left"):
        write_embeddings(tmp_path / "rows.npy", rows(), 3, INFO)
    assert not list(tmp_path.iterdir())


def test_rows_of_another_file_are_refused(tmp_path: Path) -> None:
    write_embeddings(tmp_path / "rows.npy", rows(), 3, INFO)
    np.save(tmp_path / "rows.npy", VECTORS[:2])
    with pytest.raises(ValueError, match="2 rows"):
        read_embeddings(tmp_path / "rows.npy")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems limit the size of files otherwise")
@pytest.mark.parametrize("name", ["rows.npy", "rows.h5"])
def test_a_full_disk_is_one_error(tmp_path: Path, name: str) -> None:
    """In a process that may write 20 kB to a file."""
    code = f"""
import numpy as np, resource, signal
from helpers.tagger.embedding_files import write_embeddings
from helpers.tagger.results import Embedding
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
rows = [Embedding("a", 0.0, 1.0, np.zeros(3000, np.float32)) for _ in range(10)]
try:
    write_embeddings({str(tmp_path / name)!r}, rows, 3000, {{}})
except OSError as error:
    print("refused", flush=True)
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout == "refused\n", result.stderr  # the HDF5 library may crash later, at the end of the process
    assert not list(tmp_path.iterdir())


def test_a_few_rows_are_a_small_file(tmp_path: Path) -> None:
    write_embeddings(tmp_path / "rows.h5", [Embedding("a", 0.0, 1.0, np.zeros(3000, np.float32))], 3000, INFO)
    assert (tmp_path / "rows.h5").stat().st_size < 300_000


@pytest.mark.parametrize("name", ["rows.npy", "rows.h5"])
def test_no_rows_are_a_file_of_none(tmp_path: Path, name: str) -> None:
    assert write_embeddings(tmp_path / name, [], 3, INFO) == 0
    assert read_embeddings(tmp_path / name).embeddings.shape == (0, 3)


@pytest.mark.parametrize("name", ["rows.txt", "rows", "folder.npy"])
def test_other_suffixes_and_folders_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(ValueError, match=r"\.npy or \.h5"):
        embeddings_path(tmp_path / name)
