"""The name grammar, and the bits of a format by closed forms."""

import itertools
import math
import re

import pytest
from bitfront.errors import BitfrontError, UnknownFormat
from bitfront.formats import Format, TensorFormat, activation_name, names, precision_order, weight_name
from hypothesis import given, settings
from hypothesis import strategies as st

ALL = list(names())
MINIFLOATS = [f"e{e}m{m}" for e, m in itertools.product(range(1, 8), range(7)) if 3 <= 1 + e + m <= 8]
BLOCKS = ["mxfp8", "mxfp6", "mxfp4", "nvfp4"]
WEIGHTS = [
    *(f"w{bits}{spread}{zero}" for bits, spread, zero in itertools.product(
        range(2, 9), ("", "t", "g32", "g64", "g128", "b128"), ("", "z"))),
    *(f"w{number}{spread}" for number, spread in itertools.product(
        MINIFLOATS, ("", "t", "g32", "g64", "g128", "b128"))),
    *(f"w{block}" for block in BLOCKS),
]  # fmt: skip
ACTIVATIONS = [
    *(f"a{bits}{spread}" for bits, spread in itertools.product(
        range(2, 9), ("", "s", "c", "cs", "d", "dz", "g32", "g32z", "g64", "g64z", "g128", "g128z"))),
    *(f"a{number}{spread}" for number, spread in itertools.product(
        MINIFLOATS, ("", "c", "d", "g32", "g64", "g128"))),
    *(f"a{block}" for block in BLOCKS),
]  # fmt: skip
SHORT = {"we4m3ae4m3": "fp8", "we4m3ae4m3d": "fp8d", "we4m3b128ae4m3g128": "fp8b128"} | {
    f"w{block}a{block}": block for block in BLOCKS
}


def assert_round_trip(name):
    parsed = Format.parse(name)
    assert str(parsed) == parsed.name == name
    long = weight_name(parsed.weight) + (activation_name(parsed.activation) if parsed.activation else "")
    if not parsed.is_wide:
        assert SHORT.get(long, long) == name


@pytest.mark.parametrize("name", ALL)
def test_offered_names_round_trip(name):
    assert_round_trip(name)
    assert hash(Format.parse(name)) == hash(Format.parse(name))


def test_the_whole_grammar_round_trips_and_every_name_means_something_else():
    for name in WEIGHTS:
        assert_round_trip(name)
    pairs = [SHORT.get(f"w4{value}", f"w4{value}") for value in ACTIVATIONS]
    for name in pairs:
        assert_round_trip(name)
    assert len({Format.parse(name).weight for name in WEIGHTS}) == len(WEIGHTS)
    assert len({Format.parse(name).activation for name in pairs}) == len(ACTIVATIONS)


@settings(max_examples=300)
@given(st.sampled_from(WEIGHTS), st.sampled_from(ACTIVATIONS))
def test_any_weight_goes_with_any_activation(weight, activation):
    name = SHORT.get(weight + activation, weight + activation)
    assert_round_trip(name)
    parsed = Format.parse(name)
    assert parsed.weight == Format.parse(weight).weight
    assert weight_name(parsed.weight) == weight
    assert activation_name(parsed.activation) == activation


@pytest.mark.parametrize("long", SHORT)
def test_a_format_has_one_name(long):
    with pytest.raises(UnknownFormat):
        Format.parse(long)


@pytest.mark.parametrize("wrong", ["w8a8z", "w8a8ds", "w4g128s", "we4m3z", "we4m3ae4m3s", "we1m0", "we7m6", "nf4a8",
                                   "w9", "w1", "w4g48", "w4b64", "w8a8b128", "w8a8t", "W4", "", "a8"])  # fmt: skip
def test_what_has_no_meaning_is_refused(wrong):
    with pytest.raises(UnknownFormat):
        Format.parse(wrong)


def test_the_formats_that_issues_and_runtimes_name_are_offered():
    wanted = {"w2", "w8", "w4g128", "w4g128z", "w4a8", "w8a8", "w8a8d", "w8a8s", "fp8", "fp8d", "fp8b128", "mxfp8",
              "mxfp6", "mxfp4", "nvfp4", "nf4", "bf16", "fp16", "fp32", "wnvfp4", "wmxfp4"}  # fmt: skip
    assert wanted <= set(ALL)
    assert len(ALL) == len(set(ALL))


