"""The page in a real browser: what a person does, and what goes wrong."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import threading
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from datasets.audio import encode_mp3, load
from helpers.export.protobuf import field
from helpers.tagger.audio_tagger import AudioTagger
from models.assets import BUNDLED_DIR
from web.server import SiteServer
from web.site import site_files

pytestmark = pytest.mark.web
TOLERANCE = 1e-3
RECORDINGS = BUNDLED_DIR / "recordings"
MODEL = BUNDLED_DIR / "mn04_distilled.onnx"


@pytest.fixture(scope="module")
def tagger() -> AudioTagger:
    return AudioTagger("mn04_distilled", backend="onnx")


def give(page: Any, *paths: Path) -> None:
    page.set_input_files("#files", [str(path) for path in paths])


def wait_until_done(page: Any, name: str) -> None:
    """Wait for a recording, and select it."""
    item = page.locator("#queue li", has_text=name)
    item.locator(".state", has_text=re.compile(r"^\d+:\d\d$")).wait_for()
    item.locator(".open").click()
    page.wait_for_selector("#classes-section:not([hidden])")


def downloaded(page: Any, suffix: str) -> str:
    with page.expect_download() as download:
        page.click(f"[data-download={suffix}]")
    assert download.value.suggested_filename.endswith(f".{suffix}")
    return Path(download.value.path()).read_text(encoding="utf-8")


def message(page: Any, selector: str) -> str:
    """The one line that the page shows."""
    element = page.locator(selector)
    element.wait_for()
    text = element.inner_text()
    assert text and "\n" not in text
    return text


def test_scores_are_those_of_python(page: Any, tagger: AudioTagger, tmp_path: Path) -> None:
    """Of the bundled recordings, several at once, and of some that are resampled, mixed and longer than a window."""
    paths = sorted(RECORDINGS.glob("*.ogg"))
    scene = load(RECORDINGS / "scene.ogg", 44100)
    soundfile.write(tmp_path / "stereo.wav", np.stack([np.tile(scene, 3), 0.3 * np.tile(scene, 3)], 1), 44100)
    (tmp_path / "voice.mp3").write_bytes(encode_mp3(load(RECORDINGS / "speech.ogg", 48000), 48000))
    soundfile.write(tmp_path / "low.flac", load(RECORDINGS / "wind.ogg", 8000), 8000)
    soundfile.write(tmp_path / "short.wav", load(RECORDINGS / "rock.ogg", 32000)[:20000], 32000)
    paths += [tmp_path / name for name in ("stereo.wav", "voice.mp3", "low.flac", "short.wav")]
    give(page, *paths)
    for path in paths:
        wait_until_done(page, path.name)
        result = json.loads(downloaded(page, "json"))
        expected = {tag.label: tag.score for tag in tagger.tag(path, top_k=None)}
        found = {tag["label"]: tag["score"] for tag in result["tags"]}
        assert max(abs(found[label] - score) for label, score in expected.items()) < TOLERANCE, path
        assert list(found)[:5] == list(expected)[:5], path
        windows = tagger.tag_windows(path, window=4, hop=1)
        assert [window["start"] for window in result["windows"]] == pytest.approx(windows.starts, abs=1e-4)
        assert [window["end"] for window in result["windows"]] == pytest.approx(windows.ends, abs=1e-4)
        for window, tagging in zip(result["windows"], windows, strict=True):
            scores = {tag["label"]: tag["score"] for tag in window["tags"]}
            assert all(abs(scores.get(tag.label, tag.score) - tag.score) < TOLERANCE for tag in tagging), path


def test_a_dropped_file_is_tagged_and_its_name_is_text(page: Any) -> None:
    name = "<img src=x onerror=alert(1)>.ogg"
    content = base64.b64encode((RECORDINGS / "speech.ogg").read_bytes()).decode()
    transfer = page.evaluate_handle(
        """([name, content]) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([Uint8Array.from(atob(content), (c) => c.charCodeAt(0))], name));
          return transfer;
        }""",
        [name, content],
    )
    page.dispatch_event("#drop", "dragover", {"dataTransfer": transfer})
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})
    wait_until_done(page, name)
    assert page.inner_text("#result-title") == name and page.locator("main img").count() == 0
    assert page.locator("#classes tr").first.inner_text().startswith("Speech")


def test_listening_searching_and_downloads(page: Any) -> None:
    page.click("[data-example='scene.ogg']")
    wait_until_done(page, "scene.ogg")
    assert page.locator("#classes tr").count() == 527
    page.focus("#position")
    page.keyboard.press("End")
    assert page.inner_text("#now-title") == "At 0:10.0" and page.inner_text("#now-text").startswith("Music")
    page.keyboard.press("Home")
    page.wait_for_function("() => document.querySelector('#now-text').textContent.startsWith('Speech')")
    page.fill("#search", "SPEECH, WOMAN")
    shown = page.locator("#classes tr:visible")
    assert shown.count() == 1 and page.inner_text("#count") == "1 of 527"
    shown.get_by_role("button").click()
    page.wait_for_function("() => document.querySelector('#play').getAttribute('aria-label') === 'Pause'")
    page.wait_for_function("() => Number(document.querySelector('#position').value) > 0.2")
    page.click("#play")
    page.wait_for_function("() => document.querySelector('#play').getAttribute('aria-label') === 'Play'")
    rows = list(csv.DictReader(io.StringIO(downloaded(page, "csv"))))
    assert list(rows[0]) == ["source", "start", "end", "label", "score"] and len(rows) == 70
    events = [line.split("\t") for line in downloaded(page, "txt").splitlines()]
    starts = [float(start) for start, _, _ in events]
    assert starts == sorted(starts) and all(float(start) < float(end) for start, end, _ in events)
    assert {"Speech", "Music"} <= {label for *_, label in events}
    page.select_option("#resolution", "2 0.5")
    page.wait_for_selector("#classes-section", state="hidden")
    wait_until_done(page, "scene.ogg")
    assert len(json.loads(downloaded(page, "json"))["windows"]) == 17


def test_the_microphone_is_heard_at_once_and_kept(page: Any) -> None:
    page.click("#microphone")
    page.wait_for_function("() => document.querySelector('#now-text').textContent.startsWith('Speech')")
    latency = float(re.search(r"latency ([\d.]+) s", page.inner_text("#clock"))[1])
    assert 0 < latency < 5
    assert page.get_attribute("#play", "aria-label") == "Stop"
    page.wait_for_timeout(2500)
    page.click("#play")
    wait_until_done(page, "microphone")
    assert json.loads(downloaded(page, "json"))["end"] > 4
    assert page.locator("#classes tr").first.inner_text().startswith("Speech")


def test_live_sound_of_a_frame_wise_model_has_its_steps(page: Any, tmp_path: Path) -> None:
    write_frame_wise_model(tmp_path / "frames.onnx")
    page.set_input_files("#model-file", tmp_path / "frames.onnx")
    page.wait_for_function("() => document.querySelector('#model-about').textContent.includes('40 ms')")
    page.click("#microphone")
    page.wait_for_function("() => document.querySelector('#now-text').textContent.startsWith('Loud')")
    assert "40 ms" in page.inner_text("#notes")
    latency = float(re.search(r"latency ([\d.]+) s", page.inner_text("#clock"))[1])
    assert 2 < latency < 7  # a margin of 1 s, and 1 s that is shared with the next window
    page.wait_for_function("() => document.querySelector('#timeline canvas')?.getAttribute('aria-label').includes('events: ')")
    page.click("#play")
    wait_until_done(page, "microphone")


def test_a_denied_microphone_is_one_line(browser: Any, url: str) -> None:
    context = browser.new_context(service_workers="block")
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector("#model-about:not(:empty)")
    page.click("#microphone")
    assert "not allowed" in message(page, "#alert")
    assert page.is_enabled("#microphone")
    context.close()


def write_model(path: Path, **changes: Any) -> Path:
    """Write the bundled model with other metadata: of several entries, the last one counts."""
    metadata = AudioTagger("mn04_distilled", backend="onnx").backend.metadata | changes
    path.write_bytes(MODEL.read_bytes() + field(14, field(1, b"efficientat") + field(2, json.dumps(metadata).encode())))
    return path


def test_another_model_tags_with_its_own_labels(page: Any, tagger: AudioTagger, tmp_path: Path) -> None:
    page.click("[data-example='speech.ogg']")
    wait_until_done(page, "speech.ogg")
    labels = [f"<b>{label}</b>" for label in tagger.labels]
    page.set_input_files("#model-file", write_model(tmp_path / "mine.onnx", labels=labels, model_name="mine"))
    page.wait_for_function("() => document.querySelector('#model-name').textContent === 'mine'")
    wait_until_done(page, "speech.ogg")
    assert page.locator("#classes td").first.inner_text() == "<b>Speech</b>"


@pytest.mark.parametrize("kind", ["text", "empty", "other classes", "damaged graph"])
def test_what_is_no_model_is_one_line_and_the_one_before_stays(kind: str, page: Any, tmp_path: Path) -> None:
    path = tmp_path / "wrong.onnx"
    if kind == "other classes":
        write_model(path, labels=["a"])
    elif kind == "damaged graph":
        content = bytearray(write_model(path).read_bytes())
        place = content.index(b"HardSwish")
        content[place : place + 9] = b"SoftSwish"
        path.write_bytes(content)
    else:
        path.write_bytes(b"no model at all" if kind == "text" else b"")
    page.set_input_files("#model-file", path)
    assert message(page, "#alert").startswith("wrong.onnx: ")
    page.click("[data-example='wind.ogg']")
    wait_until_done(page, "wind.ogg")


def node(op: str, inputs: str, outputs: str, **integers: int | list[int]) -> bytes:
    """A node of an ONNX graph."""
    ports = [field(1, name.encode()) for name in inputs.split()] + [field(2, name.encode()) for name in outputs.split()]
    attributes = b""
    for name, value in integers.items():
        values = field(3, value) + field(20, 2) if isinstance(value, int) else b"".join(field(8, v) for v in value) + field(20, 7)
        attributes += field(5, field(1, name.encode()) + values)
    return field(1, b"".join(ports) + field(4, op.encode()) + attributes)


def port(number: int, name: str, rank: int) -> bytes:
    shape = b"".join(field(1, field(2, f"{name}{axis}".encode())) for axis in range(rank))
    return field(number, field(1, name.encode()) + field(2, field(1, field(1, 1) + field(2, shape))))


def write_frame_wise_model(path: Path) -> None:
    """A model with two classes and steps of 40 ms: the peak of each, and 0."""
    axes = field(5, field(1, 1) + field(2, 7) + field(8, b"one") + field(7, 1))
    graph = node("Abs", "waveform", "size") + node("Unsqueeze", "size one", "channel")
    graph += node("MaxPool", "channel", "peaks", kernel_shape=[1280], strides=[1280], ceil_mode=1)
    graph += node("Sub", "peaks peaks", "zeros") + node("Concat", "peaks zeros", "both", axis=1)
    graph += node("Transpose", "both", "frame_scores", perm=[0, 2, 1])
    graph += node("GlobalMaxPool", "both", "highest") + node("Flatten", "highest", "scores")
    graph += axes + port(11, "waveform", 2) + port(12, "scores", 2) + port(12, "frame_scores", 3)
    metadata = {"format_version": 2, "model_name": "frames", "input": "waveform", "sample_rate": 32000, "num_classes": 2}
    metadata |= {"single_label": False, "clip_seconds": None, "step_seconds": 0.04, "labels": ["Loud", "Never"]}
    properties = field(14, field(1, b"efficientat") + field(2, json.dumps(metadata).encode()))
    path.write_bytes(field(1, 10) + field(7, graph) + field(8, field(2, 18)) + properties)


def test_events_of_a_frame_wise_model_have_its_steps(page: Any, tmp_path: Path) -> None:
    write_frame_wise_model(tmp_path / "frames.onnx")
    sound = np.zeros(25 * 32000, np.float32)
    sound[9 * 32000 : 11 * 32000] = 0.8
    sound[20 * 32000 :] = 0.5
    soundfile.write(tmp_path / "pulses.wav", sound, 32000)
    page.set_input_files("#model-file", tmp_path / "frames.onnx")
    page.wait_for_function("() => document.querySelector('#model-about').textContent.includes('40 ms')")
    give(page, tmp_path / "pulses.wav")
    wait_until_done(page, "pulses.wav")
    result = json.loads(downloaded(page, "json"))
    found = [(event["label"], event["start"], event["end"], round(event["score"], 2)) for event in result["events"]]
    assert found == [("Loud", 9, 11, 0.8), ("Loud", 20, 25, 0.5)]
    assert len(result["windows"]) == 125 and page.is_hidden("#resolution")


def write_video(path: Path, with_sound: bool) -> None:
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=10)
        video.width = video.height = 32
        audio = container.add_stream("aac", rate=32000, layout="mono") if with_sound else None
        for _ in range(20):
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))))
        container.mux(video.encode())
        if audio:
            samples = load(RECORDINGS / "speech.ogg", 32000)[None, : 62 * 1024]
            for start in range(0, samples.shape[1], 1024):
                frame = av.AudioFrame.from_ndarray(samples[:, start : start + 1024].copy(), format="fltp", layout="mono")
                frame.sample_rate = 32000
                container.mux(audio.encode(frame))
            container.mux(audio.encode())


@pytest.mark.parametrize("kind", ["text", "empty", "huge", "video without sound", "header only", "cut"])
def test_what_cannot_be_used_is_one_line_and_the_rest_goes_on(kind: str, page: Any, tmp_path: Path) -> None:
    path = tmp_path / f"{kind}.wav"
    if kind == "huge":
        with open(path, "wb") as file:
            file.truncate(5 * 10**9)
    elif kind == "video without sound":
        path = tmp_path / f"{kind}.mp4"
        write_video(path, with_sound=False)
    elif kind == "header only":
        soundfile.write(path, np.zeros(0, np.float32), 32000)
    elif kind == "cut":
        path = tmp_path / f"{kind}.ogg"
        path.write_bytes((RECORDINGS / "wind.ogg").read_bytes()[:3000])
    else:
        path.write_bytes(b"a text, not a sound; " * 50 if kind == "text" else b"")
    give(page, path, RECORDINGS / "wind.ogg")
    assert message(page, "#queue li.failed .state").endswith(".")
    wait_until_done(page, "wind.ogg")


def test_the_sound_of_a_video_is_tagged(page: Any, tmp_path: Path) -> None:
    write_video(tmp_path / "film.mp4", with_sound=True)
    give(page, tmp_path / "film.mp4")
    wait_until_done(page, "film.mp4")
    assert page.locator("#classes tr").first.inner_text().startswith("Speech")


def test_a_recording_can_be_given_up(page: Any, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", np.tile(load(RECORDINGS / "wind.ogg", 8000), 225), 8000)
    give(page, tmp_path / "long.wav", RECORDINGS / "speech.ogg")
    page.wait_for_function("() => document.querySelector('#queue progress').value > 0")
    page.get_by_label("Remove long.wav").click()
    wait_until_done(page, "speech.ogg")
    assert page.locator("#queue li").count() == 1


def test_without_a_graphics_card_there_is_nothing_to_choose(page: Any) -> None:
    page.click("[data-example='wind.ogg']")
    wait_until_done(page, "wind.ogg")
    assert page.is_hidden("#device")


def test_without_webassembly_one_line_says_so(browser: Any, url: str) -> None:
    page = browser.new_page(service_workers="block")
    page.add_init_script("delete globalThis.WebAssembly")
    page.goto(url)
    assert "WebAssembly" in message(page, "#alert")
    page.click("[data-example='wind.ogg']")
    page.locator("#queue li").wait_for()
    assert page.is_visible("#alert")
    page.close()


def test_it_works_offline_after_the_first_visit(browser: Any) -> None:
    context = browser.new_context()
    context.set_default_timeout(60_000)
    page = context.new_page()
    with SiteServer(site_files(), 0) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        page.goto(server.url)
        page.evaluate("() => navigator.serviceWorker.ready.then(({ active }) => active.state)")
        server.shutdown()
    page.goto("about:blank")
    page.goto(server.url)
    page.click("[data-example='scene.ogg']")
    wait_until_done(page, "scene.ogg")
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_fault(scheme: str, page: Any) -> None:
    from axe_playwright_python.sync_playwright import Axe

    def faults() -> list[str]:
        page.wait_for_timeout(600)  # bars have faded
        results = Axe().run(page).response
        return [f"{fault['id']}: {node['html']}" for fault in results["violations"] for node in fault["nodes"]]

    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.evaluate("() => 0")
    assert faults() == []
    give(page, RECORDINGS / "scene.ogg", Path(__file__))
    wait_until_done(page, "scene.ogg")
    page.locator("#queue li.failed").wait_for()
    assert faults() == []
    page.set_viewport_size({"width": 390, "height": 844})
    assert faults() == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.click("#microphone")
    page.wait_for_function("() => document.querySelector('#clock').textContent.includes('latency')")
    assert faults() == []
    page.click("#play")
