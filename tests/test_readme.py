"""The README holds what it says: commands parse, files exist, figures are those of the code."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

from models.registry import PRETRAINED

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    lines = [re.sub(r"^torchrun (--\S+ )*", "python ", line) for line in lines]
    return [line for line in lines if re.match(r"(\.venv/bin/)?python (?!-m (pytest|venv|pip))", line)]


@pytest.mark.parametrize("command", commands())
def test_every_command_is_taken_by_its_parser(command: str) -> None:
    words = shlex.split(command, comments=True)[1:]
    module = words[1] if words[0] == "-m" else words[0].removesuffix(".py")
    arguments = words[2:] if words[0] == "-m" else words[1:]
    if words[0] == "-m" and (ROOT / module.replace(".", "/") / "__main__.py").exists():
        module += ".__main__"
    importlib.import_module(module).build_parser().parse_args(arguments)


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\S+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_table_of_checkpoints_agrees_with_the_registry() -> None:
    rows = re.findall(r"^\| `(mn\S+)` \| (\S+) \|.*\| (\S+) \|$", README, flags=re.MULTILINE)
    assert [name for name, _, _ in rows] == list(PRETRAINED)
    for name, width, reported in rows:
        entry = PRETRAINED[name]
        assert float(width) == entry.arch.width_mult
        assert reported == ("-" if entry.reported_map is None else f"{entry.reported_map:.3f}")


def test_the_file_tree_is_true() -> None:
    tree = README.split("## Files")[1].split("```")[1]
    folder = ""
    for line in tree.strip().splitlines():
        head = re.match(r"\S+", line)
        if head and head[0].endswith("/"):
            folder = head[0]
            assert (ROOT / folder).is_dir(), folder
            continue
        for name in re.findall(r"[\w/]+(?:\.py|/)(?=\s|$)", line):
            base = ROOT if head else ROOT / folder
            assert (base / name).exists(), f"{folder}{name}"


def test_links_to_files_exist() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
