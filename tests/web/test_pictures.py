"""The pictures of docs/web.md: WEB_PICTURES=resources/figures make web-test draws them again."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.web


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(os.environ.get("WEB_PICTURES", tmp_path))


def show_scene(page: Any, seconds: float) -> None:
    page.click("[data-example='scene.ogg']")
    page.wait_for_selector("#classes-section:not([hidden])")
    page.evaluate("(seconds) => { const position = document.querySelector('#position'); position.value = seconds; "
                  "position.dispatchEvent(new Event('input')); position.blur(); }", seconds)  # fmt: skip
    page.evaluate("document.activeElement.blur()")
    page.wait_for_timeout(1000)  # the bars have moved


def save(page: Any, path: Path) -> None:
    """Write the window as a PNG of 256 colours."""
    from PIL import Image

    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    assert 10_000 < path.stat().st_size < 200_000


@pytest.mark.parametrize(("name", "scheme", "width", "height"), [
    ("web_light", "light", 1180, 890), ("web_dark", "dark", 1180, 890), ("web_phone", "light", 390, 1000),
])  # fmt: skip
def test_a_recording(name: str, scheme: str, width: int, height: int, page: Any, folder: Path) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": height})
    show_scene(page, 3.4)
    save(page, folder / f"{name}.png")


def test_live_sound(page: Any, folder: Path) -> None:
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size({"width": 1180, "height": 760})
    page.click("#microphone")
    page.wait_for_function("() => document.querySelector('#clock').textContent >= '0:08'")
    page.evaluate("document.activeElement.blur()")
    save(page, folder / "web_live.png")
    page.click("#play")
