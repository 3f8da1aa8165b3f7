"""Distance at interest points against a plain loop, and the tapped model."""

import copy
import runpy
from pathlib import Path

import bitfront as bf
import numpy as np
import pytest
import torch
from bitfront.errors import InvalidInput, NonFiniteOutput
from bitfront.evaluators import calibrate
from bitfront.formats import Format
from bitfront.proxies.interest_points import InterestPoints, _Distances, interest_points, tapped
from bitfront.proxies.measured_sites import one_by_one, sampled_task
from bitfront.task import Batch
from torch import nn

CASES = runpy.run_path(str(Path(__file__).parent / "fisher_cases.py"))
images, tokens = CASES["images"], CASES["tokens"]


def plain(task, space, calibration, modules):
    """Every (site, format) on a copy of the model, outputs by hooks: float64 [samples, sites, formats]."""

    def outputs(model, batch):
        taken = []
        for name in modules:
            model.get_submodule(name).register_forward_hook(
                lambda module, args, output: taken.append(output.detach().clone())
            )
        with torch.no_grad():
            own = batch(model)
        return [each.double().flatten(1) for each in (*taken, own)]

    found = []
    for batch in task.calibration:
        float_outputs = outputs(copy.deepcopy(task.model), batch)
        each = np.full((len(batch), len(space.sites), len(space.formats)), np.nan)
        for row, site in enumerate(space.sites):
            for column, name in enumerate(space.formats):
                model, target = copy.deepcopy(task.model), Format.parse(name)
                if not target.weight.is_wide:
                    weight = model.get_parameter(site.parameter)
                    weight.data = calibration.quantize(site, weight.data, target.weight).dequantize()
                if target.activation is not None:
                    quantizer = calibration.activation(site.modules[0], target.activation)
                    model.get_submodule(site.modules[0]).register_forward_pre_hook(
                        lambda module, args, quantizer=quantizer: (quantizer(args[0]),)
                    )
                pairs = zip(outputs(model, batch), float_outputs, strict=True)
                errors = [(a - b).square().mean(1) / (b.square().mean(1) + 1e-8) for a, b in pairs]
                each[:, row, column] = torch.stack(errors).mean(0)
        found.append(each)
    return np.concatenate(found)


def test_scores_are_those_of_a_plain_loop_with_hooks():
    task, space, calibration = images("kl")
    wanted = plain(task, space, calibration, ["conv", "fc"])
    found = InterestPoints(points=3).score(task, space, calibration, seed=0, advance=None)
    np.testing.assert_allclose(found.values, wanted.mean(0), rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(found.error, wanted.std(0, ddof=1) / np.sqrt(len(wanted)), rtol=1e-4, atol=1e-9)
    assert np.all(found.values[:, 2] == 0)
    assert np.all(found.values[:, :2] > 0)


def test_last_weighting_is_the_relative_squared_error_at_the_output():
    task, space, calibration = images("kl")
    wanted = plain(task, space, calibration, [])
    found = InterestPoints(weighting="last").score(task, space, calibration, seed=0, advance=None)
    np.testing.assert_allclose(found.values, wanted.mean(0), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("case", [images, tokens])
def test_activation_reuse_gives_the_bits_of_whole_runs(case):
    task, space, calibration = case("kl")
    modules = interest_points(task, space, task.calibration[0], 2)
    tables = []
    for mode in ("always", "never"):
        evaluator = _Distances(sampled_task(task, task.calibration, "relative_error"), space, calibration, modules)
        evaluator.replayer._mode = mode
        tables.append(one_by_one(evaluator, None)[0])
        assert bool(evaluator.replayer._runners) == (mode == "always")
    assert np.array_equal(*tables, equal_nan=True)


def test_points_before_the_site_do_not_move():
    task, space, calibration = images("kl", ("w2", "fp32"))
    few = InterestPoints(points=1).score(task, space, calibration, seed=0, advance=None).values
    three = InterestPoints(points=3).score(task, space, calibration, seed=0, advance=None).values
    assert three[1, 0] == pytest.approx(2 / 3 * few[1, 0])  # the output and fc, which is the same; conv did not move


def test_points_are_spread_and_have_samples_first():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(9))
            self.flat = nn.Linear(4, 4)

        def forward(self, x):
            for layer in self.layers:
                x = layer(x)
            return self.flat(x.reshape(-1, 4)).reshape(x.shape)

    data = [torch.randn(2, 3, 4) for _ in range(3)]
    task = bf.Task(Net(), calibration=data[:1], validation=data[1:])
    space = bf.SearchSpace.from_model(task.model, data[0], formats=["w4"])
    assert interest_points(task, space, task.calibration[0], 3) == ["layers.0", "layers.4", "layers.8"]
    assert len(interest_points(task, space, task.calibration[0], 50)) == 9  # flat gives 6 rows for 2 samples
    found = InterestPoints().score(task, space, calibrate(task, space), seed=0, advance=None)
    assert np.all(found.values > 0)


def test_the_tapped_model_shares_everything_and_leaves_the_model_alone():
    task, _, _ = images("kl")
    batch, sizes = task.calibration[0], []
    wanted = batch(task.model)
    found = tapped(task.model, ["conv"], sizes)
    given = batch(found)
    assert sizes == [12, 4]
    assert torch.equal(given[:, 12:], wanted)
    assert torch.equal(given[:, :12].reshape(-1, 3, 2, 2), task.model.conv(*batch.inputs))  # before the in-place ReLU
    assert torch.equal(batch(task.model), wanted)
    assert dict(found.named_parameters()).keys() == dict(task.model.named_parameters()).keys()
    assert found.conv is task.model.conv
    assert not task.model.conv._forward_hooks


def test_bad_settings_are_refused():
    task, space, calibration = images("kl")
    for proxy in (InterestPoints(points=0), InterestPoints(weighting="first"), InterestPoints(samples=0)):
        with pytest.raises(InvalidInput, match="interest_points needs"):
            proxy.score(task, space, calibration, seed=0, advance=None)


def test_what_overflows_is_named():
    task, space, calibration = images("kl", ("w4",))
    next(each for (site, _), each in calibration.weights.items() if site == "fc").scale.fill_(float("inf"))
    with pytest.raises(NonFiniteOutput, match="fc in w4"):
        InterestPoints().score(task, space, calibration, seed=0, advance=None)


def test_half_precision_model():
    task, _, _ = images("kl")
    task.model.bfloat16()
    task.calibration = [Batch((batch.inputs[0].bfloat16(),), batch.targets) for batch in task.calibration]
    space = bf.SearchSpace.from_model(task.model, task.calibration[0], formats=["w2", "w8", "bf16"], ties="none")
    found = InterestPoints().score(task, space, calibrate(task, space), seed=0, advance=None)
    assert np.all(found.values[:, 2] == 0)
    assert np.all(found.values[:, 0] > found.values[:, 1])
