"""The checkout's modules as `efficientat.*`: their absolute imports are rewritten, at build time or when they are imported."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import decode_source
from pathlib import Path
from types import CodeType, ModuleType

PACKAGE = "efficientat"
FOLDERS = ("datasets", "helpers", "models", "web")
SCRIPTS = (
    "archive", "complexity", "ex_audioset", "ex_audioset_strong", "ex_dcase20", "ex_embeddings", "ex_esc50", "ex_folder",
    "ex_fsd50k", "ex_imagenet", "export", "hear_mn", "inference", "peak_memory",
)  # fmt: skip
_MODULE_COMMAND = re.compile(rf"\bpython -m (?=(?:{'|'.join(FOLDERS)})\b)")
_SCRIPT_COMMAND = re.compile(rf"\b(python|torchrun(?: --\w+ \w+)*) (?=({'|'.join(SCRIPTS)})\.py\b)\2\.py")


def rewrite(source: str) -> str:
    """Turn imports of the project's modules into those of `efficientat.*`, and so the commands in messages and docstrings.

    `import helpers.x` still binds `helpers`. No line moves. What is rewritten already stays as it is.
    """
    lines = source.encode().splitlines(keepends=True)  # ast counts columns in bytes
    statements = [node for node in ast.walk(ast.parse(source)) if isinstance(node, (ast.Import, ast.ImportFrom))]
    for node in sorted(statements, key=lambda node: (node.lineno, node.col_offset), reverse=True):
        line = lines[node.lineno - 1]
        if isinstance(node, ast.ImportFrom):
            if not node.level and _is_ours(node.module):
                start = line.index(node.module.encode(), node.col_offset + len("from"))
                lines[node.lineno - 1] = line[:start] + f"{PACKAGE}.".encode() + line[start:]
        elif any(_is_ours(alias.name) for alias in node.names):
            statement = "; ".join(text for alias in node.names for text in _imports(alias))
            lines[node.lineno - 1] = line[: node.col_offset] + statement.encode() + line[node.end_col_offset :]
    text = b"".join(lines).decode()
    text = _MODULE_COMMAND.sub(f"python -m {PACKAGE}.", text)
    return _SCRIPT_COMMAND.sub(rf"\1 -m {PACKAGE}.\2", text)


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] in (*FOLDERS, *SCRIPTS)


def _imports(alias: ast.alias) -> list[str]:
    """Return the statements that import one name of an `import` statement."""
    top, _, rest = alias.name.partition(".")
    if not _is_ours(top):
        return ["import " + alias.name + (f" as {alias.asname}" if alias.asname else "")]
    if alias.asname:
        return [f"import {PACKAGE}.{alias.name} as {alias.asname}"]
    return [f"import {PACKAGE}.{alias.name}"] * bool(rest) + [f"from {PACKAGE} import {top}"]


class _RewritingLoader(SourceFileLoader):
    """Compiles a file of the checkout with rewritten imports; never uses __pycache__, which belongs to the file as it is."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)

    def get_source(self, fullname: str) -> str:
        return rewrite(super().get_source(fullname))

    def source_to_code(self, data: bytes, path: str) -> CodeType:
        return super().source_to_code(rewrite(decode_source(data)), path)


class CheckoutFinder(MetaPathFinder):
    """Finds `efficientat.NAME` where a checkout has NAME, one of `FOLDERS` and `SCRIPTS`, and what lies in these folders."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        package, _, name = fullname.partition(".")
        if package != PACKAGE or not _is_ours(name):
            return None
        spec = PathFinder.find_spec(fullname, path if "." in name else [self.root])
        if spec is None or spec.origin is None:
            return None
        spec.loader = _RewritingLoader(fullname, spec.origin)
        spec.cached = None
        return spec


def install(root: Path) -> None:
    """Let `efficientat.models` and its like be imported from the checkout `root`, with no need of `sys.path`."""
    sys.meta_path.insert(0, CheckoutFinder(root))
