"""helpers.distillation: a teacher's rows are found by name, read without trust in the files, and written so that none gets lost."""

from __future__ import annotations

import argparse
import errno
import io
import json
import logging
import math
import os
import pickle
import resource
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datasets import audio
from datasets.audio import AudioError
from datasets.augment import Augmented
from datasets.clip import Clip
from datasets.hdf5_mp3 import Mp3Dataset, Mp3Writer
from helpers import distillation, teacher_logits
from helpers.distillation import Taught, load_teacher, taught_bce_per_clip
from helpers.losses import bce_per_clip
from helpers.mixing import Mix, mixed_loss
from helpers.teacher_logits import LogitsWriter, TeacherLogits, read_pickle
from models import checkpoints
from models.assets import AssetError
from models.ensemble import get_ensemble_model
from models.MobileNetV3 import get_model


def stored(folder: Path, logits: np.ndarray, index: dict[str, int] | list[str], protocol: int | None = None) -> tuple[Path, Path]:
    """Write logits and their index: a list of names as text, a dict as a pickle."""
    preds = folder / "teacher.npy"
    np.save(preds, logits)
    if isinstance(index, list):
        path = folder / "teacher.txt"
        path.write_text("".join(f"{name}\n" for name in index), encoding="utf-8")
    else:
        path = folder / "index.pkl"
        path.write_bytes(pickle.dumps(index, protocol))
    return preds, path


def rows(count: int, num_classes: int = 4, dtype: str = "float16") -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, num_classes)).astype(dtype)


