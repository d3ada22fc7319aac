"""Models in, artifacts out: TFLite, ONNX, and the parity gate."""
