"""The ONNX backend: without torch, from the cache, with clear errors."""

from __future__ import annotations

import json
import multiprocessing
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from helpers.export import cache as model_cache
from helpers.export import checks
from helpers.export.cache import METADATA_KEY, ExportError
from helpers.export.runtime import BackendError, OnnxBackend, load_backend
from helpers.tagger.torch_backend import TorchBackend
from models import checkpoints
from models.assets import BUNDLED_DIR
from models.config import Arch
from models.errors import UserError
from models.network import MobileNetV3

BUNDLED_FILE = BUNDLED_DIR / "mn04_distilled.onnx"


def make_checkpoint(path: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    checkpoints.save(path, MobileNetV3(Arch(num_classes=3, width_mult=0.1)))
    return path


@pytest.fixture
def counted_exports(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Exports in this process instead of another one; the names that were exported."""
    import export as script

    names = []

    def run(name: str, path: Path) -> None:
        model_cache._require_exporter(name)
        script.main(["--model_name", name, "--output", str(path), "--compare"])
        names.append(name)

    monkeypatch.setattr(model_cache, "_export", run)
    return names


def test_a_changed_checkpoint_is_exported_again(empty_resources: Path, tmp_path: Path, counted_exports: list[str]) -> None:
    path = make_checkpoint(tmp_path / "own.pt", seed=0)
    clip = np.random.default_rng(0).uniform(-0.3, 0.3, (1, 8000)).astype(np.float32)
    first = load_backend(path)(clip)[0][1]
    np.testing.assert_array_equal(load_backend(path)(clip)[0][1], first)
    assert len(counted_exports) == 1
    make_checkpoint(path, seed=1)
    assert not np.allclose(load_backend(path)(clip)[0][1], first, rtol=0.1, atol=0)
    assert len(counted_exports) == 2 and len(list((empty_resources / "onnx").iterdir())) == 2


def test_export_runs_in_another_process(empty_resources: Path, tmp_path: Path) -> None:
    backend = load_backend(make_checkpoint(tmp_path / "own.pt", seed=0))
    assert backend.name == "own" and backend.num_classes == 3
    assert [path.suffix for path in (empty_resources / "onnx").iterdir()] == [".onnx"]


def test_a_failing_export_is_one_line(empty_resources: Path) -> None:
    with pytest.raises(ExportError, match=r"could not be exported .*mn10_as_mAP_471.pt") as error:
        load_backend("mn10_as")  # whose release is out of reach
    assert "\n" not in str(error.value)
    assert not list(empty_resources.rglob("*.onnx"))


def test_without_torch_and_without_an_export_the_error_names_a_remedy(
    empty_resources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_cache, "EXPORT_REQUIREMENTS", ("no_such_package",))
    with pytest.raises(ExportError, match="requirements.txt.*export.py --model_name mn10_as.*mn04_distilled") as error:
        load_backend("mn10_as")
    assert "\n" not in str(error.value)


def test_a_cached_release_needs_neither_torch_nor_checkpoint(empty_resources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_cache, "EXPORT_REQUIREMENTS", ("no_such_package",))
    (empty_resources / "onnx").mkdir(parents=True)
    cached = empty_resources / "onnx" / f"mn10_as-{'0' * 16}-v{model_cache.FORMAT_VERSION}.onnx"
    cached.write_bytes(BUNDLED_FILE.read_bytes())
    assert model_cache.exported("mn10_as") == cached


@pytest.mark.parametrize("name", ["gone.pt", "gone.onnx", "some/where"])
def test_missing_files(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=name):
        load_backend(tmp_path / name)


def test_an_unknown_name_lists_the_near_ones() -> None:
    with pytest.raises(ValueError, match="did you mean mn"):
        load_backend("mn11_as")


@pytest.mark.parametrize("content", [b"", b"no model at all", "cut"])
def test_damaged_files(content: bytes | str, tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(BUNDLED_FILE.read_bytes()[:100_000] if content == "cut" else content)
    with pytest.raises(BackendError, match="x.onnx") as error:
        OnnxBackend(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("metadata", ["5", "{}", '{"format_version": 1}', '{"format_version": 2, "input": "waveform"}', "no JSON"])
def test_other_metadata_is_one_clear_error(metadata: str, tmp_path: Path) -> None:
    model = onnx.load(BUNDLED_FILE)
    onnx.helper.set_model_props(model, {METADATA_KEY: metadata})
    onnx.save(model, tmp_path / "x.onnx")
    with pytest.raises(BackendError, match="x.onnx"):
        OnnxBackend(tmp_path / "x.onnx")


WRONG = {
    "format_version": ["1", None],
    "input": ["spectrogram", 5],
    "model_name": [None, 5],
    "sample_rate": ["32000", 0, 32000.5, 10**9, True],
    "num_classes": [1, 528, "527", 0],
    "embedding_size": [1, "x", -1],
    "single_label": ["no", 0],
    "clip_seconds": ["10", 0, -1, True],
    "weights": ["float64", 8, None],
    "labels": [["one"], "labels", 5, [5] * 527, {}],
}


def test_metadata_of_other_types_and_counts_are_one_clear_error(tmp_path: Path) -> None:
    model = onnx.load(BUNDLED_FILE)
    metadata = OnnxBackend(BUNDLED_FILE, threads=1).metadata
    changes = [{name: value} for name, values in WRONG.items() for value in values]
    changes += [{"num_classes": 1, "labels": ["one"]}, {"clip_seconds": float("nan")}, {"clip_seconds": float("inf")}]
    texts = [json.dumps(metadata | change) for change in changes]
    texts += [json.dumps({key: metadata[key] for key in metadata.keys() - {left_out}}) for left_out in WRONG]
    texts += ["null", "[1]", "[" * 100_000]
    for text in texts:
        onnx.helper.set_model_props(model, {METADATA_KEY: text})
        with pytest.raises(BackendError) as error:
            OnnxBackend(tmp_path / "x.onnx", 1, model.SerializeToString())
        assert "\n" not in str(error.value) and len(str(error.value)) < 500


def a_kernel(model: onnx.ModelProto) -> onnx.TensorProto:
    """The first kernel of the network, in float32 in place of float16."""
    [tensor, *_] = [one for one in model.graph.initializer if len(one.dims) == 4 and one.data_type == onnx.TensorProto.FLOAT16]
    tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    return tensor


def with_weights(change: Callable[[np.ndarray], np.ndarray]) -> bytes:
    """The bundled model with one of its kernels changed."""
    model = onnx.load(BUNDLED_FILE)
    tensor = a_kernel(model)
    tensor.CopyFrom(onnx.numpy_helper.from_array(change(onnx.numpy_helper.to_array(tensor).copy()), tensor.name))
    return model.SerializeToString()


@pytest.mark.parametrize("kind", [np.float16, np.float32])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(value: float, kind: type, tmp_path: Path) -> None:
    def change(weights: np.ndarray) -> np.ndarray:
        weights.flat[-1] = value
        return weights.astype(kind)

    path = tmp_path / "x.onnx"
    path.write_bytes(with_weights(change))
    for content in (path.read_bytes(), None):
        with pytest.raises(BackendError, match="finite"):
            OnnxBackend(path, 1, content)


def test_weights_in_numbers_instead_of_bytes_are_looked_at_too(tmp_path: Path) -> None:
    model = onnx.load(BUNDLED_FILE)
    tensor = a_kernel(model)
    values = onnx.numpy_helper.to_array(tensor).flatten()
    tensor.ClearField("raw_data")
    tensor.float_data.extend(values)
    OnnxBackend(tmp_path / "x.onnx", 1, model.SerializeToString())
    tensor.float_data[3] = np.nan
    with pytest.raises(BackendError, match="finite"):
        OnnxBackend(tmp_path / "x.onnx", 1, model.SerializeToString())


def test_weights_of_another_type_are_one_error(tmp_path: Path) -> None:
    model = onnx.load(BUNDLED_FILE)
    [*_, bias] = [one for one in model.graph.initializer if len(one.dims) == 1 and one.data_type == onnx.TensorProto.FLOAT]
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias).astype(np.int8), bias.name))
    with pytest.raises(BackendError, match="x.onnx"):
        OnnxBackend(tmp_path / "x.onnx", 1, model.SerializeToString())


def test_large_weights_are_finite_though_their_sum_is_not() -> None:
    checks.check_weights(memoryview(with_weights(lambda weights: np.full_like(weights, 1e38))))


def test_a_graph_that_cannot_be_computed_is_one_error(tmp_path: Path) -> None:
    model = onnx.load(BUNDLED_FILE)
    [target] = [node for node in model.graph.node if "spectrogram" in node.output]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1]), "one"))
    make, given = onnx.helper.make_node, target.input[0]
    nodes = [
        make("Shape", [given], ["shape"]),
        make("Add", ["shape", "one"], ["more"]),
        make("Reshape", [given, "more"], ["wrong"]),
    ]
    place = list(model.graph.node).index(target)
    target.input[0] = "wrong"
    for node in reversed(nodes):
        model.graph.node.insert(place, node)
    onnx.save(model, tmp_path / "x.onnx")
    backend = OnnxBackend(tmp_path / "x.onnx", threads=1)
    with pytest.raises(BackendError, match="x.onnx"):
        backend([np.zeros(32000, np.float32)])


def test_results_that_are_not_finite_are_an_error(tmp_path: Path) -> None:
    backend = OnnxBackend(tmp_path / "x.onnx", 1, with_weights(lambda weights: np.full_like(weights, 3e38)))
    with pytest.raises(UserError, match="finite"):
        backend([np.random.default_rng(0).uniform(-1, 1, 8000).astype(np.float32)])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite_are_refused(value: float) -> None:
    waveform = np.zeros(8000, np.float32)
    waveform[100] = value
    for backend in (OnnxBackend(BUNDLED_FILE, 1), TorchBackend("mn04_distilled", "cpu")):
        with pytest.raises(UserError, match="finite"):
            backend([waveform])


@pytest.mark.parametrize("waveform", [[0.0] * 100, np.zeros((1, 100), np.float32), np.zeros(0, np.float32), np.zeros(100)])
def test_what_is_not_a_waveform_is_refused(waveform: object) -> None:
    with pytest.raises(ValueError, match="expected float32 waveforms"):
        OnnxBackend(BUNDLED_FILE)([np.zeros(100, np.float32), waveform])


@pytest.mark.parametrize("threads", [1, 2])
def test_waveforms_of_many_lengths_keep_their_order(threads: int) -> None:
    backend = OnnxBackend(BUNDLED_FILE, threads)
    rng = np.random.default_rng(0)
    waveforms = [rng.normal(0, 0.1, length).astype(np.float32) for length in (64000, 1, 32000, 64000, 700)]
    for waveform, (scores, embedding) in zip(waveforms, backend(waveforms), strict=True):
        [(alone, alone_embedding)] = backend([waveform])
        np.testing.assert_allclose(scores, alone, atol=1e-6)
        np.testing.assert_allclose(embedding, alone_embedding, atol=1e-5)
    assert backend([]) == []


CLIPS = [np.random.default_rng(0).normal(0, 0.1, length).astype(np.float32) for length in (8000, 4000, 8000)]


def test_a_forked_process_computes_the_same() -> None:
    backend = OnnxBackend(BUNDLED_FILE, threads=2)

    def embeddings() -> list[list[float]]:
        return [embedding.tolist() for _, embedding in backend(CLIPS) + backend(CLIPS[:1])]

    expected = embeddings()
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=lambda: sender.send(embeddings()))
    child.start()
    try:
        assert receiver.poll(30), "the child hangs"
        assert receiver.recv() == expected
    finally:
        child.kill()
    assert embeddings() == expected  # the parent is as it was


def test_an_unpickled_backend_computes_the_same(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(BUNDLED_FILE.read_bytes())
    backend = OnnxBackend(path, threads=2)
    pickled = pickle.dumps(backend)
    copy = pickle.loads(pickled)
    assert (copy.name, copy.labels, copy.metadata) == (backend.name, backend.labels, backend.metadata)
    for (scores, embedding), (ours, our_embedding) in zip(copy(CLIPS), backend(CLIPS), strict=True):
        assert np.array_equal(scores, ours) and np.array_equal(embedding, our_embedding)
    path.unlink()  # as on another machine
    again = pickle.loads(pickle.dumps(pickle.loads(pickled)))
    assert np.array_equal(again(CLIPS)[0][0], backend(CLIPS)[0][0])


def test_models_are_exported_to_the_users_cache_where_the_downloads_are_read_only(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EFFICIENTAT_RESOURCES", str(tmp_path / "shared" / "models"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    (tmp_path / "shared").mkdir()
    monkeypatch.setattr(
        model_cache.os, "access", lambda path, mode: tmp_path / "shared" != path
    )  # also for root, who may write there
    exports = []

    def export(name: str, path: Path) -> None:
        exports.append(path)
        path.parent.mkdir(parents=True)
        path.touch()

    monkeypatch.setattr(model_cache, "_export", export)
    paths = [model_cache.exported(tiny_checkpoint) for _ in range(2)]
    assert paths == 2 * exports and paths[0].parent == tmp_path / "home" / "efficientat" / "onnx"
    assert not list((tmp_path / "shared").iterdir())


def test_a_relative_path_stays_valid_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.onnx").write_bytes(BUNDLED_FILE.read_bytes())
    monkeypatch.chdir(tmp_path)
    backend = OnnxBackend("model.onnx", threads=2)
    monkeypatch.chdir(tmp_path.parent)
    assert len(backend(CLIPS[:2])) == 2  # which loads the file again, for clips side by side
