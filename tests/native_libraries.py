"""Stand-ins for the custom-op library: each is wrong in one way, and says the rest rightly."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from xlstm_export import __version__

_ABOUT = """
const char* xlstm_version(void) { return "%s"; }
int xlstm_cpu_isa(const char** name) { *name = "avx2"; return 0; }
"""
# The status comes from the first function of ONNX Runtime's table, CreateStatus(code, message).
_REGISTER = """
struct base { void* (*const* (*table)(unsigned))(int, const char*); };
void* RegisterCustomOps(void* options, const struct base* ort) {
  (void)options;
  return ort->table(1)[0](1, "this ONNX Runtime is too old");
}
"""


@dataclass(frozen=True)
class StandIn:
    """What a stand-in says and does."""

    version: str = __version__
    says_what_it_is: bool = True
    """Whether it exports xlstm_version and xlstm_cpu_isa."""


def build(folder: Path, stand_in: StandIn | None = None) -> Path:
    """Compile a library whose RegisterCustomOps refuses every ONNX Runtime."""
    chosen = stand_in or StandIn()
    source, library = folder / "stand_in.c", folder / "libxlstm_ort.so"
    about = _ABOUT % chosen.version if chosen.says_what_it_is else ""
    source.write_text(about + _REGISTER, encoding="utf-8")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    return library
