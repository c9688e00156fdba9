"""The family ``hf``, as ``families.family`` says."""

from xlstm_export.families.family import Family
from xlstm_export.families.hf.read import detect, read
from xlstm_export.families.hf.read import oracle as _oracle

FAMILY = Family(detect, read, _oracle)

__all__ = ["FAMILY", "detect", "read"]
