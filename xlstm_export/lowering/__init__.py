"""ModelSpec and Weights to a typed ONNX graph."""
