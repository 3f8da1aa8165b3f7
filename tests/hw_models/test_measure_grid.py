"""Grid files: what they mean, what is refused, what the shipped ones cover."""

import pytest
import torch
from bitfront.errors import InvalidInput
from bitfront.hw_models import site_kernel
from bitfront.hw_models.measure import FORMATS, format_of, parse_grid, read_grid, shipped
from bitfront.space import SearchSpace
from bitfront.zoo import load


def test_a_grid_is_all_combinations():
    grid = parse_grid(
        {
            "products": [{"m": [1, 2], "nk": [[8, 16], [32, 16], [8, 16]]}],
            "convolutions": {
                "batch": [1, 4],
                "layers": [{"channels": 8, "height": 6, "width": 4, "out": 8, "window": 3}],
            },
            "conversions": [{"names": ["quantize_int8"], "shapes": [[4, 8]]}],
        }
    )
    shapes = {kernel.shape for kernel in grid.bases}
    assert shapes == {
        *("1x16;8x16", "2x16;8x16", "1x16;32x16", "2x16;32x16"),
        *("1x8x6x4;8x8x3x3", "4x8x6x4;8x8x3x3"),
    }
    assert dict(grid.bases[-1].attributes)["pads"] == (1, 1, 1, 1)
    kernels = grid.kernels("cpu", "torch", ("fp32", "bf16"))
    assert len(kernels) == 2 * len(grid.bases) + 1
    assert [format_of(kernel) for kernel in kernels[:2]] == ["fp32", "bf16"]
    assert kernels[0].shape == kernels[1].shape
    assert len(grid.kernels("cpu", "onnxruntime", ("fp32",))) == len(grid.bases)


def test_formats_of_a_grid_are_narrowed_by_the_caller_and_by_the_runtime():
    grid = parse_grid({"formats": ["bf16", "fp8"], "products": [{"m": [16], "nk": [[64, 64]]}]})
    assert [format_of(kernel) for kernel in grid.kernels("cuda", "torch")] == ["bf16", "fp8"]
    assert [format_of(kernel) for kernel in grid.kernels("cpu", "torch")] == ["bf16"]
    with pytest.raises(InvalidInput, match="onnxruntime on cpu has no kernel in fp8; it has fp32"):
        grid.kernels("cpu", "onnxruntime", ("fp8",))
    with pytest.raises(InvalidInput, match="nothing is timed on cuda with onnxruntime"):
        grid.kernels("cuda", "onnxruntime")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "Input should be a valid dictionary"),
        ({}, "holds no shape"),
        ({"product": []}, "product: Extra inputs are not permitted"),
        ({"products": [{"m": [0], "nk": [[8, 8]]}]}, "products.0.m.0: Input should be greater than or equal to 1"),
        ({"products": [{"m": [1], "nk": [[8]]}]}, "products.0.nk.0"),
        ({"formats": ["int3"], "products": [{"m": [1], "nk": [[8, 8]]}]}, "unknown format 'int3'"),
        ({"conversions": [{"names": ["squeeze"], "shapes": [[8, 8]]}]}, "unknown conversion 'squeeze'"),
        ({"convolutions": {"layers": [{"channels": 8, "height": 6, "out": 8, "groups": 3}]}}, "cannot have 3 groups"),
    ],
)
def test_bad_grids_are_one_line(content, said):
    with pytest.raises(InvalidInput, match=said.replace("(", r"\(")) as caught:
        parse_grid(content)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InvalidInput, match=r"cannot read the grid .*: No such file or directory; .*gpt, tiny, zoo"):
        read_grid(tmp_path / "none.yaml")
    path = tmp_path / "bad.yaml"
    path.write_text("a: [1,\nb: }")
    with pytest.raises(InvalidInput, match="is not YAML in line 2"):
        read_grid(path)
    path.write_text("products: [{m: [4], nk: [[8, 8]]}]")
    assert [kernel.shape for kernel in read_grid(path).bases] == ["4x8;8x8"]


@pytest.mark.parametrize("name", ["gpt", "tiny", "zoo"])
def test_shipped_grids_hold_kernels_for_every_runtime(name):
    assert name in shipped()
    grid = read_grid(name)
    assert grid.name == name
    for (device, runtime), (products, _) in FORMATS.items():
        kernels = grid.kernels(device, runtime)
        assert {format_of(kernel) for kernel in kernels} >= set(products)
        assert len(set(kernels)) == len(kernels)


@pytest.mark.parametrize("name", ["digits_resnet20", "efficientnet_lite0"])
def test_the_zoo_grid_covers_the_models(name):
    entry = load(name)
    covered = {(kernel.shape, dict(kernel.attributes).get("strides")) for kernel in read_grid("zoo").bases}
    space = SearchSpace.from_model(entry.model, entry.example_inputs[:1], formats=["fp32"])
    for site in space.sites:
        for batch in (1, 8, 32):
            kernel = site_kernel(site, "fp32", batch)
            assert (kernel.shape, dict(kernel.attributes).get("strides")) in covered


def test_layers_have_the_size_that_torch_gives_them():
    from bitfront.hw_models.measure import convolution, in_format
    from bitfront.hw_models.measure.backend import work

    for window, stride, padding, dilation in [(3, 1, None, 1), (3, 2, 0, 1), (5, 2, None, 2), (1, 2, 0, 1)]:
        kernel = in_format(convolution(2, 4, 17, 15, 6, window, stride, padding, 1, dilation), "fp32", "torch")
        pads = dict(kernel.attributes)["pads"][0]
        y = torch.nn.functional.conv2d(
            torch.zeros(kernel.input_shape), torch.zeros(kernel.weight_shape), None, stride, pads, dilation
        )
        assert work(kernel)[0] == y.numel() * 4 * window**2
