"""The page of web/ in headless Chromium: bytes, time to the first tag, times as fast as the sound. `make web-test` makes .venv-web.

.venv-web/bin/python -m benchmarks.web
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import os
import shutil
import statistics
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from models.assets import BUNDLED_DIR
from models.command import HelpFormatter, run
from models.errors import UserError
from web.runtime import GRAPHICS
from web.server import SiteServer
from web.site import site_files

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserType, Page

RATE = 32000
SOFTWARE_CARD = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")  # a program in Chromium in place of a graphics card


@contextmanager
def served() -> Iterator[str]:
    """Serve the page at a free port; yield its address."""
    with SiteServer(site_files(), 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.url
        server.shutdown()


@contextmanager
def chromium(*options: str, launcher: BrowserType | None = None) -> Iterator[Browser]:
    """Start the machine's Chromium without a window; `UserError` where there is none.

    Playwright starts once in a process: `launcher` is the `browser_type` of a browser that runs already.
    """
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        raise UserError("chromium is not on the PATH; on Debian: apt-get install chromium")
    as_root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with ExitStack() as stack:
        launcher = launcher or stack.enter_context(sync_playwright()).chromium
        browser = launcher.launch(executable_path=path, args=[*as_root, "--enable-precise-memory-info", *options])
        yield browser
        browser.close()


def first_tag_seconds(browser: Browser, url: str) -> float:
    """Return the seconds from opening the page, with nothing in any cache, to the first tags of a bundled recording."""
    context = browser.new_context(service_workers="block")
    page = context.new_page()
    page.goto(url, wait_until="domcontentloaded")
    page.click("[data-example='scene.ogg']")
    page.wait_for_selector("#bars .bar")
    seconds = page.evaluate("performance.now() / 1000")
    context.close()
    return seconds


def worker_seconds(leave_out: frozenset[Path] = frozenset()) -> dict[Path, float]:
    """Return the processor's time that each worker of Chromium has taken, by its thread in /proc (Linux)."""
    taken = {}
    for path in set(Path("/proc").glob("[0-9]*/task/[0-9]*/stat")) - leave_out:
        with contextlib.suppress(OSError):  # a thread that has ended
            head, _, rest = path.read_text().rpartition(")")
            if "DedicatedWorker" in head:
                taken[path] = sum(map(int, rest.split()[11:13])) / os.sysconf("SC_CLK_TCK")
    return taken


def computing_seconds(page: Page, path: Path, resolution: str) -> float:
    """Return how long the worker takes for a recording, from its first byte to its last score."""
    page.evaluate("(value) => { document.querySelector('#resolution').value = value; }", resolution)
    page.set_input_files("#files", str(path))
    page.wait_for_selector("#classes-section:not([hidden])", timeout=600_000)
    seconds = float(page.inner_text("#notes").removeprefix("Computed in ").split(" ")[0])
    page.click("#queue .remove")
    page.wait_for_selector("#result", state="hidden")
    return seconds


def measure_software_card(seconds: int) -> int:
    """Print what WebGPU takes where a program stands in for the graphics card: it says nothing about cards."""
    scene, rate = soundfile.read(BUNDLED_DIR / "recordings" / "scene.ogg", dtype="float32")
    with tempfile.TemporaryDirectory() as folder, served() as url, chromium(*SOFTWARE_CARD) as browser:
        path = Path(folder, "sound.wav")
        soundfile.write(path, np.resize(scene, seconds * rate), rate)
        page = browser.new_page()
        page.set_default_timeout(600_000)
        page.goto(url)
        page.wait_for_selector("#device:visible")
        for device in ("processor", "graphics card"):
            page.select_option("#device", device)
            page.wait_for_selector("#device:enabled")
            computing_seconds(page, path, "10 10")  # shaders are compiled for each length
            factor = seconds / computing_seconds(page, path, "10 10")
            print(f"windows of 10 s every 10 s, {device} (the card is SwiftShader): {factor:.2f} times as fast as the sound")
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="of each measurement, whose median is printed")
    parser.add_argument("--seconds", type=int, default=120, help="of sound")
    parser.add_argument("--software_card", action="store_true", help="only WebGPU, on a program in place of a graphics card")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    files = site_files()
    others = ("runtime/", "models/", "recordings/", "licences/", "service_worker.js")
    card = {f"runtime/{Path(name).name}" for name in GRAPHICS}
    sizes = {
        "ONNX Runtime": [path for key, path in files.items() if key.startswith("runtime/") and key not in card],
        "ONNX Runtime for graphics cards": [files[key] for key in card],
        "model": [path for key, path in files.items() if key.startswith("models/")],
        "page and code": [path for key, path in files.items() if not key.startswith(others)],
    }
    for name, paths in sizes.items():
        contents = [path.read_bytes() for path in paths]
        plain, packed = (sum(map(len, those)) / 1e6 for those in (contents, map(gzip.compress, contents)))
        print(f"{name}: {plain:.2f} MB, {packed:.2f} MB where the host compresses")
    if args.software_card:
        return measure_software_card(args.seconds)
    scene, rate = soundfile.read(BUNDLED_DIR / "recordings" / "scene.ogg", dtype="float32")
    others = frozenset(worker_seconds())  # of other browsers
    with tempfile.TemporaryDirectory() as folder, served() as url, chromium() as browser:
        path = Path(folder, "sound.wav")
        soundfile.write(path, np.resize(scene, args.seconds * rate), rate)
        first = [first_tag_seconds(browser, url) for _ in range(args.rounds)]
        print(f"first tag after {statistics.median(first):.2f} s ({', '.join(f'{seconds:.2f}' for seconds in sorted(first))})")
        page = browser.new_page()
        page.goto(url)
        page.wait_for_selector("#model-about:not(:empty)")
        for resolution in ("10 10", "10 2.5", "4 1"):
            window, hop = resolution.split(" ")
            elapsed, processor = [], []
            for _ in range(args.rounds):
                before = sum(worker_seconds(others).values())
                elapsed.append(args.seconds / computing_seconds(page, path, resolution))
                processor.append(args.seconds / (sum(worker_seconds(others).values()) - before))
            print(
                f"windows of {window} s every {hop} s: {statistics.median(elapsed):.1f} times as fast as the sound, "
                f"{statistics.median(processor):.1f} times by the processor's time of the worker, one thread"
            )
    return 0


if __name__ == "__main__":
    run(main)
