"""helpers.distillation: soft targets, their loss, and the command that writes teacher logits."""

from __future__ import annotations

import argparse
import errno
import io
import json
import logging
import math
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from datasets import audio
from datasets.audio import AudioError
from datasets.augment import Augmented
from datasets.clip import Clip
from datasets.hdf5_mp3 import Mp3Dataset, Mp3Writer
from helpers.distillation import writer
from helpers.distillation.__main__ import main
from helpers.distillation.options import add_distillation_options
from helpers.distillation.soft_targets import SoftTargetDataset, load_teacher, soft_target_bce_per_clip
from helpers.distillation.teacher_logits import TeacherLogits
from helpers.distillation.writer import LogitsWriter, windows
from helpers.training.mixing import Mix, mixed_loss
from helpers.training.objectives import bce_per_clip
from models import checkpoints
from models.assets import AssetError
from models.ensemble import get_ensemble_model
from models.MobileNetV3 import get_model

ROWS = np.random.default_rng(0).standard_normal((6, 4)).astype("float16")


class Clips(Dataset):
    """Clip i is noise of its own, with class i of 4."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Clip:
        waveform = torch.randn(50, generator=torch.Generator().manual_seed(index))
        return Clip(waveform, torch.eye(4)[index % 4], self.names[index], index)


def test_a_copy_in_another_process_reads_the_same(tmp_path, stored):
    names = [f"n{i}" for i in range(6)]
    teacher = TeacherLogits(*stored(tmp_path, ROWS[:6], names), names, 4)
    assert np.array_equal(pickle.loads(pickle.dumps(teacher)).row("n3"), ROWS[:6][3])
    batch = next(iter(DataLoader(SoftTargetDataset(Clips(names), teacher), batch_size=6, num_workers=1)))
    assert torch.allclose(batch.soft_target, torch.sigmoid(torch.from_numpy(ROWS[:6]).float()))
    assert batch.soft_target_weight.shape == (6,) and batch.soft_target_weight.dtype == torch.float32 and list(batch.name) == names


# The loss


def bce_by_hand(logits: list[float], soft_targets: list[float]) -> float:
    probabilities = [1 / (1 + math.exp(-logit)) for logit in logits]
    terms = [-y * math.log(p) - (1 - y) * math.log(1 - p) for p, y in zip(probabilities, soft_targets, strict=True)]
    return sum(terms) / len(terms)


LOGITS = torch.tensor([[0.5, -1.0, 2.0, 0.0], [1.5, 0.3, -0.2, -2.0], [0.1, 0.2, 0.3, 0.4]])

TARGET = torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 1.0, 0], [0, 0, 0, 1.0]])


@pytest.fixture
def distilled(tmp_path, stored) -> SoftTargetDataset:
    """Three clips of four classes; the last has no teacher logits."""
    stored_rows = np.array([[1.0, -2.0, 0.5, 3.0], [0.0, 4.0, -1.0, 0.25]], "float32")
    return SoftTargetDataset(
        Clips(["a", "b", "c"]), TeacherLogits(*stored(tmp_path, stored_rows, ["a", "b"]), "abc", 4), temperature=2.0
    )


def collated(distilled: SoftTargetDataset):
    return next(iter(DataLoader(distilled, batch_size=3)))._replace(target=TARGET)


def test_both_losses_by_hand(distilled):
    soft_targets = [[1 / (1 + math.exp(-z / 2)) for z in row] for row in ([1.0, -2.0, 0.5, 3.0], [0.0, 4.0, -1.0, 0.25])]
    labels = sum(map(bce_by_hand, LOGITS.tolist(), TARGET.tolist())) / 3
    teacher = sum(bce_by_hand(LOGITS[i].tolist(), soft_targets[i]) for i in range(2)) / 3  # the third counts as 0
    batch = collated(distilled)
    assert float(bce_per_clip(LOGITS, batch.target).mean()) == pytest.approx(labels, rel=1e-5)
    distillation = soft_target_bce_per_clip(LOGITS, batch.soft_target, batch.soft_target_weight).mean()
    assert float(distillation) == pytest.approx(teacher, rel=1e-5)


def test_temperature_divides_the_logits(distilled):
    soft_target, weight = distilled[0].soft_target, distilled[0].soft_target_weight
    assert soft_target.tolist() == pytest.approx([(1 + math.tanh(z / 4)) / 2 for z in (1.0, -2.0, 0.5, 3.0)], rel=1e-5)
    assert soft_target.dtype == torch.float32 and weight == 1 and weight.shape == ()
    for temperature in (0, -1, math.nan):
        with pytest.raises(ValueError, match="temperature"):
            SoftTargetDataset(distilled.clips, distilled.teacher, temperature)


def test_a_clip_without_a_row_weighs_nothing_and_keeps_its_labels(distilled):
    clip = distilled[2]
    assert clip.soft_target_weight == 0 and torch.equal(clip.soft_target, torch.zeros(4))
    assert torch.equal(clip.target, torch.eye(4)[2]) and (clip.name, clip.index, len(distilled)) == ("c", 2, 3)
    batch = collated(distilled)
    assert soft_target_bce_per_clip(LOGITS, batch.soft_target, batch.soft_target_weight)[2] == 0


def test_mixup_masks_each_partner_on_its_own(distilled):
    batch, weight = collated(distilled), torch.tensor([0.6, 0.7, 0.8])
    loss = mixed_loss(
        soft_target_bce_per_clip, LOGITS, Mix(torch.tensor([1, 2, 0]), weight), batch.soft_target, batch.soft_target_weight
    )
    own = [bce_by_hand(LOGITS[i].tolist(), batch.soft_target[i].tolist()) for i in range(2)]
    partner = {i: bce_by_hand(LOGITS[i].tolist(), batch.soft_target[j].tolist()) for i, j in ((0, 1), (2, 0))}
    expected = [0.6 * own[0] + 0.4 * partner[0], 0.7 * own[1], 0.2 * partner[2]]
    assert loss.tolist() == pytest.approx(expected, rel=1e-5)


def test_wavmix_weighs_both_soft_targets_as_it_weighs_the_clips(distilled):
    torch.manual_seed(0)
    mixed, plain = Augmented(distilled, wavmix=True), [distilled[i] for i in range(3)]
    seen = set()
    for _ in range(300):
        for index in range(3):
            clip = mixed[index]
            others = clip.target.clone()
            others[index] = 0
            if not others.any():
                continue
            other, lam = int(others.argmax()), clip.target[index]
            loss, own, others = (
                soft_target_bce_per_clip(LOGITS[:1], one.soft_target[None], one.soft_target_weight[None])
                for one in (clip, plain[index], plain[other])
            )
            assert torch.allclose(loss, lam * own + (1 - lam) * others, atol=1e-6), (index, other)
            seen.add((index, other))
    assert len(seen) == 6


# Options


def options(*argv: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_distillation_options(parser)
    return parser.parse_args(list(map(str, argv)))


def test_options():
    assert vars(options()) == {
        "teacher_preds": None, "fname_to_index": None, "kd_lambda": 0.1, "temperature": 1.0,
        "teacher": None, "feature_kd": 0.0, "blockwise_epochs": 0, "views": None,
    }  # fmt: skip
    assert options("--kd_lambda", 0).kd_lambda == 0 and options("--kd_lambda", 1).kd_lambda == 1
    for wrong in (("--kd_lambda", 1.1), ("--kd_lambda", -0.1), ("--kd_lambda", "nan"), ("--temperature", 0)):
        with pytest.raises(SystemExit):
            options(*wrong)


def test_text_index_next_to_the_logits_is_used_and_coverage_logged(tmp_path, caplog, stored):
    caplog.set_level(logging.INFO)
    preds, _ = stored(tmp_path, ROWS[:3], ["a", "b", "c"])
    assert load_teacher(options("--teacher_preds", preds), ["a", "c", "x"], 4).covered == 2
    assert caplog.messages == ["teacher: 2 of 3 clips have a row in teacher.npy"]
    other = tmp_path / "other.pkl"
    other.write_bytes(pickle.dumps({"x": 2}))
    teacher = load_teacher(options("--teacher_preds", preds, "--fname_to_index", other), ["a", "c", "x"], 4)
    assert teacher.covered == 1 and np.array_equal(teacher.row("x"), ROWS[:3][2])


def test_clips_without_any_teacher_logits_are_a_warning(tmp_path, caplog, stored):
    preds, _ = stored(tmp_path, ROWS[:1], ["theirs.wav"])
    teacher = load_teacher(options("--teacher_preds", preds), ["ours.wav"], 4)
    assert teacher.row("ours.wav") is None
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "theirs.wav" in warning.getMessage() and "ours.wav" in warning.getMessage()


@pytest.fixture
def release(tmp_path, monkeypatch) -> tuple[Path, Path]:
    """The release's folder with a teacher of the clips abcdefghijk and YbcdefghijY, and the resources folder, still empty."""
    published, resources = tmp_path / "release", tmp_path / "resources"
    published.mkdir()
    np.save(published / "passt_enemble_logits_mAP_495.npy", ROWS[:2])
    (published / "fname_to_index.pkl").write_bytes(pickle.dumps({"abcdefghijk": 1, "YbcdefghijY": 0}))
    monkeypatch.setenv("EFFICIENTAT_RELEASE_URL", published.as_uri())
    monkeypatch.setenv("EFFICIENTAT_RESOURCES", str(resources))
    return published, resources


