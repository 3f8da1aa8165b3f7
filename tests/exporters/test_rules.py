"""Rules before an export: every violation with its site and the nearest choice that works; restricted spaces."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from bitfront import SearchSpace
from bitfront.device_generations import GENERATIONS, generations
from bitfront.errors import InvalidInput
from bitfront.evaluators import Calibration, QuantizedModel
from bitfront.exporters import (
    Capability,
    ExportRequest,
    capabilities,
    check,
    check_packages,
    get,
    nearest,
    restricted,
    takes,
    violations,
)
from bitfront.formats import Format
from bitfront.formats import names as format_names
from bitfront.service.job import Export
from bitfront.space import Configuration, Tie
from bitfront.task import Batch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(32, 32) for _ in range(4))

    def forward(self, x):
        return self.out(self.q(x) * self.k(x).sigmoid() + self.v(x))


class Strict:
    """A target that fuses q/k/v and takes 4 and 8 bits, at ``v`` only 8; as a plug-in would be written."""

    name = "strict"
    layout = "file"
    packages = ()
    extra = ""
    libraries = ("vLLM",)
    options = frozenset({"level"})

    def capability(self, format, site=None):
        few = (8,) if site is not None and site.name == "v" else (4, 8)
        known = format.is_wide or (format.weight.number == "int" and format.weight_bits in few)
        return Capability(known and not format.quantizes_activations, f"takes {few} bits, weights alone")

    def fused(self, space):
        return [Tie(("q", "k", "v"), "one kernel for q, k and v")]

    def validate(self, request):
        return []


def request(configuration, formats=("w3", "w4", "w8", "w8a8", "fp32"), **changes):
    torch.manual_seed(0)
    model, example = Attention().eval(), torch.randn(2, 32)
    space = SearchSpace.from_model(model, example, formats=list(formats), ties="none")
    chosen = Configuration.from_dict(configuration)
    return replace(ExportRequest(QuantizedModel(model, space, Calibration()), chosen, Batch.of(example)), **changes)


def test_all_violations_come_in_one_line_each_with_the_nearest_choice():
    asked = request({"q": "w3", "k": "w4", "v": "w4", "out": "w8a8"}, options={"size": 1})
    with pytest.raises(InvalidInput) as caught:
        check(Strict(), asked)
    assert str(caught.value) == (
        "strict cannot take this configuration: 5 violations: "
        "(1) site q: w3: takes (4, 8) bits, weights alone; nearest that works: w4; "
        "(2) site v: w4: takes (8,) bits, weights alone; nearest that works: w8; "
        "(3) site out: w8a8: takes (4, 8) bits, weights alone; nearest that works: w8; "
        "(4) sites q, k, v: q w3, k w4, v w4: must share a format (one kernel for q, k and v); nearest that works: w8; "
        "(5) size: no option of this target; it has level"
    )


def test_a_valid_configuration_has_no_violations():
    assert violations(Strict(), request({"q": "w8", "k": "w8", "v": "w8", "out": "w4"})) == []
    check(Strict(), request({}))


def test_the_nearest_choice_of_a_group_is_one_that_every_site_takes():
    sites = request({}).space.sites
    assert nearest(Strict(), sites[:1], Format.parse("w3")) == "w4"
    assert nearest(Strict(), sites, Format.parse("w3")) == "w8"
    assert nearest(Strict(), sites, Format.parse("w3"), among=("w3", "w2")) is None


@settings(max_examples=60, deadline=None)
@given(wanted=st.sampled_from(format_names()), target=st.sampled_from(["onnx", "modelopt", "llm-compressor"]))
def test_the_nearest_choice_is_valid_and_none_has_closer_bits(wanted, target):
    """Against all formats tried one by one."""
    site, chosen = request({}).space.sites[0], get(target)
    found = nearest(chosen, [site], Format.parse(wanted))
    bits = Format.parse(wanted).weight_bits
    valid = [name for name in format_names() if name != wanted and takes(chosen, site, Format.parse(name))]
    assert found in valid
    assert abs(Format.parse(found).weight_bits - bits) == min(abs(Format.parse(n).weight_bits - bits) for n in valid)


def test_groups_of_weights_must_divide_the_rows():
    asked = request({"q": "w4g128"}, formats=["w4", "fp32"])
    (found,) = violations(get("onnx"), asked)
    assert found.sites == ("q",)
    assert "groups of 128, which do not divide rows of 32" in found.reason
    assert found.nearest == "w4"


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("name", ["w4", "w4g32", "w8a8", "w8a8d", "fp8", "nvfp4", "we4m3", "bf16", "fp32"])
def test_kernels_must_exist_on_the_named_generation(name, generation):
    """The verdict is that of the table of kernels, for the libraries of the target."""

    class Every(Strict):
        def capability(self, format, site=None):
            return Capability(True, "all")

    site = request({}).space.sites[0]
    known = [each for each in generations(Format.parse(name)).get(generation, ()) if each.startswith("vLLM")]
    assert bool(takes(Every(), site, Format.parse(name), generation)) is (bool(known) or name == "fp32")


def test_a_missing_kernel_says_where_there_is_one():
    asked = request({"out": "w8a8d"}, formats=["w8a8d", "fp32"], generation="blackwell")
    found = takes(get("llm-compressor"), asked.space.sites[3], Format.parse("w8a8d"), "blackwell")
    assert found.reason == "no kernel on blackwell (there are some on turing, ampere, ada, hopper, cpu)"


def test_an_unknown_generation_is_refused_with_those_that_are_known():
    with pytest.raises(InvalidInput, match="unknown device generation 'pascal'; choose one of turing, ampere"):
        violations(Strict(), request({}, generation="pascal"))
    offered = Export.model_json_schema()["properties"]["generation"]["anyOf"][0]["enum"]
    assert tuple(offered) == GENERATIONS


def test_missing_packages_are_told_before_anything_else():
    target = Strict()
    target.packages = ("nothing_like_it",)
    with pytest.raises(
        InvalidInput, match="exporting to strict needs nothing_like_it; run: pip install nothing_like_it"
    ):
        check_packages(target)
    target.extra = "strict"
    with pytest.raises(InvalidInput, match=r"pip install 'bitfront\[strict\]'"):
        check_packages(target)


def test_a_search_is_never_offered_what_the_target_cannot_load():
    space = request({}).space
    found = restricted(space, Strict())
    allowed = dict(zip(found.space.names, found.space.allowed, strict=True))
    assert found.space.formats == ("w4", "w8", "fp32")
    assert allowed["q"].tolist() == [True, True, True]
    assert allowed["v"].tolist() == [False, True, True]
    assert [tie.sites for tie in found.space.ties] == [("q", "k", "v")]
    assert found.notes == (
        "export: w3, w8a8 are not offered at q, k, out, because strict cannot load them: "
        "takes (4, 8) bits, weights alone",
        "export: w3, w4, w8a8 are not offered at v, because strict cannot load them: takes (8,) bits, weights alone",
        "export: q, k, v share a format (one kernel for q, k and v)",
    )
    uniform = found.space.uniform("w4")
    assert {uniform[name] for name in "qkv"} == {"w8"}


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_what_a_restricted_space_allows_has_no_violations(seed):
    found = restricted(request({}).space, Strict()).space
    generator = np.random.default_rng(seed)
    chosen = {site.name: site.formats[generator.integers(len(site.formats))] for site in found.sites}
    for tie in found.ties:
        shared = [
            name for name in found.formats if all(name in found.sites[found.names.index(s)].formats for s in tie.sites)
        ]
        chosen |= dict.fromkeys(tie.sites, shared[generator.integers(len(shared))])
    found.choice(chosen)
    assert violations(Strict(), request(chosen)) == []


def test_a_space_that_fits_stays_the_same_object():
    space = request({}, formats=["w4", "w8", "fp32"]).space
    found = restricted(space, get("onnx"))
    assert found.space is space
    assert found.notes == ()


def test_ties_that_touch_are_joined():
    space = replace(request({}, formats=["w8", "fp32"]).space, ties=[Tie(("v", "out"), "asked for")])
    (tie,) = restricted(space, Strict()).space.ties
    assert tie == Tie(("q", "k", "v", "out"), "asked for; one kernel for q, k and v")


def test_a_space_of_which_nothing_is_left_names_what_to_offer():
    with pytest.raises(InvalidInput, match=r"site q: strict takes none of w2, w3 \(.*\); offer w4 in space\.formats"):
        restricted(request({}, formats=["w2", "w3"]).space, Strict())
    split = request({}, formats=["w4", "w8"]).space
    sites = [replace(site, formats=("w4",)) if site.name == "q" else site for site in split.sites]
    with pytest.raises(InvalidInput, match=r"sites q, k, v must share a format .* none in common; offer w8"):
        restricted(replace(split, sites=sites), Strict())


def test_capabilities_have_a_reason_for_everything_that_is_taken_away():
    space = request({}).space
    found = capabilities(Strict(), space)
    taken = {(s.name, f) for r, s in enumerate(space.sites) for c, f in enumerate(space.formats)
             if space.allowed[r, c] and not found.allowed[r, c]}  # fmt: skip
    assert taken == set(found.reasons)
    assert not (found.allowed & ~space.allowed).any()


def test_a_job_searches_only_what_its_export_target_takes():
    from bitfront.service.assemble import for_target
    from bitfront.service.job import parse_job

    space = request({}, formats=["w4", "w4z", "w8a8d", "bf16"]).space
    job = parse_job({"model": {"zoo": "digits_resnet20"}, "export": {"target": "modelopt"}})
    smaller, notes = for_target(job, space)
    assert smaller.formats == ("w4", "w8a8d", "bf16")
    assert notes == (
        "export: w4z is not offered at 4 sites (q, k, …), because modelopt cannot load it: ModelOpt has no zero-points",
    )
    named = parse_job(
        {"model": {"zoo": "digits_resnet20"}, "export": {"target": "modelopt", "generation": "blackwell"}}
    )
    assert "w8a8d" not in for_target(named, space)[0].formats
    assert for_target(parse_job({"model": {"zoo": "digits_resnet20"}, "export": None}), space) == (space, ())
