r"""Whether an allocator can use a table of scores: no site is blind, and none asks for the coarser format.

A table can rank random configurations well and still allocate badly. Where a formula multiplies with a statistic that
is zero at a site (an embedding has no activation trace), all formats of the site cost the same, and an allocator takes
the smallest whatever it breaks. So at every site, for formats f and g that treat activations alike, with s the
oriented score, e the squared weight error and r the range of s over the formats of the site,

.. math:: e_f > 1.1\, e_g \;\Rightarrow\; s_f \ne s_g \;\text{ and }\; s_f \ge s_g - 0.05\, r,

where scores that agree to nine digits of r are equal, and r is at least a millionth of the widest of the network: a
narrower site is free beside it. The same must hold, without the first part, where f rounds activations and g does not
(a formula of the weights alone is no worse than ``hessian_trace`` in this): :math:`s_f \ge s_g - 0.05\, r`.

Because the direction is known, the orientation of a formula is not learned from rankings but read from the table.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidInput
from .statistics import SiteStatistics

Float64 = NDArray[np.float64]
LARGER = 1.1
"""Ratio of squared errors above which one format counts as coarser than another."""
TOLERANCE = 0.05
"""How far a score may fall where the error grows, of the range of the site."""
NARROW = 1e-6
"""Range of a site, of the widest of the network, below which its formats cost nothing."""
_EQUAL = 1e-9  # of the range of the site: closer scores are the same


class Compatibility:
    """What a table must obey on one network, prepared for many tables.

    Args:
        statistics: of its sites; ``weight_error`` or ``bits``, and ``activation_bits`` if there, say what is coarser.

    Raises:
        InvalidInput: the statistics tell neither the error nor the bits of a format.
    """

    def __init__(self, statistics: SiteStatistics) -> None:
        self.statistics = statistics
        known = statistics.format_scalars
        if "weight_error" in known:
            error, factor = known["weight_error"], LARGER
        elif "bits" in known:
            error, factor = np.exp2(-known["bits"]), 1.0
        else:
            raise InvalidInput("the statistics hold neither weight_error nor bits; record one of them")
        activations = known.get("activation_bits", np.zeros(statistics.allowed.shape))
        offered = statistics.allowed[:, :, None] & statistics.allowed[:, None, :]
        larger = error[:, :, None] > factor * error[:, None, :]
        alike = activations[:, :, None] == activations[:, None, :]
        rounded = activations[:, :, None] < activations[:, None, :]
        self._coarser = offered & larger & alike
        self._no_finer = offered & rounded & ~(error[:, :, None] < error[:, None, :])
        self._free = ~self._coarser.any(axis=(1, 2))  # sites whose formats have one error

    def orientation(self, table: Float64) -> tuple[int, str]:
        """The direction of a table, and its fault in that direction.

        Args:
            table: scores [sites, formats], NaN where a format is not offered.

        Returns:
            1 where a large score means a large loss, -1 where it means a small one; and the reason why an allocator
            cannot use the table, empty if it can. Of two directions with a fault the one with fewer violations.
        """
        upwards, downwards = self.violations(table), self.violations(-table)
        orientation = 1 if upwards.sum() <= downwards.sum() else -1
        return orientation, self.fault(orientation * table)

    def violations(self, loss: Float64) -> NDArray[np.bool_]:
        """Pairs of formats [sites, formats, formats] whose scores are equal or fall where the error grows."""
        difference = loss[:, :, None] - loss[:, None, :]
        span = self._ranges(loss)[:, None, None]
        falls = difference < -TOLERANCE * span
        blind = np.abs(difference) <= _EQUAL * span
        found: NDArray[np.bool_] = (self._coarser & (falls | blind)) | (self._no_finer & falls)
        return found

    def fault(self, loss: Float64) -> str:
        """Why an allocator cannot use a table of predicted losses [sites, formats]; empty if it can."""
        sites, formats = self.statistics.sites, self.statistics.formats
        spans = self._ranges(loss)
        narrow = ~self._free & (spans <= NARROW * spans.max(initial=0.0))
        if narrow.any():
            return f"the formats of site {sites[int(np.argmax(narrow))]} cost nothing beside those of others"
        found = self.violations(loss)
        if not found.any():
            return ""
        site, coarse, fine = (int(each) for each in np.argwhere(found)[0])
        told = "no more than" if abs(loss[site, coarse] - loss[site, fine]) <= _EQUAL * spans[site] else "less than"
        return f"site {sites[site]} in {formats[coarse]} costs {told} in {formats[fine]}, whose error is smaller"

    def _ranges(self, table: Float64) -> Float64:
        """Of the scores of every site."""
        allowed = self.statistics.allowed
        high = np.where(allowed, table, -np.inf).max(axis=1)
        span: Float64 = high - np.where(allowed, table, np.inf).min(axis=1)
        return span
