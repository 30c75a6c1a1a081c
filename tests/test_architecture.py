"""The import rules: leaves stay leaves, nobody imports a script, no cycles, importing does nothing but define."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# What each package may import; of a dotted name that module alone.
MAY_IMPORT = {
    "models": {"models"},
    "datasets": {"datasets", "models.errors", "models.files", "models.command"},
    "helpers": {"models", "datasets", "helpers"},
    "web": {"models", "web"},
    "benchmarks": {"models", "datasets", "helpers", "benchmarks", "web"},
    "studies": {"models", "datasets", "helpers", "benchmarks", "studies"},
}
# Which other packages of helpers each of them may import; modules directly in helpers serve all of them and import none.
HELPERS = {
    "training": set(),
    "export": set(),
    "probing": set(),
    "costs": set(),
    "distillation": {"training"},
    "tagger": {"export"},
    "inference": {"tagger"},
    "archive": {"tagger", "inference", "distillation"},
}
WITHOUT_TORCH = ("helpers.inference", "helpers.tagger", "helpers.export", "helpers.export.runtime", "helpers.costs.tables")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for package in MAY_IMPORT for path in sorted((ROOT / package).rglob("*.py"))}
SCRIPTS = {path.stem: path for path in sorted(ROOT.glob("*.py"))}
MODULES = FILES | SCRIPTS


@cache
def imports(name: str, path: Path) -> list[tuple[str, bool]]:
    """Every name that a file imports, "package.module" or "package.module.attribute", and whether at import time.

    Imports inside functions and under `if TYPE_CHECKING` are not at import time.
    """

    def walk(node: ast.AST, at_import: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, at_import) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = child.module or ""
                if child.level:
                    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
                    parents = package.split(".")[: len(package.split(".")) - child.level + 1]
                    base = ".".join([*parents, base] if base else parents)
                yield from ((f"{base}.{alias.name}" if base else alias.name, at_import) for alias in child.names)
            else:
                later = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) or (
                    isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
                )
                yield from walk(child, at_import and not later)

    return list(walk(ast.parse(path.read_text(encoding="utf-8")), True))


def project_module(imported: str) -> str | None:
    """Return the module of this project that an imported name means: itself, or the one that holds the attribute."""
    while imported:
        if imported in MODULES:
            return imported
        imported = imported.rpartition(".")[0]
    return None


def test_there_is_something_to_check():
    assert {"models", "models.network", "datasets", "helpers", "benchmarks.speed", "studies.common"} <= set(FILES)
    assert {name.split(".")[1] for name in FILES if name.startswith("helpers.") and FILES[name].name == "__init__.py"} == set(
        HELPERS
    )


@pytest.mark.parametrize("name", FILES)
def test_packages_import_only_what_they_may(name):
    package = name.split(".")[0]
    for imported, _ in imports(name, FILES[name]):
        top = imported.split(".")[0]
        assert top != "tests" or (name == "benchmarks.soak" and imported.startswith("tests.fuzz")), f"{name} imports {imported}"
        if top in MAY_IMPORT:
            assert {top, project_module(imported)} & MAY_IMPORT[package], f"{name} imports {imported}"
            assert project_module(imported) in FILES, f"{name} imports {imported}, which is not there"


def test_packages_of_helpers_depend_in_one_direction():
    for name in FILES:
        top, _, rest = name.partition(".")
        own = rest.split(".")[0]
        for imported, _ in imports(name, FILES[name]) if top == "helpers" else ():
            first, _, rest = imported.partition(".")
            other = rest.split(".")[0]
            if first == "helpers" and other in HELPERS and other != own:
                assert other in HELPERS.get(own, ()), f"{name} imports {imported}"


def test_nobody_imports_a_script():
    for name, path in MODULES.items():
        for imported, _ in imports(name, path):
            assert imported.split(".")[0] not in SCRIPTS, f"{name} imports the script {imported}"


def test_no_cycles():
    edges = {name: set() for name in MODULES}
    for name, path in MODULES.items():
        for imported, at_import in imports(name, path):
            target = project_module(imported)
            if at_import and target is not None and target != name:
                edges[name].add(target)
    done: set[str] = set()

    def visit(name: str, trail: list[str]) -> None:
        assert name not in trail, " -> ".join([*trail[trail.index(name) :], name])
        if name not in done:
            for target in sorted(edges[name]):
                visit(target, [*trail, name])
            done.add(name)

    for name in edges:
        visit(name, [])


def test_every_package_has_an_init():
    for path in FILES.values():
        assert (path.parent / "__init__.py").is_file(), f"{path.parent} needs an __init__.py"


CHECK = """
import importlib, importlib.util, os, pathlib, sys, threading
root, without_torch, modules = sys.argv[1], sys.argv[2].split(","), sys.argv[3].split(",")
sys.argv[1:] = ["--no-such-option", "no-such-argument"]
before, threads = os.getcwd(), threading.active_count()
for name in ("inference", "helpers.export.runtime"):  # what tags one recording; these would take a fifth of its time
    importlib.import_module(name)
assert not {"tqdm", "ssl", "hashlib", "av"} & set(sys.modules), "a recording is tagged with needless imports"
for name in without_torch:
    importlib.import_module(name)
    assert "torch" not in sys.modules, f"{name} imports torch"
for name in modules:
    module = importlib.import_module(name)
    assert pathlib.Path(module.__file__).is_relative_to(root), (name, module.__file__)
assert os.getcwd() == before and threading.active_count() == threads
assert not os.listdir("."), os.listdir(".")
"""


def test_importing_prints_nothing_reads_no_arguments_and_works_from_anywhere(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", CHECK, str(ROOT), ",".join(WITHOUT_TORCH), ",".join(MODULES)]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    assert (result.stdout, result.stderr) == ("", "")
