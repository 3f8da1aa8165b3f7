"""Which tables an allocator can use, against a naive loop and what the allocator then picks."""

from dataclasses import replace

import bitfront as bf
import numpy as np
import pytest
from bitfront.errors import InvalidInput
from bitfront.proxies.formulas import Compatibility, Formula, SiteStatistics, scores
from bitfront.proxies.formulas.compatibility import LARGER, NARROW, TOLERANCE
from hypothesis import given
from hypothesis import strategies as st

FORMATS = ("w2", "w4", "w8", "w4a8")
ERROR = np.array([16.0, 1.0, 1 / 256, 1.0])
ACTIVATIONS = np.array([32.0, 32.0, 32.0, 8.0])


def statistics(scale=(1.0, 10.0, 0.1), trace=(1.0, 2.0, 0.0), **more):
    sites = len(scale)
    scalars = {"weight_error": np.outer(scale, ERROR), "activation_bits": np.tile(ACTIVATIONS, (sites, 1))}
    return SiteStatistics(
        tuple(f"s{index}" for index in range(sites)),
        FORMATS,
        np.ones((sites, 4), dtype=bool),
        np.full((sites, 2), (2, 4)),
        np.full(sites, 100),
        {},
        {},
        {"trace": np.array(trace, dtype=float)},
        scalars | {"bits": np.tile([2.0, 4.0, 8.0, 4.0], (sites, 1))} | more,
    )


def naive(loss, known, site):
    """Whether a site keeps the rule, pair by pair."""
    errors, bits = known.format_scalars["weight_error"][site], known.format_scalars["activation_bits"][site]
    row, offered = loss[site], known.allowed[site]
    span = row[offered].max() - row[offered].min()
    for one in np.flatnonzero(offered):
        for other in np.flatnonzero(offered):
            falls = row[one] - row[other] < -TOLERANCE * span
            if bits[one] == bits[other] and errors[one] > LARGER * errors[other]:
                if falls or abs(row[one] - row[other]) <= 1e-9 * span:
                    return False
            elif bits[one] < bits[other] and errors[one] >= errors[other] and falls:
                return False
    return True


@given(st.lists(st.integers(0, 6), min_size=12, max_size=12))
def test_the_rule_is_that_of_a_naive_loop(values):
    known = statistics()
    loss = np.array(values, dtype=float).reshape(3, 4)
    spans = loss.max(axis=1) - loss.min(axis=1)
    kept = all(naive(loss, known, site) for site in range(3)) and (spans > 0).all()
    assert (Compatibility(known).fault(loss) == "") == kept


def test_a_site_that_a_formula_is_blind_at_is_named_and_would_get_the_coarsest_format():
    known = statistics()
    table = scores(Formula.parse("trace * weight_error"), known)
    orientation, fault = Compatibility(known).orientation(table)
    assert orientation == 1
    assert "site s2 cost nothing" in fault
    bits = np.tile([2.0, 4.0, 8.0, 4.0], (3, 1))
    assert bf.allocate(table, {"bits": bits}, {"bits": 18.0}).choice[2] == 0
    mended = scores(Formula.parse("trace * weight_error + weight_error"), known)
    assert Compatibility(known).orientation(mended) == (1, "")


def test_the_direction_is_read_from_the_table():
    compatible, table = Compatibility(statistics()), scores(Formula.parse("log(weight_error)"), statistics())
    assert compatible.orientation(table) == (1, "")
    assert compatible.orientation(-3 * table) == (-1, "")


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ([1.0, 2.0, 0.0, 2.0], "site s1 in w2 costs less than in w4"),
        ([2.0, 1.0, 1.0, 1.0], "site s1 in w4 costs no more than in w8"),
        ([9.0, 3.0, 1.0, 1.0], "site s1 in w4a8 costs less than in w4"),
        ([NARROW * 15, NARROW, 0.0, NARROW], "site s1 cost nothing beside"),
    ],
)
def test_each_fault_is_told(row, told):
    loss = np.tile(ERROR, (3, 1)) * 2
    loss[1] = row
    assert told in Compatibility(statistics()).fault(loss)


def test_a_small_fall_is_tolerated_and_a_formula_may_be_blind_to_activations():
    loss = np.tile([16.0, 4.0, 4.1, 3.9], (3, 1))
    assert Compatibility(statistics()).fault(loss) == ""


def test_formats_that_a_site_does_not_offer_say_nothing():
    known = statistics()
    allowed = known.allowed.copy()
    allowed[1] = [False, True, False, True]
    loss = np.where(allowed, np.tile(ERROR, (3, 1)), np.nan)
    assert Compatibility(replace(known, allowed=allowed)).fault(loss) == ""
    assert Compatibility(replace(known, allowed=allowed)).orientation(-loss) == (-1, "")


def test_bits_stand_in_for_the_error_and_one_of_them_is_needed():
    known = statistics()
    only = replace(known, format_scalars={"bits": known.format_scalars["bits"][:, :]})
    assert Compatibility(only).fault(np.tile([16.0, 1.0, 0.0, 1.0], (3, 1))) == ""
    assert "s0 in w2 costs less than in w4" in Compatibility(only).fault(np.tile([0.5, 1.0, 0.0, 1.0], (3, 1)))
    with pytest.raises(InvalidInput, match="neither weight_error nor bits"):
        Compatibility(replace(known, format_scalars={}))
