from __future__ import annotations

from pathlib import Path

import pytest

from helpers.inference.sources import Inputs
from helpers.tagger.results import Tagging


@pytest.mark.parametrize(("target", "code"), [("first", 0), ("nowhere", 1), ("..", 1)])
def test_only_a_link_to_what_is_listed_anyway_is_no_error(
    target: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "recordings"
    for name in ("first/a.wav", "second/b.wav"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).touch()
    (folder / "link.wav").symlink_to(target)
    inputs = Inputs([str(folder)])
    results = [Tagging(source, 0.0, 1.0, ()) for source in inputs.remaining]
    assert [list(tagged) for _, tagged in inputs.follow(results)] == [[result] for result in results] and len(results) == 2
    assert inputs.code == code
    assert "link.wav" in capsys.readouterr().err
