"""The same build as a command line of NVIDIA's own tools."""

from __future__ import annotations

import shlex

from xlstm_export.engine.build import Plan
from xlstm_export.engine.profiles import trtexec_shapes

_PROGRAMS = {"tensorrt": "trtexec", "tensorrt_rtx": "tensorrt_rtx"}


def command(plan: Plan) -> str:
    """One shell command, an option a line; the tools do not make the engine's folder."""
    words = [
        _PROGRAMS[plan.backend],
        f"--onnx={plan.bundle / plan.file}",
        f"--saveEngine={plan.engine}",
        f"--dynamicPlugins={plan.library}",
        f"--setPluginsToSerialize={plan.library}",
    ]
    if plan.backend == "tensorrt":
        words.append("--stronglyTyped")
    if plan.options.compute_capabilities:
        capabilities = (f"{major}{minor}" for major, minor in plan.options.compute_capabilities)
        words.append(f"--computeCapabilities={','.join(capabilities)}")
    if plan.options.timing_cache:
        words.append(f"--timingCacheFile={plan.options.timing_cache}")
    for index, profile in enumerate(plan.profiles):
        words += [f"--profile={index}"] if len(plan.profiles) > 1 else []
        words += [f"{option}={shapes}" for option, shapes in trtexec_shapes(profile).items()]
    words.append("--skipInference")
    folder = f"mkdir -p {shlex.quote(str(plan.engine.parent))} && \\\n"
    return folder + " \\\n  ".join(shlex.quote(word) for word in words)
