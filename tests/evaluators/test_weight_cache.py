"""Quantized weights and float outputs that are computed once, kept within a budget, and shared through a folder."""

from pathlib import Path

import bitfront as bf
import pytest
import torch
from bitfront.errors import InvalidInput
from bitfront.evaluators import FakeQuantEvaluator, QuantizedModel, calibrate
from bitfront.evaluators.float_reference import FloatReference
from bitfront.evaluators.tensor_files import TensorFolder
from bitfront.evaluators.weight_cache import WeightCache
from bitfront.formats import Format
from torch import nn

FORMATS = ["w2", "w4g32", "w4z", "we4m3", "bf16", "fp32"]


@pytest.fixture
def made():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, 4))
    data = [torch.randn(4, 32) for _ in range(3)]
    task = bf.Task(model, calibration=data[:1], validation=data[1:])
    space = bf.SearchSpace.from_model(model, data[0], formats=FORMATS)
    return task, space, calibrate(task, space)


def weight_of(made, cache, name, site=0):
    task, space, _ = made
    chosen = space.sites[site]
    return cache.get(chosen, Format.parse(name).weight, task.model.get_parameter(chosen.parameter).data)


@pytest.mark.parametrize("name", FORMATS)
def test_mapped_and_computed_weights_are_the_dequantized_codes(made, tmp_path, name):
    task, space, calibration = made
    site, weight = space.sites[0], task.model[0].weight.data
    if Format.parse(name).weight.is_wide:
        expected = weight.bfloat16().float() if name == "bf16" else weight
    else:
        expected = calibration.quantize(site, weight, Format.parse(name).weight).dequantize()
    caches = [WeightCache(calibration, 10**9, folder) for folder in (None, tmp_path, tmp_path)]
    for cache in caches:
        found = weight_of(made, cache, name)
        assert torch.equal(found, expected)
        assert weight_of(made, cache, name).data_ptr() == found.data_ptr()
    narrow = not Format.parse(name).weight.is_wide
    assert [cache.computed for cache in caches] == [narrow, narrow, 0]
    assert [cache.mapped for cache in caches] == [0, 0, narrow]
    assert len(list(tmp_path.iterdir())) == narrow


def test_weights_really_lie_in_the_mapped_file(made, tmp_path):
    cache = WeightCache(made[2], 10**9, tmp_path)
    found = weight_of(made, cache, "w2")
    maps = Path("/proc/self/maps").read_text().splitlines()
    ranges = [line.split()[0].split("-") for line in maps if str(tmp_path) in line]
    assert any(int(low, 16) <= found.data_ptr() < int(high, 16) for low, high in ranges)
    before = next(tmp_path.iterdir()).read_bytes()
    found.add_(1)  # a private mapping: what a process writes stays its own
    assert next(tmp_path.iterdir()).read_bytes() == before


def test_what_was_evicted_is_mapped_again(made, tmp_path):
    cache = WeightCache(made[2], limit=32 * 8 * 4, folder=tmp_path)  # one weight of the first site
    for name in ("w2", "w4z", "w2", "w4z"):
        weight_of(made, cache, name)
        assert cache.held <= cache.limit
    assert (cache.computed, cache.mapped) == (2, 2)
    cache = WeightCache(made[2], limit=0)
    weight_of(made, cache, "w2")
    weight_of(made, cache, "w2", site=1)
    assert cache.keys == [("2", "w2")]
    assert cache.held == 8 * 4 * 4


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "no header"])
def test_damaged_files_are_reported_and_computed_again(made, tmp_path, damage, caplog):
    expected = weight_of(made, WeightCache(made[2], 10**9, tmp_path), "w2").clone()
    file = next(tmp_path.iterdir())
    content = bytearray(file.read_bytes())
    content[-5] ^= 16
    file.unlink()
    broken = {"truncated": content[:-9], "flipped": content, "empty": b"", "no header": b"\xff" * 100}[damage]
    file.write_bytes(bytes(broken))
    cache = WeightCache(made[2], 10**9, tmp_path)
    assert torch.equal(weight_of(made, cache, "w2"), expected)
    assert (cache.computed, cache.mapped) == (1, 0)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "computed again" in caplog.text
    caplog.clear()
    again = WeightCache(made[2], 10**9, tmp_path)  # the good file has replaced the bad one
    assert torch.equal(weight_of(made, again, "w2"), expected)
    assert (again.computed, caplog.text) == (0, "")


