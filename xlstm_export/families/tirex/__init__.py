"""The family ``tirex``, as ``families.family`` says."""

from xlstm_export.families.family import Family
from xlstm_export.families.tirex.read import detect, read

FAMILY = Family(__name__, detect, read)

__all__ = ["FAMILY", "detect", "read"]
