"""Training and evaluation of frame-wise networks on events, on clips of one second."""

from pathlib import Path

import h5py
import numpy as np
import pytest

import ex_audioset_strong
from helpers.distillation import __main__ as writer
from helpers.training.frame_wise import SCORES
from models import checkpoints
from models.config import FrameWiseArch
from models.errors import UserError

pytestmark = pytest.mark.usefixtures("in_temporary_folder")
SHORT = ("--clip_seconds", 1, "--num_workers", 0, "--batch_size", 8, "--wandb", "disabled", "--batch_norm_momentum", 0.1)
TINY = ("--arch", "fmn", "--model_width", 0.1, *SHORT, "--n_epochs", 1, "--epoch_len", 16)


def run(*argv: object) -> int:
    return ex_audioset_strong.main([str(argument) for argument in argv])


def test_events_are_learnt_and_measured(tiny_strong: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = ("--arch", "fmn", "--pretrained_name", "mn04_distilled", "--max_lr", 3e-3, "--frame_shift", 0.2)
    schedule = ("--n_epochs", 8, "--warm_up_len", 1, "--evaluate_every", 8)
    assert run("--train", "--dataset_dir", tiny_strong, *start, *SHORT, *schedule) == 0
    last = checkpoints.load("runs/audioset_strong/last.pt")
    assert last.labels == ("Tone 0", "Tone 1", "Tone 2") and last.arch.trained_heads == "strong"
    assert last.metrics["strong_loss"] < 0.32  # 0.377 is that of the share of each class
    capsys.readouterr()
    run("--model_name", "runs/audioset_strong/last.pt", "--dataset_dir", tiny_strong, *SHORT[:4], "--per_class", "classes.csv")
    printed = capsys.readouterr().out.splitlines()
    assert printed[1] == f"  PSDS1: {last.metrics['psds1']:.3f}" and len(printed) == 1 + len(SCORES)
    rows = (tmp_path / "classes.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["class", "Tone 0", "Tone 1", "Tone 2"]


def test_everything_at_once_and_resumed(tiny_strong: Path) -> None:
    augmented = ("--time_mask", 0.2, "--filter_augment", 6, "--gain_augment", 6, "--mixup_p", 1, "--freqm", 4)
    rates = ("--sequence_model", "tf", "--sequence_size", 16, "--sequence_lr", 1e-4, "--layer_decay", 0.8)
    weak = ("--weak_share", 0.5, "--evaluate_every", 2)
    assert run("--train", "--dataset_dir", tiny_strong, *TINY, *augmented, *rates, *weak) == 0
    first = checkpoints.load("runs/audioset_strong/last.pt")
    assert first.arch.trained_heads == "both" and first.arch.sequence_model == "tf"
    assert {"strong_loss", "weak_loss"} < first.metrics.keys() and set(SCORES) < first.metrics.keys()
    assert run("--train", "--dataset_dir", tiny_strong, "--resume", "runs/audioset_strong", "--n_epochs", 3) == 0
    rows = Path("runs/audioset_strong/metrics.csv").read_text().splitlines()
    assert len(rows) == 4
    last = checkpoints.load("runs/audioset_strong/last.pt")
    assert last.epoch == 2 and any(not np.array_equal(last.state[key], first.state[key]) for key in first.state)


def test_new_heads_start_at_rare_events_and_others_are_kept(tiny_strong: Path) -> None:
    still = ("--max_lr", 1e-6)
    assert run("--train", "--dataset_dir", tiny_strong, *TINY, *still, "--experiment_name", "new") == 0
    first = checkpoints.load("runs/new/last.pt").state["strong_head.bias"]
    assert first.numpy() == pytest.approx(-4, abs=0.01)
    network = checkpoints.load_model("runs/new/last.pt")
    network.strong_head.bias.data.fill_(1.0)
    checkpoints.save(Path("start.pt"), network)
    assert (
        run(
            "--train", "--dataset_dir", tiny_strong, *TINY[4:], *still, "--pretrained_name", "start.pt", "--experiment_name", "kept"
        )
        == 0
    )
    assert checkpoints.load("runs/kept/last.pt").state["strong_head.bias"].numpy() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("fields", [{"trained_heads": "weak"}, {"seq_len": 250}])
def test_a_network_that_scores_no_frames_yet(tiny_strong: Path, fields: dict[str, object]) -> None:
    network = FrameWiseArch(3, 0.1, **fields).build(labels=("Tone 0", "Tone 1", "Tone 2"))
    checkpoints.save(Path("start.pt"), network.eval())
    start = ("--train", "--dataset_dir", tiny_strong, *TINY[4:], "--pretrained_name", "start.pt", "--max_lr", 1e-6)
    if "seq_len" in fields:
        with pytest.raises(UserError, match="seq_len 250"):
            run(*start)
    else:
        assert run(*start) == 0
        last = checkpoints.load("runs/audioset_strong/last.pt")
        assert last.arch.trained_heads == "strong" and last.state["strong_head.bias"].numpy() == pytest.approx(-4, abs=0.01)


def test_a_teacher_teaches_stored_as_online(tiny_strong: Path, tmp_path: Path) -> None:
    """The first step's losses are those of the teacher that hears the clips itself, but for float16 and batch norms."""
    plain = ("--no-wavmix", "--frame_shift", 0, "--mixup_p", 0, "--fmin_aug_range", 1, "--fmax_aug_range", 1)
    assert run("--train", "--dataset_dir", tiny_strong, *TINY, *plain, "--experiment_name", "teacher") == 0
    output = tmp_path / "teacher.hdf5"
    written = ("--frames", "--models", "runs/teacher/last.pt", "--dataset_dir", tiny_strong, "--output", output)
    writer.main([str(part) for part in (*written, *SHORT[:4])])
    with h5py.File(output) as file:
        assert file["strong_logits"].shape == (32, 3, 25) and file["strong_logits"].dtype == np.float16
        assert list(file.attrs["labels"]) == ["Tone 0", "Tone 1", "Tone 2"] and len(file["filenames"]) == 32
    losses = {}
    for name, teacher in (("stored", ("--teacher_preds", output)), ("online", ("--teacher", "runs/teacher/last.pt"))):
        options = (*teacher, "--kd_lambda", 0.25, "--experiment_name", name)
        assert run("--train", "--dataset_dir", tiny_strong, *TINY, *plain, *options) == 0
        metrics = checkpoints.load(f"runs/{name}/last.pt").metrics
        expected = 0.25 * metrics["strong_loss"] + 0.75 * metrics["distillation_loss"]
        assert metrics["train_loss"] == pytest.approx(expected, rel=1e-5)
        losses[name] = metrics["distillation_loss"]
    assert losses["stored"] == pytest.approx(losses["online"], rel=1e-3)


def test_published_logits_are_read_by_youtube_id(tiny_strong: Path, tmp_path: Path) -> None:
    published = tmp_path / "ensemble.hdf5"
    names = [f"Yunba{i:07d}.wav" for i in range(24)]
    with h5py.File(published, "w") as file:
        file["filenames"] = np.array(names, "S30")
        file["strong_logits"] = np.zeros((24, 447, 25), np.float16)
    data = tmp_path / "data"
    data.mkdir()
    for path in tiny_strong.iterdir():
        if path.name != "strong_classes.tsv":
            (data / path.name).symlink_to(path)
    table = data / "audioset_train_strong.tsv"
    table.unlink()
    table.write_text("segment_id\tstart_time_seconds\tend_time_seconds\tlabel\nunba0000000_30000\t0\t0.5\t/m/09x0r\n")
    (data / "audioset_eval_strong.tsv").unlink()
    (data / "audioset_eval_strong.tsv").write_text(table.read_text().replace("unba", "eval"))
    options = ("--batch_size", 1, "--epoch_len", 1, "--teacher_preds", published)
    assert run("--train", "--dataset_dir", data, *TINY, *options) == 0
    loss = 0.5 * (np.log1p(np.exp(-4)) + np.log1p(np.exp(4)))  # a probability of 0.5 where the new head says: rare
    assert checkpoints.load("runs/audioset_strong/last.pt").metrics["distillation_loss"] == pytest.approx(loss, rel=0.2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--arch", "mn", "--model_width", 0.1), "frame-wise"),
        (("--pretrained_name", "mn04_distilled", "--arch", "mn"), "frame-wise"),
        ((*TINY[:4], "--teacher", "mn04_distilled"), "32000 Hz"),
        ((*TINY[:4], "--teacher_preds", "missing.hdf5"), "missing.hdf5"),
        ((*TINY[:4], "--patience", 2, "--evaluate_every", 3), "patience"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(tiny_strong: Path, options: tuple[object, ...], said: str) -> None:
    with pytest.raises((UserError, FileNotFoundError), match=said):
        run("--train", "--dataset_dir", tiny_strong, *options, *SHORT)
    assert not Path("runs").exists() or not list(Path("runs").iterdir())


def test_validation_needs_an_event(tiny_strong: Path, tmp_path: Path) -> None:
    for path in tiny_strong.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "audioset_eval_strong.tsv").unlink()
    (tmp_path / "audioset_eval_strong.tsv").write_text(
        "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\neval0000000_30000\t\t\t\n"
    )
    with pytest.raises(UserError, match="validate"):
        run("--train", "--dataset_dir", tmp_path, *TINY)


def test_a_model_of_other_classes_is_not_evaluated(tiny_strong: Path) -> None:
    with pytest.raises(UserError, match="whole clips"):
        run("--model_name", "mn04_distilled", "--dataset_dir", tiny_strong, *SHORT[:4])
