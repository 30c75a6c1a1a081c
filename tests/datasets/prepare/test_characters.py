"""Small image sets: scikit-learn's digits, and letters drawn with fonts, here those of Matplotlib."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageFont
from sklearn.datasets import load_digits

from datasets.prepare import characters

FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"


def test_digits_are_scikit_learns_and_the_last_are_validated_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert characters.main(["digits", "--output_dir", str(tmp_path / "digits")]) == 0
    assert "1438 images to train, 359 to validate on" in capsys.readouterr().out
    paths = {int(path.stem): path for path in (tmp_path / "digits").rglob("*.png")}
    data = load_digits()
    assert sorted(paths) == list(range(1797))
    for i in (0, 1437, 1438, 1796):
        part, label = paths[i].parts[-3:-1]
        assert (part, label) == ("train" if i < 1438 else "val", str(data.target[i]))
        np.testing.assert_allclose(np.asarray(Image.open(paths[i])), data.images[i] * 255 / 16, atol=0.5)


def test_letters_of_a_family_are_on_one_side(tmp_path: Path) -> None:
    fonts = tmp_path / "fonts"
    fonts.mkdir()
    chosen = [
        *FONTS.glob("DejaVuS*-*.ttf"),
        *FONTS.glob("DejaVuSansMono.ttf"),
        *(FONTS / f"{name}.ttf" for name in ("STIXGeneral", "cmr10", "cmtt10")),
    ]
    for path in chosen:
        shutil.copy(path, fonts)
    assert characters.main(["letters", "--fonts_dir", str(fonts), "--output_dir", str(tmp_path / "letters")]) == 0
    images = list((tmp_path / "letters").glob("*/*/*.png"))
    assert {path.stem.rpartition("_")[0] for path in images} == {path.stem for path in chosen}
    assert len({path.parts[-2] for path in images}) == 36
    sides = defaultdict(set)
    for path in images:
        font = ImageFont.truetype(fonts / f"{path.stem.rpartition('_')[0]}.ttf")
        sides[characters.family(font.getname()[0])].add(path.parts[-3])
    assert len(chosen) > 8 and len(sides) >= 3 and all(len(parts) == 1 for parts in sides.values())
    path = next(path for path in images if path.parts[-2] == "I" and path.name == "DejaVuSans-Bold_upper.png")
    pixels = np.asarray(Image.open(path))
    rows, columns = np.nonzero(pixels > 127)
    assert pixels.shape == (64, 64) and rows.min() == 4 and rows.max() == 59  # as high as the margins let it
    assert abs(columns.mean() - 31.5) < 1 and np.ptp(columns) < 16  # an upright stroke in the middle


def test_mistakes_end_in_one_line(tmp_path: Path, failing_message: Callable[..., str]) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for arguments, named in (
        (["letters", "--fonts_dir", str(tmp_path), "--output_dir", str(tmp_path / "letters")], "no fonts"),
        (["digits", "--output_dir", str(tmp_path / "full")], "not empty"),
    ):
        assert named in failing_message(characters.main, *arguments)
    with pytest.raises(SystemExit):
        characters.main(["letters", "--output_dir", str(tmp_path / "letters")])
    assert not (tmp_path / "letters").exists()
