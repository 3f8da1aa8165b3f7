"""The target ``bundle``: everything about a configuration in one plain folder, readable without bitfront.

==========================  ========================================================================================
file                        content
==========================  ========================================================================================
``README.md``               what lies here and how it is read, for a human
``configuration.json``      ``{site: format}``
``sites.json``              every site: layer kind, parameter, shape, its format spelled out (bits, granularity, …)
``model.safetensors``       parameters and buffers of the float model; a shared one once, ``aliases`` in sites.json
``quantization.safetensors``  scales, zero-points, reconstructed codes, input ranges and corrected biases of this
                            configuration, under ``<kind>|<format>|<site or module>``
``model.pt2``               the float model as a ``torch.export`` program, where ``torch.export`` takes it
``evidence.json``           what was predicted and measured, latency with the digest of its table, environment, licence
==========================  ========================================================================================
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..errors import ExportMismatch
from ..evaluators import Calibration
from ..formats import Format, activation_name, weight_name
from ..space import SearchSpace, Site, Tie
from .bundle_program import save_program
from .bundle_readme import readme
from .comparison import outputs_of, relative_error
from .protocol import Capability, ExportRequest, Layout, Violation
from .report import Artifact

_PROGRAM_BOUND = 1e-4


class BundleTarget:
    """A folder for people and other tools: the float model, the configuration, and the evidence for it.

    Options: ``evidence``, plain JSON of what was predicted and measured; a run hands in its own.
    """

    name = "bundle"
    layout: Layout = "folder"
    packages = ("safetensors",)
    extra = ""
    libraries: tuple[str, ...] = ()
    options = frozenset({"evidence"})

    def capability(self, format: Format, site: Site | None = None) -> Capability:
        """Every format: nothing is converted."""
        return Capability(True, "written down, not converted")

    def fused(self, space: SearchSpace) -> list[Tie]:
        """None."""
        return []

    def validate(self, request: ExportRequest) -> list[Violation]:
        """The evidence must be JSON."""
        evidence = request.options.get("evidence")
        try:
            json.dumps(evidence, allow_nan=False)
        except (TypeError, ValueError) as cause:
            return [Violation((), "evidence", f"must be plain JSON with finite numbers: {cause}")]
        return []

    def export(self, request: ExportRequest, folder: Path) -> Artifact:
        """Write the folder."""
        from safetensors.torch import save_file

        tensors, aliases = _distinct(request.model)
        save_file(tensors, folder / "model.safetensors")
        save_file(_quantization(request), folder / "quantization.safetensors")
        refused = save_program(request.model, request.example, folder / "model.pt2")
        sites = [_site(site, request) for site in request.space.sites]
        evidence = request.options.get("evidence")
        _json(folder / "configuration.json", request.configuration.to_dict())
        _json(folder / "sites.json", {"sites": sites, "aliases": aliases})
        _json(folder / "evidence.json", {"digest": request.configuration.digest, "evidence": evidence})
        (folder / "README.md").write_text(readme(request, sites, evidence, refused), encoding="utf-8")
        names = sorted(file.name for file in folder.iterdir() if file.name != "README.md")
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        notes = (f"no model.pt2: {refused}",) if refused else ()
        if evidence is None:
            notes = (*notes, "no evidence was given; `bitfront export DIR --target bundle` takes it from the run")
        return Artifact(("README.md", *names), size, notes=notes)

    def check(self, request: ExportRequest, folder: Path) -> None:
        """Read the folder back: tensors bit for bit, the configuration, and the program's outputs.

        Raises:
            ExportMismatch: names what differs.
        """
        from safetensors.torch import load_file

        given, content = load_file(folder / "model.safetensors"), json.loads((folder / "sites.json").read_text())
        for name, tensor in _tensors(request.model).items():
            found = given.get(content["aliases"].get(name, name))
            if found is None or found.dtype != tensor.dtype or not _same(found, tensor):
                raise ExportMismatch(f"the tensor {name} in model.safetensors is not that of the model")
        if json.loads((folder / "configuration.json").read_text()) != request.configuration.to_dict():
            raise ExportMismatch("configuration.json is not the configuration that was asked for")
        if (folder / "model.pt2").is_file():
            _check_program(request, folder / "model.pt2")

    def runtime(self, request: ExportRequest, folder: Path, scratch: Path) -> None:
        """Nothing in it is quantized, so nothing is run."""
        return

    def default_bound(self, request: ExportRequest, noise: float) -> float:
        """Of the program against the float model."""
        return _PROGRAM_BOUND


def _check_program(request: ExportRequest, path: Path) -> None:
    training = [module for module in request.model.modules() if module.training]
    request.model.eval()
    try:
        with torch.no_grad():
            wanted = outputs_of(request.example(request.model))
            given = outputs_of(request.example(torch.export.load(path).module()))
    finally:
        for module in training:
            module.training = True
    errors = [relative_error(one, other) for one, other in zip(given, wanted, strict=True)]
    if not max(errors) <= _PROGRAM_BOUND:
        raise ExportMismatch(
            f"model.pt2 does not compute what the float model computes: relative error {max(errors):.3g}"
        )


def _tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: each.detach() for name, each in model.state_dict().items() if isinstance(each, torch.Tensor)}


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    flat = [each.cpu().contiguous().reshape(-1).view(torch.uint8) for each in (one, other)]
    return one.shape == other.shape and bool(torch.equal(*flat))


def _distinct(model: torch.nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Every tensor once, in memory of its own, and the other names of shared ones."""
    seen: dict[tuple[int, torch.Size, tuple[int, ...]], str] = {}
    kept: dict[str, torch.Tensor] = {}
    aliases: dict[str, str] = {}
    for name, tensor in _tensors(model).items():
        key = tensor.data_ptr(), tensor.shape, tensor.stride()
        if tensor.numel() and key in seen:
            aliases[name] = seen[key]
            continue
        seen[key] = name
        kept[name] = tensor.cpu().clone(memory_format=torch.contiguous_format)
    return kept, aliases


def _quantization(request: ExportRequest) -> dict[str, torch.Tensor]:
    """What the calibration holds of this configuration."""
    calibration, chosen = request.quantized.calibration, dict(request.configuration)
    formats = {name: Format.parse(format) for name, format in chosen.items()}
    weights = {(name, weight_name(each.weight)) for name, each in formats.items()}
    modules = {
        (module, activation_name(format.activation))
        for site in request.space.sites
        if (format := formats.get(site.name)) is not None and format.activation is not None
        for module in site.modules
    }
    own = Calibration(
        {key: each for key, each in calibration.weights.items() if key in weights},
        {key: each for key, each in calibration.codes.items() if key in weights},
        {key: each for key, each in calibration.ranges.items() if key in modules},
        {key: each for key, each in calibration.biases.items() if chosen.get(key[0]) == key[1]},
    )
    return {name: torch.from_numpy(array).contiguous() for name, array in sorted(own.to_arrays().items())}


def _site(site: Site, request: ExportRequest) -> dict[str, Any]:
    format = request.format_of(site)
    activation = format.activation
    return {
        "name": site.name,
        "kind": site.kind,
        "parameter": site.parameter,
        "modules": list(site.modules),
        "weight_shape": list(site.weight_shape),
        "channel_axis": site.channel_axis,
        "format": str(format),
        "weight": asdict(format.weight),
        "activation": None if activation is None else asdict(activation),
    }


def _json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1, allow_nan=False, sort_keys=True) + "\n", encoding="utf-8")