class Clips(Dataset):
    """Clip i is noise of its own, with class i of 4."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Clip:
        waveform = torch.randn(50, generator=torch.Generator().manual_seed(index))
        return Clip(waveform, torch.eye(4)[index % 4], self.names[index], index)


# Lookup


@pytest.mark.parametrize("dtype", ["float16", "float32", ">f2"])
@pytest.mark.parametrize("is_text", [True, False])
def test_rows_are_found_by_name_in_any_order(tmp_path, dtype, is_text):
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


def test_names_that_begin_alike_are_told_apart(tmp_path):
    preds, index = stored(tmp_path, rows(3), ["ab", "abcdefgh", "a"])
    teacher = TeacherLogits(preds, index, ["abc", "ab"], 4)
    assert teacher.covered == 1 and teacher.row("abc") is None and teacher.row("abcdefgh") is None
    assert np.array_equal(teacher.row("ab"), rows(3)[0])


IDS = ["abcdefghijk", "YbcdefghijY", "-_YYYYYYYY-", "A1b2C3d4E5f"]


@pytest.mark.parametrize("is_text", [True, False])
def test_audioset_names_are_found_by_their_youtube_id(tmp_path, is_text):
    preds, index = stored(tmp_path, rows(4), IDS if is_text else {name: i for i, name in enumerate(IDS)})
    names = [f"Y{name}.mp3" for name in reversed(IDS)]
    teacher = TeacherLogits(preds, index, names, 4)
    assert teacher.covered == 4
    for i, youtube_id in enumerate(IDS):
        assert np.array_equal(teacher.row(f"Y{youtube_id}.mp3"), rows(4)[i])


def test_only_names_of_exactly_that_pattern_stand_for_an_id(tmp_path):
    ids = ["abcdefghijk", "abcdefg.mp3", "abc defghij", "short", "abcdefghijkl"]
    preds, index = stored(tmp_path, rows(5), ids)
    near = [
        "abcdefghijk.mp3", "Yabcdefghijk", "Yabcdefghijk.wav", "Yabcdefghijk_mp3", "yabcdefghijk.mp3", "YYabcdefghijk.mp3",
        "Yabcdefg.mp3.mp3", "Yabc defghij.mp3", "Yshort.mp3", "Yabcdefghijkl.mp3", "Yabcdefghijk.mp3.mp3", "Yabcdefghijk.mp3\n",
    ]  # fmt: skip
    assert TeacherLogits(preds, index, near, 4).covered == 0
    assert TeacherLogits(preds, index, [*near, "Y-----------.mp3"], 4).covered == 0  # beside one of that pattern
    assert TeacherLogits(preds, index, ids, 4).covered == 5  # as they are


def test_the_name_itself_goes_before_the_id(tmp_path):
    preds, index = stored(tmp_path, rows(2), ["Yabcdefghijk.mp3", "abcdefghijk"])
    assert np.array_equal(TeacherLogits(preds, index, ["Yabcdefghijk.mp3"], 4).row("Yabcdefghijk.mp3"), rows(2)[0])
    index.write_text("abcdefghijk\nYabcdefghijk.mp3\n")
    assert np.array_equal(TeacherLogits(preds, index, ["Yabcdefghijk.mp3"], 4).row("Yabcdefghijk.mp3"), rows(2)[1])


def test_index_longer_than_what_is_looked_up_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(teacher_logits, "_ENTRIES", 7)
    names = [f"n{i}" for i in range(30)]
    preds, index = stored(tmp_path, rows(30), names)
    teacher = TeacherLogits(preds, index, names, 4)
    assert all(np.array_equal(teacher.row(name), rows(30)[i]) for i, name in enumerate(names))


def test_a_copy_in_another_process_reads_the_same(tmp_path):
    names = [f"n{i}" for i in range(6)]
    teacher = TeacherLogits(*stored(tmp_path, rows(6), names), names, 4)
    assert np.array_equal(pickle.loads(pickle.dumps(teacher)).row("n3"), rows(6)[3])
    batch = next(iter(DataLoader(Taught(Clips(names), teacher), batch_size=6, num_workers=1)))
    assert torch.allclose(batch.teacher, torch.sigmoid(torch.from_numpy(rows(6)).float()))
    assert batch.teacher_weight.shape == (6,) and batch.teacher_weight.dtype == torch.float32 and list(batch.name) == names


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
@pytest.mark.parametrize("count", [1, 2, 1000, 1001, 2500])  # SETITEM and SETITEMS take turns in groups of 1000
def test_pickles_of_a_dict_are_read_in_every_protocol(tmp_path, protocol, count):
    index = {f"ü{i}" * (1 + 40 * (i == 1)): count - 1 - i for i in range(count)}
    preds, path = stored(tmp_path, rows(count), index, protocol)
    assert dict(read_pickle(path)) == {name.encode(): row for name, row in index.items()}
    assert TeacherLogits(preds, path, index, 4).covered == count


def test_protocol_0_is_refused_with_advice(tmp_path):
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
    "tuple": ("a", 0),
    "str": "a",
    "int": 0,
    "list value": {"a": [0]},
    "bytes value": {"a": b"0"},
    "bytes key": {b"a": 0},
    "int key": {0: 0},
    "str value": {"a": "b"},
    "float value": {"a": 0.0},
    "bool value": {"a": False},
    "None value": {"a": None},
    "dict value": {"a": {}},
    "tuple value": {"a": (0,)},
    "bytearray value": {"a": bytearray(b"0")},
    "set": {"a"},
    "numpy value": {"a": np.int64(0)},
    "numpy array": np.zeros(1),
    "ordered": OrderedDict(a=0),
    "late": {**{f"n{i}": 0 for i in range(2000)}, "a": [0]},
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", FOREIGN)
def test_pickles_of_anything_else_are_refused(tmp_path, kind, protocol):
    preds, index = stored(tmp_path, rows(1), {"a": 0})
    index.write_bytes(pickle.dumps(FOREIGN[kind], protocol))
    with pytest.raises(ValueError, match="dict of str to int alone"):
        TeacherLogits(preds, index, ["a"], 4)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("wrap", [lambda evil: evil, lambda evil: {"a": evil}, lambda evil: {"a": 0, evil: 0}])
def test_nothing_in_a_pickle_is_executed(tmp_path, wrap, protocol):
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
        b"\x80\x02}(" + A + b"K\x00q\x02" + B + b"h\x02u.",
        b"\x80\x02}q\x00(" + A + b"h\x00u.",  # a dict that holds itself
        b"}(" + A + b"K\x002u.",  # DUP
        b"}(" + A + b"K\x000u.",  # POP
        b"}(" + A + b"u.",  # a key without a value
        b"}(" + A + b"K\x00.",  # an entry that was not put into the dict
        b"}" + A + b"K\x00" + B + b"K\x00s.",
        b"}" + A + b"K\x00u.",
        b"}((" + A + b"K\x00u.",
        b"}}(" + A + b"K\x00u.",  # two dicts
        b"(" + A + b"K\x00u.",  # none
        b"}(K\x00" + A + b"u.",
        b"}(" + A + B + b"K\x00u.",  # two keys for a value
        A + b"}(K\x00u.",
        b"}(" + A + b"K\x00K\x00u.",
        b"}(" + A + b"I01\nu.",  # True
        b"}(" + A + b"\x82\x01u.",  # an extension
        b"}(" + A + b"Pos.system\nu.",  # a persistent id
        b"}(" + A + b"cos\nsystem\nu.",
        b"\xff",
        b"<!DOCTYPE html>",
    ],
)
def test_tricks_in_pickles_are_refused(tmp_path, content):
    preds, index = stored(tmp_path, rows(1), {"a": 0})
    index.write_bytes(content)
    with pytest.raises(ValueError, match="dict of str to int alone"):
        TeacherLogits(preds, index, ["a"], 4)


@pytest.mark.parametrize("protocol", [1, 2, 4])
def test_pickles_that_end_early_are_refused(tmp_path, protocol):
    preds, index = stored(tmp_path, rows(3), {"a": 0, "b": 1, "cc": 2}, protocol)
    content = index.read_bytes()
    for length in range(len(content)):
        index.write_bytes(content[:length])
        with pytest.raises(ValueError, match="fetch or write it again"):
            TeacherLogits(preds, index, ["a"], 4)
    index.write_bytes(b"\x80\x04}(\x8d" + b"\xff" * 8 + b"a")  # a string of 18 exabytes
    with pytest.raises(ValueError, match="fetch or write it again"):
        TeacherLogits(preds, index, ["a"], 4)


@pytest.mark.parametrize("row", [3, -1, 300, 2**20, 2**40, 2**100, -(2**70)])
def test_rows_that_are_not_there_are_refused(tmp_path, row):
    with pytest.raises(ValueError, match=rf"names row {row}, .* has rows 0 to 2"):
        TeacherLogits(*stored(tmp_path, rows(3), {"a": 0, "unused": row}), ["a"], 4)


@pytest.mark.parametrize("count", [2, 4])
def test_text_index_of_another_file_is_refused(tmp_path, count):
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
        (rows(3).astype(object), "no whole .npy file"),
    ],
)
def test_arrays_of_another_kind_are_refused(tmp_path, array, message):
    preds, index = stored(tmp_path, rows(3), ["a", "b", "c"])
    np.save(preds, array, allow_pickle=True)
    with pytest.raises(ValueError, match=message):
        TeacherLogits(preds, index, ["a"], 4)


def test_damaged_arrays_are_refused(tmp_path):
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
        with pytest.raises(ValueError, match="no whole .npy file"):
            TeacherLogits(preds, index, ["a"], 4)


def test_a_file_that_is_cut_while_in_use_is_an_error(tmp_path):
    preds, index = stored(tmp_path, rows(3), ["a", "b", "c"])
    teacher = TeacherLogits(preds, index, ["a", "c"], 4)
    os.truncate(preds, preds.stat().st_size - 1)
    assert teacher.row("a") is not None
    with pytest.raises(ValueError, match="shorter"):
        teacher.row("c")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_row_that_is_not_finite_is_an_error_that_names_the_clip(tmp_path, value):
    logits = rows(3)
    logits[1, 2] = value
    teacher = TeacherLogits(*stored(tmp_path, logits, ["a", "b", "c"]), ["a", "b"], 4)
    assert teacher.row("a") is not None
    with pytest.raises(ValueError, match=r"row 1 of .*teacher.npy, of b, is not finite"):
        teacher.row("b")


def test_other_indices_and_paths_are_refused(tmp_path):
    preds, index = stored(tmp_path, rows(1), ["a"])
    for wrong, error in (("a.json", ValueError), ("nowhere.txt", FileNotFoundError), ("nowhere.pkl", FileNotFoundError)):
        with pytest.raises(error, match=wrong):
            TeacherLogits(preds, tmp_path / wrong, ["a"], 4)
    with pytest.raises(FileNotFoundError, match="helpers.distillation"):
        TeacherLogits(tmp_path / "nowhere.npy", index, ["a"], 4)
    with pytest.raises(ValueError, match="no clips"):
        TeacherLogits(preds, index, [], 4)


# The loss


def bce_by_hand(logits: list[float], said: list[float]) -> float:
    probabilities = [1 / (1 + math.exp(-logit)) for logit in logits]
    terms = [-y * math.log(p) - (1 - y) * math.log(1 - p) for p, y in zip(probabilities, said, strict=True)]
    return sum(terms) / len(terms)


LOGITS = torch.tensor([[0.5, -1.0, 2.0, 0.0], [1.5, 0.3, -0.2, -2.0], [0.1, 0.2, 0.3, 0.4]])
TARGET = torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 1.0, 0], [0, 0, 0, 1.0]])


def published_loss(kd_lambda: float, batch, mix: Mix | None = None) -> Tensor:
    labels = mixed_loss(bce_per_clip, LOGITS, mix, batch.target).mean()
    taught = mixed_loss(taught_bce_per_clip, LOGITS, mix, batch.teacher, batch.teacher_weight).mean()
    return kd_lambda * labels + (1 - kd_lambda) * taught


@pytest.fixture
def taught(tmp_path) -> Taught:
    """Three clips of four classes, of which the teacher does not know the last."""
    stored_rows = np.array([[1.0, -2.0, 0.5, 3.0], [0.0, 4.0, -1.0, 0.25]], "float32")
    return Taught(Clips(["a", "b", "c"]), TeacherLogits(*stored(tmp_path, stored_rows, ["a", "b"]), "abc", 4), temperature=2.0)


def collated(taught: Taught):
    return next(iter(DataLoader(taught, batch_size=3)))._replace(target=TARGET)


def test_each_end_of_kd_lambda_and_the_middle_by_hand(taught):
    said = [[1 / (1 + math.exp(-z / 2)) for z in row] for row in ([1.0, -2.0, 0.5, 3.0], [0.0, 4.0, -1.0, 0.25])]
    labels = sum(map(bce_by_hand, LOGITS.tolist(), TARGET.tolist())) / 3
    teacher = sum(bce_by_hand(LOGITS[i].tolist(), said[i]) for i in range(2)) / 3  # the third counts as 0
    batch = collated(taught)
    for kd_lambda in (0.0, 0.1, 1.0):
        assert float(published_loss(kd_lambda, batch)) == pytest.approx(kd_lambda * labels + (1 - kd_lambda) * teacher, rel=1e-5)


def test_temperature_divides_the_logits(taught):
    assert taught[0].teacher.tolist() == pytest.approx([(1 + math.tanh(z / 4)) / 2 for z in (1.0, -2.0, 0.5, 3.0)], rel=1e-5)
    assert taught[0].teacher.dtype == torch.float32 and taught[0].teacher_weight == 1 and taught[0].teacher_weight.shape == ()
    for temperature in (0, -1, math.nan):
        with pytest.raises(ValueError, match="temperature"):
            Taught(taught.clips, taught.teacher, temperature)


def test_a_clip_without_a_row_weighs_nothing_and_keeps_its_labels(taught):
    clip = taught[2]
    assert clip.teacher_weight == 0 and torch.equal(clip.teacher, torch.zeros(4))
    assert torch.equal(clip.target, torch.eye(4)[2]) and (clip.name, clip.index, len(taught)) == ("c", 2, 3)
    batch = collated(taught)
    assert taught_bce_per_clip(LOGITS, batch.teacher, batch.teacher_weight)[2] == 0


def test_mixup_with_weight_1_is_the_plain_loss(taught):
    mix = Mix(torch.tensor([1, 2, 0]), torch.ones(3))
    assert torch.allclose(published_loss(0.1, collated(taught), mix), published_loss(0.1, collated(taught)))


def test_mixup_masks_each_partner_on_its_own(taught):
    batch, weight = collated(taught), torch.tensor([0.6, 0.7, 0.8])
    loss = mixed_loss(taught_bce_per_clip, LOGITS, Mix(torch.tensor([1, 2, 0]), weight), batch.teacher, batch.teacher_weight)
    own = [bce_by_hand(LOGITS[i].tolist(), batch.teacher[i].tolist()) for i in range(2)]
    partner = {i: bce_by_hand(LOGITS[i].tolist(), batch.teacher[j].tolist()) for i, j in ((0, 1), (2, 0))}
    expected = [0.6 * own[0] + 0.4 * partner[0], 0.7 * own[1], 0.2 * partner[2]]
    assert loss.tolist() == pytest.approx(expected, rel=1e-5)


def test_wavmix_weighs_both_teachers_as_it_weighs_the_clips(taught):
    torch.manual_seed(0)
    mixed, plain = Augmented(taught, wavmix=True), [taught[i] for i in range(3)]
    seen = set()
    for _ in range(300):
        for index in range(3):
            clip = mixed[index]
            others = clip.target.clone()
            others[index] = 0
            if not others.any():
                continue
            other, lam = int(others.argmax()), clip.target[index]
            loss = taught_bce_per_clip(LOGITS[:1], clip.teacher[None], clip.teacher_weight[None])
            shares = ((lam, index), (1 - lam, other))
            parts = [
                share * taught_bce_per_clip(LOGITS[:1], plain[i].teacher[None], plain[i].teacher_weight[None])
                for share, i in shares
            ]
            assert torch.allclose(loss, sum(parts), atol=1e-6), (index, other)
            seen.add((index, other))
    assert len(seen) == 6


# Options


def options(*argv: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    distillation.add_distillation_options(parser)
    return parser.parse_args(list(map(str, argv)))


def test_options():
    assert vars(options()) == {"teacher_preds": None, "fname_to_index": None, "kd_lambda": 0.1, "temperature": 1.0}
    assert options("--kd_lambda", 0).kd_lambda == 0 and options("--kd_lambda", 1).kd_lambda == 1
    for wrong in (("--kd_lambda", 1.1), ("--kd_lambda", -0.1), ("--kd_lambda", "nan"), ("--temperature", 0)):
        with pytest.raises(SystemExit):
            options(*wrong)
    parser = argparse.ArgumentParser()
    distillation.add_distillation_options(parser)
    help_text = "".join(parser.format_help().split())
    assert "passt_enemble_logits_mAP_495.npy" in help_text and "fname_to_index.pkl" in help_text


def test_text_index_beside_the_logits_is_used_and_coverage_logged(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    preds, _ = stored(tmp_path, rows(3), ["a", "b", "c"])
    assert load_teacher(options("--teacher_preds", preds), ["a", "c", "x"], 4).covered == 2
    assert caplog.messages == ["teacher: 2 of 3 clips have a row in teacher.npy"]
    other = tmp_path / "other.pkl"
    other.write_bytes(pickle.dumps({"x": 2}))
    teacher = load_teacher(options("--teacher_preds", preds, "--fname_to_index", other), ["a", "c", "x"], 4)
    assert teacher.covered == 1 and np.array_equal(teacher.row("x"), rows(3)[2])


def test_a_teacher_that_knows_no_clip_is_a_warning(tmp_path, caplog):
    preds, _ = stored(tmp_path, rows(1), ["theirs.wav"])
    teacher = load_teacher(options("--teacher_preds", preds), ["ours.wav"], 4)
    assert teacher.row("ours.wav") is None
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "theirs.wav" in warning.getMessage() and "ours.wav" in warning.getMessage()


@pytest.fixture
def release(tmp_path, monkeypatch) -> tuple[Path, Path]:
    """The release's folder with a teacher of the clips abcdefghijk and YbcdefghijY, and the resources folder, still empty."""
    published, resources = tmp_path / "release", tmp_path / "resources"
    published.mkdir()
    np.save(published / "passt_enemble_logits_mAP_495.npy", rows(2))
    (published / "fname_to_index.pkl").write_bytes(pickle.dumps({"abcdefghijk": 1, "YbcdefghijY": 0}))
    monkeypatch.setenv("EFFICIENTAT_RELEASE_URL", published.as_uri())
    monkeypatch.setenv("EFFICIENTAT_RESOURCES", str(resources))
    return published, resources