def test_by_default_the_release_is_downloaded_once(release):
    names = ["YYbcdefghijY.mp3", "Yabcdefghijk.mp3"]
    teacher = load_teacher(options(), names, 4)
    assert np.array_equal(teacher.row("Yabcdefghijk.mp3"), ROWS[:2][1]) and np.array_equal(teacher.row(names[0]), ROWS[:2][0])
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


def test_given_paths_must_exist(tmp_path, failing_message, stored):
    preds, _ = stored(tmp_path, ROWS[:1], ["a"])
    for argv in (("--teacher_preds", tmp_path / "no.npy"), ("--teacher_preds", preds, "--fname_to_index", tmp_path / "no.txt")):
        message = failing_message(lambda _, argv=argv: load_teacher(options(*argv), ["a"], 4))
        assert argv[-2] in message and str(argv[-1]) in message and "not found" in message


# The writer


SECONDS = [1.0, 0.3, 2.5, 1.0, 3.0, 0.7, 1.2]  # of the clips


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> list[Path]:
    """Two checkpoints that distinguish clips: random weights behind statistics of noise, logits of some size."""
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
    assert main(arguments(models[:1], hdfs, output)) == 0
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
    assert main(arguments(models, hdfs, output)) == 0
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
    assert "7 rows" in (printed := capsys.readouterr().out) and "1 clips that cannot be decoded, 1 clips whose name" in printed

    teacher = load_teacher(options("--teacher_preds", output), Mp3Dataset(hdfs, num_classes=527).names, 527)
    assert (teacher.covered, teacher.clips) == (8, 9)
    assert np.array_equal(teacher.row("c4"), logits[4])


