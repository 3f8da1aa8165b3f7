r"""Size on disk.

.. math:: \mathrm{size} = \frac{1}{8 \cdot 10^6} \Big( 8\,B_0 + \sum_i (n_i\, c(f_i) + s_i(f_i)) \Big)
    \quad\text{in MB} = 10^6\ \text{bytes}

with n elements of a weight, c the bits of the container that its codes lie in (3-bit codes in 4 bits, 5 to 7 in 8;
6-bit floats packed), s the bits of scales and zero-points, and B_0 the bytes of all tensors outside the sites.
"""

from __future__ import annotations

from ..space import SearchSpace
from .cost_model import Question
from .prices import PriceTable, exact


def size_mb(space: SearchSpace, question: Question) -> PriceTable:
    """Megabytes (10^6 bytes) that weights and scales take on disk; the base is everything outside the sites.

    The container of a file format itself (names, graph) is not counted.
    """
    return exact(
        space,
        "size_mb",
        "MB",
        lambda site, format_: format_.stored_bits(site.weight_shape, site.channel_axis) / 8e6,
        "exact: codes in their containers (6-bit floats packed), scales and zero-points; MB = 10^6 bytes",
        base=space.fixed_bytes / 1e6,
    )
