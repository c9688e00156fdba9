"""Checkpoint layouts: each module knows one, as ``detect``, ``read`` and ``oracle``."""
