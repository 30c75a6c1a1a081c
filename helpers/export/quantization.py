"""Networks with convolutions in 8-bit integers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import compose, helper

from datasets import audio
from datasets.audio_folders import find_recordings
from helpers.export.front_end import front_end_to_onnx
from helpers.export.graph import to_onnx
from helpers.export.onnx_writer import IR_VERSION, set_metadata
from models.errors import UserError
from models.network import MobileNetV3

CALIBRATION_SECONDS = 10.0  # at most of one recording


def to_int8(network: MobileNetV3, name: str, clips: Iterable[np.ndarray], *, network_only: bool = False) -> onnx.ModelProto:
    """As `to_onnx`, with convolutions in 8-bit integers, calibrated on `clips`, each (samples,) float32 (static, QDQ).

    The front end stays float, as its power spectra span ten decades; so do the gates of squeeze-and-excitation and the head.
    """
    from onnxruntime import InferenceSession
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    float_network = to_onnx(network, name, network_only=True)
    helper.set_model_props(float_network, {"onnx.quant.pre_process": "onnxruntime.quant"})  # norms are folded: no advice needed
    front_end = front_end_to_onnx(network.mel)
    session = InferenceSession(front_end.SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = ({"spectrogram": session.run(None, {"waveform": clip[None]})[0]} for clip in clips)

    class Spectrograms(CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(inputs, None)

    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(float_network, before)
        quantize_static(
            before, after, Spectrograms(), quant_format=QuantFormat.QDQ, per_channel=True,
            nodes_to_quantize=[node.name for node in float_network.graph.node if node.name.startswith("Conv_")],
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            reduce_range=True,  # 7-bit weights: without VNNI instructions, sums of two 8-bit products overflow 16 bits
        )  # fmt: skip
        model = onnx.load(after)
    if not network_only:
        front_end = compose.add_prefix(front_end, "front_end/", rename_inputs=False, rename_outputs=False)
        opset, model.ir_version = model.opset_import[0].version, IR_VERSION
        front_end.opset_import[0].version = opset
        model = compose.merge_models(front_end, model, io_map=[("spectrogram", "spectrogram")], producer_name="export.py")
    set_metadata(model, network, name, network_only, int8=True)
    onnx.checker.check_model(model)
    return model


def calibration_clips(paths: Iterable[Path], sample_rate: int) -> Iterator[np.ndarray]:
    """Yield the first seconds of recordings and folders of them; raises as `audio.load`, and `ValueError` if there are none."""
    paths = list(paths)
    files = find_recordings(paths)
    if not files:
        raise UserError(f"no recordings to calibrate with in {', '.join(map(str, paths))}")
    for file in files:
        yield audio.load(file, sample_rate, seconds=CALIBRATION_SECONDS)
