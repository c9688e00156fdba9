"""The family ``xlstm_large``, as ``families.family`` says."""

from xlstm_export.families.family import Family
from xlstm_export.families.xlstm_large.config import detect
from xlstm_export.families.xlstm_large.read import read

FAMILY = Family(__name__, detect, read)

__all__ = ["FAMILY", "detect", "read"]
