"""README and docs/ are true: commands parse, Python runs, links lead somewhere, tables and the file tree agree with the code."""

import ast
import importlib
import json
import re
import shlex
import sys
from pathlib import Path

import pytest

import inference
from helpers.costs.macs import meta_network, parameter_count
from models.registry import PRETRAINED

ROOT = Path(__file__).resolve().parent.parent
GUIDES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in GUIDES}
PAGES = TEXTS | {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in ROOT.glob("resources/**/*.md")}
PYPROJECT = (ROOT / "pyproject.toml").read_text()
CONSOLE_SCRIPTS = dict(
    re.findall(r'^(efficientat-\S+) = "efficientat\.(?:_commands:)?([\w.]+)(?::command)?"$', PYPROJECT, re.MULTILINE)
)
FOREIGN = "apt-get arecord curl dpkg-deb export mkdir pip sox source .venv/bin/pip".split()


def blocks(text: str, language: str) -> list[str]:
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    return [block for found, block in fences if found == language]


def prose(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    """Every command of a bash block, and every one in a sentence that begins with python."""
    found = []
    for text in TEXTS.values():
        lines = "".join(blocks(text, "bash")).replace("\\\n", " ").splitlines()
        lines += [line for line in re.findall(r"`((?:\.venv/bin/)?python [^`]+)`", prose(text)) if line != "python -m"]
        for line in lines:
            found += re.split(r" (?:\||&&) ", line)
    return list(dict.fromkeys(line for line in found if shlex.split(line, comments=True)))


@pytest.mark.parametrize("command", commands())
def test_every_command_is_accepted_by_its_parser(command: str) -> None:
    words = shlex.split(command, comments=True)
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    elif words[0].startswith("efficientat-"):
        parse(CONSOLE_SCRIPTS[words[0]], words[1:])
    elif words[0] == "torchrun":
        script = next(i for i, word in enumerate(words) if word.endswith(".py"))
        parse(words[script].removesuffix(".py"), words[script + 1 :])
    elif words[0] in ("python", ".venv/bin/python") and words[1:2] == ["-m"]:
        module = words[2].removeprefix("efficientat.")
        if module not in ("pytest", "venv"):
            parse(f"{module}.__main__" if (ROOT / module.replace(".", "/") / "__main__.py").exists() else module, words[3:])
    elif words[0] in ("python", ".venv/bin/python"):
        parse(words[1].removesuffix(".py"), words[2:])
    else:
        assert words[0] in FOREIGN or words[0].startswith(".venv-hear/"), f"unknown command: {command}"
    for word in words:  # files of this project that other programs are given
        if re.fullmatch(r"(requirements[\w-]*\.txt|tests/[\w/]+\.py)", word):
            assert (ROOT / word).is_file(), word


def parse(module: str, arguments: list[str]) -> None:
    parser = importlib.import_module(module).build_parser()
    if "--help" not in arguments and arguments:
        parser.parse_args(arguments)


@pytest.mark.parametrize("page", [page for page, text in TEXTS.items() if blocks(text, "python")])
def test_python_compiles_and_its_imports_exist(page: str) -> None:
    for source in blocks(TEXTS[page], "python"):
        for node in ast.walk(ast.parse(source, page)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    importlib.import_module(alias.name)


def test_recordings_are_tagged_as_the_readme_shows(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    printed, tags = blocks(TEXTS["README.md"], "")[:2]
    command = next(line for line in commands() if line.startswith("efficientat-inference"))
    assert inference.main(shlex.split(command)[1:]) == 0
    assert_same_scores(capsys.readouterr().out, printed)
    exec(blocks(TEXTS["README.md"], "python")[0], {})
    assert_same_scores(capsys.readouterr().out, tags)


def assert_same_scores(output: str, shown: str) -> None:
    """Kernels of another processor may change the last digit."""
    number = r"\d\.\d{3}"
    assert re.sub(number, "", output) == re.sub(number, "", shown)
    assert [*map(float, re.findall(number, output))] == pytest.approx([*map(float, re.findall(number, shown))], abs=0.002)


def test_the_tour_of_the_tagger_runs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line of docs/inference.md's Python that states its value in a comment has that value."""
    monkeypatch.chdir(ROOT)
    (source,) = blocks(TEXTS["docs/inference.md"], "python")
    names: dict[str, object] = {}
    exec(source, names)
    first, second = capsys.readouterr().out.splitlines()
    assert '"tags"' in first and '"error"' in second
    stated = re.findall(r"^(\S.*?)  # ([\[(\"\d].*)$", source, flags=re.MULTILINE)
    assert len(stated) == 6
    for expression, value in stated:
        assert eval(expression, names) == approximate(ast.literal_eval(value)), expression


def test_the_quickstart_notebook_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """In its own folder, with no other way to the project than the one that its first cell makes."""
    cells = json.loads((ROOT / "notebooks" / "quickstart.ipynb").read_text(encoding="utf-8"))["cells"]
    assert len(cells) <= 10
    monkeypatch.chdir(ROOT / "notebooks")
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if Path(folder or ".").resolve() != ROOT])
    names: dict[str, object] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    assert {"Speech", "Music"} <= {tag.label for tag in names["tags"]}
    assert names["picture"].ndim == 3 and names["windows"].shape == (9, 384)


def approximate(value: object) -> object:
    if isinstance(value, tuple):
        return tuple(map(approximate, value))
    return pytest.approx(value, abs=0.002) if isinstance(value, float) else value


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", prose(text), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page: str) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", PAGES[page]):
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path.read_text(encoding="utf-8")), target