def test_training_files_of_a_folder_and_workers(tiny_audioset, models, tmp_path):
    output = tmp_path / "teacher.npy"
    more = ["--clip_seconds", "1", "--batch_size", "8", "--num_workers", "1", "--output", str(output)]
    assert main(["--models", str(models[0]), "--dataset_dir", str(tiny_audioset), *more]) == 0
    names = output.with_suffix(".txt").read_text().splitlines()
    assert len(names) == len(np.load(output)) == 32 and names[:2] == ["Ybala0000000.mp3", "Ybala0000001.mp3"]


def test_windows():
    waveform = torch.arange(10.0)
    assert windows(waveform, 4).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [6, 7, 8, 9]]
    assert windows(torch.arange(21.0), 20).tolist() == [list(range(20))]
    assert windows(waveform[:3], 4).tolist() == [[0, 1, 2, 0]]


def run_interrupted(argv: list[str], when: int, before: bool) -> None:
    """Run the command and let its `when`th group of clips end in Ctrl-C, before or after it is written."""
    append, calls = LogitsWriter.append, []

    def interrupted(self, *args):
        calls.append(args)
        if not before or len(calls) < when:
            append(self, *args)
        if len(calls) == when:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(LogitsWriter, "append", interrupted)
        main(argv)


@pytest.mark.parametrize(("when", "before", "torn"), [(2, True, None), (2, False, "cut"), (3, False, "both")])
def test_an_interrupted_writer_resumes_to_the_same_bytes(when, before, torn, models, hdfs, tmp_path, same_as):
    output = tmp_path / "teacher.npy"
    argv = arguments(models[:1], hdfs, output)
    run_interrupted(argv, when, before)
    parts = {path.name for path in tmp_path.iterdir()}
    assert len(parts) == 3 and all(name.endswith(".part") for name in parts)
    if torn == "cut":
        os.truncate(tmp_path / "teacher.npy.part", (tmp_path / "teacher.npy.part").stat().st_size - 1)
    if torn == "both":
        for name, more in (("teacher.npy.part", b"x" * 1500), ("teacher.txt.part", b"c")):  # a row and a part of the next
            with open(tmp_path / name, "ab") as file:
                file.write(more)
    assert main(argv) == 0
    same_as(output)


