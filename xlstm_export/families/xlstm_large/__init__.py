"""The family ``xlstm_large``: ``detect``, ``read``, ``oracle`` as ``registry.Family`` says."""

from xlstm_export.families.xlstm_large.read import detect, oracle, read

__all__ = ["detect", "oracle", "read"]