def test_every_page_is_linked_from_the_readme() -> None:
    assert {page for page in TEXTS if page.startswith("docs/")} <= set(re.findall(r"\]\(([^)#]+)", TEXTS["README.md"]))


def test_readme_is_short() -> None:
    assert (ROOT / "README.md").stat().st_size <= 10_240


def test_tables_of_checkpoints_agree_with_the_registry() -> None:
    pattern = r"^\| `((?:dy)?mn\S+)` \|(?: (\S+) \|.*)? (\S+)(?: M)? \| (\S+)(?: G)? \| (\S+) \|$"
    models, readme = (re.findall(pattern, TEXTS[page], re.MULTILINE) for page in ("docs/models.md", "README.md"))
    frame_wise = re.findall(
        r"^\| `(f\S+mn\S+|fmn\S+)` \| (\S+) \|(.*)\| (\S+) \| (\S+) \| (\S+) \|$", TEXTS["docs/models.md"], re.MULTILINE
    )
    assert [name for name, *_ in (*models, *frame_wise)] == list(PRETRAINED)
    for name, width, sequence, params, _, reported in frame_wise:
        entry = PRETRAINED[name]
        assert float(width) == entry.arch.width_mult and sequence.strip().startswith(entry.arch.sequence_model.replace("none", ""))
        assert reported == ("-" if entry.reported_psds1 is None else f"{entry.reported_psds1:.2f}")
        assert params == f"{parameter_count(meta_network(entry.arch)) / 1e6:.2f}"
    for name, width, _, _, reported in models:
        entry = PRETRAINED[name]
        assert float(width) == entry.arch.width_mult
        assert reported == ("-" if entry.reported_map is None else f"{entry.reported_map:.3f}")
    costs = {name: figures for name, _, *figures in models}
    assert len(readme) == 13 and all(costs[name] == figures for name, _, *figures in readme)


def test_the_file_tree_is_true() -> None:
    tree = TEXTS["docs/architecture.md"].split("```")[1]
    folders: list[str] = []
    for line in tree.strip("\n").splitlines():
        indent, name = re.match(r"( *)(\S+)", line).groups()
        del folders[len(indent) // 2 :]
        path = ROOT.joinpath(*folders, name)
        assert path.is_dir() if name.endswith("/") else path.is_file(), path
        if name.endswith("/"):
            folders.append(name)
