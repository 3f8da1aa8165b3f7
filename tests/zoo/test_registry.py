"""What holds for every entry, and what bad input is told."""

import importlib.util
import subprocess
import sys

import pytest
import torch
from bitfront import zoo
from bitfront.errors import InvalidInput
from bitfront.zoo import photographs, topics

UNTRAINED = ["efficientnet_lite0", "mobilenet_v2", "minilm_l6"]
ALL = [*UNTRAINED, "char_gpt", "digits_resnet20", "fashion_resnet"]


def _tensors(entry):
    for split in (entry.calibration, entry.validation, entry.holdout):
        for inputs, targets in split:
            yield from inputs.values() if isinstance(inputs, dict) else [inputs]
            if targets is not None:
                yield targets


def test_names():
    assert zoo.names() == ALL


@pytest.mark.parametrize("name", ALL)
def test_every_card_says_what_a_user_must_know(name):
    card = zoo.describe(name)
    assert card.name == name
    assert card.quality in {"kl", "accuracy", "perplexity", "relative_error", "loss"}
    assert card.parameters > 10_000
    assert card.licence
    assert card.source


@pytest.mark.parametrize("name", UNTRAINED)
def test_contract_and_seed(name):
    sizes = {"calibration": 20, "validation": 7, "holdout": 7}
    first, again, other = (zoo.load(name, **sizes, seed=seed) for seed in (3, 3, 4))
    assert not first.model.training
    assert all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in first.model.parameters())
    assert [len(split) for split in (first.calibration, first.validation, first.holdout)] == [2, 1, 1]
    one, two, three = (list(_tensors(entry)) for entry in (first, again, other))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one, three, strict=True))
    inputs = first.example_inputs
    with torch.no_grad():
        outputs = first.model(**inputs) if isinstance(inputs, dict) else first.model(inputs)
    assert isinstance(outputs, torch.Tensor)
    assert len(outputs) == 2
    assert torch.isfinite(outputs).all()


def test_no_photograph_is_in_two_splits():
    files = [name for split in photographs.SPLITS.values() for name in split]
    assert len(files) == len(set(files))
    shapes = {photographs.photograph(name).tobytes() for name in files}
    assert len(shapes) == len(files)


def test_no_topic_or_long_paragraph_is_in_two_splits():
    members = [name for split in topics.splits().values() for name in split]
    assert len(members) == len(set(members))
    seen: dict[str, str] = {}
    for split in topics.SHARES:
        for paragraph in topics.text(split).split("\n\n"):
            key = " ".join(paragraph.split())
            if len(key) >= 60:
                assert seen.setdefault(key, split) == split
    sizes = {split: len(topics.text(split)) for split in topics.SHARES}
    assert min(sizes.values()) > 30_000


def test_sentences_of_the_evaluation_splits_differ():
    calibration, validation, holdout = (set(topics.sentences(s)) for s in ("calibration", "validation", "holdout"))
    assert not calibration & validation | calibration & holdout | validation & holdout
    assert min(len(calibration), len(validation), len(holdout)) >= 128


@pytest.mark.parametrize(("given", "nearest"), [("efficientnet_lite", "efficientnet_lite0"), ("minilm", "minilm_l6")])
def test_unknown_name(given, nearest):
    for call in (zoo.load, zoo.describe):
        with pytest.raises(InvalidInput, match=f"'{given}'; the nearest is '{nearest}'"):
            call(given)


@pytest.mark.parametrize("count", [0, -3, 2.5, True])
def test_sizes_are_whole_and_positive(count):
    with pytest.raises(InvalidInput, match=r"validation=.*at least 1"):
        zoo.load("efficientnet_lite0", validation=count)


def test_more_sentences_than_there_are():
    with pytest.raises(InvalidInput, match="calibration=100000, but this Python's text has"):
        zoo.load("minilm_l6", calibration=100_000)


@pytest.mark.parametrize("name", UNTRAINED)
def test_missing_package_names_the_command(name, monkeypatch):
    real = importlib.util.find_spec
    package = next(iter(zoo.describe(name).install))
    monkeypatch.setattr(importlib.util, "find_spec", lambda wanted, *rest: None if wanted == package else real(wanted))
    with pytest.raises(InvalidInput, match=rf"{name}.*{package}.*pip install"):
        zoo.load(name)


def test_import_is_light():
    script = (
        "import sys, bitfront.zoo\n"
        "heavy = {'transformers', 'tokenizers', 'skimage', 'sklearn', 'PIL', 'efficientnet_lite_pytorch'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