def test_by_default_the_release_is_downloaded_once(release):
    names = ["YYbcdefghijY.mp3", "Yabcdefghijk.mp3"]
    teacher = load_teacher(options(), names, 4)
    assert np.array_equal(teacher.row("Yabcdefghijk.mp3"), rows(2)[1]) and np.array_equal(teacher.row(names[0]), rows(2)[0])
    for path in release[0].iterdir():
        path.unlink()
    assert load_teacher(options(), names, 4).covered == 2


@pytest.mark.parametrize("asset", ["passt_enemble_logits_mAP_495.npy", "fname_to_index.pkl"])
@pytest.mark.parametrize("damage", [lambda content: b"<html>", lambda content: content[:-1], lambda content: b"", None])
def test_a_damaged_release_is_refused_and_not_kept(release, asset, damage):
    published, resources = release
    if damage is None:
        (published / asset).unlink()
    else:
        (published / asset).write_bytes(damage((published / asset).read_bytes()))
    with pytest.raises(AssetError, match=rf"{asset}.*--kd_lambda 1 trains without a teacher") as caught:
        load_teacher(options(), ["Yabcdefghijk.mp3"], 4)
    assert ".part" not in str(caught.value)
    assert asset not in [path.name.lstrip(".").split(".part")[0] for path in resources.iterdir()]


