"""What pyproject.toml cannot express: the modules of the checkout go into the package `efficientat` with rewritten imports."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command import build_py

IMPORTS = runpy.run_path(str(Path(__file__).resolve().parent / "efficientat" / "_imports.py"))
PACKAGE, FOLDERS, SCRIPTS = IMPORTS["PACKAGE"], IMPORTS["FOLDERS"], IMPORTS["SCRIPTS"]


class BuildPy(build_py.build_py):
    """Puts the scripts into the package and rewrites every module on its way."""

    def run(self) -> None:
        if not self.editable_mode:
            shutil.rmtree(Path(self.build_lib) / PACKAGE, ignore_errors=True)  # modules of an earlier build
        super().run()

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        scripts = [(PACKAGE, name, f"{name}.py") for name in SCRIPTS] if package == PACKAGE else []
        return super().find_package_modules(package, package_dir) + scripts

    def build_module(self, module: str, module_file: str, package: str) -> tuple[str, bool]:
        path, copied = super().build_module(module, module_file, package)
        text = Path(path).read_text(encoding="utf-8")
        Path(path).write_text(IMPORTS["rewrite"](text), encoding="utf-8")
        return path, copied


if __name__ == "__main__":
    folders = find_packages(include=[pattern for folder in FOLDERS for pattern in (folder, f"{folder}.*")])
    setup(
        cmdclass={"build_py": BuildPy},
        packages=[PACKAGE, f"{PACKAGE}.resources", *(f"{PACKAGE}.{folder}" for folder in folders)],
        package_dir={f"{PACKAGE}.{folder}": folder.replace(".", "/") for folder in [*folders, "resources"]},
        package_data={
            f"{PACKAGE}.web": ["static/*", "static/*/*"],
            f"{PACKAGE}.resources": [
                "*.md",
                "*.tsv",
                "mn04_distilled.*",
                "fmn04_soundscapes.*",
                "opensounds/*",
                "recordings/*.ogg",
            ],
        },
    )
