"""Neighbours and duplicates by embedding, and the index behind them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from helpers.archive.__main__ import main
from helpers.archive.queries import index as index_module
from helpers.tagger import AudioTagger
from models import assets
from models.errors import UserError
from tests.helpers.archive.archives import failure, row, vector


def ask(capsys, *argv: object) -> list[dict]:
    assert main([*map(str, argv), "--format", "jsonl"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.fixture
def embedded(write_archive, random_vectors) -> str:
    """300 recordings with random embeddings in two shards; 299 is nearly 7."""
    vectors = random_vectors(300)
    vectors[299] = vectors[7] * 2 + 0.05
    rows = [row(f"{i}.wav", embedding=values.tolist()) for i, values in enumerate(vectors)]
    return write_archive("embedded", [*rows[:150], failure("broken.wav")], rows[150:])


def cosines(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    vectors, query = vectors.astype(np.float64), query.astype(np.float64)
    return vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)


def test_neighbours_are_those_of_the_highest_cosine(embedded, random_vectors, capsys):
    found = ask(capsys, "neighbours", "20.wav", embedded, "--top_k", 5)
    vectors = random_vectors(300)
    vectors[299] = vectors[7] * 2 + 0.05
    expected = cosines(vectors, vectors[20])
    order = [i for i in np.argsort(-expected) if i != 20][:5]
    assert [one["source"] for one in found] == [f"{i}.wav" for i in order]
    np.testing.assert_allclose([one["similarity"] for one in found], expected[order], atol=1e-3)


def test_lists_on_the_disk_find_what_the_exact_index_finds(embedded, capsys, monkeypatch):
    exact = ask(capsys, "neighbours", "20.wav", embedded)
    exact_groups = ask(capsys, "duplicates", embedded, "--threshold", 0.9)
    monkeypatch.setattr(index_module, "EXACT_UP_TO", 100)
    monkeypatch.setattr(index_module, "BLOCK_ROWS", 120)
    monkeypatch.setattr(index_module, "PROBES", 100)
    monkeypatch.setattr(index_module, "NEAR_PROBES", 100)
    folder = Path(embedded) / "elsewhere"
    lists = ask(capsys, "neighbours", "20.wav", embedded, "--index", folder)
    assert (folder / "embedding/vectors.lists").is_file() and not list((folder / "embedding").glob("block*"))
    assert [one["source"] for one in lists] == [one["source"] for one in exact]
    np.testing.assert_allclose([one["similarity"] for one in lists], [one["similarity"] for one in exact], atol=2e-3)
    groups = ask(capsys, "duplicates", embedded, "--threshold", 0.9, "--index", folder)
    assert [(one["group"], one["source"]) for one in groups] == [(one["group"], one["source"]) for one in exact_groups]


def test_an_index_is_kept_until_the_archive_changes(embedded, capsys):
    ask(capsys, "neighbours", "7.wav", embedded)
    path = Path(embedded) / "index/embedding/vectors.faiss"
    before = path.stat().st_ino, path.stat().st_mtime_ns
    ask(capsys, "neighbours", "7.wav", embedded)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == before
    shards = sorted(Path(embedded, "data").iterdir())
    os.replace(shards[0], shards[1])
    assert "299.wav" not in {one["source"] for one in ask(capsys, "neighbours", "7.wav", embedded)}
    assert (path.stat().st_ino, path.stat().st_mtime_ns) != before


def test_a_folder_of_something_else_is_kept(embedded, tmp_path):
    mine = tmp_path / "embedding/mine.npy"
    mine.parent.mkdir()
    mine.touch()
    with pytest.raises(UserError, match="no index"):
        main(["neighbours", "7.wav", embedded, "--index", str(tmp_path)])
    assert mine.exists()


def test_a_damaged_index_is_a_user_error(embedded, capsys):
    ask(capsys, "neighbours", "7.wav", embedded)
    path = Path(embedded) / "index/embedding/vectors.faiss"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="damaged"):
        main(["neighbours", "7.wav", embedded])


def test_a_folder_whose_name_looks_like_a_column_is_none(write_archive, capsys):
    rows = [row(name, embedding=vector(1)) for name in ("a.wav", "b.wav")]
    archive = write_archive("source=x/tags", rows)
    assert [one["source"] for one in ask(capsys, "neighbours", "a.wav", archive)] == ["b.wav"]
    assert [one["source"] for one in ask(capsys, "duplicates", archive)] == ["a.wav", "b.wav"]


def test_duplicates_are_grouped_by_the_first_of_them(write_archive, capsys):
    twice, other = vector(1, 2, 3), vector(-3, 2, 1)
    archive = write_archive(
        "copies",
        [
            row("a.wav", embedding=twice),
            row("b.wav", embedding=other),
            row("longer.wav", end=3.0, embedding=twice),
            row("copy of a.wav", embedding=twice),
            row("louder.wav", embedding=vector(2, 4, 6.125)),
            row("alone.wav", embedding=vector(0, 0, 0, 1)),
        ],
        [row("copy of b.wav", embedding=other)],
    )
    found = ask(capsys, "duplicates", archive)
    assert [(one["group"], one["kind"], one["source"]) for one in found] == [
        (1, "first", "a.wav"), (1, "near", "longer.wav"), (1, "exact", "copy of a.wav"), (1, "near", "louder.wav"),
        (2, "first", "b.wav"), (2, "exact", "copy of b.wav"),
    ]  # fmt: skip
    assert 0.98 < found[3]["similarity"] < 1


def test_a_row_is_in_the_group_of_the_first_row_that_it_is_similar_to(write_archive, capsys):
    rows = [
        row(f"{degrees}.wav", embedding=vector(np.cos(angle), np.sin(angle)))
        for degrees in (0, 10, 20)
        for angle in [np.radians(degrees)]
    ]
    found = ask(capsys, "duplicates", write_archive("chain", rows), "--threshold", 0.98)
    assert [(one["group"], one["source"]) for one in found] == [(1, "0.wav"), (1, "10.wav")]


def test_duplicates_within_one_recording_are_none(write_archive, capsys):
    rows = [row("silence.wav", start, start + 1, embedding=vector(1)) for start in range(3)]
    assert ask(capsys, "duplicates", write_archive("windows", rows, window=1.0)) == []


def test_duplicates_across_two_archives(write_archive, capsys):
    first = write_archive("first", [row("a.wav", embedding=vector(1)), row("b.wav", embedding=vector(0, 1))])
    second = write_archive("second", [row("c.wav", embedding=vector(0, 0, 1)), row("b.wav", embedding=vector(0, 1))])
    found = ask(capsys, "duplicates", first, second)
    assert [(one["output"], one["source"]) for one in found] == [(first, "b.wav"), (second, "b.wav")]


def test_neighbours_of_a_recording_of_windows_are_listed_once(write_archive, capsys):
    rows = [row("a.wav", i, i + 1, embedding=vector(1, i / 100)) for i in range(50)]
    rows += [row("b.wav", 0, 1, embedding=vector(0, 1)), row("b.wav", 1, 2, embedding=vector(1, 0.25))]
    rows += [row("query.wav", i, i + 1, embedding=vector(1, 0.25)) for i in range(50)]
    found = ask(capsys, "neighbours", "query.wav", write_archive("windows", rows, window=1.0), "--top_k", 2)
    assert sorted((one["source"], one["start"]) for one in found) == [("a.wav", 25), ("b.wav", 1)]


def test_archives_without_embeddings_are_refused(write_archive):
    archive = write_archive("tags", [row("a.wav", scores=[0, 0, 1])])
    for argv in (["duplicates", archive], ["neighbours", "a.wav", archive]):
        with pytest.raises(UserError, match="--embed"):
            main(argv)
    broken = write_archive("broken", [{**failure("a.wav"), "embedding": None}])
    with pytest.raises(UserError):
        main(["duplicates", broken])
    assert not Path(broken, "index/embedding").exists()


@pytest.fixture
def of_files(write_archive, tmp_path) -> str:
    """The archive of two of three files, of the bundled model."""
    rng = np.random.default_rng(0)
    for name in "abc":
        soundfile.write(tmp_path / f"{name}.wav", np.clip(0.2 * rng.standard_normal(8000), -1, 1), 32000)
    tagger = AudioTagger("mn04_distilled", device="cpu")
    rows = [row(f"{name}.wav", embedding=tagger.embed(tmp_path / f"{name}.wav").tolist()) for name in "ab"]
    reading = {"backend": "torch", "min_seconds": None, "layers": "embedding", "pooling": "mean", "channel": None, "strict": False}
    sha256 = assets.content_hash(assets.checkpoint_path("mn04_distilled"))
    return write_archive("of_files", rows, models=("mn04_distilled",), sha256=sha256, settings=reading)


def test_neighbours_of_a_new_file(of_files, tmp_path, capsys):
    found = ask(capsys, "neighbours", tmp_path / "a.wav", of_files)
    assert [one["source"] for one in found] == ["a.wav", "b.wav"]
    assert found[0]["similarity"] == pytest.approx(1, abs=1e-3) and found[1]["similarity"] < 0.9999
    assert len(ask(capsys, "neighbours", tmp_path / "c.wav", of_files)) == 2


def test_a_new_file_is_embedded_by_the_same_model_or_not_at_all(of_files, tmp_path):
    manifest = Path(of_files, "manifest.json")
    content = json.loads(manifest.read_text())
    content["models"][0]["sha256"] = "0" * 64
    manifest.write_text(json.dumps(content))
    with pytest.raises(UserError, match="SHA-256"):
        main(["neighbours", str(tmp_path / "a.wav"), of_files])
    with pytest.raises(FileNotFoundError, match="neither"):
        main(["neighbours", str(tmp_path / "missing.wav"), of_files])
