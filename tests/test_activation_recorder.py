"""The tensors of a forward pass: fusion, views, in-place writing, what grows with the batch."""

import pytest
import torch
from bitfront.activations import ActivationGraph
from bitfront.space import SearchSpace
from torch import Tensor, nn
from torch.nn import functional


def recorded(model: nn.Module, *inputs: Tensor) -> ActivationGraph:
    graph = SearchSpace.from_model(model, (inputs, None), formats=["w8a8", "fp32"]).activations
    assert graph is not None
    return graph


def story(graph: ActivationGraph) -> list[tuple[str, int, tuple[tuple[str, str], ...]]]:
    """(operation that makes it, elements, ((operation that reads it, module), …)) of every tensor."""
    names = [*graph.operations, "output", "input"]
    return [
        (names[each.made], each.elements, tuple((names[read.step], read.module) for read in each.reads))
        for each in graph.activations
    ]


class Residual(nn.Module):
    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
        self.norm, self.relu = nn.BatchNorm2d(4), nn.ReLU(inplace)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.first(x)))
        y = self.second(x)
        y = y.add_(x) if self.relu.inplace else y + x
        return self.relu(y)


@pytest.mark.parametrize("inplace", [False, True])
def test_pointwise_operations_are_fused_into_the_convolution_before_them(inplace: bool) -> None:
    conv = "convolution"
    assert story(recorded(Residual(inplace), torch.randn(2, 3, 4, 4))) == [
        ("input", 96, ((conv, "first"),)),
        (conv, 128, ((conv, ""), (conv, "second"))),  # the addition is part of the second convolution
        (conv, 128, (("output", ""),)),
    ]


def test_a_tensor_that_two_operations_read_is_not_fused() -> None:
    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.out = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.linear(x)
            return self.out(torch.sigmoid(y) * torch.cumsum(y, 1))

    told = story(recorded(Gate(), torch.randn(3, 4)))
    assert ("addmm", 12, (("sigmoid", ""), ("cumsum", ""))) in told
    # the product is written by the cumulative sum, made last of its operands; it reads the sigmoid there
    assert ("sigmoid", 12, (("cumsum", ""),)) in told
    assert ("cumsum", 12, (("addmm", "out"),)) in told


def test_views_are_the_memory_that_they_look_into_and_slices_read_less() -> None:
    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x).transpose(0, 1).transpose(0, 1)[:, 0])

    graph = recorded(Head(), torch.randn(2, 5, 4))
    body = next(each for each in graph.activations if each.elements == 60)
    assert [(read.module, read.elements) for read in body.reads] == [("head", 12)]


def test_writing_in_place_does_not_hold_the_memory_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x)
            z = self.second(y)
            return y.mul_(z.sum())

    graph = recorded(Twice(), torch.randn(3, 4))
    first = next(each for each in graph.activations if graph.operations[each.made] == "addmm")
    written = graph.activations[-1]
    assert written.elements == 12
    assert max(read.step for read in first.reads) < written.made


def test_what_is_not_computed_from_the_inputs_does_not_grow_with_the_batch() -> None:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.linear = nn.Embedding(7, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return functional.softmax(self.linear(x), 1) + self.table(torch.arange(x.shape[1]))

    graph = recorded(Positions(), torch.randn(2, 7, 4))
    grows = {
        (graph.operations[each.made] if each.made >= 0 else "input"): each.per_sample for each in graph.activations
    }
    # the addition is larger than the embedding, so it is not fused into it
    assert grows == {"input": True, "addmm": True, "_softmax": True, "arange": False, "embedding": False, "add": True}


def test_results_that_nothing_reads_are_left_out() -> None:
    graph = recorded(
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3)), torch.rand(2, 1, 6, 6)
    )
    assert [each.width for each in graph.activations] == [4, 4, 4, 4]  # no 8-byte indices of the pooling
    assert graph.samples == 2
