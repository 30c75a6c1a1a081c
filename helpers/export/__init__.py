"""Export to ONNX, and ONNX Runtime as a backend."""
