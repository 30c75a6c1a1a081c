"""What torch.hub makes of a clone, in processes of their own: hub needs the names models, datasets and helpers for itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def run(code: str, tmp_path: Path, **variables: str) -> str:
    """Run a program in an empty folder; return what it printed, or fail with its errors."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    result = subprocess.run(
        [sys.executable, "-c", f"import torch\nrepository = {str(ROOT)!r}\n{code}"],
        cwd=tmp_path, env=environment | {"OMP_NUM_THREADS": "1"} | variables, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_models_and_tagger_are_loaded_from_anywhere(tmp_path: Path) -> None:
    code = """
load = lambda *names, **options: torch.hub.load(repository, *names, source="local", **options)
model = load("mn04_opensounds")
assert not model.training and model.labels[0] == "Speech"
fresh = load("mn01_as", pretrained=False, num_classes=3)
logits, embedding = fresh(torch.zeros(2, 1, fresh.mel.n_mels, 50))
assert logits.shape == (2, 3) and embedding.shape == (2, 96)
assert load("mn10_as_mels_40", pretrained=False).mel.n_mels == 40
assert load("mn40_as(2)", pretrained=False).arch.width_mult == 4
tagger = load("tagger", "mn04_opensounds", layers="block11+mel")
sound = 0.1 * torch.randn(32000)
assert tagger.embed(sound, 32000).shape == (176,) and len(tagger.tag(sound, 32000)) == 10
"""
    run(code, tmp_path)
    assert not list(tmp_path.iterdir())


def test_entry_points_are_the_models_and_the_tagger(tmp_path: Path) -> None:
    code = """
import importlib.util, sys
sys.path.insert(0, repository)
from models.registry import BUNDLED, PRETRAINED
spec = importlib.util.spec_from_file_location("hubconf", repository + "/hubconf.py")
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
found = {name for name in dir(module) if callable(getattr(module, name)) and not name.startswith("_")}  # as torch.hub.list does
assert found == {*PRETRAINED, *BUNDLED, "tagger"}, found
assert all(getattr(module, name).__doc__.startswith(name) for name in PRETRAINED)
"""
    run(code, tmp_path)


def test_a_released_model_comes_from_the_release(tmp_path: Path) -> None:
    code = """
import sys
sys.path.insert(0, repository)
from models.MobileNetV3 import get_model
torch.manual_seed(0)
weights = get_model(width_mult=0.1).state_dict()
torch.save(weights, "mn01_as_mAP_298.pt")
model = torch.hub.load(repository, "mn01_as", source="local", pretrained=True)
assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
"""
    run(code, tmp_path, EFFICIENTAT_RELEASE_URL=tmp_path.as_uri(), EFFICIENTAT_RESOURCES=str(tmp_path / "resources"))


@pytest.mark.parametrize("name", ["datasets", "models"])
def test_another_package_of_the_same_name_is_told(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    code = f"""
import sys
sys.path.insert(0, ".")
import {name}
try:
    torch.hub.load(repository, "mn01_as", source="local", pretrained=False)
except ImportError as error:
    print(error)
"""
    assert repr(name) in run(code, tmp_path)
