"""Which generations have kernels, against the pages that the module cites."""

import pytest
from bitfront.device_generations import GENERATIONS, generations
from bitfront.formats import Format, names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("w4g128", GENERATIONS),
        ("w4g128z", GENERATIONS),
        ("w4", ("turing", "ampere", "ada", "hopper", "cpu")),
        ("w8", ("turing", "ampere", "ada", "hopper", "cpu")),
        ("w2g32", ("cpu",)),
        ("w8a8", ("turing", "ampere", "ada", "hopper", "cpu")),
        ("w8a8s", GENERATIONS),
        ("w8a8d", ("turing", "ampere", "ada", "hopper", "cpu")),
        ("fp8", ("ada", "hopper", "blackwell")),
        ("fp8d", ("ada", "hopper", "blackwell")),
        ("fp8b128", ("hopper", "blackwell")),
        ("we4m3", ("turing", "ampere", "ada", "hopper")),
        ("mxfp8", ("blackwell",)),
        ("mxfp6", ("blackwell",)),
        ("mxfp4", ("blackwell",)),
        ("nvfp4", ("blackwell",)),
        ("wmxfp4amxfp8", ("blackwell",)),
        ("wnvfp4", ("turing", "ampere", "ada", "hopper")),
        ("nf4", GENERATIONS),
        ("bf16", ("ampere", "ada", "hopper", "blackwell")),
        ("fp16", ("turing", "ampere", "ada", "hopper", "blackwell")),
        ("fp32", GENERATIONS),
        ("w4g128ae4m3", ("ada", "hopper", "blackwell")),
    ],
)
def test_documented_kernels(name, expected):
    assert tuple(generations(Format.parse(name))) == expected


@pytest.mark.parametrize("name", ["w3", "w5", "w4t", "w7a7", "w4a4", "w4b128", "we3m2", "we2m1g32", "w8a8c", "w2a8"])
def test_no_kernel_is_claimed_that_nobody_documents(name):
    assert generations(Format.parse(name)) == {}


def test_tensorrt_takes_symmetric_activations_only():
    for name in ("w8a8", "w8a8d", "w8a8dz"):
        assert not any("TensorRT" in libraries for libraries in generations(Format.parse(name)).values())
    found = generations(Format.parse("w8a8s"))
    assert [name for name in found if "TensorRT" in found[name]] == ["ampere", "ada", "hopper", "blackwell"]


@pytest.mark.parametrize("name", names())
def test_every_entry_names_a_generation_and_a_library(name):
    found = generations(Format.parse(name))
    assert list(found) == [each for each in GENERATIONS if each in found]
    assert all(libraries and len(set(libraries)) == len(libraries) for libraries in found.values())
