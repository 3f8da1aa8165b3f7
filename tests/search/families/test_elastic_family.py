"""The elastic family: a supernet trained on the digits, its cache, and what its networks are good for."""

import pickle
import runpy
from pathlib import Path

import bitfront as bf
import numpy as np
import pytest
import torch
from bitfront.architecture import Family
from bitfront.errors import InvalidInput
from bitfront.search.families.elastic import (
    ElasticFamily,
    ElasticNet,
    elastic_family,
    load_weights,
    resized,
    save_weights,
)
from bitfront.search.families.elastic import presets as presets_module
from bitfront.search.families.elastic.presets import Preset, batches_of
from bitfront.zoo import digits_resnet20
from bitfront.zoo.fold import fold_batch_norm
from bitfront.zoo.labelled import Images
from torch import nn

CASE = runpy.run_path(str(Path(__file__).parent / "elastic_case.py"))
SHAPE = CASE["SHAPE"]


@pytest.fixture(scope="session")
def digits_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("elastic-cache")


@pytest.fixture(scope="session")
def digits(digits_folder):
    """The family, trained once a session into a fresh cache."""
    return elastic_family("digits", cache=digits_folder)


@pytest.fixture(scope="session")
def test_images():
    return digits_resnet20.data()[1]


@pytest.fixture
def small_preset(monkeypatch):
    """A preset that trains in a second, on generated images."""
    images, classes = zip(*(CASE["draw"](torch.Generator().manual_seed(seed)) for seed in range(4)), strict=True)
    data = Images(torch.cat(images), torch.cat(classes))
    found = Preset(lambda width, seed: CASE["RECIPE"], lambda: (data, data))
    monkeypatch.setitem(presets_module.PRESETS, "case", found)


def accuracy(model, choices, images):
    with torch.no_grad():
        outputs = model(resized(images.inputs, choices["resolution"]))
    return float((outputs.argmax(1) == images.targets).float().mean())


def drawn(family, count):
    space, draw = family.architecture, np.random.default_rng(0)
    return [space.largest(), space.smallest(), *(space.sample(draw) for _ in range(count))]


def random_family(**options):
    return ElasticFamily(ElasticNet(SHAPE, seed=3), **options)


def test_all_sub_networks_of_the_digits_are_good_and_larger_is_better(digits, test_images):
    assert isinstance(digits, Family)
    found = [accuracy(digits.build(choices), choices, test_images) for choices in drawn(digits, 6)]
    assert found[0] > 0.94
    assert min(found) > 0.8
    assert found[0] > found[1] + 0.01


def test_own_statistics_are_what_makes_them_good(digits, test_images):
    shared = ElasticFamily(digits.net)
    gains = [
        accuracy(digits.build(choices), choices, test_images) - accuracy(shared.build(choices), choices, test_images)
        for choices in drawn(digits, 6)
    ]
    assert np.mean(gains) > 0.1


def test_the_second_call_reads_the_cache(digits, digits_folder):
    assert [path.suffix for path in digits_folder.iterdir()] == [".safetensors"]
    again = elastic_family("digits", cache=digits_folder, progress=pytest.fail)
    assert again.digest == digits.digest
    assert again.name == "elastic/digits"


def test_a_killed_call_goes_on_where_it_was(small_preset, tmp_path):
    def stop(step, _total, _loss):
        if step == 17:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        elastic_family("case", cache=tmp_path, progress=stop)
    assert [path.suffix for path in tmp_path.iterdir()] == [".checkpoint"]
    steps = []
    family = elastic_family("case", cache=tmp_path, progress=lambda step, *_: steps.append(step))
    assert steps == list(range(17, CASE["RECIPE"].steps + 1))
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]
    assert family.digest == elastic_family("case", cache=tmp_path / "other").digest


@pytest.mark.parametrize("which", range(4))
def test_networks_fold_trace_and_quantize(digits, test_images, which):
    choices = drawn(digits, 2)[which]
    model = digits.build(choices)
    inputs = resized(test_images.inputs[:16], digits.resolution(choices))
    folded = fold_batch_norm(model)
    assert not [module for module in folded.modules() if isinstance(module, nn.BatchNorm2d)]
    with torch.no_grad():
        torch.testing.assert_close(folded(inputs), model(inputs), atol=1e-4, rtol=1e-4)
    space = bf.SearchSpace.from_model(folded, inputs, formats=["w4", "w8"])
    blocks = sum(choices[f"stage{stage}.depth"] for stage in (1, 2))
    assert len(space.sites) == 3 + 3 * blocks
    assert {"stem.conv", "stage1.block1.depthwise.conv", "head.conv", "classifier"} <= set(space.names)
    task = bf.Task(folded, calibration=[inputs], validation=[(inputs, test_images.targets[:16])] * 2)
    configuration = bf.Configuration(tuple((name, "w8") for name in space.names))
    assert 0 <= bf.evaluate(task, configuration).value < 0.1


