"""``export``: from a configuration to a checked artifact."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ExportMismatch, InvalidInput
from ..evaluators import Calibration, QuantizedModel
from ..evaluators.batch_norm import Statistics, batch_norm_statistics, taken_on
from ..files import replacing, write_text
from ..space import Configuration, SearchSpace
from ..task import Batch
from . import registry
from .noise import rounding_noise
from .protocol import Exporter, ExportRequest
from .report import ExportReport
from .scales import weight_scales

STEPS = 3

if TYPE_CHECKING:
    from torch import nn


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
) -> ExportReport:
    """Write a configuration for a runtime, load it back there, and compare it with the fake-quantized model.

    The artifact is written to the side and takes its place only after the check; ``NAME.bitfront.json`` beside it holds
    the configuration and the report.

    Args:
        model: the float model; of a recipe that changes it, the one that ``prepared(task, space, recipe)`` holds.
        configuration: ``{site name: format name}``; sites left out stay in float.
        path: the artifact; its folder is made if needed.
        target: one of ``registry.names()``.
        example_inputs: one batch, as ``Batch.of`` reads it: the model is traced with it and the artifact checked on it.
            Real samples make the better check.
        calibration: scales and ranges that the configuration was measured with. Without it the weight scales are
            computed from the weights, as ``evaluators.calibrate`` does; formats that round activations need it.
        space: the sites; found in the model if not given.
        batch_norm: the calibration batches, if the configuration was measured with batch normalization estimated again
            (``Recipe.batch_norm``): its statistics in the file are then those of the quantized model on this data.
        bound: relative error up to which the artifact counts as the same function; by default the exporter's own,
            which follows from the model's ``noise`` (see ``ExportReport``).
        opset: version of the target's operator set; by default the exporter's choice.
        advance: told about each of the ``STEPS`` done: request checked, artifact written, artifact checked back.

    Returns:
        The report.

    Raises:
        InvalidInput: unknown target, formats or sites, missing packages, or a missing calibration.
        UnsupportedModel: the model cannot be expressed in the target, or the runtime does not load the artifact.
        ExportMismatch: the artifact does not compute what the fake-quantized model computes. Nothing is left behind.
    """
    started = time.perf_counter()
    exporter = registry.get(target)
    path = Path(path)
    if path.is_dir():
        raise InvalidInput(f"{path} is a folder; give the path of a file, such as {path / 'model.onnx'}")
    request = _request(model, configuration, example_inputs, calibration, space, opset)
    exporter.validate(request)
    with taken_on(model, _statistics(request, batch_norm)):
        return _write(exporter, request, path, target, bound, advance or (lambda steps: None), started)


def _write(
    exporter: Exporter,
    request: ExportRequest,
    path: Path,
    target: str,
    bound: float | None,
    step: Callable[[int], None],
    started: float,
) -> ExportReport:
    """The artifact, checked back, and its certificate."""
    noise = rounding_noise(request)
    bound = exporter.default_bound(request, noise) if bound is None else bound
    with replacing(path) as side:
        step(1)
        artifact = exporter.export(request, side)
        step(1)
        found = exporter.verify(request, side)
        step(1)
        if not found.relative_error <= bound:
            worst = max(found.output_errors, key=found.output_errors.__getitem__)
            raise ExportMismatch(
                f"{found.runtime} {found.version} does not compute what the fake-quantized model computes: relative "
                f"error {found.relative_error:.3g} at output {worst!r}, bound {bound:.3g} (rounding noise of the model "
                f"itself: {noise:.3g}); nothing was written"
            )
        size = side.stat().st_size
    certificate = path.with_suffix(".bitfront.json")
    report = ExportReport(
        target=target,
        path=str(path),
        files=(str(path), str(certificate)),
        bytes_on_disk=size,
        float_bytes=artifact.float_bytes,
        relative_error=found.relative_error,
        bound=bound,
        noise=noise,
        output_errors=found.output_errors,
        runtime=found.runtime,
        version=found.version,
        node_counts=found.node_counts,
        integer_kernels=found.integer_kernels,
        float_kernels=found.float_kernels,
        dynamic_batch=found.dynamic_batch,
        opset=artifact.opset,
        seconds=time.perf_counter() - started,
    )
    content = {
        "schema_version": 1,
        "bitfront": _own_version(),
        "configuration": request.configuration.to_dict(),
        "calibration": request.quantized.calibration.digest,
        "report": report.to_dict(),
    }
    write_text(certificate, json.dumps(content, indent=2) + "\n")
    return report


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
    for site in space.sites:
        if site.name in chosen and not site.offers(chosen[site.name]):
            raise InvalidInput(
                f"site {site.name} ({site.kind}) does not offer {chosen[site.name]!r}; "
                f"it offers {', '.join(site.formats)}"
            )
    calibration = weight_scales(model, space, chosen) if calibration is None else calibration
    return ExportRequest(QuantizedModel(model, space, calibration), chosen, example, opset)


def _statistics(request: ExportRequest, batches: Iterable[Any] | None) -> Statistics:
    """The statistics of batch normalization for the quantized model; empty to keep those of the model."""
    if batches is None:
        return {}
    data = [Batch.of(batch) for batch in batches]
    before = batch_norm_statistics(request.model, data)
    with request.quantized.applied(request.configuration) as model:
        return batch_norm_statistics(model, data, before)


def _own_version() -> str:
    try:
        return version("bitfront")
    except PackageNotFoundError:
        return "unknown"
