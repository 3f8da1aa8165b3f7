"""The size baseline against the price of bits."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from bitfront.formats import Format
from bitfront.proxies.bparams import BParams

CASES = runpy.run_path(str(Path(__file__).parent / "fisher_cases.py"))
images = CASES["images"]


def test_it_falls_with_the_bits_of_all_weights():
    task, space, calibration = images("kl", ("w2", "w4a8", "w8", "fp32"))
    found = BParams().score(task, space, calibration, seed=0, advance=None)
    total = sum(site.elements for site in space.sites)
    for first in space.formats:
        for second in space.formats:
            bits = 27 * Format.parse(first).weight_bits + 48 * Format.parse(second).weight_bits
            assert found.of({"conv": first, "fc": second}) == pytest.approx(1 - bits / (32 * total))
    assert not found.additive
    assert np.isfinite(found.values).all()
