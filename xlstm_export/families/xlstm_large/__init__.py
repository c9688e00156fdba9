"""The family ``xlstm_large``, as ``families.family`` says."""

from xlstm_export.families.family import Family
from xlstm_export.families.xlstm_large.read import detect, read
from xlstm_export.families.xlstm_large.read import oracle as _oracle

FAMILY = Family(detect, read, _oracle)

__all__ = ["FAMILY", "detect", "read"]
