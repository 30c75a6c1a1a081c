"""helpers.distillation: rows are found by name, files are not trusted, the writer loses nothing."""

from __future__ import annotations

import io
import math
import os
import pickle
import resource
from pathlib import Path

import numpy as np
import pytest

from helpers.distillation import teacher_logits
from helpers.distillation.teacher_logits import TeacherLogits, read_pickle
from helpers.distillation.writer import LogitsWriter


def rows(count: int, num_classes: int = 4, dtype: str = "float16") -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, num_classes)).astype(dtype)


# Lookup


@pytest.mark.parametrize("dtype", ["float16", "float32", ">f2"])
@pytest.mark.parametrize("is_text", [True, False])
def test_rows_are_found_by_name_in_any_order(tmp_path, dtype, is_text, stored):
    names = [f"clip {i} ä.wav" for i in range(50)]
    logits = rows(50, dtype=dtype)
    preds, index = stored(tmp_path, logits, names if is_text else {name: i for i, name in enumerate(names)})
    shuffled = [names[i] for i in np.random.default_rng(1).permutation(50)[:30]]
    teacher = TeacherLogits(preds, index, [*shuffled, "foreign", shuffled[0]], 4)
    assert (teacher.covered, teacher.clips) == (31, 32)  # a name that two clips share counts twice
    for name in shuffled:
        row = teacher.row(name)
        assert row.dtype == np.float32 and np.array_equal(row, logits[names.index(name)].astype(np.float32)), name
    assert teacher.row("foreign") is None
    assert teacher.row(next(name for name in names if name not in shuffled)) is None  # not of this data set, so not kept


def test_names_that_begin_alike_are_distinguished(tmp_path, stored):
    preds, index = stored(tmp_path, rows(3), ["ab", "abcdefgh", "a"])
    teacher = TeacherLogits(preds, index, ["abc", "ab"], 4)
    assert teacher.covered == 1 and teacher.row("abc") is None and teacher.row("abcdefgh") is None
    assert np.array_equal(teacher.row("ab"), rows(3)[0])


IDS = ["abcdefghijk", "YbcdefghijY", "-_YYYYYYYY-", "A1b2C3d4E5f"]


@pytest.mark.parametrize("is_text", [True, False])
def test_audioset_names_are_found_by_their_youtube_id(tmp_path, is_text, stored):
    preds, index = stored(tmp_path, rows(4), IDS if is_text else {name: i for i, name in enumerate(IDS)})
    names = [f"Y{name}.mp3" for name in reversed(IDS)]
    teacher = TeacherLogits(preds, index, names, 4)
    assert teacher.covered == 4
    for i, youtube_id in enumerate(IDS):
        assert np.array_equal(teacher.row(f"Y{youtube_id}.mp3"), rows(4)[i])


def test_only_names_of_exactly_that_pattern_stand_for_an_id(tmp_path, stored):
    ids = ["abcdefghijk", "abcdefg.mp3", "abc defghij", "short", "abcdefghijkl"]
    preds, index = stored(tmp_path, rows(5), ids)
    near = [
        "abcdefghijk.mp3", "Yabcdefghijk", "Yabcdefghijk.wav", "Yabcdefghijk_mp3", "yabcdefghijk.mp3", "YYabcdefghijk.mp3",
        "Yabcdefg.mp3.mp3", "Yabc defghij.mp3", "Yshort.mp3", "Yabcdefghijkl.mp3", "Yabcdefghijk.mp3.mp3", "Yabcdefghijk.mp3\n",
    ]  # fmt: skip
    assert TeacherLogits(preds, index, near, 4).covered == 0
    assert TeacherLogits(preds, index, [*near, "Y-----------.mp3"], 4).covered == 0  # next to one of that pattern
    assert TeacherLogits(preds, index, ids, 4).covered == 5  # as they are


