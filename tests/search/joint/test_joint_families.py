"""Families by name: those that ship, those of other packages, and what is refused."""

from importlib.metadata import EntryPoint

import pytest
from bitfront.architecture import Family
from bitfront.errors import InvalidInput
from bitfront.search.families import families, make_family, registry
from bitfront.search.joint import JointSpace


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("nasbench201", {"channels": 4, "cells": 1}), ("compression", {"round_to": 2, "rank": (), "recover": ()})],
)
def test_families_that_ship_build_what_they_offer(digits_task, name, arguments):
    found = make_family(name, digits_task, arguments)
    assert isinstance(found, Family)
    assert len(found.digest) == 16
    largest = found.architecture.largest()
    assert found.build(largest).training is False
    JointSpace(found)
    assert make_family(name, digits_task, arguments).digest == found.digest


def test_other_packages_register_families(digits, digits_task, monkeypatch):
    point = EntryPoint("theirs", "os:getcwd", "bitfront.families")
    monkeypatch.setattr(EntryPoint, "load", lambda self: lambda task: digits)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == "bitfront.families" else [])
    assert set(families()) == {"compression", "elastic", "nasbench201", "theirs"}
    assert make_family("theirs", digits_task) is digits


def test_what_is_not_known_or_no_family_is_refused(digits_task, monkeypatch):
    with pytest.raises(InvalidInput, match="did you mean 'nasbench201'"):
        make_family("nasbench101", digits_task)
    with pytest.raises(InvalidInput, match="takes skip, width, rank"):
        make_family("compression", digits_task, {"ranks": ()})
    monkeypatch.setattr(registry, "families", lambda: {"empty": lambda task: None})
    with pytest.raises(InvalidInput, match="NoneType is no family"):
        make_family("empty", digits_task)
