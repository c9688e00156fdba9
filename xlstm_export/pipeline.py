"""The public functions: from a checkpoint to a bundle, a session, an engine, a verdict."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xlstm_export.bundle.bundle import Bundle
from xlstm_export.bundle.calibration import write_calibration
from xlstm_export.bundle.checksum import bundle_sha256, data_bytes
from xlstm_export.bundle.manifest import image_size, read_manifest, write_manifest
from xlstm_export.checkpoint.companions import copy_companions, tokenizer_folder
from xlstm_export.checkpoint.hub import resolve_source
from xlstm_export.checkpoint.source import Checkpoint, Source, parse_resolution
from xlstm_export.environment import install
from xlstm_export.errors import BackendUnavailableError, OptionError
from xlstm_export.families.registry import check_family, find_family
from xlstm_export.lowering.options import LoweringOptions, check_options, make_options
from xlstm_export.model.low_bit import resolved
from xlstm_export.model.numerics import with_numerics
from xlstm_export.output import check_target, new_folder
from xlstm_export.progress import Progress
from xlstm_export.recipe.read import find_recipe
from xlstm_export.recipe.recipe import Recipe

if TYPE_CHECKING:
    from xlstm_export.engine.build import Built
    from xlstm_export.validation.result import Report

REPORTS = "reports"
"""Folder of a bundle with what validate says of it."""

PathLike = str | Path
Shapes = Mapping[str, Sequence[int]] | Iterable[str]
"""Shapes by input name, or words such as input_ids:1x512."""


def read_checkpoint(source: Source, family: str = "auto") -> Checkpoint:
    """Detect and read ``source``. Raises CheckpointError, UnsupportedModelError, OptionError."""
    checkpoint = find_family(source, family).read(source)
    if source.resolution and image_size(checkpoint.spec.inputs) is None:
        raise OptionError(
            "resolution", f"a model of family {checkpoint.spec.family} takes no images"
        )
    return checkpoint


def export(
    source: PathLike | None,
    out: PathLike,
    *,
    recipe: str | None = None,
    family: str = "auto",
    config: PathLike | None = None,
    prefix: str = "",
    dtype: str | None = None,
    opset: int | None = None,
    logits: str | None = None,
    ragged: bool | None = None,
    state_names: str | None = None,
    resolution: str | tuple[int, int] | None = None,
    numerics: str | None = None,
    weight_format: str | None = None,
    block_size: int | None = None,
    symmetric: bool | None = None,
    keep_wide: Sequence[str] = (),
    matmul_nbits: bool | None = None,
    calibrate: PathLike | None = None,
    max_kl: float | None = None,
    target_size: int | str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Bundle:
    """Lower a checkpoint into the bundle ``out``: complete, or not there at all.

    - ``source``: a checkpoint folder, a weights file (with ``config``), or ``org/name`` on the
      Hub; None: that of ``recipe``, whose family and options stand where none is given.
    - ``family``: auto, hf, xlstm_large, block_stack, tirex, tirex2 or vil.
    - ``prefix``: what the names of the model's tensors start with, where it is a part of another.
    - ``overwrite`` replaces a bundle. ``progress`` is called as work goes on.
    - ``dtype`` of projections and activations: fp32 (the default), fp16, bf16, or numpy's names.
    - ``opset``: 18 (21 with ``weight_format``) to 21. ``logits``: "all", or "last" [B,1,vocab].
    - ``ragged``: also ``sequence_lengths`` int32 [B]. ``state_names``: native, genai or edgellm.
    - ``resolution``: height and width of images (vil), or 384x384; None: as it was trained on.
    - ``numerics``: "fp32" rounds nothing to bfloat16 that upstream rounds (TiRex), or "faithful".
    - ``weight_format``: "int8" or "int4" stores projections, heads and (in 8 bits) tables in
      ``symmetric`` blocks of ``block_size`` (64), but for what patterns of ``keep_wide`` name;
      ``matmul_nbits`` writes ONNX Runtime's operator; ``calibrate``: real input to set scales by,
      and to mix bits by: at most ``max_kl`` nats, or ``target_size`` (such as "300MB") of weights.

    Raises CheckpointError, UnsupportedModelError, TargetError, OptionError, InputError, and where
    a package is missing BackendUnavailableError.
    """
    check_family(family)  # before anything is downloaded
    followed = None if recipe is None else find_recipe(recipe)
    chosen = _options(
        followed, dtype=dtype, opset=opset, logits=logits, ragged=ragged, state_names=state_names,
        numerics=numerics, weight_format=weight_format, block_size=block_size, symmetric=symmetric,
        keep_wide=tuple(keep_wide) or None, matmul_nbits=matmul_nbits, calibrate=calibrate,
        max_kl=max_kl, target_size=target_size,
    )  # fmt: skip
    size, place = parse_resolution(resolution), _place(source, followed)
    family = followed.family if followed and family == "auto" else family
    found = replace(resolve_source(place, _path(config), prefix), resolution=size)
    return export_source(
        found, Path(out), chosen, family=family, overwrite=overwrite, progress=progress
    )


def _place(source: PathLike | None, followed: Recipe | None) -> str:
    """Where the checkpoint is: ``source``, else that of the recipe. Raises OptionError."""
    if source is not None:
        return str(source)
    if followed is None:
        raise OptionError("recipe", "not given, and no checkpoint either; give one of them")
    return followed.locate()


def _options(followed: Recipe | None, **given: Any) -> LoweringOptions:
    """What is ``given``, not None, else what the recipe says, else the defaults."""
    stated = {name: value for name, value in given.items() if value is not None}
    return make_options(**({} if followed is None else followed.export) | stated)


def export_source(
    source: Source,
    out: Path,
    options: LoweringOptions,
    *,
    family: str = "auto",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Bundle:
    """``export`` of a source that is on disk."""
    from xlstm_export.lowering.describe import describe_graph
    from xlstm_export.lowering.lower import lower_model
    from xlstm_export.lowering.write import check_model, write_continuation, write_model

    check_target(out, overwrite, source.path)
    checkpoint = read_checkpoint(source, family)
    check_options(checkpoint.spec, options)
    spec, weights = with_numerics(checkpoint.spec, options.numerics), checkpoint.weights
    options = _in_few_bits(options, replace(checkpoint, spec=spec), source, progress)
    model, continuing = lower_model(spec, weights, options), None
    if spec.recurrence == "begun":
        continuing = lower_model(spec, weights, options, continues=True)
    manifest = describe_graph(model, checkpoint, source, options, continuing)
    with new_folder(out, overwrite) as folder:
        if options.importance and manifest.low_bit is not None:
            digest = write_calibration(options.importance, folder)
            manifest = replace(manifest, low_bit=replace(manifest.low_bit, calibration=digest))
        check_model(write_model(model, folder, progress))
        if continuing is not None:
            check_model(write_continuation(continuing, folder))
        manifest = replace(manifest, sha256=bundle_sha256(folder), data_bytes=data_bytes(folder))
        write_manifest(manifest, folder)
        copy_companions(source, folder)
    return Bundle(out, read_manifest(out), len(model.graph), checkpoint.left_out, checkpoint.notes)


def _in_few_bits(
    options: LoweringOptions, checkpoint: Checkpoint, source: Source, progress: Progress | None
) -> LoweringOptions:
    """``options`` with the names of the weights they mean, and what is measured of their inputs."""
    if options.low_bit is None:
        return options
    spec, weights = checkpoint.spec, checkpoint.weights
    options = replace(options, low_bit=resolved(spec, weights, options.low_bit))
    if options.calibrate is None:
        return options
    try:
        from xlstm_export.validation.calibrate import calibrated
    except ModuleNotFoundError as error:
        raise BackendUnavailableError(
            f"calibration runs the model in {error.name}, which is not installed: "
            f"{install('torch')}"
        ) from error
    return calibrated(options, checkpoint, tokenizer_folder(source), progress)


def build(
    bundle: PathLike | Bundle,
    *,
    backend: str | None = None,
    compute_capabilities: Sequence[str] = (),
    timing_cache: PathLike | None = None,
    max_batch_size: int | None = None,
    max_input_len: int | None = None,
    min_shapes: Shapes | None = None,
    opt_shapes: Shapes | None = None,
    max_shapes: Shapes | None = None,
    progress: Progress | None = None,
) -> Built:
    """Build a TensorRT engine of ``bundle`` into its folder ``engines``; recurrences are plugins.

    Where calls that go on from states are another graph (TiRex), ``continuation`` is its engine.

    - ``backend``: tensorrt or tensorrt_rtx; None: the one that is installed.
    - ``compute_capabilities``: such as ["8.9"], the GPUs to build for (tensorrt_rtx; default: the
      builder's set). ``timing_cache``: a file (tensorrt).
    - ``max_batch_size`` (8) and ``max_input_len`` (512) of the profiles for decode and prefill, or
      one profile by ``min_shapes``, ``opt_shapes`` and ``max_shapes``, each {input name: sizes}.
    - ``progress`` is called as work goes on.

    ``bundle`` is exported in the precision that the engine is to have. Raises BundleError,
    EngineError, BackendUnavailableError, TargetError, OptionError.
    """
    from xlstm_export.engine.build import build_engine, make_build_options

    options = make_build_options(
        backend, compute_capabilities=compute_capabilities, timing_cache=timing_cache,
        max_batch_size=max_batch_size, max_input_len=max_input_len, min_shapes=min_shapes,
        opt_shapes=opt_shapes, max_shapes=max_shapes,
    )  # fmt: skip
    return build_engine(_bundle_path(bundle), options, progress)


def trtexec_command(
    bundle: PathLike | Bundle,
    *,
    backend: str | None = None,
    compute_capabilities: Sequence[str] = (),
    timing_cache: PathLike | None = None,
    max_batch_size: int | None = None,
    max_input_len: int | None = None,
    min_shapes: Shapes | None = None,
    opt_shapes: Shapes | None = None,
    max_shapes: Shapes | None = None,
) -> str:
    """What ``build`` would do, as a trtexec command, whether or not NVIDIA's tools are here.

    Of a bundle of two graphs, a command for each.

    ``bundle``, ``backend``, ``compute_capabilities``, ``timing_cache``, ``max_batch_size``,
    ``max_input_len``, ``min_shapes``, ``opt_shapes`` and ``max_shapes`` as in ``build``. Raises
    BundleError, EngineError, OptionError, and BackendUnavailableError where our plugin library is
    not built.
    """
    from xlstm_export.engine.build import make_build_options, make_plans
    from xlstm_export.engine.trtexec import command

    options = make_build_options(
        backend, compute_capabilities=compute_capabilities, timing_cache=timing_cache,
        max_batch_size=max_batch_size, max_input_len=max_input_len, min_shapes=min_shapes,
        opt_shapes=opt_shapes, max_shapes=max_shapes,
    )  # fmt: skip
    plans = make_plans(_bundle_path(bundle), options, options.backend or "tensorrt")
    return "\n".join(map(command, plans))


def validate(
    bundle: PathLike | Bundle,
    reference: PathLike,
    *,
    family: str = "auto",
    config: PathLike | None = None,
    prefix: str = "",
    upstream: bool = True,
    native: bool = True,
    engine: str | None = None,
    backend: str = "auto",
    threads: int | None = None,
    batch: int = 2,
    seed: int = 0,
    samples: PathLike | None = None,
    budget: str = "fast",
    inputs: PathLike | None = None,
    save_io: PathLike | None = None,
    against: PathLike | Bundle | None = None,
    memory: str | int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Compare ``bundle`` with the upstream module of the checkpoint ``reference``.

    Every output and every state is judged, over a rollout with carried states. A bundle that is
    wrong is no error: it is the verdict ``failed`` of the report.

    - ``reference``, ``family``, ``config``, ``prefix``: the checkpoint, as in ``export``.
    - ``upstream`` False, or the upstream package missing: the reference is our own float64 model,
      and the verdict at most ``self-consistent``.
    - ``native`` False compares the function bodies, also where native kernels are installed.
    - ``engine``: the bundle runs in TensorRT by this engine, else in ONNX Runtime; ``backend`` as
      in ``open``.
    - ``threads`` for every runtime and torch; default: 1 up to 20 million parameters, else all.
    - ``batch``: rows of the rollout, whose inputs are drawn by ``seed``.
    - ``samples``: an .npz file of inputs and outputs recorded elsewhere (``record_samples``), which
      the bundle has to reproduce as well.
    - ``budget``: "fast", or "full" for long rollouts and more of everything. A keyboard interrupt
      ends either; the report then says that it is not ``complete``, and its verdict is
      ``unfinished`` where the first rollout was not done.
    - ``inputs``: a file to compare on in place of random inputs: a text (.txt), .npy, .npz, a
      table (.csv), or what Polygraphy saved (.json).
    - ``save_io``: a folder for the bundle's inputs and outputs, in Polygraphy's format.
    - ``against``: another bundle of the same inputs and outputs, run in ONNX Runtime beside this
      one: ``Report.against``. The bundle itself there runs by its function bodies.
    - ``memory``: the most to take, such as "8GiB"; a larger model goes layer by layer. None: all.
    - ``progress`` is called as work goes on.

    A whole model takes 32 bytes a parameter. Raises BundleError, CheckpointError, OptionError,
    UnsupportedModelError, EngineError, BackendUnavailableError, InputError.
    """
    given = {
        "reference": reference, "family": family, "config": config, "prefix": prefix,
        "upstream": upstream, "native": native, "engine": engine, "backend": backend,
        "threads": threads, "batch": batch, "seed": seed, "budget": budget, "inputs": inputs,
        "samples": samples, "against": None if against is None else _bundle_path(against),
        "memory": memory,
    }  # fmt: skip
    report = _validated(_bundle_path(bundle), given, _path(save_io), progress)
    return replace(report, command=_validate_command(_bundle_path(bundle), **given))


def _validated(
    path: Path, given: Mapping[str, Any], save_io: Path | None, progress: Progress | None
) -> Report:
    from xlstm_export.runtime.open import Execution

    execution = Execution(given["engine"], given["backend"], given["threads"], given["native"])
    check_family(given["family"])
    manifest = read_manifest(path)  # before torch is loaded, which takes seconds
    execution = execution.of(path)
    source = resolve_source(str(given["reference"]), _path(given["config"]), given["prefix"])
    source = replace(source, resolution=image_size(manifest.inputs))
    module = find_family(source, given["family"])
    try:
        from xlstm_export.validation.segments.plan import parse_memory
        from xlstm_export.validation.validate import Task, validate_bundle
    except ModuleNotFoundError as error:
        raise BackendUnavailableError(
            f"validate computes references with {error.name}, which is not installed: "
            f"{install('torch')}"
        ) from error
    task = Task(
        given["batch"], given["seed"], given["budget"], _path(given["inputs"]), save_io,
        _path(given["samples"]), given["against"], parse_memory(given["memory"]),
    )  # fmt: skip
    report = validate_bundle(
        path, source, module, execution, upstream=given["upstream"], task=task, progress=progress
    )
    return replace(report, engine=execution.engine or "")


_AS_BY_ITSELF = {
    "family": "auto", "config": None, "prefix": "", "upstream": True, "native": True,
    "engine": None, "backend": "auto", "threads": None, "budget": "fast", "inputs": None,
    "samples": None, "against": None, "memory": None,
}  # fmt: skip
"""Options of ``validate`` that a command leaves out where they say this."""


def _validate_command(bundle: Path, **given: Any) -> str:
    """The command that does what ``validate`` did."""
    words = ["xlstm-export", "validate", str(bundle)]
    for name, value in given.items():
        if name in _AS_BY_ITSELF and value == _AS_BY_ITSELF[name]:
            continue
        words += [f"--no-{name}"] if value is False else [f"--{name}", str(value)]
    return shlex.join(words)


def _bundle_path(bundle: PathLike | Bundle) -> Path:
    return bundle.path if isinstance(bundle, Bundle) else Path(bundle)


def _path(path: PathLike | None) -> Path | None:
    return None if path is None else Path(path)