def test_the_name_itself_goes_before_the_id(tmp_path, stored):
    preds, index = stored(tmp_path, rows(2), ["Yabcdefghijk.mp3", "abcdefghijk"])
    assert np.array_equal(TeacherLogits(preds, index, ["Yabcdefghijk.mp3"], 4).row("Yabcdefghijk.mp3"), rows(2)[0])
    index.write_text("abcdefghijk\nYabcdefghijk.mp3\n")
    assert np.array_equal(TeacherLogits(preds, index, ["Yabcdefghijk.mp3"], 4).row("Yabcdefghijk.mp3"), rows(2)[1])


def test_index_longer_than_what_is_looked_up_together(tmp_path, monkeypatch, stored):
    monkeypatch.setattr(teacher_logits, "_ENTRIES", 7)
    names = [f"n{i}" for i in range(30)]
    preds, index = stored(tmp_path, rows(30), names)
    teacher = TeacherLogits(preds, index, names, 4)
    assert all(np.array_equal(teacher.row(name), rows(30)[i]) for i, name in enumerate(names))


def test_memory_stays_bounded_while_rows_of_a_large_file_are_read(tmp_path):
    count, num_classes = 200_000, 527
    preds, index = tmp_path / "large.npy", tmp_path / "large.txt"
    with open(preds, "wb") as file:  # a hole of 211 MB
        np.lib.format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": (count, num_classes)})
        file.truncate(file.tell() + 2 * count * num_classes)
    index.write_text("".join(f"{i}\n" for i in range(count)))
    teacher = TeacherLogits(preds, index, map(str, range(count)), num_classes)

    def resident_bytes() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    before = resident_bytes()
    for i in np.random.default_rng(0).integers(0, count, 4000):
        assert teacher.row(str(i)) is not None
    assert resident_bytes() - before < 10e6  # one mapping of the file would hold nearly all of it


# Files that cannot be trusted


@pytest.mark.parametrize("protocol", range(1, 6))
@pytest.mark.parametrize("count", [1, 1001])  # SETITEM and SETITEMS alternate in groups of 1000
def test_pickles_of_a_dict_are_read_in_every_protocol(tmp_path, protocol, count, stored):
    index = {f"ü{i}" * (1 + 40 * (i == 1)): count - 1 - i for i in range(count)}
    preds, path = stored(tmp_path, rows(count), index, protocol)
    assert read_pickle(path) == index
    assert TeacherLogits(preds, path, index, 4).covered == count


def test_protocol_0_is_refused_with_advice(tmp_path, stored):
    with pytest.raises(ValueError, match="protocol 1 or newer"):
        TeacherLogits(*stored(tmp_path, rows(1), {"a": 0}, protocol=0), ["a"], 4)


