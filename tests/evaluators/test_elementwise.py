"""Large tensors of every memory layout: each element is rounded where it stands."""

import pytest
import torch
from bitfront.evaluators.quantizers import Range, activation_quantizer, round_to_float
from bitfront.evaluators.quantizers.elementwise import _CHUNK, in_chunks
from bitfront.formats import Format

QKV = (2, 200, 3, 4, 96)  # batch, tokens, query key value, heads, features
LAYOUTS = {
    "contiguous": lambda draw: draw(400, 401),
    "transposed": lambda draw: draw(400, 401).t(),
    "every second column, transposed": lambda draw: draw(400, 800)[:, ::2].t(),
    "every second of both": lambda draw: draw(4, 64, 60, 60)[..., ::2, ::2].transpose(0, 3),
    "channels_last": lambda draw: channels_last(draw(2, 64, 40, 40)),
    "channels_last chunk": lambda draw: channels_last(draw(4, 64, 40, 40)).chunk(2, 1)[1],
    "channels_last crop": lambda draw: channels_last(draw(2, 64, 44, 43))[..., 1:-1, 2:-2],
    "chunk": lambda draw: draw(4, 64, 40, 40).chunk(2, 1)[1],
    "crop": lambda draw: draw(2, 64, 44, 43)[..., 1:-1, 2:-2],
    "query of a fused projection": lambda draw: draw(*QKV).permute(2, 0, 3, 1, 4)[0],
    "first features, batch and tokens swapped": lambda draw: draw(6, 100, 768)[..., :256].transpose(0, 1),
    "expanded channels": lambda draw: draw(1, 64, 1, 1).expand(2, 64, 40, 40),
    "expanded rows": lambda draw: draw(400, 1).expand(400, 401),
    "expanded rows, transposed": lambda draw: draw(400, 1).expand(400, 401).t(),
    "windows that overlap": lambda draw: draw(1400).unfold(0, 400, 2).t(),
}
NAMES = ("a8", "a8s", "a4", "ae4m3", "ae2m1", "a8c", "a8d", "a8dz", "a8g32", "amxfp8", "anvfp4", "bf16", "fp16")


def normal(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def channels_last(value):
    return value.to(memory_format=torch.channels_last)


def quantizer_of(name, value):
    target = Format.parse(name if name in ("bf16", "fp16") else f"w8{name}").activation
    if target.is_wide or target.dynamic:
        return activation_quantizer(target)
    flat = value.reshape(-1, value.shape[-1]) if target.granularity == "channel" else value.reshape(-1)
    return activation_quantizer(target, Range(flat.amin(0), flat.amax(0)))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", NAMES)
def test_the_layout_changes_no_value(name, layout):
    value = LAYOUTS[layout](normal)
    assert value.numel() > _CHUNK
    before, quantizer = value.clone(), quantizer_of(name, value)
    assert torch.equal(quantizer(value), quantizer(value.contiguous()))
    assert torch.equal(value, before)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["a8", "ae4m3"])
def test_nor_in_another_type(name, layout, kind):
    value = LAYOUTS[layout](lambda *shape: normal(*shape).to(kind))
    assert value.dtype == kind
    quantizer = quantizer_of(name, value.float())
    found = quantizer(value)
    assert found.dtype == kind
    assert torch.equal(found, quantizer(value.contiguous()))
    assert torch.equal(found, quantizer(value.float()).to(kind))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_casts_round_every_element_where_it_stands(name, layout):
    value, target = LAYOUTS[layout](normal), Format.parse(name).weight
    wanted = torch.bfloat16 if name == "bf16" else torch.float16
    assert torch.equal(round_to_float(value, target), value.to(wanted).float())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_parts_are_read_and_written_in_the_same_order(layout):
    value = LAYOUTS[layout](normal)
    found = in_chunks(value, lambda part, out: out.copy_(part))
    assert torch.equal(found, value)
    assert found.data_ptr() != value.data_ptr()
    assert found.stride() == torch.empty_like(value).stride()  # as any elementwise operation has them
