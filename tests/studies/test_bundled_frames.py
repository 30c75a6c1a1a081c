"""studies.bundled_frames: its data, the training, resumed by the same command, and the files that it writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import ex_audioset_strong
from datasets import audio, audioset_strong
from datasets.csv_table import write_table
from datasets.hdf5_mp3 import Mp3Dataset, Mp3Writer
from datasets.labels import audioset_labels, audioset_mids
from datasets.prepare.corpus import CorpusClip
from datasets.prepare.soundscapes.build import segment_id
from datasets.strong_labels import LabelledEvent, read_strong_labels, write_strong_labels
from helpers.export.runtime import OnnxBackend
from models import checkpoints
from models.frame_wise import get_model
from studies import bundled_frames

SCENE_CLASSES = ("Clapping", "Electric guitar", "Saxophone")
ALL_CLASSES = ("Clapping", "Electric guitar", "Saxophone", *bundled_frames.GENERAL)


class TinyCorpus:
    """A corpus of a training band, a band of the evaluation split, and a clap."""

    def __init__(self, folder: Path) -> None:
        rows = [(False, ("Rock music", "Music"), 1), (True, ("Rock music", "Music"), 1), (False, ("Clapping",), 2)]
        self.clips = [
            CorpusClip(f"Y{name:_<11}.mp3", is_eval, labels, labels, "package", name, fold)
            for name, (is_eval, labels, fold) in zip(("band", "other", "clap"), rows, strict=True)
        ]

    def waveform(self, clip: CorpusClip, sample_rate: int) -> np.ndarray:
        return np.zeros(sample_rate, np.float32)


@pytest.fixture
def scenes_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "scenes"
    mids = dict(zip(audioset_labels(), audioset_mids(), strict=True))
    write_table(
        folder / "strong_classes.tsv", [("mid", "display_name"), *((mids[name], name) for name in SCENE_CLASSES)], delimiter="\t"
    )
    events = {"train000000_0": [LabelledEvent(0.5, 2, 1), LabelledEvent(1, 3, 2)], "train000001_0": []}
    for table in audioset_strong.TABLES.values():
        write_strong_labels(folder / table, events, [mids[name] for name in SCENE_CLASSES])
    with Mp3Writer(folder / "balanced_train_segments_mp3.hdf", 527) as writer:
        writer.add("Ytrain000000.mp3", audio.encode_mp3(np.full(320000, 0.1, np.float32), 32000), np.zeros(527))
    return folder


def test_events_are_what_their_classes_imply(scenes_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled_frames, "Corpus", TinyCorpus)
    folder = tmp_path / "data"
    bundled_frames.build_data(tmp_path, scenes_dir, folder)
    classes = audioset_strong.read_classes(folder)
    assert classes.labels == tuple(sorted(ALL_CLASSES))
    events = read_strong_labels(folder / audioset_strong.TABLES["train"], *classes)
    found = {(event.onset, event.offset, classes.labels[event.class_index]) for event in events["train000000_0"]}
    assert found == {
        (0.5, 2, "Electric guitar"), (0.5, 2, "Guitar"), (0.5, 3, "Music"), (1, 3, "Saxophone"),
        (1, 3, "Wind instrument, woodwind instrument"),
    }  # fmt: skip
    assert events["train000001_0"] == []
    bands = Mp3Dataset(folder / "unbalanced_train_segments_mp3.hdf", num_classes=527, sample_rate=32000)
    music = classes.labels.index("Music")
    begins = set()
    for number, name in enumerate(bands.names):
        begin = np.flatnonzero(abs(bands[number].waveform) > 0.05)[-1] / 32000  # the scene is loud, the band silent
        begins.add(begin)
        assert any(event.onset <= begin + 0.1 and event.offset > begin + 0.8 for event in events[segment_id(name)])
        assert all(event.offset < begin + 0.1 for event in events[segment_id(name)] if event.class_index != music)
    assert len(begins) == len(bands) == bundled_frames.SCENES_OF_A_BAND
    assert "band" not in (folder / audioset_strong.TABLES["eval"]).read_text()


def test_one_training_resumed_by_the_same_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands, written = [], []
    monkeypatch.setattr(bundled_frames.common, "run_python", lambda command, *_: commands.append(list(map(str, command))))
    monkeypatch.setattr(bundled_frames, "build_data", lambda *_: None)
    monkeypatch.setattr(bundled_frames, "write_model", lambda *paths: written.append(paths))
    options = [f"--{name}={tmp_path / name}" for name in ("corpus_dir", "dataset_dir", "output_dir")]
    folder = tmp_path / "output_dir" / "runs" / "scenes"
    assert bundled_frames.main(options) == 0 and "--resume" not in commands[0]
    ex_audioset_strong.build_parser().parse_args(commands[0][1:])
    folder.mkdir(parents=True)
    (folder / "config.json").touch()
    bundled_frames.main(options)
    assert commands[1] == [*commands[0], "--resume", str(folder)]
    assert written == [(folder / "last.pt", tmp_path / "output_dir")] * 2


def test_the_files_hold_the_trained_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = get_model(num_classes=3, width_mult=0.1).eval()
    network.labels = SCENE_CLASSES
    checkpoints.save(tmp_path / "best.pt", network, epoch=3, metrics={"psds1": 0.25}, args={"dataset_dir": str(tmp_path)})
    bundled_frames.write_model(tmp_path / "best.pt", tmp_path)
    checkpoint = checkpoints.load(tmp_path / f"{bundled_frames.NAME}.pt")
    assert (checkpoint.metrics, checkpoint.labels) == ({"psds1": 0.25}, SCENE_CLASSES) and str(tmp_path) not in str(checkpoint.args)
    assert all(torch.equal(tensor, checkpoint.state[name]) for name, tensor in network.state_dict().items())
    sound = np.random.default_rng(0).normal(0, 0.1, 32000).astype(np.float32)
    scores, _ = OnnxBackend(tmp_path / f"{bundled_frames.NAME}.onnx", threads=1).frames([sound])[0]
    assert scores.shape == (50, 3)
