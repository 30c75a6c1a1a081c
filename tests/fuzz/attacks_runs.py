"""Attacks by folders of runs that are resumed, by data sets of the fine-tuning scripts, and by Debian packages."""

from __future__ import annotations

import json
import math
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from tests.fuzz import entries, undamaged
from tests.fuzz.attacks_models import Executed, changed, put, saved
from tests.fuzz.cases import Attack
from tests.fuzz.sandbox import OWNED
from tests.fuzz.values import CONTROL, FORMULA, json_values

Make = Callable[[bytes, Path], bytes]
TRAINING = ("progress", "micro_batches", "optimizer", "scaler", "best", "fingerprints")


def run_attacks() -> Iterator[Attack]:
    yield from state_attacks()
    yield from config_attacks()
    for name, text in {
        "no number": "epoch,x\na,b\n",
        "no UTF-8": "\udcff",
        "empty": "",
        "zeros": "\0" * 1000,
        "epoch 10^5000": f"epoch,x\n{'9' * 5000},1\n",
        "one line": "x" * 1_000_000,
    }.items():
        content = text.encode("utf-8", "surrogateescape")
        yield Attack(entries.RUN_METRICS, name, lambda _, __, c=content: c, must_fail=False)


def state_attacks() -> Iterator[Attack]:
    def attack(name: str, make: Make, must_fail: bool = True) -> Attack:
        return Attack(entries.RUN_STATE, name, make, must_fail)

    def training(change: Callable[[dict[str, Any]], object]) -> Make:
        def apply(content: dict[str, Any]) -> None:
            change(content["training"])

        return changed(apply)

    def moments(change: Callable[[dict[str, Any]], object]) -> Make:
        return training(lambda state: change(state["optimizer"]["state"]))

    yield attack("executes", lambda _, secret: saved({"training": Executed(secret)}))
    yield attack("no training", changed(lambda content: content.pop("training") and None))
    for key in TRAINING:
        yield attack(f"no {key}", training(lambda state, k=key: state.pop(k)))
        for value in (None, "x", [1], {"a": CONTROL}, torch.zeros(3)):
            yield attack(
                f"{key} is {str(value)[:20]!r}", put(value, "training", key), must_fail=key not in ("scaler", "fingerprints")
            )
    for key in ("epoch", "step", "skipped", "skipped_in_a_row", "sums", "seconds", "epochs_since_best", "unknown"):
        for value in (-1, 10**30, math.nan, "1", {"loss": "x"}):
            yield attack(f"{key} is {value!r}", put(value, "training", "progress", key), must_fail=False)
    for name, change in {
        "of no parameter": lambda state: state.update({99999: state[0]}),
        "of a text": lambda state: state.update({"0": state[0]}),
        "missing in part": lambda state: state[0].pop("exp_avg"),
        "a text": lambda state: state.update({0: "x"}),
        "of another shape": lambda state: state[0].update(exp_avg=torch.zeros(3)),
        "not finite": lambda state: state[0]["exp_avg"].view(-1)[0:1].fill_(math.nan),
        "a view of one number": lambda state: state[0].update(exp_avg=torch.zeros(1).expand(state[0]["exp_avg"].shape)),
        "a view of 2^50 numbers": lambda state: state[0].update(exp_avg=torch.zeros(1).expand(1 << 25, 1 << 25)),
        "sparse": lambda state: state[0].update(exp_avg=state[0]["exp_avg"].to_sparse()),
        "on the meta device": lambda state: state[0].update(exp_avg=state[0]["exp_avg"].to("meta")),
        "complex": lambda state: state[0].update(exp_avg=state[0]["exp_avg"].to(torch.complex64)),
        "an unknown one too": lambda state: state[0].update({CONTROL: torch.zeros(1)}),
    }.items():
        yield attack(f"optimizer's state: {name}", moments(change), must_fail=name != "complex")
    yield attack(
        "optimizer without groups", changed(lambda content: content["training"]["optimizer"].update(param_groups=3)), False
    )
    yield attack("other classes", put(["c", "d"], "labels"), must_fail=False)
    yield attack("metrics are texts", put({CONTROL: CONTROL}, "metrics"))


def config_attacks() -> Iterator[Attack]:
    def options(**values: Any) -> Make:
        def make(content: bytes, _: Path) -> bytes:
            config = json.loads(content)
            return json.dumps(config | {"args": config["args"] | values}).encode()

        return make

    for key in ("batch_size", "clip_seconds", "pretrained_name", "dataset_dir", "balance", "wavmix"):
        for number, value in enumerate(json_values()):
            yield Attack(entries.RUN_CONFIG, f"{key}, value {number}", options(**{key: value}), must_fail=False)
    yield Attack(entries.RUN_CONFIG, "unknown option", options(**{f"x{CONTROL}": 3}))
    yield Attack(entries.RUN_CONFIG, "name leads elsewhere", options(experiment_name=f"../../{OWNED}"))
    for text in ("", "[", "[" * 100_000, "null", "3", '{"args": 3}', '{"args": {}, "run_id": 3}', "9" * 10_000, "\udcff"):
        content = text.encode("utf-8", "surrogateescape")
        yield Attack(entries.RUN_CONFIG, f"text {text[:10]!r}", lambda _, __, c=content: c)


