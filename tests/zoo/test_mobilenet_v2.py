"""MobileNetV2 holds torchvision's real ImageNet weights."""

import hashlib

import pytest
import torch
from bitfront import zoo
from bitfront.errors import InvalidInput
from bitfront.zoo import mobilenet_v2, photographs

ESPRESSO, MOPED, MOTOR_SCOOTER, PALACE, TRIPOD, EGYPTIAN_CAT = 967, 665, 670, 698, 872, 285


@pytest.fixture(scope="module")
def entry() -> zoo.ZooEntry:
    return zoo.load("mobilenet_v2", calibration=6, validation=6, holdout=6)


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("coffee.png", {ESPRESSO}),
        ("motorcycle_left.png", {MOPED, MOTOR_SCOOTER}),
        ("camera.png", {TRIPOD}),
        ("china.jpg", {PALACE}),
        ("chelsea.png", {EGYPTIAN_CAT}),
    ],
)
def test_known_labels(entry, name, labels):
    with torch.no_grad():
        logits = entry.model(photographs.whole(name, mobilenet_v2.PREPROCESSING))
    assert int(logits.argmax()) in labels


def test_folding_changes_nothing(entry):
    images = entry.validation[0][0][:3]
    with torch.no_grad():
        expected = mobilenet_v2.unfolded()(images)
        assert (entry.model(images) - expected).norm() / expected.norm() < 1e-4
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in entry.model.modules())
    assert sum(parameter.numel() for parameter in entry.model.parameters()) == zoo.describe(entry.name).parameters


def test_a_file_with_another_digest_is_refused(tmp_path):
    path = tmp_path / "weights-0123abcd.pth"
    path.write_bytes(b"weights")
    beginning = hashlib.sha256(b"weights").hexdigest()[:8]
    mobilenet_v2.check_sha256(path, beginning)
    with pytest.raises(InvalidInput, match=f"begins with {beginning}, expected 0123abcd.*--no-deps"):
        mobilenet_v2.check_sha256(path, "0123abcd")