def test_a_folder_that_cannot_be_written(made, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    cache = WeightCache(made[2], 10**9, tmp_path / "file")
    plain = weight_of(made, WeightCache(made[2], 10**9), "w2")
    assert torch.equal(weight_of(made, cache, "w2"), plain)
    assert "kept in memory" in caplog.text


def test_files_are_named_by_everything_that_the_weight_depends_on(made, tmp_path):
    task, _space, calibration = made

    def files():
        return len(list(tmp_path.iterdir()))

    weight_of(made, WeightCache(calibration, 10**9, tmp_path), "w2")
    weight_of(made, WeightCache(calibration, 10**9, tmp_path), "w4z")
    assert files() == 2
    calibration.weights["0", "w2"].scale.mul_(1.5)
    weight_of(made, WeightCache(calibration, 10**9, tmp_path), "w2")
    assert files() == 3
    calibration.codes["0", "w2"] = torch.ones(8, 32, dtype=torch.int8)
    coded = weight_of(made, WeightCache(calibration, 10**9, tmp_path), "w2")
    assert files() == 4
    assert torch.equal(coded, calibration.weights["0", "w2"].scale[:, None].expand(8, 32))
    task.model[0].weight.data[0, 0] += 1
    weight_of(made, WeightCache(calibration, 10**9, tmp_path), "w4z")
    assert files() == 5


def test_types_of_the_model_survive_the_folder(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 8)).to(torch.bfloat16)
    data = [torch.randn(4, 32).bfloat16() for _ in range(3)]
    task = bf.Task(model, calibration=data[:1], validation=data[1:])
    space = bf.SearchSpace.from_model(model, data[0], formats=["w4"])
    calibration = calibrate(task, space)
    found = [QuantizedModel(model, space, calibration, cache_folder=tmp_path) for _ in range(2)]
    one, other = (each.weight(space.sites[0], Format.parse("w4").weight) for each in found)
    assert one.dtype == other.dtype == torch.bfloat16
    assert torch.equal(one, other)
    assert found[1].cache.mapped == 1


def test_float_outputs_are_shared(made, tmp_path, monkeypatch):
    task = made[0]
    first = FloatReference(task, tmp_path)
    outputs = first.outputs("validation")
    monkeypatch.setattr(FloatReference, "_computed", lambda self, split: pytest.fail("computed again"))
    second = FloatReference(task, tmp_path)
    assert all(map(torch.equal, outputs, second.outputs("validation")))
    assert second.seconds("validation") == first.seconds("validation") > 0
    monkeypatch.undo()
    task.model[0].bias.data += 1
    assert not torch.equal(FloatReference(task, tmp_path).outputs("validation")[0], outputs[0])


def test_evaluators_with_and_without_a_folder_agree(made, tmp_path):
    task, space, calibration = made
    found = [
        FakeQuantEvaluator(task, space, calibration, cache_folder=folder).evaluate(space.uniform("w2"))
        for folder in (None, tmp_path, tmp_path)
    ]
    assert found[0].values == found[1].values == found[2].values


def test_reading_a_file_that_is_not_there(tmp_path, caplog):
    assert TensorFolder(tmp_path).read("nothing") is None
    assert caplog.text == ""


def test_less_than_no_memory(made):
    with pytest.raises(InvalidInput, match="may take -5 bytes; give 0 or more"):
        WeightCache(made[2], -5)
