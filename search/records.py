"""Spaces, prices and sensitivities as plain arrays and back, so that the store can keep them. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ..activations import Activation, ActivationGraph, Read
from ..architecture import ArchitectureSpace, Choices, Dimension
from ..errors import InvalidInput
from ..hw_models import Prices, PriceTable, joint_price
from ..hw_models.network import WholeModel
from ..proxies import Sensitivity
from ..space import SearchSpace, Site, Tie
from .stage import Arrays, as_array, from_array


def space_arrays(space: SearchSpace) -> dict[str, np.ndarray]:
    """A space as arrays."""
    document = {
        "digest": space.digest,
        "sites": [asdict(site) for site in space.sites],
        "formats": space.formats,
        "ties": [asdict(tie) for tie in space.ties],
        "unused": space.unused,
        "skipped": space.skipped,
        "fixed_bytes": space.fixed_bytes,
        "activations": None if space.activations is None else asdict(space.activations),
        "architecture": None if space.architecture is None else asdict(space.architecture),
        "choices": None if space.choices is None else space.choices.to_dict(),
    }
    return {"space": as_array(document)}


def space_of(arrays: Arrays) -> SearchSpace:
    """The space that ``space_arrays`` was given.

    Raises:
        InvalidInput: the arrays hold no space, or another one than they say.
    """
    document = from_array(arrays["space"])
    space = SearchSpace(
        [Site(**{name: _tuples(value) for name, value in site.items()}) for site in document["sites"]],
        tuple(document["formats"]),
        [Tie(tuple(tie["sites"]), tie["reason"]) for tie in document["ties"]],
        tuple(document["unused"]),
        document["skipped"],
        document["fixed_bytes"],
        _graph_of(document.get("activations")),
        architecture=_dimensions_of(document.get("architecture")),
        choices=None if document.get("choices") is None else Choices.from_dict(document["choices"]),
    )
    if space.digest != document["digest"]:
        raise InvalidInput(
            f"the stored space {document['digest']} reads back as {space.digest}; it was written by another version, "
            "run the job again with an empty store"
        )
    return space


def _graph_of(document: Mapping[str, Any] | None) -> ActivationGraph | None:
    """The tensors of the forward pass; ``None`` in spaces stored before they were recorded."""
    if document is None:
        return None
    activations = (
        Activation(**{**each, "reads": tuple(Read(**read) for read in each["reads"])})
        for each in document["activations"]
    )
    return ActivationGraph(tuple(activations), document["steps"], document["samples"], tuple(document["operations"]))


def _dimensions_of(document: Mapping[str, Any] | None) -> ArchitectureSpace | None:
    """The dimensions that an architecture was chosen from; ``None`` for the space of a single model."""
    if document is None:
        return None
    told = document["dimensions"]
    dimensions = (Dimension(**{name: _tuples(value) for name, value in each.items()}) for each in told)
    return ArchitectureSpace(tuple(dimensions), _tuples(document["ties"]))


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def price_arrays(prices: Prices) -> dict[str, np.ndarray]:
    """Prices as arrays, without the kernels that were timed for them."""
    arrays: dict[str, np.ndarray] = {}
    about = {}
    for metric, table in prices.items():
        told = {"unit": table.unit, "base": table.base, "source": table.source, "provenance": table.provenance}
        arrays[f"{metric}/values"], arrays[f"{metric}/sigma"] = table.values, table.sigma
        if isinstance(table.whole, WholeModel):
            arrays |= {f"{metric}/whole/{name}": array for name, array in table.whole.to_arrays().items()}
        about[metric] = told
    arrays["about"] = as_array({"tables": about, "device": prices.device, "batch": prices.batch})
    return arrays


def prices_of(arrays: Arrays, space: SearchSpace) -> Prices:
    """The prices that ``price_arrays`` was given."""
    about = from_array(arrays["about"])
    tables = {}
    for metric, told in about["tables"].items():
        prefix = f"{metric}/whole/"
        whole = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        tables[metric] = PriceTable(
            metric=metric,
            values=arrays[f"{metric}/values"],
            sigma=arrays[f"{metric}/sigma"],
            whole=WholeModel.from_arrays(whole) if whole else None,
            joint=joint_price(metric, space, about["batch"]),
            **told,
        )
    return Prices(space, tables, about["device"], about["batch"])


def score_arrays(found: Sensitivity) -> dict[str, np.ndarray]:
    """A sensitivity as arrays."""
    paired: Mapping[tuple[int, int], np.ndarray] = found.pairs or {}
    return {
        "pair_sites": np.array(list(paired), dtype=np.int64).reshape(len(paired), 2),
        "pair_losses": np.array(list(paired.values())),
        "values": found.values,
        "error": found.error if found.error is not None else np.zeros(0),
        "passes": np.array([found.forward_passes, found.backward_passes]),
    }


def score_of(
    arrays: Arrays, seconds: float, proxy: str, sites: Sequence[str], formats: Sequence[str], additive: bool
) -> Sensitivity:
    """The sensitivity that ``score_arrays`` was given."""
    forward, backward = (int(count) for count in arrays["passes"])
    pair_sites = [(int(one), int(other)) for one, other in arrays["pair_sites"]]
    return Sensitivity(
        proxy,
        arrays["values"],
        arrays["error"] if arrays["error"].size else None,
        tuple(sites),
        tuple(formats),
        seconds,
        forward,
        backward,
        additive,
        dict(zip(pair_sites, arrays["pair_losses"], strict=True)) or None,
    )