def test_resuming_does_not_repeat_what_is_there(models, hdfs, tmp_path, same_as, monkeypatch):
    argv = arguments(models[:1], hdfs, tmp_path / "teacher.npy")
    run_interrupted(argv, 2, before=False)
    read, get = [], Mp3Dataset.__getitem__
    monkeypatch.setattr(Mp3Dataset, "__getitem__", lambda self, index: read.append(index) or get(self, index))
    assert main(argv) == 0
    assert read == [7, 8]  # clips 0 to 4 and 6 were done, 5 is a repeated name
    same_as(tmp_path / "teacher.npy")


def test_a_kill_between_renames_is_repaired(models, hdfs, tmp_path, same_as, monkeypatch):
    argv = arguments(models[:1], hdfs, tmp_path / "teacher.npy")
    replace, calls = os.replace, []

    def killed(source, target):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(target)
        replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", killed)
        main(argv)
    assert not (tmp_path / "teacher.npy").exists()
    assert main(argv) == 0
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
        patch.setattr(writer, "open", open_on_full_disk, raising=False)
        assert "No space left" in failing_message(main, *argv)
    assert (tmp_path / "teacher.npy.part").stat().st_size > 3 * 2 * 527 and not (tmp_path / "teacher.npy").exists()
    assert main(argv) == 0
    same_as(tmp_path / "teacher.npy")


def test_a_machine_that_fails_leaves_no_clip_out(models, hdfs, tmp_path, same_as, failing_message, monkeypatch):
    def starved(self, index):
        raise AudioError("c0 cannot be decoded") from OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    argv = arguments(models[:1], hdfs, tmp_path / "teacher.npy")
    with monkeypatch.context() as patch:
        patch.setattr(Mp3Dataset, "__getitem__", starved)
        assert "c0 cannot be decoded" in failing_message(main, *argv)
    assert main(argv) == 0
    same_as(tmp_path / "teacher.npy")


def test_other_settings_do_not_resume(models, hdfs, tmp_path, failing_message):
    output = tmp_path / "teacher.npy"
    run_interrupted(arguments(models[:1], hdfs, output), 2, before=True)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for argv, differing in (
        (arguments(models[:1], hdfs, output, "--clip_seconds", 2), "(clip_seconds)"),
        (arguments(models[1:], hdfs, output), "(models, weights_sha256)"),
        (arguments(models[:1], hdfs[:1], output), "(clips, files)"),
    ):
        message = failing_message(main, *argv)
        assert differing in message and ".part" in message
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    copy = tmp_path / "copy.pt"
    copy.write_bytes(models[1].read_bytes())
    about = tmp_path / "teacher.json.part"
    about.write_text(about.read_text().replace(str(models[0]), str(copy)))
    message = failing_message(main, *arguments([copy], hdfs, output))
    assert "(weights_sha256)" in message  # another model under the path of before


@pytest.mark.parametrize("name", ["teacher.npy", "teacher.txt", "teacher.json"])
def test_existing_files_are_not_overwritten(name, hdfs, tmp_path, failing_message):
    (tmp_path / name).write_text("precious")
    argv = arguments([tmp_path / "no.pt"], hdfs, tmp_path / "teacher.npy")  # refused before models are looked for
    assert f"{name} exists" in failing_message(main, *argv)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["precious"]


def test_errors_of_the_writer_are_one_line(models, hdfs, tmp_path, failing_message):
    output = tmp_path / "teacher.npy"
    assert "must end in .npy" in failing_message(main, *arguments(models[:1], hdfs, tmp_path / "teacher"))
    assert "no.hdf not found" in failing_message(main, *arguments(models[:1], [tmp_path / "no.hdf"], output))
    assert "no.pt not found" in failing_message(main, *arguments([tmp_path / "no.pt"], hdfs, output))
    with Mp3Writer(tmp_path / "broken.hdf", 527) as writer:
        writer.add("broken", b"no mp3", np.zeros(527))
    argv = arguments(models[:1], [tmp_path / "broken.hdf"], output)
    assert "none of the clips could be decoded" in failing_message(main, *argv)
    with Mp3Writer(tmp_path / "lines.hdf", 527) as writer:
        writer.add("two\nlines", b"no mp3", np.zeros(527))
    argv = arguments(models[:1], [tmp_path / "lines.hdf"], tmp_path / "lines.npy")
    assert "end of line" in failing_message(main, *argv)
