"""The classifier of clothes, where the data set is on the machine; and what is told where it is not."""

import gzip

import pytest
import torch
from bitfront import zoo
from bitfront.errors import InvalidInput
from bitfront.zoo import fashion_resnet
from bitfront.zoo.labelled import accuracy

MISSING = not (fashion_resnet.data_folder() / "train-images-idx3-ubyte.gz").is_file()


@pytest.mark.skipif(
    MISSING, reason=f"Fashion-MNIST is not in {fashion_resnet.data_folder()}: {fashion_resnet._INSTALL}"
)
def test_accuracy(zoo_cache):
    entry = zoo.load("fashion_resnet", cache=zoo_cache, validation=2000, holdout=2000)
    assert accuracy(entry.model, entry.validation + entry.holdout) >= 0.88
    assert sum(parameter.numel() for parameter in entry.model.parameters()) == zoo.describe(entry.name).parameters
    assert entry.example_inputs.shape == (2, 1, 28, 28)
    assert entry.validation[0][1].dtype == torch.int64


def test_a_missing_file_names_the_debian_package(tmp_path, monkeypatch):
    message = "train-images-idx3-ubyte.gz.*apt-get install dataset-fashion-mnist"
    with pytest.raises(InvalidInput, match=message):
        zoo.load("fashion_resnet", folder=tmp_path)
    monkeypatch.setenv("BITFRONT_FASHION_MNIST", str(tmp_path / "elsewhere"))
    with pytest.raises(InvalidInput, match="elsewhere"):
        zoo.load("fashion_resnet")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no gzip", "is damaged"),
        (gzip.compress(b"\0\0"), "is damaged"),
        (gzip.compress(b"\0" * 64), "magic number 0, not 2051"),
        (gzip.compress(b"\0\0\x08\x03" + b"\0\0\0\x02" * 3 + b"\0" * 7), "is damaged"),
    ],
    ids=["no gzip", "too short", "other magic number", "too few images"],
)
def test_a_damaged_file_is_refused(tmp_path, content, message):
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(InvalidInput, match=message):
        zoo.load("fashion_resnet", folder=tmp_path)


def test_reads_the_idx_format(tmp_path):
    pixels = bytes([0, 51, 102, 255, 10, 20, 30, 40])
    for part in ("train", "t10k"):
        images = b"\0\0\x08\x03" + b"".join(size.to_bytes(4, "big") for size in (2, 2, 2)) + pixels
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        labels = b"\0\0\x08\x01" + (2).to_bytes(4, "big") + bytes([7, 3])
        (tmp_path / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    train, _ = fashion_resnet.data(tmp_path)
    assert train.targets.tolist() == [7, 3]
    torch.testing.assert_close(train.inputs[0, 0, 0, 1], torch.tensor((51 / 255 - 0.286) / 0.353))
