"""The page on a graphics card, for which SwiftShader stands in, a program in Chromium. As that is slow, the sounds are few."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from helpers.tagger.audio_tagger import AudioTagger
from helpers.tagger.recording_events import EventFinder
from models.assets import BUNDLED_DIR
from tests.web.conftest import RECORDINGS
from tests.web.test_page import TOLERANCE, downloaded, give, message, wait_until_done, write_frame_wise_model
from web.runtime import GRAPHICS
from web.server import SiteServer
from web.site import site_files

pytestmark = pytest.mark.web
CARD = "graphics card"
PATIENCE = 300_000  # ms


@pytest.fixture(scope="module")
def browser(browser: Any) -> Iterator[Any]:
    from benchmarks.web import SOFTWARE_CARD, chromium

    with chromium(*SOFTWARE_CARD, launcher=browser.browser_type) as started:
        page = started.new_page()
        page.goto("chrome://version")  # an address that is secure, where there is WebGPU
        if not page.evaluate("async () => Boolean(await navigator.gpu?.requestAdapter())"):
            pytest.skip("this Chromium gives no adapter of WebGPU")
        page.close()
        yield started


@contextmanager
def serving(files: dict[str, Path]) -> Iterator[str]:
    with SiteServer(files, 0) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.url
        server.shutdown()


def compute_on_the_card(page: Any) -> None:
    page.set_default_timeout(PATIENCE)
    page.select_option("#device", CARD)
    page.wait_for_selector("#device:enabled")
    assert page.input_value("#device") == CARD and page.is_hidden("#alert")


def result_of(page: Any, path: Path) -> dict[str, Any]:
    give(page, path)
    wait_until_done(page, path.name)
    return json.loads(downloaded(page, "json"))


def compare(result: dict[str, Any], tagger: AudioTagger, path: Path) -> None:
    """Compare the scores of the whole and the events with Python's."""
    expected = tagger.scores(path)
    found = {tag["label"]: tag["score"] for tag in result["tags"]}
    assert max(abs(found[label] - score) for label, score in zip(tagger.labels, expected, strict=True)) < TOLERANCE
    [recording] = tagger.open_files([path])
    events = EventFinder(tagger)(recording).events
    assert [event["label"] for event in result["events"]] == [event.label for event in events] and events
    for event, other in zip(result["events"], events, strict=True):
        assert (event["start"], event["end"]) == pytest.approx((other.start, other.end), abs=1e-4)
        assert abs(event["score"] - other.score) < TOLERANCE and abs(event["mean"] - other.mean) < TOLERANCE


@pytest.mark.slow
def test_scores_and_events_of_clips_are_those_of_python(page: Any) -> None:
    compute_on_the_card(page)
    result = result_of(page, RECORDINGS / "speech.ogg")
    assert page.input_value("#device") == CARD and page.is_hidden("#alert")
    compare(result, AudioTagger("mn04_distilled", backend="onnx"), RECORDINGS / "speech.ogg")


@pytest.mark.slow
def test_frames_and_their_events_are_those_of_python(page: Any) -> None:
    page.set_input_files("#model-file", BUNDLED_DIR / "fmn04_soundscapes.onnx")
    page.wait_for_function("() => document.querySelector('#model-about').textContent.includes('40 ms')")
    compute_on_the_card(page)
    result = result_of(page, RECORDINGS / "scene.ogg")
    assert page.input_value("#device") == CARD and page.is_hidden("#alert")
    compare(result, AudioTagger("fmn04_soundscapes", backend="onnx"), RECORDINGS / "scene.ogg")


def choose_small_model(page: Any, folder: Path) -> None:
    """A model that is fast here as well."""
    write_frame_wise_model(folder / "frames.onnx")
    page.set_input_files("#model-file", folder / "frames.onnx")
    page.wait_for_function("() => document.querySelector('#model-name').textContent === 'frames'")


def test_a_card_that_is_lost_is_one_line_and_the_processor_computes(page: Any, tmp_path: Path) -> None:
    from axe_playwright_python.sync_playwright import Axe

    choose_small_model(page, tmp_path)
    expected = result_of(page, RECORDINGS / "speech.ogg")
    page.click("#queue .remove")
    compute_on_the_card(page)
    [worker] = page.workers
    worker.evaluate("async () => (await (await import('./runtime/ort.webgpu.bundle.min.mjs')).env.webgpu.device).destroy()")
    result = result_of(page, RECORDINGS / "speech.ogg")
    assert message(page, "#alert").startswith("The graphics card cannot be used")
    assert page.input_value("#device") == "processor"
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert Axe().run(page).response["violations"] == []
    assert result == expected and result["windows"][10]["tags"][0]["score"] > 0


def test_a_host_without_the_part_for_cards_is_one_line(browser: Any) -> None:
    files = {name: path for name, path in site_files().items() if path.name != Path(GRAPHICS[1]).name}
    with serving(files) as url:
        page = browser.new_page(service_workers="block")
        page.goto(url)
        page.select_option("#device", CARD)
        assert message(page, "#alert").startswith("The graphics card cannot be used")
        give(page, RECORDINGS / "wind.ogg")
        wait_until_done(page, "wind.ogg")
        assert page.input_value("#device") == "processor"
        page.close()


def test_it_is_fetched_when_asked_for_and_then_kept_for_offline_use(browser: Any, tmp_path: Path) -> None:
    asked: list[str] = []
    context = browser.new_context()
    context.on("request", lambda request: asked.append(request.url))
    page = context.new_page()
    parts = re.compile("|".join(re.escape(Path(name).name) for name in GRAPHICS))
    with serving(site_files()) as url:
        page.goto(url)
        page.evaluate("() => navigator.serviceWorker.ready.then(({ active }) => active.state)")
        page.wait_for_selector("#device:visible")
        choose_small_model(page, tmp_path)
        assert not any(map(parts.search, asked))
        compute_on_the_card(page)
    page.goto("about:blank")
    page.goto(url)
    choose_small_model(page, tmp_path)
    page.wait_for_selector("#device:visible")
    compute_on_the_card(page)
    context.close()