def data_attacks() -> Iterator[Attack]:
    row = "audio/airport-lyon-0-0-a.wav\tairport\tlyon-0\ta"
    for name, other in {
        "leaves the folder": "audio/../../../elsewhere/secret\tairport\tlyon-0\ta",
        "is absolute": "/etc/passwd\tairport\tlyon-0\ta",
        "names a device": "/dev/zero\tairport\tlyon-0\ta",
        "is not there": "audio/airport-lyon-0-0-b.wav\tairport\tlyon-0\ta",
        "has control characters": f"audio/airport-lyon-0-{CONTROL}-a.wav\tairport\tlyon-0\ta",
        "has a formula": f"audio/airport-lyon-0-0-a.wav\tairport\t{FORMULA}-1\ta",
        "has a NUL": "audio/airport-lyon-0-0-a.wav\tairport\tlyon\0-0\ta",
        "has a cell of 200,000 letters": f"audio/airport-lyon-0-0-a.wav\tairport\t{'x' * 200_000}-0\ta",
        "has too few cells": "audio/airport-lyon-0-0-a.wav",
        "has an unknown scene": "audio/airport-lyon-0-0-a.wav\tmoon\tlyon-0\ta",
        "has an open quote": f'"{row}',
        "is there twice": f"{row}\n{row}",
    }.items():
        make = lambda content, _, r=other: content.replace(row.encode(), r.encode())  # noqa: E731
        yield Attack(entries.DCASE20, f"a row {name}", make, must_fail=False)
    for kind in (entries.DCASE20, entries.VOCABULARY):
        for name, content in {
            "empty": b"",
            "zeros": bytes(5000),
            "UTF-16 cut": b"\xff\xfea",
            "workbook": b"PK\3\4" + bytes(100),
            "control characters": CONTROL.encode() * 50,
            "line of 5 MB": b"x" * 5_000_000,
        }.items():
            yield Attack(kind, name, lambda _, __, c=content: c)
    for name, label in {
        "control characters": CONTROL,
        "formulas": FORMULA,
        "200,000 letters": "x" * 200_000,
        "equal": "label1",
    }.items():
        make = lambda content, _, v=label: content.replace(b"label0,", f"{v},".encode())  # noqa: E731
        yield Attack(entries.VOCABULARY, f"labels are {name}", make, must_fail=name in ("200,000 letters", "equal"))
    yield Attack(entries.VOCABULARY, "a number is missing", lambda content, _: content.replace(b"7,label7,/m/7\n", b"", 1))


def package_attacks() -> Iterator[Attack]:
    def member(name: str, content: bytes = b"", **fields: Any) -> Make:
        info = tarfile.TarInfo(name)
        for key, value in fields.items():
            setattr(info, key, value)
        return lambda _, __: undamaged.deb({info: content})

    for name, make in {
        "../": member(f"../../{OWNED}.wav", b"x", size=1),
        "absolute": member(f"/tmp/{OWNED}.wav", b"x", size=1),
        "link": member("./a.wav", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        "hard link": member("./a.wav", type=tarfile.LNKTYPE, linkname="../../elsewhere/secret"),
        "device": member("./a.wav", type=tarfile.CHRTYPE, devmajor=1, devminor=5),
        "pipe": member("./a.wav", type=tarfile.FIFOTYPE),
        "control characters": member(f"./{CONTROL}.wav", b"x", size=1),
        "2^40 bytes": member("./a.wav", b"x", size=1 << 40),
        "2^31 bytes": member("./a.wav", b"x", size=1 << 31),
    }.items():
        yield Attack(entries.PACKAGE, f"member: {name}", make, must_fail=name.startswith("2^"))
    for name, make in {
        "empty": lambda *_: b"",
        "text": lambda *_: CONTROL.encode() * 50,
        "an empty archive": lambda *_: b"!<arch>\n",
        "half": lambda content, _: content[: len(content) // 2],
        "a length of 10^9": lambda content, _: content.replace(b"data.tar", b"data.tar".ljust(8)).replace(
            f"{len(content)}".encode(), b"9999999999", 1
        )[:-600],
    }.items():
        yield Attack(entries.PACKAGE, name, make)
