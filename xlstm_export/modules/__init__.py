"""Users' own networks: recurrences found and replaced by our operators, exported by torch.onnx."""
