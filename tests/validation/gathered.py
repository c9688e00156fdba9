"""Who takes part in a comparison of a model of the grid."""

from __future__ import annotations

from tests.model_cases import Library, ModelCase
from xlstm_export.bundle.checksum import bundle_sha256
from xlstm_export.bundle.manifest import read_manifest
from xlstm_export.families.registry import find_family
from xlstm_export.lowering.options import LoweringOptions
from xlstm_export.runtime.open import Execution
from xlstm_export.validation.participants import Participants, gather, read_both


def gathered(
    library: Library,
    case: ModelCase,
    options: LoweringOptions | None = None,
    upstream: bool = False,
) -> Participants:
    """Everyone of ``case``, on one thread."""
    bundle, source = library.bundle(case, options), library.source(case)
    module, digest = find_family(source, "auto"), bundle_sha256(bundle)
    execution = Execution(threads=1)
    both = read_both(bundle, read_manifest(bundle), digest, source, module, execution, None)
    return gather(both, module, upstream, None)