class Evil:
    """Pickles to a call that makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


FOREIGN = {
    "list": ["a"],
    "bytes key": {b"a": 0},
    "bool value": {"a": False},
    "dict value": {"a": {}},
    "numpy value": {"a": np.int64(0)},
    "late": {**{f"n{i}": 0 for i in range(2000)}, "a": [0]},
}


@pytest.mark.parametrize("protocol", [1, 2, 4])
@pytest.mark.parametrize("kind", FOREIGN)
def test_pickles_of_anything_else_are_refused(tmp_path, kind, protocol, stored):
    preds, index = stored(tmp_path, rows(1), {"a": 0})
    index.write_bytes(pickle.dumps(FOREIGN[kind], protocol))
    with pytest.raises(ValueError, match="dict of str to int alone"):
        TeacherLogits(preds, index, ["a"], 4)


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("wrap", [lambda evil: evil, lambda evil: {"a": evil}, lambda evil: {"a": 0, evil: 0}])
def test_nothing_in_a_pickle_is_executed(tmp_path, wrap, protocol, stored):
    marker = tmp_path / "marker"
    preds, index = stored(tmp_path, rows(1), {"a": 0})
    index.write_bytes(pickle.dumps(wrap(Evil(marker)), protocol))
    pickle.loads(index.read_bytes())
    assert marker.exists()  # so the pickle is evil indeed
    marker.unlink()
    with pytest.raises(ValueError, match="dict of str to int alone"):
        TeacherLogits(preds, index, ["a"], 4)
    assert not marker.exists()


A, B = b"X\x01\x00\x00\x00a", b"X\x01\x00\x00\x00b"


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02}(" + A + b"q\x01h\x01u.",  # a value out of the memo
        b"}(" + A + b"K\x002u.",  # DUP
        b"}(" + A + b"u.",  # a key without a value
        b"}(" + A + b"}(" + B + b"K\x00uu.",  # a dict in a dict
        b"}(" + A + b"I01\nu.",  # True
        b"}(" + A + b"\x82\x01u.",  # an extension
        b"}(" + A + b"Pos.system\nu.",  # a persistent id
        b"}(" + A + b"cos\nsystem\nu.",
        b"<!DOCTYPE html>",
    ],
)
def test_tricks_in_pickles_are_refused(tmp_path, content, stored):
    preds, index = stored(tmp_path, rows(1), {"a": 0})
    index.write_bytes(content)
    with pytest.raises(ValueError, match="dict of str to int alone"):
        TeacherLogits(preds, index, ["a"], 4)


@pytest.mark.parametrize("protocol", [1, 2, 4])
def test_pickles_that_end_early_are_refused(tmp_path, protocol, stored):
    preds, index = stored(tmp_path, rows(3), {"a": 0, "b": 1, "cc": 2}, protocol)
    content = index.read_bytes()
    for length in range(len(content)):
        index.write_bytes(content[:length])
        with pytest.raises(ValueError, match="not a whole pickle"):
            TeacherLogits(preds, index, ["a"], 4)
    index.write_bytes(b"\x80\x04}(\x8d" + b"\xff" * 8 + b"a")  # a string of 18 exabytes
    with pytest.raises(ValueError, match="not a whole pickle"):
        TeacherLogits(preds, index, ["a"], 4)


def test_a_small_pickle_cannot_ask_for_much_memory(tmp_path):
    path = tmp_path / "index.pkl"
    path.write_bytes(b"\x80\x02}r" + (2**24).to_bytes(4, "little") + b"(" + A + b"K\x00u.")  # C's memo would take 256 MB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read_pickle(path) == {"a": 0}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50e3  # kB


@pytest.mark.parametrize("row", [3, -1, 300, 2**20, 2**40, 2**100, -(2**70)])
def test_rows_that_are_not_there_are_refused(tmp_path, row, stored):
    with pytest.raises(ValueError, match=rf"names row {row}, .* has rows 0 to 2"):
        TeacherLogits(*stored(tmp_path, rows(3), {"a": 0, "unused": row}), ["a"], 4)


@pytest.mark.parametrize("count", [2, 4])
def test_text_index_of_another_file_is_refused(tmp_path, count, stored):
    with pytest.raises(ValueError, match="row"):
        TeacherLogits(*stored(tmp_path, rows(3), [f"n{i}" for i in range(count)]), ["n0"], 4)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (rows(3, 5), r"holds \(3, 5\), but 4 classes need \(N, 4\)"),
        (rows(3).reshape(-1), r"holds \(12,\)"),
        (rows(3)[None], r"holds \(1, 3, 4\)"),
        (rows(0), r"holds \(0, 4\)"),
        (np.asfortranarray(rows(3)), "in columns"),
        (rows(3, dtype="float64"), "float64"),
        (rows(3).astype(int), "int64"),
        (rows(3).astype("complex64"), "complex64"),
        (rows(3).astype(object), "not a whole .npy file"),
    ],
)
def test_arrays_of_another_kind_are_refused(tmp_path, array, message, stored):
    preds, index = stored(tmp_path, rows(3), ["a", "b", "c"])
    np.save(preds, array, allow_pickle=True)
    with pytest.raises(ValueError, match=message):
        TeacherLogits(preds, index, ["a"], 4)


def test_damaged_arrays_are_refused(tmp_path, stored):
    preds, index = stored(tmp_path, rows(3), ["a", "b", "c"])
    content = preds.read_bytes()
    zipped = io.BytesIO()
    np.savez(zipped, rows(3))
    cut = [content[:length] for length in (0, 4, 9, 60, 128, len(content) - 1)]
    for damaged in [
        *cut,
        b"<!DOCTYPE html>" * 100,
        content.replace(b"descr", b"d(scr"),
        content.replace(b"{", b"("),
        zipped.getvalue(),
    ]:
        preds.write_bytes(damaged)
        with pytest.raises(ValueError, match="not a whole .npy file"):
            TeacherLogits(preds, index, ["a"], 4)


def test_a_file_that_is_cut_while_in_use_is_an_error(tmp_path, stored):
    preds, index = stored(tmp_path, rows(3), ["a", "b", "c"])
    teacher = TeacherLogits(preds, index, ["a", "c"], 4)
    os.truncate(preds, preds.stat().st_size - 1)
    assert teacher.row("a") is not None
    with pytest.raises(ValueError, match="shorter"):
        teacher.row("c")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_row_that_is_not_finite_is_an_error_that_names_the_clip(tmp_path, value, stored):
    logits = rows(3)
    logits[1, 2] = value
    teacher = TeacherLogits(*stored(tmp_path, logits, ["a", "b", "c"]), ["a", "b"], 4)
    assert teacher.row("a") is not None
    with pytest.raises(ValueError, match=r"row 1 of .*teacher.npy, of b, is not finite"):
        teacher.row("b")


def test_other_indices_and_paths_are_refused(tmp_path, stored):
    preds, index = stored(tmp_path, rows(1), ["a"])
    for wrong, error in (("a.json", ValueError), ("nowhere.txt", FileNotFoundError), ("nowhere.pkl", FileNotFoundError)):
        with pytest.raises(error, match=wrong):
            TeacherLogits(preds, tmp_path / wrong, ["a"], 4)
    with pytest.raises(FileNotFoundError, match="helpers.distillation"):
        TeacherLogits(tmp_path / "nowhere.npy", index, ["a"], 4)
    with pytest.raises(ValueError, match="no clips"):
        TeacherLogits(preds, index, [], 4)


# The writer


@pytest.mark.parametrize("name", ["teacher.npy", "teacher.txt", "teacher.json"])
def test_files_that_appeared_next_to_the_parts_are_not_overwritten(name, tmp_path):
    LogitsWriter(tmp_path / "teacher.npy", 3, {}).append(["a"], np.zeros((1, 3)))
    (tmp_path / name).write_text("precious")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(FileExistsError, match=name):
        LogitsWriter(tmp_path / "teacher.npy", 3, {})
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_values_beyond_float16_are_cut_and_others_refused(tmp_path):
    writer = LogitsWriter(tmp_path / "teacher.npy", 3, {})
    writer.append(["a"], np.array([[1e6, -1e6, 65519.0]], np.float32))
    with pytest.raises(ValueError, match="logits of c are not finite"):
        writer.append(["b", "c"], np.array([[0, 0, 0], [0, math.nan, 0]], np.float32))
    writer.finish()
    assert np.load(tmp_path / "teacher.npy").tolist() == [[65504, -65504, 65504]]


def test_what_was_begun_before_there_was_a_choice_of_precision_resumes_in_float32(tmp_path):
    LogitsWriter(tmp_path / "teacher.npy", 3, {"models": "a"}).append(["a"], np.zeros((1, 3)))
    with pytest.raises(ValueError, match="precision"):
        LogitsWriter(tmp_path / "teacher.npy", 3, {"models": "a", "precision": "bf16"})
    assert LogitsWriter(tmp_path / "teacher.npy", 3, {"models": "a", "precision": "fp32"}).names == ["a"]
