"""The family ``vil``, as ``families.family`` says."""

from xlstm_export.families.family import Family
from xlstm_export.families.vil.read import detect, read

FAMILY = Family(__name__, detect, read)

__all__ = ["FAMILY", "detect", "read"]
