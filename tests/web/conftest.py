"""A browser and the served page for the tests marked web; nothing here is needed by the others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
RECORDINGS = ROOT / "resources" / "recordings"


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    from benchmarks.web import served

    with served() as address:
        yield address


@pytest.fixture(scope="session")
def microphone_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the browser's microphone hears, again and again: the bundled telephone voice."""
    from datasets.audio import encode_wav, load

    path = tmp_path_factory.mktemp("microphone") / "speech.wav"
    path.write_bytes(encode_wav(load(RECORDINGS / "speech.ogg", 48000), 48000))
    return path


@pytest.fixture(scope="session")
def browser(microphone_file: Path) -> Iterator[Any]:
    from benchmarks.web import chromium

    with chromium("--use-fake-device-for-media-stream", f"--use-file-for-fake-audio-capture={microphone_file}") as started:
        yield started


@pytest.fixture
def page(browser: Any, url: str) -> Iterator[Any]:
    """The page with its model loaded. What it asks of any other address, and errors in its code, fail the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, permissions=["microphone"], service_workers="block")
    context.set_default_timeout(60_000)
    page = context.new_page()
    errors: list[str] = []
    page.on("request", lambda request: request.url.startswith((url, "blob:", "data:")) or errors.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: message.type == "error" and errors.append(message.text))
    page.goto(url)
    page.wait_for_selector("#model-about:not(:empty)")
    yield page
    context.close()
    assert errors == []
