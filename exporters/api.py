"""``export``: from a configuration to a checked artifact."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ExportMismatch, InvalidInput
from ..evaluators import Calibration, QuantizedModel
from ..evaluators.batch_norm import Statistics, batch_norm_statistics, taken_on
from ..space import Configuration, SearchSpace
from ..task import Batch
from . import registry
from .certificate import certificate, write_certificate
from .noise import rounding_noise
from .placement import certificate_path, check_destination, placing
from .protocol import ExportRequest, Target
from .report import Artifact, ExportReport, Verification
from .rules import check
from .scales import weight_scales
from .verify import ROUNDS, SAMPLES, Checks, verified

STEPS = 3

if TYPE_CHECKING:
    from torch import nn

    from ..task import Task


def export(
    model: nn.Module,
    configuration: Mapping[str, str],
    path: str | Path,
    target: str = "onnx",
    *,
    example_inputs: Any,
    calibration: Calibration | None = None,
    space: SearchSpace | None = None,
    batch_norm: Iterable[Any] | None = None,
    bound: float | None = None,
    opset: int | None = None,
    advance: Callable[[int], None] | None = None,
    task: Task | None = None,
    samples: int = SAMPLES,
    rounds: int = ROUNDS,
    against_float: bool = False,
    generation: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> ExportReport:
    """Write a configuration for a runtime, load it back there, and compare it with the fake-quantized model.

    The artifact is written to the side and takes its place only after the check, which runs in another process with
    nothing but the files; the certificate beside it (``NAME.bitfront.json``; of a folder ``bitfront.json`` in it) holds
    the configuration, digests of everything that went in, and the report.

    Args:
        model: the float model; of a recipe that changes it, the one that ``prepared(task, space, recipe)`` holds.
        configuration: ``{site name: format name}``; sites left out stay in float.
        path: the artifact, a file or a folder as the target has it; its folder is made if needed.
        target: one of ``registry.names()``.
        example_inputs: one batch, as ``Batch.of`` reads it: the model is traced with it and the artifact checked on it.
            Real samples make the better check.
        calibration: scales and ranges that the configuration was measured with. Without it the weight scales are
            computed from the weights, as ``evaluators.calibrate`` does; formats that round activations need it.
        space: the sites; found in the model if not given.
        batch_norm: the calibration batches, if the configuration was measured with batch normalization estimated again
            (``Recipe.batch_norm``): its statistics in the file are then those of the quantized model on this data.
        bound: relative error up to which the artifact counts as the same function; by default the target's own,
            which follows from the model's ``noise`` (see ``ExportReport``).
        opset: version of the target's operator set; by default the target's choice.
        advance: told about each of the ``STEPS`` done: request checked, artifact written, artifact checked back.
        task: whose validation data the artifact is also run on, and whose metric compares it with the fake-quantized
            model, sample by sample.
        samples: most validation samples.
        rounds: timed passes of the artifact in its runtime (few seconds at most); 0: latency is not measured.
        against_float: whether the float model is exported too and timed in turn with the artifact.
        generation: device generation (``device_generations.GENERATIONS``) that must have a kernel for every format;
            by default any format that the runtime loads will do.
        options: what only this target understands.

    Returns:
        The report.

    Raises:
        InvalidInput: unknown target, formats or sites, missing packages, a missing calibration, or violations of the
            target's rules: all of them in one line, each with the nearest choice that works.
        UnsupportedModel: the model cannot be expressed in the target, or the runtime does not load the artifact.
        ExportMismatch: the artifact does not compute what the fake-quantized model computes. Nothing is left behind.
    """
    started = time.perf_counter()
    writer = registry.get(target)
    path = Path(path)
    check_destination(path, writer.layout, target)
    request = _request(model, configuration, example_inputs, calibration, space, opset)
    request = replace(request, name=path.name, generation=generation, options=dict(options or {}))
    check(writer, request)
    request = _with_scales(request, calibration)
    checks = Checks.on(request.example, task, samples, rounds, against_float)
    with taken_on(model, _statistics(request, batch_norm)):
        return _write(writer, request, path, checks, bound, advance or (lambda steps: None), started)


def _write(
    target: Target,
    request: ExportRequest,
    path: Path,
    checks: Checks,
    bound: float | None,
    step: Callable[[int], None],
    started: float,
) -> ExportReport:
    """The artifact, checked back, and its certificate."""
    noise = rounding_noise(request)
    bound = target.default_bound(request, noise) if bound is None else bound
    with placing(path, target.layout) as side, tempfile.TemporaryDirectory() as scratch:
        step(1)
        artifact = target.export(request, side)
        step(1)
        target.check(request, side)
        found = verified(target, request, side, artifact, checks, Path(scratch))
        if found is not None:
            _refuse(found, bound, noise)
        step(1)
        sealed = certificate_path(side if target.layout == "folder" else side / path.name, target.layout)
        home = path if target.layout == "folder" else path.parent
        names = (*artifact.files, sealed.name)
        files = tuple(str(home / name) for name in names)
        if target.layout == "folder":
            files = (str(path), *files)
        size = sum((side / name).stat().st_size for name in artifact.files)
        report = _report(target, request, path, files, size, artifact, found, bound, noise)
        report = replace(report, seconds=time.perf_counter() - started)
        data = [request.example, *checks.batches]
        write_certificate(certificate(target, request, report, side, artifact.files, data), sealed)
    return report


def _refuse(found: Verification, bound: float, noise: float) -> None:
    """Refuse an artifact that computes something else.

    Raises:
        ExportMismatch: says how far it is off.
    """
    if not found.relative_error <= bound:
        worst = max(found.output_errors, key=found.output_errors.__getitem__)
        raise ExportMismatch(
            f"{found.runtime} {found.version} does not compute what the fake-quantized model computes: relative "
            f"error {found.relative_error:.3g} at output {worst!r}, bound {bound:.3g} (rounding noise of the model "
            f"itself: {noise:.3g}); nothing was written"
        )
    quality = found.quality
    if quality is not None and quality.low > quality.tolerance:
        raise ExportMismatch(
            f"{found.runtime} {found.version} is worse than the fake-quantized model: {quality.metric} "
            f"{quality.artifact:.4g} instead of {quality.fake_quantized:.4g}, difference in "
            f"[{quality.low:.3g}, {quality.high:.3g}] on {quality.samples} samples, tolerance {quality.tolerance:.3g}; "
            "nothing was written"
        )


def _report(
    target: Target,
    request: ExportRequest,
    path: Path,
    files: tuple[str, ...],
    size: int,
    artifact: Artifact,
    found: Verification | None,
    bound: float,
    noise: float,
) -> ExportReport:
    details = found.details if found is not None else {}
    integer: dict[str, str] = details.get("integer_kernels", {})
    rounded = [name for name in request.configuration if request.format_at(name).quantizes_activations]
    return ExportReport(
        target=target.name,
        path=str(path),
        files=files,
        bytes_on_disk=size,
        predicted_bytes=predicted_bytes(request),
        float_bytes=artifact.float_bytes,
        relative_error=found.relative_error if found is not None else None,
        bound=bound if found is not None else None,
        noise=noise,
        output_errors=found.output_errors if found is not None else {},
        runtime=found.runtime if found is not None else "",
        version=found.version if found is not None else "",
        node_counts=details.get("node_counts", {}),
        integer_kernels=integer,
        float_kernels=tuple(site for site in rounded if site not in integer) if "integer_kernels" in details else (),
        dynamic_batch=found is not None and found.dynamic_batch,
        opset=artifact.opset,
        seconds=0.0,
        latency=found.latency if found is not None else None,
        float_latency=found.float_latency if found is not None else None,
        quality=found.quality if found is not None else None,
        notes=artifact.notes,
        tensor_bytes=artifact.tensor_bytes,
    )


def predicted_bytes(request: ExportRequest) -> int:
    """What ``size_mb`` says of a configuration, in bytes: sites in their containers, everything else as it is."""
    bits = sum(
        request.format_of(site).stored_bits(site.weight_shape, site.channel_axis)
        if site.name in request.configuration
        else site.elements * site.weight_bits
        for site in request.space.sites
    )
    return request.space.fixed_bytes + (bits + 7) // 8


def _request(
    model: nn.Module,
    configuration: Mapping[str, str],
    example_inputs: Any,
    calibration: Calibration | None,
    space: SearchSpace | None,
    opset: int | None,
) -> ExportRequest:
    chosen = Configuration.from_dict(dict(configuration))
    example = Batch.of(example_inputs)
    if space is None:
        formats = sorted({*chosen.values(), "fp32"})
        space = SearchSpace.from_model(model, example, formats=formats, ties="none")
    unknown = sorted(set(chosen) - set(space.names))
    if unknown:
        raise InvalidInput(f"the configuration names sites that the model does not have: {', '.join(unknown[:5])}")
    return ExportRequest(QuantizedModel(model, space, calibration or Calibration({})), chosen, example, opset)


def _with_scales(request: ExportRequest, calibration: Calibration | None) -> ExportRequest:
    """The request with the scales of its weights, where no calibration was given."""
    if calibration is not None:
        return request
    found = weight_scales(request.model, request.space, request.configuration)
    return replace(request, quantized=QuantizedModel(request.model, request.space, found))


def _statistics(request: ExportRequest, batches: Iterable[Any] | None) -> Statistics:
    """The statistics of batch normalization for the quantized model; empty to keep those of the model."""
    if batches is None:
        return {}
    data = [Batch.of(batch) for batch in batches]
    before = batch_norm_statistics(request.model, data)
    with request.quantized.applied(request.configuration) as model:
        return batch_norm_statistics(model, data, before)
