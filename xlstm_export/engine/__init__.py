"""From a bundle to a TensorRT or TensorRT-RTX engine, recurrences in our plugins."""
