"""An hour of sound in the page: its memory stays flat. Prints a table; run with: make web-test-slow."""

from __future__ import annotations

import io
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from datasets.audio import load
from models.assets import BUNDLED_DIR

pytestmark = [pytest.mark.web, pytest.mark.slow]
RATE, MINUTES = 48000, 60


def resident(processes: set[int]) -> float:
    """MB that processes hold."""
    listed = subprocess.run(["ps", "-o", "rss=", "-p", ",".join(map(str, processes))], capture_output=True, text=True).stdout
    return sum(map(int, listed.split())) / 1000


def renderers() -> set[int]:
    """The processes of Chromium that run pages."""
    listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True).stdout.splitlines()
    return {int(line.split()[0]) for line in listed if "--type=renderer" in line}


def mp3_frames(samples: np.ndarray) -> bytes:
    """(samples, 2) as frames alone, without one in front that says how many they are."""
    content = io.BytesIO()
    with av.open(content, "w", format="mp3", options={"write_xing": "0", "id3v2_version": "0"}) as container:
        stream = container.add_stream("mp3", rate=RATE, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout="stereo")
        frame.sample_rate = RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return content.getvalue()


@pytest.mark.parametrize("kind", ["wav", "mp3"])
def test_an_hour_is_tagged_in_constant_memory(kind: str, browser: Any, url: str, tmp_path: Path) -> None:
    minute = np.stack([np.tile(load(BUNDLED_DIR / "recordings" / "scene.ogg", RATE), 6)] * 2, 1)
    path = tmp_path / f"hour.{kind}"
    if kind == "wav":
        with soundfile.SoundFile(path, "w", RATE, 2) as file:
            for _ in range(MINUTES):
                file.write(minute)
    else:
        path.write_bytes(mp3_frames(minute) * MINUTES)
    before = renderers()
    page = browser.new_page(service_workers="block")
    page.set_default_timeout(300_000)
    page.goto(url)
    page.wait_for_selector("#model-about:not(:empty)")
    own = renderers() - before
    page.set_input_files("#files", path)
    rows: list[tuple[float, float, float]] = []  # share computed, MB of the process, MB of the page's JavaScript
    started = time.monotonic()
    while page.is_hidden("#classes-section"):
        computed = re.search(r"(\d+):(\d+)\.\d computed", page.inner_text("#clock"))
        share = (60 * int(computed[1]) + int(computed[2])) / (60 * MINUTES) if computed else 0.0
        heap = page.evaluate("performance.memory.usedJSHeapSize") / 1e6
        rows.append((share, resident(own), heap))
        time.sleep(5)
    seconds = time.monotonic() - started
    print(f"\n{kind}, {MINUTES} minutes, stereo, {RATE} Hz: {seconds:.0f} s, {MINUTES * 60 / seconds:.1f} times real time")
    for share in (0.1, 0.25, 0.5, 0.75, 0.95):
        row = min(rows, key=lambda row: abs(row[0] - share))
        print(f"  {100 * row[0]:3.0f} % computed: {row[1]:4.0f} MB, of these JavaScript of the page {row[2]:3.0f} MB")
    first = max(memory for share, memory, _ in rows if 0.05 < share < 0.35)
    last = max(memory for share, memory, _ in rows if share > 0.65)
    assert last < first + 60
    page.close()
