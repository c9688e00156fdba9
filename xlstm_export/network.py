"""The public functions for a network of one's own: to a bundle, and the verdict on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xlstm_export.bundle.bundle import Bundle
from xlstm_export.bundle.checksum import bundle_sha256, data_bytes
from xlstm_export.bundle.manifest import read_manifest, write_manifest
from xlstm_export.environment import install
from xlstm_export.errors import BackendUnavailableError
from xlstm_export.lowering.options import make_options
from xlstm_export.output import check_target, new_folder
from xlstm_export.progress import Progress

if TYPE_CHECKING:
    from xlstm_export.validation.result import Report

PathLike = str | Path


def load_module(module: str, *, weights: PathLike | None = None) -> tuple[Any, Any]:
    """The network that a function of yours makes, in eval mode, and its example inputs.

    - ``module``: "package.module:function". The function takes nothing and returns both.
    - ``weights``: its parameters and buffers, .safetensors or a state dict that torch saved, which
      is read as data; None: those that the function gave it.

    Raises OptionError where there is no such function or it returns something else, CheckpointError
    where the weights are not those of the network, and BackendUnavailableError where torch is
    missing.
    """
    try:
        from xlstm_export.modules.load import load_network
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    return load_network(module, None if weights is None else Path(weights))


def record_samples(
    module: Any,
    inputs: Any,
    file: PathLike,
    *,
    input_names: Sequence[str] = (),
    output_names: Sequence[str] = (),
) -> Path:
    """Run a network where it was trained, and keep what went in and came out, for ``validate``.

    A wrong configuration whose shapes fit gives another model, which no comparison with a reading
    of the same configuration shows. These numbers do. The file is an .npz, which numpy.savez can
    write from any other framework: arrays by the names of the bundle's inputs and outputs.

    - ``module``: a torch.nn.Module, in eval mode, computing in float32; on any device.
    - ``inputs``: a tensor, a sequence of tensors, or tensors by the names of ``forward``'s
      parameters; or a list of such mappings, one for each sample.
    - ``file``: what is written, .npz.
    - ``input_names``, ``output_names``: as the bundle calls them, in order: ["input_ids"],
      ["logits"] for a language model; default: those of ``forward``, and as in ``export_module``.

    Returns the path. Raises InputError, UnsupportedModelError where the network fails, TargetError
    where the file cannot be written, and BackendUnavailableError where torch is missing.
    """
    try:
        from xlstm_export.modules.record import record
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    return record(module, inputs, Path(file), input_names, output_names)


def export_module(
    module: Any,
    example_inputs: Any,
    out: PathLike,
    *,
    dynamic_shapes: Mapping[str, Any] | None = None,
    states: bool = False,
    dtype: str = "float32",
    opset: int = 18,
    output_names: Sequence[str] = (),
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Bundle:
    """Export a network that has xLSTM inside into the bundle ``out``, by torch.onnx.

    On a copy every recurrence that is recognised becomes one of our operators; the rest is traced
    as it is. The bundle takes any batch and number of steps that the network does.

    - ``module``: a torch.nn.Module on the CPU, in eval mode.
    - ``example_inputs``: a tensor, a sequence of tensors, or tensors by the names of ``forward``'s
      parameters; two steps and more.
    - ``dynamic_shapes``: as for torch.export, by input: {"x": {0: "batch", 1: "sequence"}}; None
      leaves every size free that the network leaves free.
    - ``states`` True: each recurrence's state is an input and an output of the whole; refused, with
      the reason, where calls with carried states are not one call.
    - ``dtype``: float32, float16 or bfloat16 (also fp32, fp16, bf16). ``opset``: 18 to 21.
    - ``output_names``: of the outputs, in order; None of a mapping's is needed.
    - ``overwrite`` replaces a bundle that is there.
    - ``progress`` is called as work goes on.

    Raises UnsupportedModelError naming the part that cannot be exported, InputError for examples
    that do not fit, TargetError, OptionError, and BackendUnavailableError where torch or onnxscript
    is missing.
    """
    options = make_options(
        dtype=dtype, opset=opset, logits="all", ragged=False, state_names="native",
        numerics="faithful",
    )  # fmt: skip
    target = Path(out)
    check_target(target, overwrite)
    try:
        from xlstm_export.modules.export import export_network
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    from xlstm_export.lowering.write import check_model, write_model

    _tell(progress, "tracing the network")
    exported = export_network(
        module, example_inputs, dynamic_shapes=dynamic_shapes, states=states, dtype=options.dtype,
        opset=opset, output_names=output_names,
    )  # fmt: skip
    with new_folder(target, overwrite) as folder:
        check_model(write_model(exported.model, folder, progress))
        manifest = replace(
            exported.manifest, sha256=bundle_sha256(folder), data_bytes=data_bytes(folder)
        )
        write_manifest(manifest, folder)
    return Bundle(target, read_manifest(target), len(exported.model.graph), notes=exported.notes)


def validate_module(
    bundle: PathLike | Bundle,
    module: Any,
    example_inputs: Any,
    *,
    native: bool = True,
    engine: str | None = None,
    backend: str = "auto",
    threads: int | None = None,
    batch: int = 2,
    seed: int = 0,
    samples: PathLike | None = None,
    budget: str = "fast",
    progress: Progress | None = None,
) -> Report:
    """Compare a bundle of ``export_module`` with the network that it was made of, in float64.

    Every output is held to the network's, every state to that of the network with our operators,
    on inputs drawn from the examples' numbers and of other sizes too. A bundle that is wrong is no
    error: it is the verdict ``failed`` of the report.

    - ``bundle``: its folder, or what ``export_module`` returned.
    - ``module``, ``example_inputs``: as there. The network computes in float64 here.
    - ``native`` False compares the function bodies, also where native kernels are installed.
    - ``engine``: the bundle runs in TensorRT by this engine, else in ONNX Runtime; ``backend`` as
      in ``open``.
    - ``threads`` for every runtime and torch; default: 1 up to 20 million parameters, else all.
    - ``batch``: rows, beside those that the baselines need; inputs are drawn by ``seed``.
    - ``samples``: an .npz file of inputs and outputs recorded elsewhere (``record_samples``), which
      the bundle has to reproduce as well.
    - ``budget``: "fast", or "full" for long rollouts and more of everything. A keyboard interrupt
      ends either; once a call was compared there is a report, which is not ``complete``.
    - ``progress`` is called as work goes on.

    Raises BundleError where the bundle is none of this network, UnsupportedModelError where the
    network does not compute in float64, InputError for examples that do not fit or are one whole
    number alone, EngineError, BackendUnavailableError, OptionError.
    """
    from xlstm_export.runtime.open import Execution

    path = bundle.path if isinstance(bundle, Bundle) else Path(bundle)
    read_manifest(path)  # what is missing is said before torch is loaded, which takes seconds
    try:
        from xlstm_export.validation.networks.compare import validate_network
        from xlstm_export.validation.validate import Task
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    execution = Execution(engine, backend, threads, native).of(path)
    recorded = None if samples is None else Path(samples)
    task = Task(batch, seed, budget, samples=recorded)  # type: ignore[arg-type]
    report = validate_network(path, module, example_inputs, execution, task, progress)
    return replace(report, engine=execution.engine or "")


def _missing(error: ModuleNotFoundError) -> BackendUnavailableError:
    return BackendUnavailableError(
        f"networks are traced by {error.name}, which is not installed: "
        f"{install('torch', 'onnxscript')}"
    )


def _tell(progress: Progress | None, what: str) -> None:
    if progress is not None:
        progress(what, 0, 0)
