"""How sites and ties are found in a model: from the modules, and from one traced forward pass."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .errors import InvalidInput
from .formats import Format
from .space import SearchSpace, Site, Tie, match_sites, no_sites
from .task import Batch
from .tracing import Call, Trace, per_sample, trace

if TYPE_CHECKING:
    from torch import Tensor, nn

#: Names of sibling projections that serving runtimes fuse into one kernel.
_FUSED = (
    (re.compile(r"(?:q|k|v)(?:_?proj|_?lin)?"), "q/k/v"),
    (re.compile(r"(?:query|key|value)(?:_proj)?"), "q/k/v"),
    (re.compile(r"(?:to|w|in_proj|linear)_?(?:q|k|v)"), "q/k/v"),
    (re.compile(r"(?:gate|up)(?:_proj)?"), "gate/up"),
    (re.compile(r"w1|w3"), "gate/up"),
    (re.compile(r"wi_[01]"), "gate/up"),
)


@dataclass(frozen=True)
class _Weight:
    """A weight of a module before the trace: which parameter, what kind, which axis holds the output channels."""

    suffix: str
    parameter: str
    kind: str
    channel_axis: int


def discover(
    model: nn.Module,
    example_inputs: Any,
    formats: Sequence[str],
    exclude: Sequence[str],
    ties: str | Sequence[Sequence[str]],
) -> SearchSpace:
    """Find sites and ties; see ``SearchSpace.from_model`` for arguments and errors."""
    if isinstance(exclude, str):
        raise InvalidInput(f"exclude must be a list of globs, got the text {exclude!r}; write [{exclude!r}]")
    if not formats:
        raise InvalidInput("no formats given; offer at least one, such as formats=['w4', 'w8', 'bf16']")
    example = Batch.of(example_inputs)
    found = trace(model, example, lambda module: bool(_weights(module)))
    skipped: dict[str, str] = {}
    unused: list[str] = []
    by_parameter: dict[int, Site] = {}
    canonical = {id(parameter): name for name, parameter in model.named_parameters()}
    for name, module in model.named_modules():
        for weight in _weights(module):
            full = ".".join(part for part in (name, weight.suffix) if part)
            if name not in found.calls:
                unused.append(full)
                continue
            try:
                tensor = module.get_parameter(weight.parameter)
            except AttributeError:
                skipped[full] = f"its {weight.parameter} is not a plain parameter (parametrized or already packed)"
                continue
            if not tensor.is_floating_point():
                skipped[full] = f"its {weight.parameter} is {tensor.dtype}, not floating point"
                continue
            site = _site(full, name, module, weight, tensor, found, formats)
            site = replace(site, parameter=canonical[id(tensor)])
            known = by_parameter.get(id(tensor))
            by_parameter[id(tensor)] = site if known is None else _merge(known, site)
    everything = sorted(by_parameter.values(), key=lambda site: found.calls[site.modules[0]][0].order)
    if not everything:
        raise no_sites(model, skipped)
    excluded = match_sites([site.name for site in everything], exclude, "exclude")
    sites = [site for site in everything if site.name not in excluded]
    if not sites:
        raise InvalidInput("exclude leaves no site; offer at least one layer to the search")
    for site in sites:
        if not site.formats:
            raise InvalidInput(
                f"site {site.name} ({site.kind}) can take none of {', '.join(formats)}; "
                "add a weight-only format such as w8, or exclude the site"
            )
    return SearchSpace(
        sites=sites,
        formats=tuple(formats),
        ties=_ties(sites, found, ties),
        unused=tuple(unused),
        skipped=skipped,
        fixed_bytes=_bytes_outside(model, {site.parameter for site in sites}),
        activations=found.activations,
    )


def _weights(module: nn.Module) -> list[_Weight]:
    """The quantizable weights that one module computes with."""
    from torch import nn
    from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

    if isinstance(module, nn.MultiheadAttention):
        if getattr(module, "in_proj_weight", None) is not None:
            inner = [_Weight("in_proj", "in_proj_weight", "mha_in_proj", 0)]
        else:
            inner = [_Weight(f"{part}_proj", f"{part}_proj_weight", "mha_in_proj", 0) for part in "qkv"]
        return [*inner, _Weight("out_proj", "out_proj.weight", "mha_out_proj", 0)]
    if isinstance(module, NonDynamicallyQuantizableLinear):
        return []  # the output projection of a MultiheadAttention, whose weight the attention itself reads
    if isinstance(module, nn.Linear):
        return [_Weight("", "weight", "linear", 0)]
    if isinstance(module, nn.Embedding):
        return [_Weight("", "weight", "embedding", 0)]
    for dimensions, plain, transposed in (
        (1, nn.Conv1d, nn.ConvTranspose1d),
        (2, nn.Conv2d, nn.ConvTranspose2d),
        (3, nn.Conv3d, nn.ConvTranspose3d),
    ):
        if isinstance(module, plain):
            return [_Weight("", "weight", f"conv{dimensions}d", 0)]
        if isinstance(module, transposed):
            return [_Weight("", "weight", f"conv_transpose{dimensions}d", 1)]
    if type(module).__name__ == "Conv1D" and type(module).__module__.startswith("transformers."):
        return [_Weight("", "weight", "hf_conv1d", 1)]
    return []


def _site(
    full: str, name: str, module: nn.Module, weight: _Weight, tensor: Tensor, found: Trace, formats: Sequence[str]
) -> Site:
    calls = found.calls[name]
    return Site(
        name=full,
        kind=weight.kind,
        weight_shape=tuple(tensor.shape),
        macs=per_sample(sum(_macs(weight, tensor, module, call) for call in calls), found.samples),
        formats=_applicable(weight, tensor, formats),
        parameter=f"{name}.{weight.parameter}".lstrip("."),
        modules=(name,),
        channel_axis=weight.channel_axis,
        calls=len(calls),
        input_shape=calls[0].inputs[0],
        output_shape=calls[0].output,
        samples=found.samples,
        attributes=_attributes(module),
        weight_bits=tensor.element_size() * 8,
    )


def _macs(weight: _Weight, tensor: Tensor, module: nn.Module, call: Call) -> int:
    """Multiply-accumulates of one call.

    Linear and convolution: output elements x weight elements behind one output; transposed convolution: input
    elements x weight elements that one input touches; embedding: none (a look-up).
    """
    if weight.kind == "embedding":
        return 0
    if weight.kind == "mha_in_proj":
        embed = int(module.get_parameter("out_proj.weight").shape[0])
        inputs = call.inputs[:3] if weight.suffix == "in_proj" else [call.inputs["qkv".index(weight.suffix[0])]]
        return sum(math.prod(shape) for shape in inputs) * embed
    if weight.kind == "mha_out_proj":
        return math.prod(call.output) * int(tensor.shape[1])
    if weight.kind.startswith("conv_transpose"):
        return math.prod(call.inputs[0]) * (tensor.numel() // int(tensor.shape[0]))
    channels = int(tensor.shape[weight.channel_axis])
    return math.prod(call.output) * (tensor.numel() // channels)


def _applicable(weight: _Weight, tensor: Tensor, formats: Sequence[str]) -> tuple[str, ...]:
    """The formats that a layer can take; see ``Format.refusal``."""
    shape = tuple(tensor.shape)
    return tuple(name for name in formats if not Format.parse(name).refusal(weight.kind, shape, weight.channel_axis))


def _attributes(module: nn.Module) -> tuple[tuple[str, Any], ...]:
    found: list[tuple[str, Any]] = []
    for key in ("stride", "padding", "dilation", "groups", "output_padding", "padding_mode"):
        value = getattr(module, key, None)
        if isinstance(value, (int, str, tuple)):
            found.append((key, value))
    found.append(("bias", getattr(module, "bias", None) is not None))
    return tuple(found)


def _merge(first: Site, second: Site) -> Site:
    """One site for a weight that two modules share; a computing layer gives its kind to a look-up."""
    main, other = (second, first) if first.kind == "embedding" else (first, second)
    return replace(
        main,
        name=first.name,
        macs=first.macs + second.macs,
        formats=tuple(name for name in first.formats if name in second.formats),
        modules=first.modules + second.modules,
        calls=first.calls + second.calls,
        parameter=first.parameter,
        channel_axis=main.channel_axis,
        attributes=(*main.attributes, ("shared_with", other.name)),
    )


def _ties(sites: Sequence[Site], found: Trace, asked: str | Sequence[Sequence[str]]) -> list[Tie]:
    if isinstance(asked, str):
        known = asked in ("auto", "residual", "none")
    else:
        known = isinstance(asked, Sequence) and not any(isinstance(group, str) for group in asked)
    if not known:
        raise InvalidInput(f"ties={asked!r}; choose 'auto', 'residual', 'none' or give groups of site names")
    if asked == "none":
        return []
    groups = _siblings(sites, found)
    owner = {module: site.name for site in sites for module in site.modules}
    if asked == "residual":
        looked_up = {site.name for site in sites if site.kind == "embedding"}
        for left, right in found.residuals:
            if left not in owner or right not in owner or owner[left] == owner[right]:
                continue
            if not looked_up & {owner[left], owner[right]}:
                groups.append(((owner[left], owner[right]), "joined by a residual addition"))
    if not isinstance(asked, str):
        names = [site.name for site in sites]
        for group in asked:
            matched = match_sites(names, group, "ties")
            if len(matched) < 2:
                raise InvalidInput(f"ties: {[*group]} names only {', '.join(matched)}; a tie needs at least two sites")
            groups.append((tuple(name for name in names if name in matched), "asked for"))
    return _united(groups, sites)


def _siblings(sites: Sequence[Site], found: Trace) -> list[tuple[tuple[str, ...], str]]:
    """Linear layers under one parent that read the very same tensor and whose names a runtime fuses."""
    together: dict[tuple[str, int, str], list[str]] = {}
    for site in sites:
        parent, _, leaf = site.modules[0].rpartition(".")
        if site.kind not in ("linear", "hf_conv1d"):
            continue
        for pattern, label in _FUSED:
            if pattern.fullmatch(leaf):
                source = found.calls[site.modules[0]][0].source
                together.setdefault((parent, source, label), []).append(site.name)
                break
    return [
        (tuple(names), f"{label} read one tensor and run as one kernel")
        for (_, _, label), names in together.items()
        if len(names) > 1
    ]


def _united(groups: Sequence[tuple[tuple[str, ...], str]], sites: Sequence[Site]) -> list[Tie]:
    """Overlapping groups become one tie; a tie whose sites share no format is an error."""
    merged: list[tuple[set[str], list[str]]] = []
    for names, reason in groups:
        touching = [item for item in merged if item[0] & set(names)]
        union = set(names).union(*(item[0] for item in touching))
        reasons = list(dict.fromkeys([*(text for item in touching for text in item[1]), reason]))
        merged = [item for item in merged if item not in touching] + [(union, reasons)]
    ties = []
    for members, reasons in merged:
        tied = [site for site in sites if site.name in members]
        if len(tied) < 2:
            continue
        if not set.intersection(*(set(site.formats) for site in tied)):
            raise InvalidInput(f"tied sites {', '.join(site.name for site in tied)} share no format; offer one to all")
        ties.append(Tie(tuple(site.name for site in tied), "; ".join(reasons)))
    return ties


def _bytes_outside(model: nn.Module, inside: set[str]) -> int:
    """Bytes of parameters (each counted once) and persistent buffers that belong to no site."""
    persistent = model.state_dict(keep_vars=True)
    inner = {id(parameter) for name, parameter in model.named_parameters() if name in inside}
    outer = {id(tensor): tensor for tensor in persistent.values() if id(tensor) not in inner}
    return sum(tensor.numel() * tensor.element_size() for tensor in outer.values() if hasattr(tensor, "numel"))
