"""studies.bundled_model: two runs, one after the other, and the same command again."""

from __future__ import annotations

import pytest

from models.errors import UserError
from studies import bundled_model


def test_both_runs_in_order_and_resumed(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "unlabelled_segments_mp3.hdf").touch()
    commands = []
    monkeypatch.setattr(
        bundled_model.common, "run_python", lambda command, name, *_: commands.append((name, list(map(str, command))))
    )
    options = ["--dataset_dir", str(tmp_path / "data"), "--output_dir", str(tmp_path / "out"), "--ranks", "2"]
    assert bundled_model.main(options) == 0
    (blocks, first), (student, second) = commands
    assert (blocks, student) == ("blocks", "student")
    assert "--blockwise_epochs" in first and "--blockwise_epochs" not in second and "torch.distributed.run" in first
    assert second[second.index("--pretrained_name") + 1] == str(tmp_path / "out" / "runs" / "blocks" / "last.pt")
    assert "--resume" not in first
    (tmp_path / "out" / "runs" / "blocks").mkdir(parents=True)
    (tmp_path / "out" / "runs" / "blocks" / "config.json").touch()
    bundled_model.main(options)
    resumed = commands[2][1]
    assert resumed[resumed.index("--resume") + 1] == str(tmp_path / "out" / "runs" / "blocks") and "--resume" not in commands[3][1]


def test_a_corpus_without_recordings_without_labels(tmp_path):
    with pytest.raises(UserError, match="unlabelled"):
        bundled_model.main(["--dataset_dir", str(tmp_path), "--output_dir", str(tmp_path / "out")])
