"""What a process that tags one recording imports next to PyTorch: nothing that takes a second and is not used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import sys
import inference
from helpers.costs.macs import meta_network
from models.config import Arch

inference.main(["--model_name", "mn04_distilled", "--audio_path", "resources/recordings/speech.ogg", "--top_k", "1"])
meta_network(Arch())
heavy = ("torch._inductor", "torch._dynamo", "sympy", "scipy", "sklearn", "pandas", "matplotlib", "h5py", "onnxruntime")
print("imported:", *(name for name in heavy if name in sys.modules))
"""


def test_tagging_and_building_without_weights_import_no_compiler_and_nothing_else_that_is_large() -> None:
    result = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "imported:"
