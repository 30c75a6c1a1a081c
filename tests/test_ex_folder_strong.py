"""`ex_folder.py --strong`: tables of events over recordings of your own."""

from pathlib import Path

import numpy as np
import pytest

import ex_folder
from datasets.folders.strong import scan_events
from datasets.strong_labels import LabelledEvent
from models import checkpoints
from models.errors import UserError
from tests.finetuning import RATE, tone, write, write_table

pytestmark = pytest.mark.usefixtures("in_temporary_folder")


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Twelve recordings of 2.5 s: a tone from 0.5 to 1 s, in every other one also from 1.75 to 2.25 s."""
    folder = tmp_path / "recordings"
    for i in range(12):
        sound = 0.003 * np.random.default_rng(i).standard_normal(round(2.5 * RATE)).astype(np.float32)
        for start in (0.5, 1.75)[: 1 + i % 2]:
            at = round(start * RATE)
            sound[at : at + RATE // 2] += tone(i % 3, 0.5, i)
        write(folder / f"{i}.wav", sound)
    return folder


def rows(recording: range = range(12)) -> list[tuple[object, ...]]:
    return [(f"{i}.wav", start, start + 0.5, f"tone {i % 3}") for i in recording for start in (0.5, 1.75)[: 1 + i % 2]]


def table(*of: tuple[object, ...], header: tuple[str, ...] = ("filename", "onset", "offset", "event_label")) -> Path:
    return write_table(Path("events.tsv"), header, *of, delimiter="\t")


def test_recordings_are_cut_into_clips_with_their_events(recordings: Path) -> None:
    data = scan_events(recordings, table(*rows()), 1.0)
    assert data.data.class_names == ("tone 0", "tone 1", "tone 2") and len(data.events) == 36
    assert data.events[3:6] == (
        (LabelledEvent(0.5, 1.0, 1),),
        (LabelledEvent(0.75, 1.0, 1),),  # continues
        (LabelledEvent(0.0, 0.25, 1),),
    )
    assert data.data.segments[3:6] == ((0, 1), (1, 2), (2, 2.5)) and data.data.targets[3:6, 1].all()
    assert len(set(data.data.groups[3:6])) == 1
    clips = data.clips(range(36), frames=25, step=0.04, sample_rate=16000, clip_seconds=1.0)
    assert clips[5].waveform.shape == (16000,) and clips[5].target[1].tolist() == [1.0] * 7 + [0.0] * 18


def test_labels_of_audacity_and_tables_with_start_and_end_say_the_same(recordings: Path) -> None:
    expected = scan_events(recordings, table(*rows()), 2.5).events
    tracks = Path("labels")
    for i in range(12):
        text = "".join(f"{start}\t{end}\t{label}\n" for _, start, end, label in rows(range(i, i + 1)))
        tracks.mkdir(exist_ok=True)
        (tracks / f"{i}.txt").write_text(text)
    assert sorted(scan_events(recordings, tracks, 2.5).events) == sorted(expected)
    own = table(*rows(), header=("path", "start", "end", "labels"))
    assert scan_events(recordings, own, 2.5).events == expected


def test_what_cannot_be_used_is_reported(recordings: Path) -> None:
    more = [("0.wav", 2, 1, "tone 0"), ("0.wav", -1, 1, "tone 0"), ("0.wav", 3, 4, "tone 0"), ("12.wav", 0, 1, "tone 0")]
    more += [("0.wav", 0.75, 1.2, "tone 0"), ("0.wav", 2, 9, "tone 2")]
    data = scan_events(recordings, table(*rows(), *more), 2.5)
    assert data.events[0] == (LabelledEvent(0.5, 1.2, 0), LabelledEvent(2, 2.5, 2))
    report = data.report()
    assert "20 events" not in report.splitlines()[0] and "19 events in 12 clips" in report
    for reason in ("ends before it starts", "not within its recording", "not found", "cut at the end"):
        assert reason in report


def test_recordings_without_events_or_times(recordings: Path) -> None:
    data = scan_events(recordings, table(*rows(range(10)), ("10.wav", "", "", ""), ("11.wav", "", "", "tone 2")), 2.5)
    assert data.events[10:] == ((), None) and data.data.targets[10:].tolist() == [[0, 0, 0], [0, 0, 1]]
    with pytest.raises(UserError, match="to validate on"):
        data.clips([11], frames=3, step=1.0, with_weak=False)
    with pytest.raises(UserError, match="--strong"):
        scan_events(recordings, table(("1.wav", "", "", "tone 2"), ("2.wav", "", "", "tone 1")), 2.5)


def test_a_network_is_trained_resumed_and_evaluated(recordings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    csv = table(*rows(range(11)), ("11.wav", "", "", "tone 2"))
    options = (
        "--from_scratch",
        "--arch",
        "fmn",
        "--model_width",
        0.1,
        "--sample_rate",
        RATE,
        "--n_epochs",
        1,
        "--wandb",
        "disabled",
    )
    data = (recordings, "--csv", csv, "--strong", "--num_workers", 0)

    def run(*argv: object) -> None:
        assert ex_folder.main([str(argument) for argument in argv]) == 0

    run(*data, *options, "--clip_seconds", 2.5, "--batch_size", 4, "--warm_up_len", 0)
    last = checkpoints.load("runs/folder/last.pt")
    assert last.arch.trained_heads == "both" and last.labels == ("tone 0", "tone 1", "tone 2")
    assert "psds1" in Path("runs/folder/validation_classes.csv").read_text()
    run(*data, "--resume", "runs/folder", "--n_epochs", 2)
    assert checkpoints.load("runs/folder/last.pt").epoch == 1
    capsys.readouterr()
    run(*data, "--evaluate", "runs/folder/best.pt")
    assert capsys.readouterr().out.splitlines()[1].startswith("  PSDS1: ")
