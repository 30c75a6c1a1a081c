"""Attacks by servers: a release that does not send what was asked for."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial

import ex_audioset
import inference
from tests.fuzz import entries
from tests.fuzz.cases import Attack
from tests.fuzz.entries import Entry, Kind
from tests.fuzz.values import CONTROL, LINE

ASSET = "mn01_as"
_OK = b"HTTP/1.1 200 OK\r\n"

SERVER = Kind(
    "server",
    "unused",
    "model.pt",
    (
        Entry("inference.py", inference.main, f"--model_name {ASSET} --audio_path {{good}}/recording.wav"),
        Entry("hub", entries.hub, ASSET),
        Entry("HEAR", entries.hear, ASSET),
        Entry(
            "ex_audioset.py, training",
            ex_audioset.main,
            f"--pretrained_name {ASSET} --dataset_dir {{good}}/audioset {entries.AUDIOSET}",
        ),
    ),
)


def _endless(connection: socket.socket) -> None:
    connection.sendall(_OK + b"\r\n")
    while True:
        connection.sendall(bytes(1 << 20))


def _dripping(connection: socket.socket) -> None:
    connection.sendall(_OK + b"Content-Length: 100000\r\n\r\n")
    while True:
        connection.sendall(b"x")
        time.sleep(0.3)


def _endless_headers(connection: socket.socket) -> None:
    connection.sendall(_OK)
    while True:
        connection.sendall(b"X: " + b"y" * 1000 + b"\r\n")


def _sending(content: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(content)


def _redirecting(address: str) -> Callable[[socket.socket], None]:
    return _sending(f"HTTP/1.1 302 Found\r\nLocation: {address}\r\nContent-Length: 0\r\n\r\n".encode())


ANSWERS: dict[str, Callable[[socket.socket], None]] = {
    "endless body": _endless,
    "body of a byte at a time": _dripping,
    "endless headers": _endless_headers,
    "nothing": lambda connection: time.sleep(300),
    "closes": lambda connection: None,
    "404": _sending(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
    "500 with text": _sending(f"HTTP/1.1 500 {CONTROL}\r\n\r\n{LINE}".encode()),
    "no status": _sending(b"\x00" * 100),
    "204": _sending(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "206 that nobody asked for": _sending(
        b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 50-99/100\r\nContent-Length: 50\r\n\r\n" + bytes(50)
    ),
    "web page": _sending(_OK + b"Content-Length: 20\r\n\r\n<!DOCTYPE html><html>"),
    "short body": _sending(_OK + b"Content-Length: 1000\r\n\r\n" + bytes(10)),
    "negative length": _sending(_OK + b"Content-Length: -1\r\n\r\n" + bytes(10)),
    "length is text": _sending(_OK + b"Content-Length: ten\r\n\r\n" + bytes(10)),
    "length of 2^60": _sending(_OK + f"Content-Length: {1 << 60}\r\n\r\n".encode() + bytes(10)),
    "wrong chunks": _sending(_OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
    "chunk of 2^60": _sending(_OK + b"Transfer-Encoding: chunked\r\n\r\n1000000000000000\r\n" + bytes(10)),
    "redirect to itself": _redirecting("/"),
    "redirect to a file": _redirecting("file:///etc/passwd"),
    "redirect to ftp": _redirecting("ftp://127.0.0.1/x"),
    "redirect to text": _redirecting("\x1b[2J"),
}


def serve(answer: Callable[[socket.socket], None]) -> tuple[int, int]:
    """Answer every request so, in a process of its own; return its id and the port."""
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    child = os.fork()
    if child == 0:
        try:
            while True:
                connection, _ = server.accept()
                with connection:
                    try:
                        connection.settimeout(20)
                        connection.recv(1 << 16)
                        answer(connection)
                    except OSError:
                        pass
        finally:
            os._exit(0)
    server.close()
    return child, port


def attacks() -> Iterator[Attack]:
    for name, answer in ANSWERS.items():
        yield Attack(SERVER, name, lambda content, _: content, serve=partial(serve, answer))
