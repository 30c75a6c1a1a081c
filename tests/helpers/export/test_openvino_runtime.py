"""The OpenVINO backend: refusals everywhere, results where OpenVINO is installed (make test-openvino)."""

from __future__ import annotations

import multiprocessing
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from helpers.tagger import AudioTagger
from models.errors import UserError

NOISE = np.random.default_rng(0).normal(0, 0.1, 64000).astype(np.float32)
LENGTHS = (1, 513, 5000, 32000, 64000)


def test_without_openvino_the_error_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UserError, match="requirements-openvino.txt") as error:
        AudioTagger("mn04_distilled", backend="openvino")
    assert "\n" not in str(error.value)


def test_several_models_gpus_and_layers_need_torch() -> None:
    with pytest.raises(UserError, match="ensemble.*openvino"):
        AudioTagger(["mn04_distilled", "mn04_distilled"], backend="openvino")
    for options in ({"device": "cuda"}, {"layers": "mel"}):
        with pytest.raises(UserError, match="openvino"):
            AudioTagger("mn04_distilled", backend="openvino", **options)


@pytest.fixture(scope="module")
def path() -> Path:
    pytest.importorskip("openvino")
    from helpers.export.cache import exported

    return exported("mn04_distilled")


@pytest.mark.parametrize("threads", [1, 2])
def test_float32_gives_the_results_of_onnx_runtime(path: Path, threads: int) -> None:
    from helpers.export.openvino_runtime import OpenVinoBackend
    from helpers.export.runtime import OnnxBackend

    clips = [NOISE[:length] for length in LENGTHS]
    expected = OnnxBackend(path, 1)(clips)
    backend = OpenVinoBackend(path, threads, precision="float32")
    for computed in (backend(clips), [backend([clip])[0] for clip in clips], pickle.loads(pickle.dumps(backend))(clips)):
        for values, others in zip(computed, expected, strict=True):
            np.testing.assert_allclose(values[0], others[0], rtol=0, atol=1e-4)
            np.testing.assert_allclose(values[1], others[1], rtol=0, atol=1e-3)


def test_several_threads_may_use_one_backend(path: Path) -> None:
    from helpers.export.openvino_runtime import OpenVinoBackend

    backend = OpenVinoBackend(path, 2)
    clips = [np.float32(k + 1) * NOISE[:5000] for k in range(4)]
    expected = [backend([clip])[0][0] for clip in clips]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda k: backend([clips[k % 4]] * (1 + k // 4 % 2)), range(80)))
    for k, results in enumerate(found):
        for scores, _ in results:
            np.testing.assert_allclose(scores, expected[k % 4], rtol=0, atol=1e-4)


def test_bfloat16_differs_by_little(path: Path) -> None:
    from helpers.export.openvino_runtime import OpenVinoBackend

    scores, others = (OpenVinoBackend(path, 1, precision=name)([NOISE])[0][0] for name in ("bfloat16", "float32"))
    assert 0 < np.abs(scores - others).max() < 0.1


def test_an_unknown_precision_is_refused(path: Path) -> None:
    from helpers.export.openvino_runtime import OpenVinoBackend

    with pytest.raises(UserError, match="float16.*bfloat16"):
        OpenVinoBackend(path, precision="float16")


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system")
def test_a_forked_process_is_told_that_it_cannot(path: Path) -> None:
    from helpers.export.openvino_runtime import OpenVinoBackend

    backend, context = OpenVinoBackend(path, 1), multiprocessing.get_context("fork")
    backend([NOISE])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_compute, args=(backend, sender))
    process.start()
    assert receiver.poll(60) and "fork" in receiver.recv()
    process.join(60)


def _compute(backend: object, sender: object) -> None:
    try:
        backend([NOISE])
    except UserError as error:
        sender.send(str(error))
