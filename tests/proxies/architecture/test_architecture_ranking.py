"""Ranking a pool of networks, and ensembles of ranks."""

import numpy as np
import pytest
import torch
from bitfront.architecture import ArchitectureSpace, Choices, Dimension
from bitfront.errors import InvalidInput, NonFiniteOutput
from bitfront.proxies.architecture import ENSEMBLES, rank_architectures, rank_sum, resized, score_network
from bitfront.proxies.architecture.params import Params
from bitfront.search.families.nasbench201 import NasBench201
from bitfront.task import Batch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn


class Widths:
    """Networks of one width, each with a resolution of its own."""

    name = "widths"
    architecture = ArchitectureSpace((Dimension("width", "width", (2, 4, 8)),))
    digest = "0"

    def build(self, choices):
        torch.manual_seed(0)
        layers = nn.Conv2d(3, choices["width"], 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        return nn.Sequential(*layers, nn.Linear(choices["width"], 3))

    def resolution(self, choices):
        return 4 * choices["width"]


def labelled(samples=8, side=8):
    draw = torch.Generator().manual_seed(0)
    return torch.randn(samples, 3, side, side, generator=draw), torch.arange(samples) % 3


def pool():
    return list(Widths.architecture.all())


def test_a_pool_is_scored_in_its_order():
    seen = []
    frame = rank_architectures(
        Widths(), pool(), labelled(), ["params", "flops", "snip"], ensembles={"size": ("params", "flops")},
        advance=seen.append,
    )  # fmt: skip
    assert list(frame.index) == [each.digest for each in pool()]
    assert [each["width"] for each in frame["choices"]] == [2, 4, 8]
    assert list(frame["params"]) == [28 * width + 3 * width + 3 for width in (2, 4, 8)]
    # at the resolution of each: 4 widths, less the border
    operations = [2 * (27 * width * (4 * width - 2) ** 2 + 3 * width) for width in (2, 4, 8)]
    assert list(frame["flops"]) == operations
    assert list(frame["size"]) == [2, 4, 6]
    assert list(frame["rank"]) == [3, 2, 1]
    assert (frame[["params_seconds", "flops_seconds", "snip_seconds"]] >= 0).all(axis=None)
    assert seen == [1, 1, 1]


def test_the_default_is_the_ensemble():
    family = NasBench201(channels=4, cells=1)
    draw = np.random.default_rng(0)
    some = [family.architecture.sample(draw) for _ in range(4)]
    frame = rank_architectures(family, some, labelled()[0])
    assert {"nwot", "synflow", "jacov", "ensemble"} <= set(frame)
    np.testing.assert_array_equal(frame["ensemble"], rank_sum(frame, ENSEMBLES["ensemble"]))
    assert frame["rank"].min() == 1
    assert frame["ensemble"].iloc[int(frame["rank"].argmin())] == frame["ensemble"].max()


def test_proxies_with_arguments_of_their_own():
    class Negative(Params):
        name = "few"

        def score(self, module, batch, loss, seed):
            return -super().score(module, batch, loss, seed)

    frame = rank_architectures(Widths(), pool(), labelled(), [Negative()])
    assert list(frame["rank"]) == [1, 2, 3]


def test_what_is_wrong_with_a_pool_is_said():
    with pytest.raises(InvalidInput, match="one architecture or more"):
        rank_architectures(Widths(), [], labelled(), ["params"])
    with pytest.raises(InvalidInput, match="each once; got 2, 1 different"):
        rank_architectures(Widths(), [pool()[0]] * 2, labelled(), ["params"])
    with pytest.raises(InvalidInput, match="one proxy or more"):
        rank_architectures(Widths(), pool(), labelled(), [])
    with pytest.raises(InvalidInput, match="snip needs targets"):
        rank_architectures(Widths(), pool(), labelled()[0], ["params", "snip"])
    with pytest.raises(InvalidInput, match="wants the scores of 'nwot'"):
        rank_architectures(Widths(), pool(), labelled(), ["params"], ensembles={"best": ("nwot",)})


def test_seconds_are_recorded():
    found = score_network(Widths().build(Choices.from_dict({"width": 2})), Batch.of(labelled()), [Params()])
    assert set(found) == {"params", "params_seconds"}
    assert 0 <= found["params_seconds"] < 10


def test_only_images_are_resized():
    images, targets = labelled()
    batch = resized(Batch({"images": images, "scale": torch.ones(8, 1)}, targets), 4)
    assert batch.inputs["images"].shape == (8, 3, 4, 4)
    assert torch.equal(batch.inputs["scale"], torch.ones(8, 1))
    assert batch.targets is targets
    means = images.reshape(8, 3, 4, 2, 4, 2).mean((3, 5))  # halving bilinearly is averaging
    torch.testing.assert_close(batch.inputs["images"], means)
    same = Batch((images,))
    assert resized(same, None) is same
    assert resized(same, 8).inputs[0] is images


SCORES = st.lists(st.one_of(st.integers(-3, 3).map(float), st.just(-np.inf)), min_size=1, max_size=12)


@given(SCORES, st.integers(0, 99))
def test_ranks_are_added(scores, seed):
    one = np.array(scores)
    two = np.random.default_rng(seed).permutation(one)
    wanted = [
        sum(((row[i] > row).sum() + ((row[i] == row).sum() + 1) / 2) for row in (one, two)) for i in range(len(one))
    ]
    np.testing.assert_allclose(rank_sum({"a": one, "b": two}, ("a", "b")), wanted)


def test_a_score_that_is_no_number_is_not_ranked():
    with pytest.raises(NonFiniteOutput, match="minus infinity"):
        rank_sum({"a": np.array([1.0, np.nan])}, ("a",))
    with pytest.raises(InvalidInput, match="one proxy or more"):
        rank_sum({}, ())