@pytest.mark.parametrize(
    ("name", "weight", "activation"),
    [
        ("w4", TensorFormat("int", 4, "channel"), None),
        ("w4t", TensorFormat("int", 4, "tensor"), None),
        ("w4g128", TensorFormat("int", 4, "group", True, 128, scale="fp16"), None),
        ("w3g32z", TensorFormat("int", 3, "group", False, 32, scale="fp16"), None),
        ("w8a8", TensorFormat("int", 8, "channel"), TensorFormat("int", 8, "tensor", False)),
        ("w8a8s", TensorFormat("int", 8, "channel"), TensorFormat("int", 8, "tensor", True)),
        ("w8a8c", TensorFormat("int", 8, "channel"), TensorFormat("int", 8, "channel", False)),
        ("w8a8d", TensorFormat("int", 8, "channel"), TensorFormat("int", 8, "token", True, dynamic=True)),
        ("w8a8dz", TensorFormat("int", 8, "channel"), TensorFormat("int", 8, "token", False, dynamic=True)),
        ("w8a8g32", TensorFormat("int", 8, "channel"), TensorFormat("int", 8, "group", True, 32, dynamic=True)),
        ("fp8", TensorFormat("float", 8, "channel", True, 0, 4, 3), TensorFormat("float", 8, "tensor", True, 0, 4, 3)),
        ("nvfp4", TensorFormat("float", 4, "group", True, 16, 2, 1, "e4m3"),
         TensorFormat("float", 4, "group", True, 16, 2, 1, "e4m3")),
        ("mxfp6", TensorFormat("float", 6, "group", True, 32, 2, 3, "e8m0"),
         TensorFormat("float", 6, "group", True, 32, 2, 3, "e8m0", dynamic=True)),
    ],
)  # fmt: skip
def test_what_names_mean(name, weight, activation):
    assert Format.parse(name) == Format(name, weight, activation)


@pytest.mark.parametrize(
    ("name", "ranges", "narrow"),
    [("w8a8", True, True), ("w8a8d", False, True), ("mxfp4", False, True), ("nvfp4", True, True), ("fp8", True, True),
     ("fp8d", False, True), ("w4", False, False), ("bf16", False, False), ("fp32", False, False)],
)  # fmt: skip
def test_what_needs_calibration_data(name, ranges, narrow):
    assert (Format.parse(name).needs_ranges, Format.parse(name).quantizes_activations) == (ranges, narrow)


def test_wide_floats():
    bf16, fp32 = Format.parse("bf16"), Format.parse("fp32")
    assert (bf16.weight_bits, bf16.activation_bits, fp32.weight_bits, fp32.activation_bits) == (16, 16, 32, None)
    assert bf16.is_wide
    assert fp32.is_wide
    assert not Format.parse("fp8").is_wide
    with pytest.raises(UnknownFormat, match="no integer levels"):
        _ = bf16.weight.levels


@settings(max_examples=40)
@given(st.text(max_size=6).filter(lambda text: not re.fullmatch(r"w.*|nf4|[bf]p?\d.*|mx.*|nv.*", text)))
def test_every_other_text_is_refused_in_one_line(text):
    with pytest.raises(UnknownFormat) as caught:
        Format.parse(text)
    assert "\n" not in str(caught.value)
    named = re.search(r"nearest: ([^(]*) \(", str(caught.value))[1].split(", ")
    assert set(named) <= set(ALL)


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [("W4", "w4"), ("int8", "w8|w4"), ("bfloat16", "bf16"), ("w4g127", "w4g12"), ("mxfp5", "mxfp"), ("w8 ", "w8")],
)
def test_unknown_names_are_answered_with_the_nearest(wrong, nearest):
    with pytest.raises(UnknownFormat, match=f"{re.escape(repr(wrong))}; nearest: .*({nearest})"):
        Format.parse(wrong)


@pytest.mark.parametrize("wrong", [4, None, ["w4"], {"w": 4}, b"w4"])
def test_what_is_no_text_is_refused_too(wrong):
    with pytest.raises(UnknownFormat):
        Format.parse(wrong)


def test_an_unknown_format_is_invalid_input():
    assert issubclass(UnknownFormat, BitfrontError)
    assert issubclass(UnknownFormat, ValueError)


# bits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bits", "container"), [(2, 2), (3, 4), (4, 4), (5, 8), (6, 8), (7, 8), (8, 8), (16, 16), (32, 32)]
)
def test_integer_containers(bits, container):
    assert TensorFormat("int", bits).container_bits == container


