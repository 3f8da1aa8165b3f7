"""What is known of a layer and of a format without looking at any number: sizes, operations, position, bits."""

from __future__ import annotations

import math

import numpy as np

from ...formats import Format
from ..bit_weighted import noise_bits
from .collect_context import Context


def collect_layers(context: Context, wanted: frozenset[str]) -> dict[str, np.ndarray]:
    """Scalars of sites and of formats; see ``collect.INPUTS``."""
    sites, last = context.space.sites, max(1, len(context.space.sites) - 1)
    rows = [block.matrix_shape for block in context.blocks]
    found = {
        "elements": [float(site.elements) for site in sites],
        "macs": [float(site.macs) for site in sites],
        "depth": [index / last for index in range(len(sites))],
        "fan_in": [float(elements) for _, elements in rows],
        "fan_out": [float(channels) for channels, _ in rows],
        "input_elements": [math.prod(site.input_shape) / site.samples for site in sites],
        "output_elements": [math.prod(site.output_shape) / site.samples for site in sites],
    }
    formats = [Format.parse(name) for name in context.space.formats]
    of_formats = {
        "bits": [[float(each.weight_bits) for each in formats] for _ in sites],
        "activation_bits": [[float(each.activation_bits or site.weight_bits) for each in formats] for site in sites],
        "noise_bits": [[noise_bits(each) for each in formats] for _ in sites],
        "size": [
            [each.stored_bits(site.weight_shape, site.channel_axis) / 8 if site.offers(each.name) else 0.0
             for each in formats]
            for site in sites
        ],
    }  # fmt: skip
    allowed = context.space.allowed
    arrays = {name: np.array(values, dtype=np.float64) for name, values in found.items()}
    arrays |= {name: np.where(allowed, np.array(values, dtype=np.float64), 0.0) for name, values in of_formats.items()}
    return {name: values for name, values in arrays.items() if name in wanted}
