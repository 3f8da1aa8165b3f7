"""The rules before an export: every reason against a configuration, with the nearest choice that works.

=================  ====================================================================================================
rule               a format is refused at a site where
=================  ====================================================================================================
shape              its groups do not divide the rows, or the layer kind cannot round its input (``Format.refusal``)
capability         the target cannot represent it there (``Target.capability``)
kernel             a device generation is named for which none of the target's libraries has a kernel
fused group        the runtime fuses the site with others that have another format (``Target.fused``)
the model          ``Target.validate`` says so: types, sizes, options
=================  ====================================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from ..device_generations import GENERATIONS, generations
from ..errors import InvalidInput
from ..formats import Format, names, precision_order
from ..space import Site
from .protocol import Capability, ExportRequest, Target, Violation


def check(target: Target, request: ExportRequest) -> None:
    """Refuse what cannot be exported, before any work is done.

    Raises:
        InvalidInput: one line that names every violation.
    """
    check_packages(target)
    found = violations(target, request)
    if found:
        told = "; ".join(f"({number}) {each}" for number, each in enumerate(found, start=1))
        count = f"{len(found)} violations: " if len(found) > 1 else ""
        raise InvalidInput(f"{target.name} cannot take this configuration: {count}{told}")


def check_packages(target: Target) -> None:
    """Refuse a target whose packages are not installed.

    Raises:
        InvalidInput: names them.
    """
    missing = [package for package in target.packages if find_spec(package) is None]
    if missing:
        how = f"'bitfront[{target.extra}]'" if target.extra else " ".join(missing)
        raise InvalidInput(f"exporting to {target.name} needs {', '.join(missing)}; run: pip install {how}")


def violations(target: Target, request: ExportRequest) -> list[Violation]:
    """All reasons against a configuration, in the order of the sites, groups and the model last."""
    check_generation(request.generation)
    found = []
    for site in request.space.sites:
        format = request.format_of(site)
        if site.name not in request.configuration:
            continue
        verdict = _offered(site, format) and takes(target, site, format, request.generation)
        if not verdict:
            found.append(
                Violation(
                    (site.name,), str(format), verdict.reason, nearest(target, [site], format, request.generation)
                )
            )
    found += _torn(target, request)
    unknown = sorted(set(request.options) - target.options)
    if unknown:
        known = ", ".join(sorted(target.options)) or "none"
        found.append(Violation((), ", ".join(unknown), f"no option of this target; it has {known}"))
    return found + target.validate(request)


def _offered(site: Site, format: Format) -> Capability:
    """Whether the space has scales for it; what a layer can never take is told by ``takes``, with the reason."""
    if _refusal(site, format) or site.offers(format.name) or format.name == "fp32":
        return Capability(True, "offered")
    return Capability(False, f"the {site.kind} does not offer it; it offers {', '.join(site.formats)}")


def _refusal(site: Site, format: Format) -> str:
    """Why a layer cannot take a format, whatever the target; empty if it can."""
    shared = dict(site.attributes).get("shared_with")
    rounds = format.quantizes_activations and not site.offers(format.name)
    if rounds and shared is not None and not any(Format.parse(name).quantizes_activations for name in site.formats):
        return f"{format} rounds the input, and the weight is shared with a layer whose input may be indices"
    return format.refusal(site.kind, site.weight_shape, site.channel_axis)


def takes(target: Target, site: Site, format: Format, generation: str | None = None) -> Capability:
    """Whether a site may be exported in a format: shape, capability, kernel."""
    refused = _refusal(site, format)
    if refused:
        return Capability(False, refused)
    verdict = target.capability(format, site)
    if verdict and generation is not None:
        return _kernel(target, format, generation, verdict)
    return verdict


def nearest(
    target: Target, sites: Sequence[Site], wanted: Format, generation: str | None = None, among: Sequence[str] = ()
) -> str | None:
    """The format with the closest bits that all sites can take.

    Closest in weight bits, then in rounding the input or not, then in its bits, then one that the sites offer, then
    the finer one, then in kind of number, granularity, group and zero-point.

    Args:
        target: where to.
        sites: all must take it.
        wanted: what was asked for.
        generation: of the device, or ``None``.
        among: formats to choose from; by default those that the sites offer and all that runtimes know.
    """
    offered = [name for name in sites[0].formats if all(site.offers(name) for site in sites)]
    order = precision_order([*(among or (*offered, *names())), wanted.name])
    rank = {name: position for position, name in enumerate(order)}

    def distance(name: str) -> tuple[object, ...]:
        each = Format.parse(name)
        return (
            abs(each.weight_bits - wanted.weight_bits),
            each.quantizes_activations != wanted.quantizes_activations,
            abs((each.activation_bits or 32) - (wanted.activation_bits or 32)),
            name not in offered,
            each.weight_bits < wanted.weight_bits,
            each.weight.number != wanted.weight.number,
            each.weight.granularity != wanted.weight.granularity,
            abs(each.weight.group - wanted.weight.group),
            each.weight.symmetric != wanted.weight.symmetric,
            abs(rank[name] - rank[wanted.name]),
            rank[name],
        )

    valid = (
        name
        for name in (among or rank)
        if name != wanted.name and all(takes(target, site, Format.parse(name), generation) for site in sites)
    )
    return min(valid, key=distance, default=None)


def check_generation(generation: str | None) -> None:
    """Refuse an unknown device generation.

    Raises:
        InvalidInput: names those that are known.
    """
    if generation is not None and generation not in GENERATIONS:
        raise InvalidInput(f"unknown device generation {generation!r}; choose one of {', '.join(GENERATIONS)}")


def _kernel(target: Target, format: Format, generation: str, verdict: Capability) -> Capability:
    if format.is_wide and format.weight_bits == 32:
        return verdict
    found = generations(format)
    own = {name: _own(target, libraries) for name, libraries in found.items()}
    if own.get(generation):
        return Capability(True, f"{verdict.reason}; kernel of {', '.join(own[generation])}")
    with_kernel = [name for name, libraries in own.items() if libraries]
    elsewhere = f"there are some on {', '.join(with_kernel)}" if with_kernel else "none is documented on any device"
    return Capability(False, f"no kernel on {generation} ({elsewhere})")


def _own(target: Target, libraries: Sequence[str]) -> list[str]:
    return [name for name in libraries if not target.libraries or name.startswith(target.libraries)]


def _torn(target: Target, request: ExportRequest) -> list[Violation]:
    """Fused groups whose sites have different formats."""
    sites = {site.name: site for site in request.space.sites}
    found = []
    for tie in target.fused(request.space):
        members = [sites[name] for name in tie.sites]
        given = {site.name: str(request.format_of(site)) for site in members}
        if len(set(given.values())) == 1:
            continue
        shared = _shared(target, members, [given[site.name] for site in members], request.generation)
        told = ", ".join(f"{name} {format}" for name, format in given.items())
        found.append(Violation(tie.sites, told, f"must share a format ({tie.reason})", shared))
    return found


def _shared(target: Target, members: Sequence[Site], given: Sequence[str], generation: str | None) -> str | None:
    """One format for a fused group: one of the given ones if all can take it (the finest), else the nearest to it."""
    finest = precision_order(given)
    for name in reversed(finest):
        if all(takes(target, site, Format.parse(name), generation) for site in members):
            return name
    return nearest(target, members, Format.parse(finest[-1]), generation)
