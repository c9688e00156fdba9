"""The family ``hf``: ``detect``, ``read``, ``oracle`` as ``registry.Family`` says."""

from xlstm_export.families.hf.read import detect, oracle, read

__all__ = ["detect", "oracle", "read"]
