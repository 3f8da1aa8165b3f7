"""The executorch target: packed codes in the file, integer kernels, what it refuses. Needs the extra ``executorch``."""

import pytest
import torch
from bitfront.errors import ExportMismatch
from bitfront.evaluators import calibrate
from bitfront.exporters import export, get
from bitfront.exporters.executorch_target import ExecutorchTarget
from bitfront.formats import Format
from bitfront.space import SearchSpace
from bitfront.task import Task
from torch import nn

#: Only what runs executorch needs the package; what is refused does not.
runtime = pytest.mark.optional


def vectors(seed):
    return torch.randn(4, 64, generator=torch.Generator().manual_seed(seed))


def images(seed):
    return torch.randn(2, 8, 7, 7, generator=torch.Generator().manual_seed(seed))


def exported(path, model, data, name):
    pytest.importorskip("executorch")
    model = model.eval()
    task = Task(model, calibration=[data(1)], validation=[data(2), data(3)], quality="relative_error")
    space = SearchSpace.from_model(model, data(0), formats=[name, "fp32"], ties="none")
    chosen = {site.name: name for site in space.sites}
    calibration = calibrate(task, space)
    return export(model, chosen, path, target="executorch", example_inputs=data(4), calibration=calibration,
                  space=space, rounds=0)  # fmt: skip


def two_layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 33), nn.ReLU(), nn.Linear(33, 16, bias=False))


@runtime
@pytest.mark.parametrize(("name", "integer"), [("w8", set()), ("w4", set()), ("w8a8", {"0"}), ("w8a8dz", {"0", "2"})])
def test_linear_layers_compute_what_was_measured(tmp_path, name, integer):
    report = exported(tmp_path / "m.pte", two_layers(), vectors, name)
    assert report.relative_error <= report.bound
    assert set(report.integer_kernels) == integer
    assert name != "w8" or report.relative_error < 1e-6


@runtime
def test_two_convolutions_of_which_the_first_is_integer(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1))
    report = exported(tmp_path / "m.pte", model, images, "w8a8")
    assert set(report.integer_kernels) == {"0"}
    assert report.float_kernels == ("2",)


@runtime
def test_a_changed_code_fails_the_check(tmp_path, monkeypatch):
    plain = ExecutorchTarget.export

    def corrupting(self, request, folder):
        artifact = plain(self, request, folder)
        site = request.space.sites[0]
        weight = request.model.get_parameter(site.parameter)
        codes = request.quantized.calibration.quantize(site, weight, request.format_of(site).weight).codes
        data = bytearray((folder / request.name).read_bytes())
        data[data.index(codes.numpy().tobytes()) + 7] ^= 0x11
        (folder / request.name).write_bytes(bytes(data))
        return artifact

    monkeypatch.setattr(ExecutorchTarget, "export", corrupting)
    with pytest.raises(ExportMismatch, match="does not hold the codes"):
        exported(tmp_path / "m.pte", two_layers(), vectors, "w8")
    assert not (tmp_path / "m.pte").exists()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("bf16", "take fp32 or w8"),
        ("w2", "w3 to w8"),
        ("w4g32", "one scale per output channel"),
        ("w8a8d", "take w8a8dz"),
        ("w8a4", "w8 leaves them alone"),
        ("fp8", "symmetric integers"),
    ],
)
def test_what_xnnpack_cannot_compute_is_refused(name, reason):
    capability = get("executorch").capability(Format.parse(name))
    assert not capability
    assert reason in capability.reason


@pytest.mark.parametrize(("name", "taken"), [("w8", False), ("w4a8", False), ("w8a8", True)])
def test_grouped_convolutions_are_statically_rounded_or_float(name, taken):
    space = SearchSpace.from_model(nn.Conv2d(8, 8, 3, groups=8), images(0), formats=[name, "fp32"])
    assert bool(get("executorch").capability(Format.parse(name), space.sites[0])) is taken
