"""Neighbours read from real exports."""

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("onnxruntime")

from bitfront.errors import InvalidInput
from bitfront.exporters import export
from bitfront.exporters.onnx_kernels import site_node_name
from bitfront.exporters.onnx_kernels import site_of as exporters_site_of
from bitfront.hw_models.network import execution_order, exported_graph
from bitfront.hw_models.network.graph import site_of
from bitfront.space import Configuration, SearchSpace


class Residual(nn.Module):
    """stem -> (a -> relu -> b) + stem -> pool -> head, and a branch that ends in a softmax."""

    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.c, self.head = nn.Conv2d(8, 8, 1), nn.Linear(8, 4)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = x + self.b(torch.relu(self.a(x)))
        x = self.c(x).softmax(dim=1)
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    torch.manual_seed(0)
    model, x = Residual(), torch.randn(1, 3, 8, 8)
    space = SearchSpace.from_model(model, x, formats=["w8", "fp32"])
    path = tmp_path_factory.mktemp("graph") / "float.onnx"
    export(model, Configuration(()), path, target="onnx", example_inputs=x, space=space)
    return space, path


def named(space, pairs):
    return {(space.names[one], space.names[other]) for one, other in pairs}


def test_neighbours_of_a_residual_block(exported):
    space, path = exported
    graph = exported_graph(space, path)
    shares = dict(zip([tuple(edge) for edge in graph.edges], graph.share, strict=True))
    place = {name: index for index, name in enumerate(space.names)}
    assert named(space, graph.edges) == {("stem", "a"), ("a", "b"), ("b", "c"), ("stem", "c")}
    assert shares[place["b"], place["c"]] == shares[place["stem"], place["c"]] == 0.5
    assert named(space, graph.readers) == {("stem", "a"), ("a", "b")}
    leaking = {name for name, leaks in zip(space.names, graph.leaks, strict=True) if leaks}
    assert leaking == {"stem", "b", "c", "head"}
    assert {name for name, ends in zip(space.names, graph.ends, strict=True) if ends[0]} == {"stem", "head"}
    assert {name for name, ends in zip(space.names, graph.ends, strict=True) if ends[1]} == {"c", "head"}


def test_shares_of_a_reader_add_up(exported):
    space, path = exported
    graph = exported_graph(space, path)
    for reader in set(graph.edges[:, 1]):
        assert graph.share[graph.edges[:, 1] == reader].sum() == pytest.approx(1.0)


def test_execution_order(exported):
    graph = execution_order(exported[0])
    assert graph.edges.tolist() == graph.readers.tolist() == [[0, 1], [1, 2], [2, 3], [3, 4]]
    assert graph.leaks.tolist() == [False, False, False, False, True]
    one = SearchSpace.from_model(nn.Linear(4, 3), torch.zeros(1, 4), formats=["w8"])
    assert execution_order(one).edges.shape == (0, 2)


def test_names_are_those_of_the_exporter():
    for site in ("head", "layers.0.conv/1"):
        name = site_node_name(site, 3)
        assert site_of(name) == exporters_site_of(name) == site
    assert site_of("node_Conv_3") is None
    assert site_of("bitfront") is None


def test_files_that_do_not_fit(exported, tmp_path):
    space, path = exported
    other = SearchSpace.from_model(nn.Sequential(nn.Linear(4, 3)), torch.zeros(1, 4), formats=["w8"])
    with pytest.raises(InvalidInput, match="holds no layer named"):
        exported_graph(other, path)
    assert np.all(exported_graph(space, path).share > 0)
