"""Sessions that run a model: ONNX Runtime, and the torch reference."""
