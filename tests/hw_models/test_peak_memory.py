"""Peak memory of activations against a simulation that allocates and frees."""

import numpy as np
import pytest
import torch
from bitfront.activations import Activation, ActivationGraph, Read
from bitfront.errors import InvalidInput
from bitfront.formats import Format
from bitfront.hw_models import peak_rows, price
from bitfront.space import SearchSpace, Site, Tie
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

FORMATS = ("w4a4", "w8a8", "w8", "bf16")


def site(name: str, bits: int = 32) -> Site:
    return Site(name, "linear", (4, 4), 1, FORMATS, f"{name}.weight", (name,), input_shape=(1, 4), weight_bits=bits)


def simulated(space: SearchSpace, choice: np.ndarray, batch: int) -> float:
    """Bytes by running the operations in order, with a dictionary of what is in memory."""
    graph = space.activations
    assert graph is not None
    column = dict(zip(space.names, choice, strict=True))
    bits = {"w4a4": 4.0, "w8a8": 8.0, "bf16": 16.0}

    def form(read: Read) -> str:
        name = space.formats[column[read.module]] if read.module in column else "w8"
        return "float" if name == "w8" else name

    peak = 0.0
    for step in range(graph.steps + 1):
        alive: dict[tuple[int, str], float] = {}
        for index, each in enumerate(graph.activations):
            scale = batch / graph.samples if each.per_sample else 1.0
            for name in {form(read) for read in each.reads}:
                mine = [read for read in each.reads if form(read) == name]
                if each.made <= step <= max(read.step for read in mine):
                    modules = {read.module for read in mine}
                    wanted = sum(
                        min(each.elements, sum(read.elements for read in mine if read.module == module))
                        for module in modules
                    )
                    elements = each.elements if name == "float" else min(each.elements, wanted)
                    alive[index, name] = scale * elements * (each.width if name == "float" else bits[name] / 8)
        peak = max(peak, sum(alive.values()))
    return peak / 1e6


@st.composite
def spaces(draw: st.DrawFn) -> SearchSpace:
    steps = draw(st.integers(2, 8))
    names = [f"s{index}" for index in range(draw(st.integers(1, 4)))]
    activations = []
    for made in range(-1, steps - 1):
        elements = draw(st.integers(1, 1000))
        reads = draw(
            st.lists(
                st.builds(
                    Read,
                    st.integers(max(made, 0), steps),
                    st.sampled_from(["", *names]),
                    st.integers(1, elements),
                ),
                min_size=1,
                max_size=4,
            )
        )
        ordered = tuple(sorted(reads, key=lambda read: (read.step, read.module)))
        activations.append(Activation(made, elements, draw(st.sampled_from([4, 8])), draw(st.booleans()), ordered))
    graph = ActivationGraph(tuple(activations), steps, draw(st.integers(1, 3)), ("op",) * steps)
    return SearchSpace([site(name) for name in names], FORMATS, activations=graph)


@settings(max_examples=60, deadline=None)
@given(space=spaces(), data=st.data())
def test_peak_is_that_of_the_simulation_and_rows_are_never_below_it(space: SearchSpace, data: st.DataObject) -> None:
    batch = data.draw(st.integers(1, 5))
    count = len(space.sites)
    choice = np.array(data.draw(st.lists(st.integers(0, 3), min_size=count, max_size=count)))
    table = price(space, batch=batch, metrics=["peak_activation_mb"])["peak_activation_mb"]
    expected = simulated(space, choice, batch)
    total = table.total(choice)
    assert total.value == pytest.approx(expected, rel=1e-12)
    assert total.low == total.high == total.value
    rows = peak_rows(space, batch)
    reached = rows.base + rows.values[:, np.arange(count), choice].sum(axis=1)
    assert reached.max() >= expected * (1 - 1e-12)
    readers = [[read.module for read in each.reads if read.module] for each in space.activations.activations]
    if all(len(set(each)) <= 1 for each in readers):  # no two sites read one tensor
        assert reached.max() == pytest.approx(expected, rel=1e-12)


def test_tied_sites_that_read_one_tensor_share_a_copy() -> None:
    reads = tuple(Read(step, name, 100) for step, name in enumerate(("q", "k", "v")))
    graph = ActivationGraph((Activation(-1, 100, 4, True, reads),), 3, 1, ("mm",) * 3)
    space = SearchSpace([site(name) for name in "qkv"], FORMATS, [Tie(("q", "k", "v"), "q/k/v")], activations=graph)
    rows = peak_rows(space)
    choice = space.choice(space.uniform("w8a8"))
    assert (rows.base + rows.values[:, [0, 1, 2], choice].sum(axis=1)).max() == pytest.approx(1e-4)
    assert price(space, metrics=["peak_activation_mb"]).of(space.uniform("w8a8"))[
        "peak_activation_mb"
    ].value == pytest.approx(1e-4)


def test_a_real_network_by_hand() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.Flatten(), nn.Linear(64, 2))
    space = SearchSpace.from_model(model, torch.rand(1, 3, 4, 4), formats=["w8a8", "fp32"])
    prices = price(space, batch=2, metrics=["peak_activation_mb"])
    # operations: convolution, relu (fused), convolution, linear
    # fp32: 8 and 4 channels of 16 pixels side by side; w8a8: the same in bytes (outputs are read by quantized layers)
    for name, width in (("fp32", 4), ("w8a8", 1)):
        assert prices.of(space.uniform(name))["peak_activation_mb"].value == pytest.approx(2 * 12 * 16 * width / 1e6)
    assert "operation 2 (convolution)" in prices["peak_activation_mb"].provenance


def test_a_space_without_tensors_is_refused_in_one_line() -> None:
    with pytest.raises(InvalidInput, match=r"^this space does not know the tensors[^\n]*from_model[^\n]*$"):
        price(SearchSpace([site("a")], FORMATS), metrics=["peak_activation_mb"])


def test_dynamic_scales_are_counted() -> None:
    model = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 2))
    space = SearchSpace.from_model(model, torch.rand(5, 32), formats=["w8a8d", "fp32"])
    value = price(space, batch=5, metrics=["peak_activation_mb"]).of(space.uniform("w8a8d"))["peak_activation_mb"].value
    assert Format.parse("w8a8d").activation is not None
    assert value == pytest.approx(2 * 5 * (32 + 4) / 1e6)  # one float32 scale per row of 32