def test_float_containers():
    assert [Format.parse(name).weight.container_bits for name in ("mxfp4", "mxfp6", "mxfp8", "we3m1", "nf4")] == [
        4, 6, 8, 8, 4,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("w4", 4 + 32 / 512),
        ("w4t", 4 + 32 / (256 * 512)),
        ("w4g128", 4 + 16 / 128),
        ("w4g128z", 4 + 20 / 128),  # a 4-bit zero-point
        ("w2g32z", 2 + 20 / 32),  # at least 4 bits for a zero-point
        ("w5g32z", 5 + 24 / 32),  # in a container of 8
        ("w8z", 8 + 40 / 512),
        ("w4b128", 4 + 32 / 128**2),
        ("fp8b128", 8 + 32 / 128**2),
        ("mxfp4", 4.25),
        ("mxfp6", 6.25),
        ("mxfp8", 8.25),
        ("nvfp4", 4.5 + 32 / (256 * 512)),
        ("nf4", 4.5),
        ("bf16", 16),
        ("fp32", 32),
    ],
)
def test_effective_bits_by_hand(name, bits):
    assert Format.parse(name).effective_bits((256, 512), 0) == bits


@given(st.sampled_from(ALL), st.lists(st.integers(1, 200), min_size=2, max_size=4), st.sampled_from([0, 1]))
def test_stored_and_effective_bits(name, shape, axis):
    parsed, elements = Format.parse(name), math.prod(shape)
    weight, channels = parsed.weight, shape[axis]
    row = elements // channels
    count = {"tensor": 1, "channel": channels}.get(weight.granularity)
    if weight.granularity == "group":
        count = channels * -(-row // weight.group)
    elif weight.granularity == "block":
        count = -(-channels // weight.group) * -(-row // weight.group)
    each = {"fp32": 32, "fp16": 16, "e8m0": 8, "e4m3": 8}[weight.scale] + (
        0 if weight.symmetric else max(4, weight.container_bits)
    )
    scales = 0 if parsed.is_wide else count * each + (32 if weight.scale == "e4m3" else 0)
    assert parsed.stored_bits(shape, axis) == elements * weight.container_bits + scales
    assert parsed.effective_bits(shape, axis) == pytest.approx(weight.bits + scales / elements)


@pytest.mark.parametrize(
    ("name", "largest"),
    [("we4m3", 448), ("we5m2", 57344), ("we3m4", 15.5), ("we2m3", 7.5), ("we3m2", 28), ("we2m1", 6), ("nf4", 1),
     ("w4", 7), ("w4z", 15), ("bf16", 3.3895313892515355e38), ("fp16", 65504)],
)  # fmt: skip
def test_largest_elements(name, largest):
    assert Format.parse(name).weight.largest == largest


# which layers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "shape", "axis", "reason"),
    [
        ("w4", "embedding", (100, 64), 0, ""),
        ("w8a8", "embedding", (100, 64), 0, "rounds the input"),
        ("w8a8", "mha_in_proj", (192, 64), 0, "rounds the input"),
        ("bf16", "embedding", (100, 64), 0, ""),
        ("w8a8", "conv2d", (8, 4, 3, 3), 0, ""),
        ("w8a8d", "conv2d", (8, 4, 3, 3), 0, "only linear layers"),
        ("w8a8d", "linear", (8, 64), 0, ""),
        ("w8a8d", "hf_conv1d", (64, 8), 1, ""),
        ("w8a8c", "linear", (8, 64), 0, ""),
        ("w8a8c", "conv2d", (8, 4, 3, 3), 0, "linear layers"),
        ("w4g32", "linear", (8, 64), 0, ""),
        ("w4g128", "linear", (8, 64), 0, "do not divide rows of 64"),
        ("w4g32", "conv2d", (8, 32, 1, 1), 0, "only matrices"),
        ("w4g32", "hf_conv1d", (64, 8), 1, ""),
        ("w8a8g32", "linear", (8, 48), 0, "do not divide rows of 48"),
        ("fp8b128", "linear", (100, 256), 0, ""),
        ("fp8b128", "linear", (100, 200), 0, "do not divide"),
        ("mxfp4", "linear", (8, 48), 0, "do not divide"),
        ("nvfp4", "linear", (8, 48), 0, ""),
        ("nvfp4", "conv2d", (8, 16, 3, 3), 0, "only"),
        ("nf4", "embedding", (100, 64), 0, ""),
        ("we4m3", "conv_transpose2d", (4, 8, 3, 3), 1, ""),
    ],
)
def test_refusals(name, kind, shape, axis, reason):
    found = Format.parse(name).refusal(kind, shape, axis)
    assert "\n" not in found
    assert (reason in found and name in found) if reason else not found


# order -----------------------------------------------------------------------------------------------------------


def test_precision_order_example():
    assert precision_order(["fp32", "w8", "bf16", "w8a8", "w2", "w4g32", "w4a8", "w4", "w4g128", "w8", "w4t"]) == [
        "w2", "w4a8", "w4t", "w4", "w4g128", "w4g32", "w8a8", "w8", "bf16", "fp32",
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
