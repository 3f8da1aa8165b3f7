"""The baseline of computation against the price of bit operations."""

import runpy
from pathlib import Path

import pytest
from bitfront.hw_models import price
from bitfront.proxies.bops import BOPs

CASES = runpy.run_path(str(Path(__file__).parent / "fisher_cases.py"))
images = CASES["images"]


def test_it_falls_with_the_price_in_bit_operations():
    task, space, calibration = images("kl", ("w2", "w4a8", "w8", "bf16", "fp32"))
    found = BOPs().score(task, space, calibration, seed=0, advance=None)
    prices = price(space, batch=1, metrics=["bops"])
    whole = sum(site.macs for site in space.sites) * 1024
    for first in space.formats:
        for second in space.formats:
            chosen = {"conv": first, "fc": second}
            assert found.of(chosen) == pytest.approx(1 - prices.of(chosen)["bops"].value / whole, abs=1e-12)
    assert found.of(space.uniform("fp32")) == 0
