"""datasets.location: folders by option, variable or default, which is next to the code only in a checkout."""

from __future__ import annotations

import pytest

from datasets import audioset, dcase20, esc50, fsd50k, location
from datasets.location import Location

PLACE = Location("place", "SOME_DIR", "build it in {default}")


@pytest.fixture
def code(tmp_path, monkeypatch):
    """The folder that the code seems to be in; the working directory is another one."""
    for name in ("code", "work"):
        (tmp_path / name / "data" / "place").mkdir(parents=True)
    monkeypatch.setattr(location, "_CODE", tmp_path / "code")
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.delenv("SOME_DIR", raising=False)
    return tmp_path / "code"


def test_the_default_is_next_to_the_code_only_in_a_checkout(code, tmp_path):
    assert PLACE.resolve() == PLACE.default == tmp_path / "work" / "data" / "place"
    (code / "pyproject.toml").touch()
    assert PLACE.resolve() == PLACE.default == code / "data" / "place"


def test_option_before_variable_before_default(code, tmp_path, monkeypatch):
    for name in ("option", "variable"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("SOME_DIR", str(tmp_path / "variable"))
    assert PLACE.resolve() == tmp_path / "variable"
    assert PLACE.resolve(str(tmp_path / "option")) == tmp_path / "option"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert PLACE.resolve("~/option") == tmp_path / "option"
    with pytest.raises(FileNotFoundError) as caught:
        PLACE.resolve(tmp_path / "nowhere")
    for part in ("nowhere not found", "--dataset_dir", "SOME_DIR", f"build it in {PLACE.default}"):
        assert part in str(caught.value)


@pytest.mark.parametrize("data_set", [audioset, dcase20, esc50, fsd50k])
def test_each_data_set_has_its_variable_and_advice(data_set, monkeypatch, tmp_path):
    name = data_set.__name__.rpartition(".")[2]
    monkeypatch.setenv(f"{name.upper()}_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=f"nowhere.*{name.upper()}_DIR.*datasets.prepare.{name}"):
        data_set.training_set(None, 1) if data_set is esc50 else data_set.training_set()
