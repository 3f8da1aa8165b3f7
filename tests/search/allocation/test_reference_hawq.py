"""HAWQ-V3's nine published integer programs for ResNet18, solved again."""

import json
from pathlib import Path

import numpy as np
import pytest
from bitfront.search.allocation import allocate, exact_front, hull_front

pytestmark = pytest.mark.reference


@pytest.fixture(scope="module")
def hawq(reference_data: Path) -> dict:
    return json.loads((reference_data / "hawq_v3_resnet18.json").read_text())


def tables(hawq: dict) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    trace = np.array(hawq["Hutchinson_trace"])
    squared = np.stack([hawq["delta_weights_4bit_square"], hawq["delta_weights_8bit_square"]], axis=1)
    size = np.array(hawq["parameters"])[:, None] * np.array([0.5, 1.0])
    bops = np.array(hawq["bops"])[:, None] / np.array([64.0, 16.0])
    latency = np.stack([hawq["latency_int4"], hawq["latency_int8"]], axis=1)
    return trace[:, None] * squared, {"modelsize": size, "bops": bops, "latency": latency}


def test_the_optimum_of_each_instance(hawq: dict) -> None:
    loss, costs = tables(hawq)
    for instance in hawq["instances"]:
        name = instance["constraint"]
        found = allocate(loss, costs, {name: instance["limit"]}, ties=hawq["ties"])
        assert found.objective == pytest.approx(instance["optimum"]["omega"], rel=1e-9), instance
        assert found.costs[name] <= instance["limit"]
        assert found.status == "optimal"


@pytest.mark.parametrize(("name", "points"), [("modelsize", 29), ("bops", 24), ("latency", 41)])
def test_the_whole_front(hawq: dict, name: str, points: int) -> None:
    loss, costs = tables(hawq)
    front = exact_front(loss, costs[name], ties=hawq["ties"])
    assert len(front) == points
    hull = hull_front(loss, costs[name], ties=hawq["ties"])
    assert len(hull) == 17
