"""The family ``block_stack``: ``detect``, ``read``, ``oracle`` as ``registry.Family`` says."""

from xlstm_export.families.block_stack.read import detect, oracle, read

__all__ = ["detect", "oracle", "read"]
