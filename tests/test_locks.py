"""locks/ has every requirement at one release, with hashes; releases of other ones are known by them."""

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(ROOT.glob("requirements*.txt"))


def required(path: Path) -> dict[str, Requirement]:
    """Requirements by name, those of included files too."""
    found = {}
    for line in path.read_text().splitlines():
        line = line.partition("#")[0].strip()
        if line.startswith("-r "):
            found |= required(path.parent / line.removeprefix("-r ").strip())
        elif line and not line.startswith("-"):
            requirement = Requirement(line)
            found[canonicalize_name(requirement.name)] = requirement
    return found


def locked(path: Path) -> list[tuple[Requirement, list[str]]]:
    """Releases and their hashes."""
    entries = re.findall(r"^(\S+==[^\\\n]*)\\\n((?:    --hash=\S+(?: \\)?\n)+)", path.read_text(), re.MULTILINE)
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith((" ", "#"))]
    assert len(entries) == len(lines), "a release without hashes, an option or an address"
    return [(Requirement(name.strip()), re.findall(r"--hash=(\S+)", hashes)) for name, hashes in entries]


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_every_requirement_is_locked(file: Path) -> None:
    releases: dict[str, list[str]] = {}
    for requirement, hashes in locked(ROOT / "locks" / file.name):
        [specifier] = requirement.specifier
        assert specifier.operator == "==" and all(re.fullmatch("sha256:[0-9a-f]{64}", digest) for digest in hashes)
        releases.setdefault(canonicalize_name(requirement.name), []).append(specifier.version)
    for name, requirement in required(file).items():
        assert releases.get(name) and all(requirement.specifier.contains(version) for version in releases[name]), name


def test_the_light_install_is_light() -> None:
    names = {requirement.name for requirement, _ in locked(ROOT / "locks" / "requirements-inference.txt")}
    assert not names & {"torch", "h5py", "matplotlib", "wandb"}
