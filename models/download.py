"""Download of a file: resumed where the connection breaks, and given up where it stalls or sends too much."""

from __future__ import annotations

import http.client
import logging
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from tqdm import tqdm

from models.errors import UserError

logger = logging.getLogger(__name__)

ATTEMPTS = 3  # a transfer whose connection breaks resumes where it stopped
CHUNK_BYTES = 1 << 18
TIMEOUT_S = 30.0  # without any byte
ANSWER_S = 60.0  # until a server has answered, redirects included
SLOWEST_BYTES, SLOWEST_S = 50_000, 60.0  # fewer bytes in this time are a stalled connection as well
DEADLINE_S = 6 * 3600.0  # of a whole download


def download(url: str, path: Path, description: str, max_bytes: int) -> None:
    """Write `url` to `path` with a progress bar; a connection that breaks is resumed, `ATTEMPTS` times at most.

    Raises OSError where it fails, and `UserError` for more than `max_bytes` bytes.
    """
    deadline = time.monotonic() + DEADLINE_S
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _transfer(url, path, description, max_bytes, deadline)
            return
        except urllib.error.HTTPError:
            raise  # the server answered; asking again changes nothing
        except (OSError, http.client.HTTPException) as error:
            connected = path.exists()
            if attempt == ATTEMPTS or not connected:
                raise error if isinstance(error, OSError) else OSError(f"{type(error).__name__}: {error}") from error
            logger.warning("%s: connection lost (%s), trying again", description, error)


def _transfer(url: str, path: Path, description: str, max_bytes: int, deadline: float) -> None:
    """Fetch what is missing of `path` and check the length that the server announced."""
    done = path.stat().st_size if path.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    with _opened(request) as response:
        if done and not _continues(response, done):  # the server sends everything again
            done = 0
        if response.status not in (200, 206 if done else 200, None):  # None: a file
            raise OSError(f"the server answered with status {response.status}")
        announced = response.headers.get("Content-Length")
        if announced is not None and not re.fullmatch(r"\d{1,18}", announced, re.ASCII):
            raise OSError(f"the server announced {announced!r:.50} bytes")
        total = done + int(announced) if announced else None
        if total is not None and total > max_bytes:
            raise UserError(f"the server announced {total} bytes; it should have {max_bytes} at most")
        with (
            open(path, "ab" if done else "wb") as file,
            tqdm(total=total, initial=done, unit="B", unit_scale=True, desc=description, leave=False) as bar,
        ):
            since, received = time.monotonic(), 0
            while chunk := response.read1(CHUNK_BYTES):
                file.write(chunk)
                done += len(chunk)
                bar.update(len(chunk))
                received += len(chunk)
                now = time.monotonic()
                if done > max_bytes:
                    raise UserError(f"the server sends more than {max_bytes} bytes")
                if now > deadline:
                    raise UserError(f"it takes more than {DEADLINE_S:g} s; {done} bytes have arrived")
                if now - since > SLOWEST_S:
                    if received < SLOWEST_BYTES:
                        raise TimeoutError(f"{received} bytes in {now - since:.0f} s")
                    since, received = now, 0
    if total is not None and done < total:
        raise ConnectionError(f"the connection closed after {done} of {total} bytes")


def _continues(response: Any, done: int) -> bool:
    """Whether an answer holds what is missing behind the first `done` bytes."""
    return response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {done}-")


def _opened(request: urllib.request.Request) -> Any:
    """Return the answer of a server, whose headers may not drip in for longer than `ANSWER_S` either."""
    answers: list[Any] = []

    def ask() -> None:
        try:
            answers.append(urllib.request.build_opener(_Redirects).open(request, timeout=TIMEOUT_S))
        except Exception as error:
            answers.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ANSWER_S)
    if not answers:
        raise TimeoutError(f"no answer in {ANSWER_S:g} s")
    [answer] = answers
    if isinstance(answer, ValueError):  # an address, or a redirect to one, that is none
        raise OSError(f"{type(answer).__name__}: {answer}") from answer
    if isinstance(answer, Exception):
        raise answer
    return answer


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Redirects from https to https, and from http to both; to nothing else, such as files of this machine."""

    def redirect_request(self, req: urllib.request.Request, *args: Any) -> urllib.request.Request | None:
        url = args[-1]
        if urllib.parse.urlsplit(url).scheme not in {"https", req.type}:
            raise urllib.error.URLError(f"it redirects to {url!r:.200}, which is refused")
        return super().redirect_request(req, *args)
