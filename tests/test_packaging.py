"""The wheel, installed into an environment of its own and used where there is no checkout."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import py_compile
import re
import subprocess
import sys
import sysconfig
import venv
from importlib.util import module_from_spec
from pathlib import Path

import numpy as np
import pytest

from efficientat import _imports

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("datasets", "helpers", "models", "web")
SCRIPTS = {path.stem for path in ROOT.glob("*.py")} - {"setup", "hubconf"}


@pytest.mark.parametrize(
    ("line", "rewritten"),
    [
        ("from models.x import y, z", "from efficientat.models.x import y, z"),
        ("from datasets import audio  # from datasets", "from efficientat.datasets import audio  # from datasets"),
        ("import helpers", "from efficientat import helpers"),
        ("import models.x", "import efficientat.models.x; from efficientat import models"),
        ("import os, models.x as x", "import os; import efficientat.models.x as x"),
        ("def f(): from helpers import cli; return cli", "def f(): from efficientat.helpers import cli; return cli"),
        ("from models import (\n    x,\n    y,\n)", "from efficientat.models import (\n    x,\n    y,\n)"),
        ("'é'; from models import x", "'é'; from efficientat.models import x"),
        ("text = 'from models import x'", "text = 'from models import x'"),
        ("from . import models", "from . import models"),
        ("import modelsummary, helpers_of_others", "import modelsummary, helpers_of_others"),
        ("f'python -m datasets.prepare.{x}'", "f'python -m efficientat.datasets.prepare.{x}'"),
        ("# torchrun --nproc_per_node 2 ex_esc50.py --cuda", "# torchrun --nproc_per_node 2 -m efficientat.ex_esc50 --cuda"),
        ("# python inference.py, not python my_inference.py", "# python -m efficientat.inference, not python my_inference.py"),
    ],
)
def test_rewriting(line: str, rewritten: str) -> None:
    assert _imports.rewrite(line) == rewritten
    assert _imports.rewrite(rewritten) == rewritten


def test_modules_are_rewritten_next_to_the_bytecode_of_the_files_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "pycache_prefix", None)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").touch()
    path = tmp_path / "models" / "x.py"
    path.write_text("def f():\n    from models import errors\n    return errors.__name__\n")
    compiled = Path(py_compile.compile(str(path), doraise=True))
    content = compiled.read_bytes()
    finder = _imports.CheckoutFinder(tmp_path)
    spec = finder.find_spec("efficientat.models.x", [str(path.parent)])
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.f() == "efficientat.models.errors"
    assert compiled.read_bytes() == content
    assert finder.find_spec("models", None) is None and finder.find_spec("efficientat.hubconf", None) is None


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an environment that holds the wheel and sees the packages of this one, but not the checkout."""
    folder = tmp_path_factory.mktemp("installed")
    build = folder / "build.cfg"  # where setuptools builds: not in the checkout
    build.write_text(f"[build]\nbuild_base={folder / 'build'}\n[egg_info]\negg_base={folder}\n")
    local = ["--quiet", "--no-index", "--no-deps"]
    wheel = [sys.executable, "-m", "pip", "wheel", *local, "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(wheel, check=True, env={**os.environ, "DIST_EXTRA_CONFIG": str(build)})
    venv.create(folder / "venv", symlinks=True)
    [packages] = (folder / "venv" / "lib").glob("*/site-packages")
    (packages / "outer.pth").write_text(sysconfig.get_path("purelib"))
    [path] = folder.glob("*.whl")
    install = [str(folder / "venv" / "bin" / "python"), "-m", "pip", "install", *local, "--ignore-installed", "--no-compile"]
    subprocess.run([*install, str(path)], check=True)
    return packages.parents[2]


@pytest.fixture(scope="module")
def package(installed: Path) -> Path:
    [folder] = installed.glob("lib/*/site-packages/efficientat")
    return folder


def run(tmp_path: Path, *command: object, **variables: str) -> str:
    """Run a command in an empty folder; return what it printed, or fail with its errors."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "EFFICIENTAT_"))}
    environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HOME": str(tmp_path), "XDG_CACHE_HOME": ""} | variables
    result = subprocess.run(list(map(str, command)), cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_no_module_of_the_package_imports_one_of_the_checkout(package: Path) -> None:
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            imported += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not [name for name in imported if name.partition(".")[0] in {*FOLDERS, *SCRIPTS}], f"{path}, line {node.lineno}"


def test_the_package_holds_the_modules_and_resources_of_the_checkout(package: Path) -> None:
    files = ["git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard"]
    kept = subprocess.run(files, check=True, capture_output=True, text=True).stdout.splitlines()
    expected = {name for name in kept if name.startswith((*(f"{folder}/" for folder in FOLDERS), "resources/"))}
    expected = {name for name in expected if not name.startswith("resources/figures/")}
    expected |= {f"{name}.py" for name in SCRIPTS}
    expected |= {name.removeprefix("efficientat/") for name in kept if name.startswith("efficientat/")}
    assert {str(path.relative_to(package)) for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"} == expected


def test_every_console_script_has_a_parser(installed: Path) -> None:
    [distribution] = importlib.metadata.distributions(name="efficientat", path=[str(next(installed.glob("lib/*/site-packages")))])
    scripts = {entry.name: entry.value for entry in distribution.entry_points}
    assert len(scripts) == 14
    for name, value in scripts.items():
        assert (installed / "bin" / name).is_file()
        module, _, script = value.partition(":")
        assert (module == "efficientat._commands" and script in SCRIPTS) or value == "efficientat.web.__main__:command"


PROGRAM = """
import sys
import efficientat
from efficientat import _commands
def command(name, *words):
    sys.argv[1:] = words
    try:
        getattr(_commands, name)()
    except SystemExit as end:
        assert not end.code
checkpoint, recording = sys.argv[1:]
assert "mn04_distilled" in efficientat.list_models("*_distilled")
assert "torch" not in sys.modules
command("complexity", "--model_name", "mn04_distilled")
model = efficientat.get_model(pretrained_name="mn04_distilled")
assert callable(efficientat.get_ensemble_model)
assert type(model).__module__ == "efficientat.models.network"
tagger = efficientat.AudioTagger(checkpoint, backend="onnx")  # exported first, in a process of its own
assert tagger.embed(recording).shape == (96,)
assert [len(tags) for tags in tagger.tag_files([recording] * 2, time_limit=60)] == [10, 10]  # decoded by processes
ours = ("datasets", "helpers", "models", "complexity", "export")
assert callable(_commands.inference)
assert not [name for name in sys.modules if name.split(".")[0] in ours]
command("inference", "--model_name", "mn04_distilled", "--audio_path", recording)  # which ends the process
"""


def test_tags_exports_and_counts_outside_the_checkout(
    installed: Path, package: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    recording = package / "resources" / "recordings" / "scene.ogg"
    script = [installed / "bin" / "efficientat-inference", "--backend", "onnx", "--model_name", "mn04_distilled"]
    tags = run(tmp_path, *script, "--audio_path", recording)
    assert "Speech: 0." in tags
    printed = run(tmp_path, installed / "bin" / "python", "-c", PROGRAM, tiny_checkpoint, recording)
    found = [re.findall(r"^(.+): (0\.\d+)$", text, re.MULTILINE)[-10:] for text in (tags, printed)]
    assert [label for label, _ in found[0]] == [label for label, _ in found[1]]
    np.testing.assert_allclose(*([float(score) for _, score in one] for one in found), atol=0.002)  # exported in float16
    assert "0.98 million parameters" in printed
    assert [path.suffix for path in (tmp_path / ".cache" / "efficientat" / "onnx").iterdir()] == [".onnx"]
