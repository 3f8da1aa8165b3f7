"""The family as a whole: conditions, content hash, errors, and that every choice makes the network smaller."""

import copy
import pickle

import numpy as np
import pytest
import torch
from bitfront import SearchSpace, zoo
from bitfront.architecture import Family
from bitfront.errors import InvalidInput, UnsupportedModel
from bitfront.search.families.compression import compress
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn


def _size(model):
    return sum(each.numel() for each in model.parameters())


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    net = zoo.resnet.ResNet(blocks=2, width=8)
    net(torch.randn(32, 1, 8, 8))
    return net.eval()


@pytest.fixture(scope="module")
def data():
    return torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def family(model, data):
    return compress(model, data[:2], calibration=[data], round_to=4)


def test_it_is_a_family(family):
    assert isinstance(family, Family)
    assert family.name == "compression"
    assert {each.kind for each in family.architecture.dimensions} == {"skip", "width", "rank"}
    assert family.resolution(family.architecture.largest()) is None


def test_the_largest_is_the_original_and_the_callers_model_is_never_changed(model, data):
    model = copy.deepcopy(model).train()
    before = copy.deepcopy(model.state_dict())
    family = compress(model, data[:2], calibration=[data], round_to=4, rank=(0.5, 1.0), include=["layer2*", "fc"])
    built = family.build(family.architecture.largest())
    family.build(family.architecture.smallest())
    assert model.training
    assert not built.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    torch.testing.assert_close(built(data), model.eval()(data), rtol=0, atol=0)
    with torch.no_grad():
        built.fc.weight.zero_()
    assert float(family.build(family.architecture.largest()).fc.weight.detach().abs().max()) > 0


def test_a_skipped_block_has_no_width_and_no_rank(family):
    largest = family.architecture.largest()
    inside = [name for name in largest if name.startswith("layer2.1.") and name != "layer2.1.skip"]
    assert {"layer2.1.conv1.width", "layer2.1.conv1.rank", "layer2.1.conv2.rank"} == set(inside)
    skipped = family.architecture.choices({**largest, "layer2.1.skip": True})
    assert not set(inside) & set(skipped)


def test_a_factored_layer_whose_width_is_cut_keeps_to_both(family):
    values = {**family.architecture.largest(), "layer3.0.conv1.width": 0.5, "layer3.0.conv2.rank": 0.25}
    built = family.build(family.architecture.choices(values))
    thin, wide = built.layer3[0].conv2
    assert (thin.in_channels, thin.out_channels, wide.out_channels) == (16, 8, 32)
    assert thin.kernel_size == (3, 3)
    assert wide.kernel_size == (1, 1)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_architecture_runs_and_is_smaller(family, model, data, seed):
    choices = family.architecture.sample(np.random.default_rng(seed))
    built = family.build(choices)
    with torch.no_grad():
        output = built(data)
    assert output.shape == (8, 10)
    assert bool(output.isfinite().all())
    if choices != family.architecture.largest():
        assert _size(built) < _size(model)


def test_every_single_choice_lowers_size_and_operations(model, data):
    family = compress(model, data[:2], round_to=4, include=["conv1", "layer2.*", "fc"])

    def macs(net):
        return sum(site.macs for site in SearchSpace.from_model(net, data[:2], formats=["w8"]).sites)

    largest, size, operations = family.architecture.largest(), _size(model), macs(model)
    for each in family.architecture.dimensions:
        for value in each.values[:-1]:
            built = family.build(family.architecture.choices({**largest, each.name: value}))
            assert _size(built) < size, each.name
            assert macs(built) < operations, each.name


def test_the_digest_covers_weights_data_and_arguments():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 16))
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[0].weight[0, 0] += 1e-3
    x = torch.randn(8, 8)
    base = compress(model, x, calibration=[x]).digest
    assert compress(copy.deepcopy(model), x, calibration=[x.clone()]).digest == base
    digests = {
        base,
        compress(other, x, calibration=[x]).digest,
        compress(model, x, calibration=[x + 1e-3]).digest,
        compress(model, x, calibration=[x], recover=("reconstruct",)).digest,
        compress(model, x, calibration=[x], importance="l1").digest,
        compress(model, x, calibration=[x], rank=()).digest,
    }
    assert len(digests) == 6


