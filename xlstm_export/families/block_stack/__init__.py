"""The family ``block_stack``, as ``families.family`` says."""

from xlstm_export.families.block_stack.find_config import detect
from xlstm_export.families.block_stack.read import read
from xlstm_export.families.family import Family

FAMILY = Family(__name__, detect, read)

__all__ = ["FAMILY", "detect", "read"]
