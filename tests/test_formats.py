"""The name grammar, and the bits of a format by closed forms."""

import math
import re

import pytest
from bitfront.errors import BitfrontError, UnknownFormat
from bitfront.formats import Format, TensorFormat, names, precision_order
from hypothesis import given, settings
from hypothesis import strategies as st

ALL = list(names())


def test_the_grammar_has_every_name_once():
    assert len(ALL) == len(set(ALL)) == 7 + 7 * 7 + 2
    assert set(ALL) == {"fp32", "bf16"} | {
        f"w{w}{a}" for w in range(2, 9) for a in ("", *(f"a{bits}" for bits in range(2, 9)))
    }


@pytest.mark.parametrize("name", ALL)
def test_round_trip(name):
    parsed = Format.parse(name)
    assert str(parsed) == parsed.name == name
    assert Format.parse(str(parsed)) == parsed
    assert hash(Format.parse(name)) == hash(parsed)


@given(st.sampled_from(range(2, 9)), st.sampled_from([None, *range(2, 9)]))
def test_parse_reads_the_bits(weight, activation):
    parsed = Format.parse(f"w{weight}" + ("" if activation is None else f"a{activation}"))
    assert (parsed.weight_bits, parsed.activation_bits) == (weight, activation)
    assert parsed.weight == TensorFormat("int", weight, "channel", symmetric=True)
    assert parsed.weight.levels == (-(2 ** (weight - 1)), 2 ** (weight - 1) - 1)
    assert parsed.quantizes_activations == (activation is not None)
    assert not parsed.is_float
    if activation is not None:
        assert parsed.activation == TensorFormat("int", activation, "tensor", symmetric=False)
        assert parsed.activation.levels == (0, 2**activation - 1)


def test_floats():
    bf16, fp32 = Format.parse("bf16"), Format.parse("fp32")
    assert (bf16.weight_bits, bf16.activation_bits, fp32.weight_bits, fp32.activation_bits) == (16, 16, 32, None)
    assert bf16.is_float
    assert fp32.is_float
    assert not bf16.quantizes_activations
    with pytest.raises(UnknownFormat, match="no integer levels"):
        _ = bf16.weight.levels


@settings(max_examples=40)
@given(st.text(max_size=6).filter(lambda text: text not in ALL))
def test_every_other_text_is_refused_in_one_line(text):
    with pytest.raises(UnknownFormat) as caught:
        Format.parse(text)
    assert "\n" not in str(caught.value)
    named = re.search(r"nearest: ([^(]*) \(", str(caught.value))[1].split(", ")
    assert set(named) <= set(ALL)


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [("W4", "w4"), ("w8a", "w8a8"), ("int8", "w8"), ("bfloat16", "bf16"), ("w4a16", "w4a"), ("w9", "w"), ("w8 ", "w8")],
)
def test_unknown_names_are_answered_with_the_nearest(wrong, nearest):
    with pytest.raises(UnknownFormat, match=f"{re.escape(repr(wrong))}; nearest: .*{nearest}"):
        Format.parse(wrong)


@pytest.mark.parametrize("wrong", [4, None, ["w4"], {"w": 4}, b"w4"])
def test_what_is_no_text_is_refused_too(wrong):
    with pytest.raises(UnknownFormat):
        Format.parse(wrong)


def test_an_unknown_format_is_invalid_input():
    assert issubclass(UnknownFormat, BitfrontError)
    assert issubclass(UnknownFormat, ValueError)


@pytest.mark.parametrize(
    ("bits", "container"), [(2, 2), (3, 4), (4, 4), (5, 8), (6, 8), (7, 8), (8, 8), (16, 16), (32, 32)]
)
def test_containers(bits, container):
    assert TensorFormat("int", bits).container_bits == container


@given(
    st.sampled_from(ALL),
    st.lists(st.integers(1, 9), min_size=2, max_size=5),
    st.sampled_from([0, 1]),
)
def test_stored_and_effective_bits(name, shape, axis):
    parsed, elements = Format.parse(name), math.prod(shape)
    scales = 0 if parsed.is_float else 32 * shape[axis]
    container = {3: 4, 5: 8, 6: 8, 7: 8}.get(parsed.weight_bits, parsed.weight_bits)
    assert parsed.stored_bits(shape, axis) == elements * container + scales
    assert parsed.effective_bits(shape, axis) == pytest.approx(parsed.weight_bits + scales / elements)


def test_scale_bits_of_one_tensor():
    assert TensorFormat("int", 8, "tensor", symmetric=False).scale_bits((4, 5), 0) == 40  # scale and zero-point
    assert TensorFormat("int", 8, "tensor").scale_bits((4, 5), 0) == 32
    assert TensorFormat("int", 8, "channel").scale_bits((4, 5), 1) == 5 * 32


def test_precision_order_example():
    assert precision_order(["fp32", "w8", "bf16", "w8a8", "w2", "w4a8", "w4", "w8"]) == [
        "w2", "w4a8", "w4", "w8a8", "w8", "bf16", "fp32",
    ]  # fmt: skip


@given(st.lists(st.sampled_from(ALL)))
def test_precision_order_is_a_sorted_set(chosen):
    ordered = precision_order(chosen)
    assert set(ordered) == set(chosen)
    assert len(ordered) == len(set(ordered))
    bits = [Format.parse(name).weight_bits for name in ordered]
    assert bits == sorted(bits)
    assert precision_order(reversed(ordered)) == ordered


def test_precision_order_names_what_it_does_not_know():
    with pytest.raises(UnknownFormat, match="w44"):
        precision_order(["w4", "w44"])