def test_another_process_builds_the_same(family, data):
    choices = family.architecture.smallest()
    copied = pickle.loads(pickle.dumps(family))
    assert copied.digest == family.digest
    torch.testing.assert_close(copied.build(choices)(data), family.build(choices)(data), rtol=0, atol=0)


def test_globs(model, data):
    family = compress(model, data[:2], include=["layer2.*", "fc"], exclude=["layer2.1.conv1"], round_to=4)
    names = {each.name for each in family.architecture.dimensions}
    assert {name.split(".")[0] for name in names} == {"layer2", "fc"}
    assert "layer2.0.conv1.width" in names
    assert "layer2.1.skip" not in names  # it holds what must stay
    assert "layer2.0.conv2.width" not in names  # the stream that layer2.1.conv1 reads
    assert not any(name.startswith("layer2.1.conv1") for name in names)


def test_dict_inputs_and_a_dict_of_outputs():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(8, 32), nn.Linear(32, 16)

        def forward(self, left, right):
            return {"sum": self.second(self.first(left + right).relu())}

    x = {"left": torch.randn(3, 8), "right": torch.randn(3, 8)}
    family = compress(Named(), x, calibration=[x])
    built = family.build(family.architecture.smallest())
    assert built(**x)["sum"].shape == (3, 16)
    assert set(family.architecture.by_name) == {"first.width", "first.rank", "second.rank"}


def test_the_encoder_of_torch_with_its_fast_path():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 64, batch_first=True)
    model = nn.Sequential(nn.Linear(4, 16), nn.TransformerEncoder(layer, 3), nn.Linear(16, 3)).eval()
    x = torch.randn(2, 5, 4)
    family = compress(model, x)
    names = {each.name for each in family.architecture.dimensions}
    assert {"1.layers.1.skip", "1.layers.2.skip", "1.layers.0.linear1.width"} <= names
    assert not any("self_attn" in name for name in names)  # its weights are read by the attention itself
    with torch.no_grad():
        assert family.build(family.architecture.smallest())(x).shape == (2, 5, 3)


def test_a_network_that_cannot_be_used_is_refused(data):
    class Guarded(nn.Module):
        """Runs without either block, but not without both."""

        def __init__(self):
            super().__init__()
            self.blocks = nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.ReLU()) for _ in range(2)))

        def forward(self, x):
            if all(isinstance(block, nn.Identity) for block in self.blocks):
                raise RuntimeError("nothing to do")
            return self.blocks(x)

    family = compress(Guarded(), torch.randn(2, 8), width=(), rank=())
    with pytest.raises(UnsupportedModel, match=r"'0\.skip'|blocks\.0\.skip.*nothing to do; exclude one"):
        family.build(family.architecture.smallest())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": (0.5, 1.5)}, "shares lie above 0 and up to 1"),
        ({"rank": (0.0,)}, "shares lie above 0"),
        ({"importance": "size"}, "choose magnitude"),
        ({"importance": "taylor"}, "needs calibration"),
        ({"importance": "activation"}, "needs calibration"),
        ({"round_to": 0}, "give 1 or more"),
        ({"recover": ("hope",)}, "choose from reconstruct"),
        ({"exclude": ["layer9*"]}, "matches no site"),
    ],
)
def test_arguments_that_cannot_be_used(model, data, arguments, message):
    with pytest.raises(InvalidInput, match=message):
        compress(model, data[:2], **arguments)


def test_taylor_needs_targets_and_a_loss(model, data):
    with pytest.raises(InvalidInput, match="needs a loss"):
        compress(model, data[:2], importance="taylor", calibration=[data])
    with pytest.raises(InvalidInput, match="batch 0 has none"):
        compress(model, data[:2], importance="taylor", calibration=[data], loss=nn.functional.cross_entropy)


def test_a_model_without_anything_to_compress():
    with pytest.raises(UnsupportedModel, match="nothing of Linear can be compressed"):
        compress(nn.Sequential(nn.Linear(2, 2))[0], torch.randn(2, 2))


def test_an_example_that_the_model_does_not_accept(model):
    with pytest.raises(UnsupportedModel, match="does not accept the example"):
        compress(model, torch.randn(2, 3))
