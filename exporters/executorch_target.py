"""executorch: one ``.pte`` file for XNNPACK on CPUs, with the measured codes and scales."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from ..errors import ExportMismatch
from ..formats import Format, weight_name
from ..space import SearchSpace, Site, Tie
from .bit_packing import packed
from .protocol import Capability, ExportRequest, Layout, Runtime, Violation
from .report import Artifact

_CONTAINERS = (4, 8)


class ExecutorchTarget:
    """A file that executorch's runtime loads on phones and servers; the batch size is that of the example.

    Linear layers and 2-D convolutions keep their codes in 8 or 4 bits (``executorch_graph`` has the table). Everything
    else runs in float, on XNNPACK where it has the operator.
    """

    name = "executorch"
    layout: Layout = "file"
    packages: tuple[str, ...] = ("executorch", "flatbuffers", "ruamel.yaml", "tabulate")
    extra = "executorch"
    libraries: tuple[str, ...] = ("XNNPACK",)
    options: frozenset[str] = frozenset()

    def capability(self, format: Format, site: Site | None = None) -> Capability:
        """Which formats XNNPACK has kernels for; the reason says in how many bits the codes lie."""
        missing = _weight_refusal(format, site) or _input_refusal(format)
        if missing:
            return Capability(False, missing)
        if format.is_wide:
            return Capability(True, "float32")
        return Capability(True, f"codes stored in {format.weight.container_bits} bits")

    def fused(self, space: SearchSpace) -> list[Tie]:
        """None: every product is a node of its own."""
        return []

    def validate(self, request: ExportRequest) -> list[Violation]:
        """Types of the weights; executorch has no versions of its operator set."""
        found = request.narrow_weights()
        if request.opset is not None:
            found.append(Violation((), f"opset={request.opset}", "executorch has no operator sets; leave opset out"))
        return found

    def export(self, request: ExportRequest, folder: Path) -> Artifact:
        """Trace, insert codes and roundings, lower to XNNPACK, write the file.

        Raises:
            UnsupportedModel: ``torch.export`` or executorch refuses the model, or XNNPACK the product of a site.
        """
        from .executorch_graph import program
        from .executorch_lowering import lowered

        made = program(request)
        data, left = lowered(made)
        (folder / request.name).write_bytes(data)
        tensors = {id(tensor): tensor for tensor in (*request.model.parameters(), *request.model.buffers())}
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        return Artifact((request.name,), size, 0, _notes(request, made.kinds, left))

    def check(self, request: ExportRequest, folder: Path) -> None:
        """Look for the codes and scales of every narrow site in the file, byte for byte.

        Raises:
            ExportMismatch: names the first site whose codes or scales are not there.
        """
        data = (folder / request.name).read_bytes()
        for site in request.space.sites:
            target = request.format_of(site)
            if target.is_wide:
                continue
            if not any(all(part in data for part in parts) for parts in _layouts(request, site)):
                raise ExportMismatch(f"site {site.name}: the file does not hold the codes and scales of its weight")

    def runtime(self, request: ExportRequest, folder: Path, scratch: Path) -> Runtime:
        """The runtime of executorch, with its XNNPACK backend."""
        from .executorch_lowering import KINDS

        return Runtime(Path(__file__).with_name("executorch_loader.py"), {"kinds": KINDS})

    def default_bound(self, request: ExportRequest, noise: float) -> float:
        """Weight-only: 1e-4. Where inputs are rounded: three times the model's own noise, within [5e-3, 0.5]."""
        return min(max(5e-3, 3 * noise), 0.5) if request.rounded_modules else 1e-4


def _weight_refusal(format: Format, site: Site | None) -> str:
    weight = format.weight
    if format.is_wide:
        return "" if weight.bits == 32 else "kernels of XNNPACK here are float32 or integer; take fp32 or w8"
    plain = weight.number == "int" and weight.symmetric and weight.granularity == "channel"
    if not plain or weight.container_bits not in _CONTAINERS:
        return "XNNPACK takes symmetric integers with one scale per output channel (w3 to w8)"
    if site is None:
        return ""
    if site.kind not in ("linear", "conv2d") or dict(site.attributes).get("shared_with") is not None:
        return (
            f"only linear layers and 2-D convolutions with a weight of their own are packed, not {site.kind}; take fp32"
        )
    if site.kind == "conv2d" and dict(site.attributes).get("groups", 1) != 1:
        static = format.activation is not None and not format.activation.dynamic
        if not static or weight.container_bits != 8:
            return "grouped convolutions have kernels for 8-bit codes and statically rounded inputs only"
    return ""


def _input_refusal(format: Format) -> str:
    activation = format.activation
    if format.is_wide or activation is None:
        return ""
    alone = f"{weight_name(format.weight)} leaves them alone"
    if activation.number != "int" or activation.bits != 8 or activation.granularity not in ("tensor", "token"):
        return f"XNNPACK rounds inputs to 8-bit integers, with one static scale or one per token; {alone}"
    if activation.dynamic and activation.symmetric:
        return f"XNNPACK rounds inputs per token with a zero-point; take {weight_name(format.weight)}a8dz"
    return ""


def _notes(request: ExportRequest, kinds: dict[str, str], left: dict[str, int]) -> tuple[str, ...]:
    notes = [f"the batch size is {len(request.example)}, that of the example"]
    rounded = set(request.rounded_modules.values())
    floating = [name for name, kind in kinds.items() if kind == "packed" and name in rounded]
    if floating:
        notes.append(
            f"{len(floating)} sites multiply rounded inputs with packed codes in float, because their output is not "
            "rounded by the next layer or the codes have 4 bits"
        )
    unpacked = [name for name, kind in kinds.items() if kind == "unpacked"]
    if unpacked:
        notes.append(f"grouped convolutions whose output is not rounded hold 32-bit weights: {', '.join(unpacked)}")
    other = {name: count for name, count in left.items() if "call_delegate" not in name}
    if other:
        told = ", ".join(f"{count} {name}" for name, count in other.items())
        notes.append(f"outside XNNPACK, on executorch's portable kernels: {told}")
    return tuple(notes)


def _layouts(request: ExportRequest, site: Site) -> list[tuple[bytes, ...]]:
    """What the file may hold for a site: codes and scales, the last dimension of convolutions being the channels."""
    target = request.format_of(site).weight
    weight = request.model.get_parameter(site.parameter)
    quantized = request.quantized.calibration.quantize(site, weight, target)
    codes, scale = quantized.codes, _bytes(quantized.scale.float())
    if codes.ndim == 4:
        last = codes.permute(0, 2, 3, 1)
        found: list[tuple[bytes, ...]] = [
            (_bytes(last) if target.container_bits == 8 else _nibbles(last.flatten(1)), scale)
        ]
        if codes.shape[1] == 1:  # depthwise: [1, height, width, channels]
            found.append((_bytes(codes.permute(1, 2, 3, 0)), scale))
        if dict(site.attributes).get("groups", 1) != 1:
            found.append((_bytes(request.quantized.weight(site, target).permute(0, 2, 3, 1)),))
            found.append((_bytes(request.quantized.weight(site, target).permute(1, 2, 3, 0)),))
        return found
    return [(_bytes(codes) if target.container_bits == 8 else _nibbles(codes), scale)]


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().numpy().tobytes()


def _nibbles(codes: Tensor) -> bytes:
    """Codes plus 8, two in a byte, each row filled up to whole bytes."""
    values = codes.numpy().astype(np.int16) + 8
    padded = np.pad(values, ((0, 0), (0, values.shape[1] % 2)), constant_values=8)
    return packed(padded.astype(np.uint8), 4).tobytes()
