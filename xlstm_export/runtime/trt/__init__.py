"""Engines of TensorRT and TensorRT-RTX, their states on the device."""
