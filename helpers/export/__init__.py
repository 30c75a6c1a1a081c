"""Export to ONNX, and ONNX Runtime as a backend.

Some releases of ONNX Runtime (1.32 among them) write an identifier of the machine and a log of events to the user's folder, to be
sent to its makers. That is off here, unless the environment says otherwise; it has to be before onnxruntime is imported.
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