def test_folding_is_a_choice_of_the_family(digits, test_images):
    choices = digits.architecture.smallest()
    batches = [test_images.inputs[:64]]
    plain, folded = (ElasticFamily(digits.net, batches, fold=fold) for fold in (False, True))
    inputs = resized(test_images.inputs[:8], digits.resolution(choices))
    with torch.no_grad():
        torch.testing.assert_close(folded.build(choices)(inputs), plain.build(choices)(inputs), atol=1e-4, rtol=1e-4)
    assert not [m for m in folded.build(choices).modules() if isinstance(m, nn.BatchNorm2d)]
    assert folded.digest != plain.digest


def test_a_network_exports_to_onnx(digits, test_images, tmp_path):
    choices = digits.architecture.smallest()
    model = digits.build(choices)
    inputs = resized(test_images.inputs[:4], digits.resolution(choices))
    space = bf.SearchSpace.from_model(model, inputs, formats=["w8"])
    configuration = bf.Configuration(tuple((name, "w8") for name in space.names))
    report = bf.export(model, configuration, tmp_path / "net.onnx", target="onnx", example_inputs=inputs)
    assert (tmp_path / "net.onnx").is_file()
    assert report.relative_error <= report.bound


def test_a_family_survives_a_process_boundary_and_later_changes():
    net = ElasticNet(SHAPE, seed=3)
    family = ElasticFamily(net, [torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))])
    digest, choices = family.digest, SHAPE.architecture.smallest()
    copy = pickle.loads(pickle.dumps(family))
    with torch.no_grad():
        net.classifier.weight.zero_()
        family.build(choices).classifier.weight.zero_()
    inputs = torch.ones(1, 1, 6, 6)
    assert copy.digest == digest
    assert torch.equal(copy.build(choices)(inputs), family.build(choices)(inputs))


def test_the_digest_covers_weights_statistics_images_and_folding():
    images = torch.zeros(2, 1, 8, 8)
    found = {random_family().digest, random_family(fold=True).digest, random_family(calibration=[images]).digest}
    found.add(random_family(calibration=[images + 1]).digest)
    for name in ("blocks.stage1_block2.depthwise.matrices.5to3", "stem.norm.running_var"):
        net = ElasticNet(SHAPE, seed=3)
        net.state_dict()[name].view(-1)[0] += 1e-3
        found.add(ElasticFamily(net).digest)
    assert len(found) == 6
    assert random_family().digest == random_family().digest


def test_weights_on_disk(tmp_path, small_preset):
    path = tmp_path / "deep" / "net.safetensors"
    net = ElasticNet(SHAPE, seed=5)
    save_weights(net, path)
    other = ElasticNet(SHAPE, seed=6)
    load_weights(other, path)
    assert ElasticFamily(other).digest == ElasticFamily(net).digest
    family = elastic_family("case", weights=path, calibration=0, cache=tmp_path / "untouched")
    assert torch.equal(family.net.classifier.weight, net.classifier.weight)
    assert not (tmp_path / "untouched").exists()
    with pytest.raises(InvalidInput, match="another supernet"):
        load_weights(ElasticNet(SHAPE.scaled(2.0)), path)
    path.write_bytes(b"damaged")
    for bad in (path, tmp_path / "missing"):
        with pytest.raises(InvalidInput, match="cannot read"):
            load_weights(other, bad)


def test_batches_are_those_of_the_generator():
    images = Images(torch.arange(10.0).view(10, 1, 1, 1).expand(10, 1, 4, 4), torch.arange(10))
    draw = batches_of(images, 6)
    (one, classes), (other, _) = (draw(torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(one, other)
    assert torch.equal(one[:, 0, 0, 0], classes.float())


def test_refusals(tmp_path):
    with pytest.raises(InvalidInput, match="fashion, digits"):
        elastic_family("imagenet")
    with pytest.raises(InvalidInput, match="calibration"):
        elastic_family("digits", calibration=-1, cache=tmp_path)
    with pytest.raises(InvalidInput, match="one of"):
        random_family().build(dict(SHAPE.architecture.largest()) | {"stage1.depth": 9})
