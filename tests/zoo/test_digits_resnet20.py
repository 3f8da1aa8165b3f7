"""ResNet-20 reads at least 97 % of the digits of a fixed test split, which the splits handed out are parts of."""

import pytest
import torch
from bitfront import zoo
from bitfront.errors import InvalidInput
from bitfront.zoo import digits_resnet20
from bitfront.zoo.labelled import accuracy, shifted


def test_accuracy(digits):
    entry, _ = digits
    assert sum(len(inputs) for inputs, _ in entry.validation + entry.holdout) == 797
    assert accuracy(entry.model, entry.validation + entry.holdout) >= 0.97


def test_splits_are_disjoint(digits):
    entry, _ = digits
    splits = [entry.calibration, entry.validation, entry.holdout]
    seen = [{image.numpy().tobytes() for inputs, _ in split for image in inputs} for split in splits]
    assert not seen[0] & seen[1] | seen[0] & seen[2] | seen[1] & seen[2]


def test_names_and_size(digits):
    entry, _ = digits
    names = {name for name, module in entry.model.named_modules() if isinstance(module, torch.nn.Conv2d)}
    assert {"conv1", "layer1.0.conv1", "layer2.0.downsample.0", "layer3.2.conv2"} <= names
    assert len(names) == 21
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in entry.model.modules())
    assert sum(parameter.numel() for parameter in entry.model.parameters()) == zoo.describe(entry.name).parameters


def test_second_load_reads_the_cache(digits, zoo_cache):
    entry, steps = digits
    assert len(steps) == digits_resnet20.recipe().steps
    again = zoo.load("digits_resnet20", cache=zoo_cache, progress=lambda *step: pytest.fail("trained again"))
    for one, two in zip(entry.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, two)


def test_more_images_than_there_are(zoo_cache):
    with pytest.raises(InvalidInput, match="digits_resnet20: validation=400, but there are 399 images"):
        zoo.load("digits_resnet20", validation=400, cache=zoo_cache)


def test_shifted_matches_a_loop():
    images = torch.randn(6, 2, 5, 4, generator=torch.Generator().manual_seed(0))
    moved = shifted(images, 1, torch.Generator().manual_seed(1))
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1), mode="replicate")
    for image, source in zip(moved, padded, strict=True):
        windows = [source[:, row : row + 5, column : column + 4] for row in range(3) for column in range(3)]
        assert any(torch.equal(image, window) for window in windows)
