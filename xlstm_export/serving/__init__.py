"""A bundle behind HTTP, and as a model of Triton Inference Server."""
