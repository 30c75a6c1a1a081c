"""What torch.hub makes of a clone, next to packages that share the names of ours: those of this process, or of a notebook."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from efficientat.models import registry

from models.MobileNetV3 import get_model
from models.registry import BUNDLED, PRETRAINED

ROOT = Path(__file__).resolve().parent.parent


def load(*names: str, **options):
    return torch.hub.load(str(ROOT), *names, source="local", **options)


@pytest.mark.parametrize(
    ("name", "n_mels", "width_mult"), [("mn01_as", 128, 0.1), ("mn10_as_mels_40", 40, 1.0), ("mn10_as_hop_15", 128, 1.0)]
)
def test_a_random_network_has_the_architecture_and_front_end_of_its_name(name: str, n_mels: int, width_mult: float) -> None:
    model = load(name, pretrained=False, num_classes=3)
    assert (model.mel.n_mels, model.arch.width_mult) == (n_mels, width_mult)
    assert not model.training
    logits, embedding = model(torch.zeros(2, 1, n_mels, 50))
    assert logits.shape == (2, 3) and embedding.shape == (2, model.embedding_size)


def test_the_class_count_is_that_of_the_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = registry.PRETRAINED["mn01_as"]
    monkeypatch.setitem(registry.PRETRAINED, "mn01_as", replace(entry, arch=replace(entry.arch, num_classes=3)))
    assert load("mn01_as", pretrained=False).arch.num_classes == 3


def test_a_released_model_comes_from_the_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFFICIENTAT_RELEASE_URL", tmp_path.as_uri())
    monkeypatch.setenv("EFFICIENTAT_RESOURCES", str(tmp_path / "resources"))
    weights = get_model(width_mult=0.1).state_dict()
    torch.save(weights, tmp_path / PRETRAINED["mn01_as"].asset)
    model = load("mn01_as")
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("names", "options"),
    [
        (["mn01_as"], {"pretrained": "yes"}),
        (["mn01_as"], {"pretrained": False, "num_classes": "10"}),
        (["mn01_as"], {"pretrained": False, "num_classes": 10.0}),
        (["mn04_distilled"], {"num_classes": [10]}),
        (["tagger", 5], {}),
        (["tagger", "mn04_distilled"], {"batch_size": "8"}),
    ],
    ids=str,
)
def test_wrong_types_are_one_line(names: list[object], options: dict[str, object]) -> None:
    with pytest.raises(ValueError) as error:
        load(*names, **options)
    assert type(error.value).__name__ == "UserError" and "\n" not in str(error.value)


def test_the_listing_names_every_model_and_the_tagger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    (tmp_path / "owner_repository_main").symlink_to(ROOT)  # where torch.hub keeps a clone
    assert sorted(torch.hub.list("owner/repository:main", trust_repo=True, verbose=False)) == sorted(
        [*PRETRAINED, *BUNDLED, "tagger"]
    )


def test_a_network_from_the_hub_is_pickled(tmp_path: Path) -> None:
    model = load("mn01_as", pretrained=False)
    copy = pickle.loads(pickle.dumps(model))
    assert type(copy) is type(model)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in copy.state_dict().items())


def test_another_copy_of_the_project_is_not_mixed_with_the_clone(monkeypatch: pytest.MonkeyPatch) -> None:
    other = ModuleType("efficientat")
    other.__file__ = "/elsewhere/efficientat/__init__.py"
    monkeypatch.setitem(sys.modules, "efficientat", other)
    with pytest.raises(ImportError, match="/elsewhere/efficientat"):
        load("mn01_as", pretrained=False)


NOTEBOOK = """
import sys
sys.path.insert(0, "elsewhere")
import datasets, torch  # stands for Hugging Face's datasets
search = list(sys.path)
tagger = torch.hub.load(sys.argv[1], "tagger", "mn04_distilled", source="local", layers="block11+mel")
sound = 0.1 * torch.randn(32000)
assert len(tagger.tag(sound, 32000).tags) == 10
assert tagger.embed(sound, 32000).shape == (176,)
assert torch.hub.load(sys.argv[1], "mn04_distilled", source="local").labels[0] == "Speech"
assert sys.path == search
import helpers, models
assert {module.whose for module in (datasets, helpers, models)} == {"theirs"}
assert not [name for name in sys.modules if name.startswith(("datasets.", "helpers.", "models."))]
"""


def test_a_notebook_keeps_its_own_packages_of_the_same_names(tmp_path: Path) -> None:
    for name in ("datasets", "helpers", "models"):
        (tmp_path / "elsewhere" / name).mkdir(parents=True)
        (tmp_path / "elsewhere" / name / "__init__.py").write_text("whose = 'theirs'\n")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-c", NOTEBOOK, str(ROOT)]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