def test_given_paths_must_exist(tmp_path, failing_message):
    preds, _ = stored(tmp_path, rows(1), ["a"])
    for argv in (("--teacher_preds", tmp_path / "no.npy"), ("--teacher_preds", preds, "--fname_to_index", tmp_path / "no.txt")):
        message = failing_message(lambda _, argv=argv: load_teacher(options(*argv), ["a"], 4))
        assert argv[-2] in message and str(argv[-1]) in message and "not found" in message


# The writer

SECONDS = [1.0, 0.3, 2.5, 1.0, 3.0, 0.7, 1.2]  # of the clips


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> list[Path]:
    """Two checkpoints that tell clips apart: random weights behind statistics of noise, logits of some size."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for seed in range(2):
        torch.manual_seed(seed)
        network = get_model(width_mult=0.1)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
        with torch.no_grad():
            network(torch.randn(8, 1, 128, 100) * torch.rand(8, 1, 128, 1))
            network.classifier[5].weight *= 1000
        checkpoints.save(folder / f"{seed}.pt", network.eval())
    return [folder / "0.pt", folder / "1.pt"]


@pytest.fixture(scope="module")
def hdfs(tmp_path_factory) -> list[Path]:
    """Two files: clips 0 to 3 and one that cannot be decoded, then a second clip 1 and clips 4 to 6."""
    folder = tmp_path_factory.mktemp("hdfs")
    rng = np.random.default_rng(0)
    mp3s = {
        f"c{i}": audio.encode_mp3((0.5**i * rng.standard_normal(round(32000 * seconds)).cumsum() / 200).astype(np.float32), 32000)
        for i, seconds in enumerate(SECONDS)
    }
    parts = [["c0", "c1", "broken", "c2", "c3"], ["c1", "c4", "c5", "c6"]]
    for part, names in zip("ab", parts, strict=True):
        with Mp3Writer(folder / f"{part}.hdf", 527) as writer:
            for name in names:
                content = mp3s["c0" if part == "b" and name == "c1" else name] if name != "broken" else b"no mp3"
                writer.add(name, content, np.zeros(527))
    return [folder / "a.hdf", folder / "b.hdf"]


def arguments(models: list[Path], hdfs: list[Path], output: Path, *more: object) -> list[str]:
    fixed = ["--clip_seconds", 1, "--batch_size", 3, "--num_workers", 0]
    return list(map(str, ["--models", *models, "--hdf", *hdfs, "--output", output, *fixed, *more]))


@pytest.fixture(scope="module")
def uninterrupted(models, hdfs, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("whole") / "teacher.npy"
    assert distillation.main(arguments(models[:1], hdfs, output)) == 0
    return output


@pytest.fixture
def same_as(uninterrupted):
    def check(output: Path) -> None:
        assert sorted(path.name for path in output.parent.iterdir()) == ["teacher.json", "teacher.npy", "teacher.txt"]
        for path in uninterrupted.parent.iterdir():
            assert (output.parent / path.name).read_bytes() == path.read_bytes(), path.name

    return check


def expected_logits(models: list[Path], hdfs: list[Path], indices: list[int]) -> np.ndarray:
    """For each clip the mean over its windows of the mean over the models."""
    model = get_ensemble_model([str(path) for path in models])
    clips = Mp3Dataset(hdfs, num_classes=527, clip_seconds=None)
    expected = []
    for waveform in (clips[index].waveform.numpy() for index in indices):
        starts = list(range(0, max(len(waveform) - 32000, 0), 32000)) + [max(len(waveform) - 32000, 0)]
        padded = np.concatenate([waveform, np.zeros(max(32000 - len(waveform), 0), np.float32)])
        with torch.inference_mode():
            logits = [model(torch.from_numpy(padded[start : start + 32000])[None])[0].numpy()[0] for start in starts]
        expected.append(np.mean(logits, axis=0))
    return np.stack(expected)


def test_what_is_written_is_the_mean_of_models_and_windows(models, hdfs, tmp_path, capsys, caplog):
    output = tmp_path / "new" / "teacher.npy"
    assert distillation.main(arguments(models, hdfs, output)) == 0
    logits = np.load(output)
    assert logits.dtype == np.float16 and logits.shape == (7, 527)
    names = output.with_suffix(".txt").read_text().splitlines()
    assert names == [f"c{i}" for i in range(7)]
    assert np.abs(np.diff(logits.astype(float), axis=0)).max(axis=1).min() > 0.01  # clips differ
    expected = expected_logits(models, hdfs, [0, 1, 3, 4, 6, 7, 8])  # the first c1, and not the broken one
    assert np.abs(logits - expected).max() < 1e-3 * np.abs(expected).max()
    about = json.loads(output.with_suffix(".json").read_text())
    assert about["models"] == list(map(str, models)) and about["files"] == list(map(str, hdfs))
    assert about["clip_seconds"] == 1 and about["num_classes"] == 527 and "torch" in about["versions"]
    assert ["broken" in message for message in caplog.messages] == [True]
    assert "7 rows" in (printed := capsys.readouterr().out) and "1 clips that cannot be decoded, 1 clips of a name" in printed

    teacher = load_teacher(options("--teacher_preds", output), Mp3Dataset(hdfs, num_classes=527).names, 527)
    assert (teacher.covered, teacher.clips) == (8, 9)
    assert np.array_equal(teacher.row("c4"), logits[4])


def test_training_files_of_a_folder_and_workers(tiny_audioset, models, tmp_path):
    output = tmp_path / "teacher.npy"
    more = ["--clip_seconds", "1", "--batch_size", "8", "--num_workers", "1", "--output", str(output)]
    assert distillation.main(["--models", str(models[0]), "--dataset_dir", str(tiny_audioset), *more]) == 0
    names = output.with_suffix(".txt").read_text().splitlines()
    assert len(names) == len(np.load(output)) == 32 and names[:2] == ["Ybala0000000.mp3", "Ybala0000001.mp3"]


def test_windows():
    waveform = torch.arange(10.0)
    assert distillation.windows(waveform, 4).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [6, 7, 8, 9]]
    assert distillation.windows(waveform, 5).tolist() == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    assert distillation.windows(waveform, 9).tolist() == [list(range(9)), list(range(1, 10))]
    assert distillation.windows(torch.arange(21.0), 20).tolist() == [list(range(20))]
    assert distillation.windows(waveform, 10).tolist() == [list(range(10))]
    assert distillation.windows(waveform[:3], 4).tolist() == [[0, 1, 2, 0]]


def interrupt(monkeypatch, when: int, before: bool) -> None:
    """Let the `when`th group of clips end in Ctrl-C, before or after it is written."""
    append, calls = LogitsWriter.append, []

    def interrupted(self, *args):
        calls.append(args)
        if not before or len(calls) < when:
            append(self, *args)
        if len(calls) == when:
            raise KeyboardInterrupt

    monkeypatch.setattr(LogitsWriter, "append", interrupted)


@pytest.mark.parametrize(
    ("when", "before", "torn"),
    [
        (1, False, None),
        (2, True, None),
        (3, False, None),
        (2, False, "rows"),
        (2, False, "names"),
        (2, False, "cut"),
        (3, False, "both"),
    ],
)
def test_an_interrupted_writer_goes_on_to_the_same_bytes(when, before, torn, models, hdfs, tmp_path, same_as, monkeypatch):
    output = tmp_path / "teacher.npy"
    argv = arguments(models[:1], hdfs, output)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt(patch, when, before)
        distillation.main(argv)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["teacher.json.part", "teacher.npy.part", "teacher.txt.part"]
    if torn in ("rows", "both"):
        with open(tmp_path / "teacher.npy.part", "ab") as file:
            file.write(b"x" * 1500)  # a row and a part of the next
    if torn == "cut":
        os.truncate(tmp_path / "teacher.npy.part", (tmp_path / "teacher.npy.part").stat().st_size - 1)
    if torn == "names":
        names = tmp_path / "teacher.txt.part"
        names.write_bytes(names.read_bytes()[:-1])
    if torn == "both":
        with open(tmp_path / "teacher.txt.part", "ab") as file:
            file.write(b"c")
    assert distillation.main(argv) == 0
    same_as(output)


def test_going_on_does_not_repeat_what_is_there(models, hdfs, tmp_path, same_as, monkeypatch):
    argv = arguments(models[:1], hdfs, tmp_path / "teacher.npy")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt(patch, 2, before=False)
        distillation.main(argv)
    read, get = [], Mp3Dataset.__getitem__
    monkeypatch.setattr(Mp3Dataset, "__getitem__", lambda self, index: read.append(index) or get(self, index))
    assert distillation.main(argv) == 0
    assert read == [7, 8]  # clips 0 to 4 and 6 were done, 5 is a repeated name
    same_as(tmp_path / "teacher.npy")


@pytest.mark.parametrize("renamed", [1, 2])
def test_a_kill_between_renames_is_repaired(renamed, models, hdfs, tmp_path, same_as, monkeypatch):
    argv = arguments(models[:1], hdfs, tmp_path / "teacher.npy")
    replace, calls = os.replace, []

    def killed(source, target):
        if len(calls) == renamed:
            raise KeyboardInterrupt
        calls.append(target)
        replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", killed)
        distillation.main(argv)
    assert not (tmp_path / "teacher.npy").exists()
    assert distillation.main(argv) == 0
    same_as(tmp_path / "teacher.npy")


class FullDisk(io.FileIO):
    """A file whose next write stops half-way."""

    def write(self, content: bytes) -> int:
        super().write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.name)


@pytest.mark.parametrize("full", ["teacher.npy.part", "teacher.txt.part"])
def test_a_full_disk_is_one_line_and_keeps_what_is_written(full, models, hdfs, tmp_path, same_as, failing_message, monkeypatch):
    argv = arguments(models[:1], hdfs, tmp_path / "teacher.npy")
    opened = []

    def open_on_full_disk(path: Path, mode: str, **options: str) -> io.IOBase:
        if Path(path).name == full and mode == "ab":
            opened.append(path)
        return FullDisk(path, mode) if len(opened) == 2 else open(path, mode, **options)

    with monkeypatch.context() as patch:
        patch.setattr(teacher_logits, "open", open_on_full_disk, raising=False)
        assert "No space left" in failing_message(distillation.main, *argv)
    assert (tmp_path / "teacher.npy.part").stat().st_size > 128 + 3 * 2 * 527 and not (tmp_path / "teacher.npy").exists()
    assert distillation.main(argv) == 0
    same_as(tmp_path / "teacher.npy")


def test_a_machine_that_fails_leaves_no_clip_out(models, hdfs, tmp_path, same_as, failing_message, monkeypatch):
    def starved(self, index):
        raise AudioError("c0 cannot be decoded") from OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    argv = arguments(models[:1], hdfs, tmp_path / "teacher.npy")
    with monkeypatch.context() as patch:
        patch.setattr(Mp3Dataset, "__getitem__", starved)
        assert "c0 cannot be decoded" in failing_message(distillation.main, *argv)
    assert distillation.main(argv) == 0
    same_as(tmp_path / "teacher.npy")


def test_other_settings_do_not_go_on(models, hdfs, tmp_path, failing_message, monkeypatch):
    output = tmp_path / "teacher.npy"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt(patch, 2, before=True)
        distillation.main(arguments(models[:1], hdfs, output))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for argv, differing in (
        (arguments(models[:1], hdfs, output, "--clip_seconds", 2), "(clip_seconds)"),
        (arguments(models[1:], hdfs, output), "(models, weights_sha256)"),
        (arguments(models[:1], hdfs[:1], output), "(clips, files)"),
    ):
        message = failing_message(distillation.main, *argv)
        assert differing in message and ".part" in message
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    copy = tmp_path / "copy.pt"
    copy.write_bytes(models[1].read_bytes())
    about = tmp_path / "teacher.json.part"
    about.write_text(about.read_text().replace(str(models[0]), str(copy)))
    message = failing_message(distillation.main, *arguments([copy], hdfs, output))
    assert "(weights_sha256)" in message  # another model under the path of before


@pytest.mark.parametrize("name", ["teacher.npy", "teacher.txt", "teacher.json"])
def test_existing_files_are_not_overwritten(name, hdfs, tmp_path, failing_message):
    (tmp_path / name).write_text("precious")
    argv = arguments([tmp_path / "no.pt"], hdfs, tmp_path / "teacher.npy")  # refused before models are looked for
    assert f"{name} exists" in failing_message(distillation.main, *argv)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["precious"]


@pytest.mark.parametrize("name", ["teacher.npy", "teacher.txt", "teacher.json"])
def test_files_that_came_up_beside_the_parts_are_not_overwritten(name, tmp_path):
    LogitsWriter(tmp_path / "teacher.npy", 3, {}).append(["a"], np.zeros((1, 3)))
    (tmp_path / name).write_text("precious")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(FileExistsError, match=name):
        LogitsWriter(tmp_path / "teacher.npy", 3, {})
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_errors_of_the_writer_are_one_line(models, hdfs, tmp_path, failing_message):
    output = tmp_path / "teacher.npy"
    assert "must end in .npy" in failing_message(distillation.main, *arguments(models[:1], hdfs, tmp_path / "teacher"))
    assert "no.hdf not found" in failing_message(distillation.main, *arguments(models[:1], [tmp_path / "no.hdf"], output))
    assert "no.pt not found" in failing_message(distillation.main, *arguments([tmp_path / "no.pt"], hdfs, output))
    with Mp3Writer(tmp_path / "broken.hdf", 527) as writer:
        writer.add("broken", b"no mp3", np.zeros(527))
    argv = arguments(models[:1], [tmp_path / "broken.hdf"], output)
    assert "none of the clips could be decoded" in failing_message(distillation.main, *argv)
    with Mp3Writer(tmp_path / "lines.hdf", 527) as writer:
        writer.add("two\nlines", b"no mp3", np.zeros(527))
    argv = arguments(models[:1], [tmp_path / "lines.hdf"], tmp_path / "lines.npy")
    assert "end of line" in failing_message(distillation.main, *argv)


def test_values_beyond_float16_are_cut_and_others_refused(tmp_path):
    writer = LogitsWriter(tmp_path / "teacher.npy", 3, {})
    writer.append(["a"], np.array([[1e6, -1e6, 65519.0]], np.float32))
    with pytest.raises(ValueError, match="logits of c are not finite"):
        writer.append(["b", "c"], np.array([[0, 0, 0], [0, math.nan, 0]], np.float32))
    writer.finish()
    assert np.load(tmp_path / "teacher.npy").tolist() == [[65504, -65504, 65504]]
