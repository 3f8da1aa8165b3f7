"""Collected statistics against naive float64 references, on networks with every difficulty that is promised."""

import runpy
from pathlib import Path

import bitfront as bf
import numpy as np
import pytest
import torch
from bitfront.errors import InvalidInput, UnsupportedModel
from bitfront.evaluators import QuantizedModel
from bitfront.proxies import sensitivity
from bitfront.proxies.formulas.collect import INPUTS, collect, collect_steps, collected
from bitfront.proxies.formulas.collect_draw import drawn_blocks
from bitfront.proxies.perturbation import weight_errors
from torch import nn
from torch.nn import functional

CASES = runpy.run_path(str(Path(__file__).parents[1] / "fisher_cases.py"))
images, tokens, fingerprint, unchanged = (CASES[name] for name in ("images", "tokens", "fingerprint", "unchanged"))
weight_error = CASES["weight_error"]


class Mixed(nn.Module):
    """Grouped, transposed and depthwise convolutions, batch norm, in-place activations, attention."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 8, 3, padding=1, groups=2, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2, groups=2)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        x = self.relu(self.up(self.relu(self.norm(self.conv(x)))))
        x = x.flatten(2).transpose(1, 2)
        return self.fc(self.attention(x, x, x, need_weights=False)[0].mean(1))


@pytest.fixture(scope="module")
def mixed():
    torch.manual_seed(0)
    model = Mixed()
    model.norm.running_mean.normal_()
    data = [torch.randn(3, 2, 4, 4) for _ in range(3)]
    task = bf.Task(model, calibration=data[:1], validation=data[1:2], holdout=data[2:], quality="kl")
    space = bf.SearchSpace.from_model(model, data[0], formats=["w3", "w4", "w4a8", "w8a8"], ties="none")
    return task, space, bf.calibrate(task, space)


def elements_of(statistics, name):
    """An input by site: arrays [rows, columns]."""
    ends = statistics.offsets
    return [
        statistics.tensors[name][start:end].reshape(shape)
        for start, end, shape in zip(ends, ends[1:], statistics.shapes, strict=False)
    ]


def as_matrix(tensor, site):
    return tensor.movedim(site.channel_axis, 0).flatten(1).double().numpy()


def test_small_weights_are_taken_whole_and_every_input_has_the_shape_of_its_kind(mixed):
    found = collected(*mixed, seed=0)
    statistics, space = found.statistics, mixed[1]
    assert found.left_out == {}
    assert statistics.names == dict(INPUTS) == {name: INPUTS[name] for name in statistics.names}
    assert list(statistics.elements) == [site.elements for site in space.sites] == list(statistics.shapes.prod(1))
    for site, values in zip(space.sites, elements_of(statistics, "weight"), strict=True):
        assert np.allclose(values, as_matrix(mixed[0].model.get_parameter(site.parameter).detach(), site), atol=1e-7)
    assert all((values[~space.allowed] == 0).all() for values in statistics.format_scalars.values())


def test_a_block_of_a_large_weight_is_drawn_by_the_seed_and_aligned_over_all_inputs(mixed):
    task, space, calibration = mixed
    whole = collect(task, space, calibration, seed=1, inputs=["weight", "error", "virtual_gradient"])
    part = collect(task, space, calibration, seed=1, inputs=["weight", "error", "virtual_gradient"], elements=12)
    assert (part.shapes.prod(1) <= 12).all()
    assert (part.shapes.prod(1) >= 6).all()
    for row, block in enumerate(drawn_blocks(space, 12, 1)):
        assert len(set(block.rows.tolist())) == len(block.rows)
        wanted = np.ix_(block.rows, block.columns)
        for name in ("weight", "virtual_gradient"):
            assert np.array_equal(elements_of(part, name)[row], elements_of(whole, name)[row][wanted])
        start, end = part.offsets[row : row + 2]
        errors = whole.format_tensors["error"][:, whole.offsets[row] : whole.offsets[row + 1]]
        errors = errors.reshape(-1, *whole.shapes[row])[(slice(None), *wanted)]
        assert np.array_equal(part.format_tensors["error"][:, start:end], errors.reshape(len(errors), -1))
    again = collect(task, space, calibration, seed=1, inputs=["weight"], elements=12)
    other = collect(task, space, calibration, seed=2, inputs=["weight"], elements=12)
    assert np.array_equal(again.tensors["weight"], part.tensors["weight"])
    assert not np.array_equal(other.tensors["weight"], part.tensors["weight"])


def test_errors_are_those_of_the_calibration(mixed):
    task, space, calibration = mixed
    found = collect(task, space, calibration, seed=0, inputs=["error", "weight_error"])
    wanted = np.where(space.allowed, weight_errors(task, space, calibration), 0.0)
    assert np.allclose(found.format_scalars["weight_error"], wanted, rtol=1e-6)
    for row, site in enumerate(space.sites):
        part = slice(*found.offsets[row : row + 2])
        for column, name in enumerate(space.formats):
            values = found.format_tensors["error"][column, part]
            if site.offers(name):
                reference = as_matrix(weight_error(task, space, calibration, site, name), site)
                assert np.allclose(values, reference.ravel(), atol=1e-6)
            else:
                assert not values.any()


def test_weight_and_error_cost_no_pass(mixed, monkeypatch):
    task, space, calibration = mixed
    monkeypatch.setattr(Mixed, "forward", lambda *given: pytest.fail("the model ran"))
    names = [name for name in INPUTS if name in ("weight", "error", "kurtosis", "entropy", "bits", "size", "macs")]
    found = collected(task, space, calibration, seed=0, inputs=names)
    assert sorted(found.statistics.names) == sorted(names)
    assert (found.forward_passes, found.backward_passes) == (0, 0)


def test_only_what_is_asked_for_is_run(mixed):
    task, space, calibration = mixed
    for names, forward, backward in (
        (["activation"], 3, 0), (["output_error"], 3, 0), (["gradient", "fisher"], 3, 3), (["virtual_gradient"], 1, 1),
        (["hessian_diagonal", "output_gradient"], 3, 3), (["gradient", "hessian_diagonal"], 3, 6), (["synflow"], 1, 1),
    ):  # fmt: skip
        found = collected(task, space, calibration, seed=0, inputs=names)
        assert (found.forward_passes, found.backward_passes) == (forward, backward), names
        assert set(found.statistics.names) == set(names)


def test_inputs_of_convolutions_meet_their_weights(mixed):
    task, space, calibration = mixed
    statistics = collect(task, space, calibration, seed=0, inputs=["activation", "activation_mean"])
    x = task.calibration[0].inputs[0]
    patches = functional.unfold(x, 3, padding=1).double()  # [samples, channels x kernel, positions]
    for name, power in (("activation", 2), ("activation_mean", 1)):
        means = (patches**power).mean((0, 2)).reshape(2, 9)
        wanted = (means.sqrt() if power == 2 else means).numpy()  # one group each for half of the channels
        values = elements_of(statistics, name)[0]
        assert np.allclose(values[:4], wanted[0], atol=1e-6)
        assert np.allclose(values[4:], wanted[1], atol=1e-6)
    up = space.names.index("up")
    with torch.no_grad():
        entering = torch.relu(task.model.norm(task.model.conv(x))).double()
    means = entering.square().mean((0, 2, 3)).sqrt()  # stride = kernel: every input reaches every tap once
    values = elements_of(statistics, "activation")[up]  # [4 outputs... per group 2, 8 inputs of which 4 a group, taps]
    assert values.shape == (2, 32)
    assert np.allclose(values.reshape(2, 8, 4).mean(2)[0] ** 2 * 4, means.numpy() ** 2, rtol=1e-4)


def test_the_input_of_a_linear_layer_and_what_rounding_does_to_it(mixed):
    task, space, calibration = mixed
    row, column = space.names.index("fc"), space.formats.index("w8a8")
    seen = []
    handle = task.model.fc.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    task.calibration[0](task.model)
    handle.remove()
    value = seen[0]
    statistics = collect(task, space, calibration, seed=0, inputs=["activation", "activation_error", "output_error"])
    wanted = value.double().square().mean(0).sqrt().numpy()
    assert np.allclose(elements_of(statistics, "activation")[row], np.broadcast_to(wanted, (3, 4)), rtol=1e-5)
    quantized = QuantizedModel(task.model, space, calibration)
    rounded = quantized.rounding(space.sites[row], "fc", bf.Format.parse("w8a8"))(value)
    error = statistics.format_scalars["activation_error"]
    assert error[row, column] == pytest.approx(float((rounded - value).double().square().mean()), rel=1e-5)
    assert error[row, space.formats.index("w4")] == 0
    proxy = sensitivity(task, space, "activation_aware", calibration=calibration).values
    assert np.array_equal(statistics.format_scalars["output_error"][space.allowed], proxy[space.allowed])


def test_gradients_at_labels_are_those_of_autograd():
    task, space, calibration = images("loss")
    names = ["gradient", "gradient_magnitude", "fisher", "fisher_trace"]
    statistics = collect(task, space, calibration, seed=0, inputs=names)
    batch, model = task.calibration[0], CASES["doubled"](task.model)
    each = CASES["gradients"](
        model,
        batch.inputs[0].double(),
        lambda output, sample: functional.cross_entropy(output, batch.targets[sample : sample + 1]),
    )
    for row, site in enumerate(space.sites):
        samples = torch.stack([torch.from_numpy(as_matrix(one, site)) for one in each[site.parameter]])
        for name, wanted in (
            ("gradient", samples.mean(0)), ("gradient_magnitude", samples.abs().mean(0)),
            ("fisher", samples.square().mean(0)),
        ):  # fmt: skip
            assert np.allclose(elements_of(statistics, name)[row], wanted, rtol=1e-4, atol=1e-9), name
        assert statistics.scalars["fisher_trace"][row] == pytest.approx(float(samples.square().sum() / 5), rel=1e-4)


def test_the_curvature_is_that_of_the_kl_divergence():
    """Over many samples of one input the random roots average to the exact Hessian diagonal at the weights."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))
    x = torch.randn(1, 3)
    data = x.repeat(400, 1)
    task = bf.Task(model, calibration=[data], validation=[data[:2]], holdout=[data[:2]], quality="kl")
    space = bf.SearchSpace.from_model(model, data[:2], formats=["w4"], ties="none")
    names = ["hessian_diagonal", "output_gradient", "hessian_trace"]
    statistics = collect(task, space, bf.calibrate(task, space), seed=0, inputs=names, samples=400)
    wide = CASES["doubled"](model)
    p = wide(x.double()).softmax(-1).detach()[0]
    root = (torch.diag(p) - p[:, None] * p[None]).detach()
    parameters = {name: each for name, each in wide.named_parameters() if name.endswith("weight")}
    jacobians = torch.autograd.functional.jacobian(
        lambda *given: torch.func.functional_call(wide, dict(zip(parameters, given, strict=True)), (x.double(),))[0],
        tuple(parameters.values()),
    )
    for row, jacobian in enumerate(jacobians):
        flat = jacobian.flatten(1)
        diagonal = torch.einsum("ai,ab,bi->i", flat, root, flat).reshape(space.sites[row].weight_shape)
        values = elements_of(statistics, "hessian_diagonal")[row]
        assert np.allclose(values, diagonal, rtol=0.35, atol=1e-3)
        assert values.sum() == pytest.approx(float(diagonal.sum()), rel=0.1)
        assert statistics.scalars["hessian_trace"][row] == pytest.approx(float(diagonal.sum()), rel=0.1)
    last = elements_of(statistics, "output_gradient")[1]
    assert np.allclose(last, np.broadcast_to(root.diagonal().sqrt()[:, None], (3, 4)), rtol=0.15)


def test_an_input_of_ones_and_the_flow_of_magnitudes(mixed):
    task, space, calibration = mixed
    statistics = collect(task, space, calibration, seed=0, inputs=["virtual_gradient", "synflow"])
    wide = CASES["doubled"](task.model)
    wide(torch.ones(1, 2, 4, 4, dtype=torch.float64)).sum().backward()
    for row, site in enumerate(space.sites):
        wanted = as_matrix(wide.get_parameter(site.parameter).grad, site)
        assert np.allclose(elements_of(statistics, "virtual_gradient")[row], wanted, rtol=1e-3, atol=1e-5)
    plain = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 2, bias=False))
    data = [torch.randn(4, 3) for _ in range(3)]
    other = bf.Task(plain, calibration=data[:1], validation=data[1:2], holdout=data[2:], quality="relative_error")
    chain = bf.SearchSpace.from_model(plain, data[0], formats=["w4"], ties="none")
    found = elements_of(collect(other, chain, bf.calibrate(other, chain), seed=0, inputs=["synflow"]), "synflow")
    first = plain[1].weight.detach().double().abs().sum(0)[:, None].expand(4, 3)
    assert np.allclose(found[0], first.log1p(), rtol=1e-5)


def test_token_models_get_ones_behind_their_embeddings_and_tied_weights_count_all_uses():
    task, space, calibration = tokens("kl")
    found = collected(task, space, calibration, seed=0)
    assert found.left_out == {}
    statistics, model, batch = found.statistics, task.model, task.calibration[0]
    indices = batch.inputs[0]
    with torch.no_grad():
        hidden = torch.tanh(model.mix(model.embed(indices))).flatten(0, 1).double()
    counts = torch.bincount(indices.flatten(), minlength=7).double()
    row = next(row for row, site in enumerate(space.sites) if site.kind == "embedding" or len(site.modules) == 2)
    wanted = ((counts[:, None] + hidden.square().sum(0)) / (indices.numel() * 2)).sqrt()
    assert np.allclose(elements_of(statistics, "activation")[row], wanted, rtol=1e-5)
    leaf = model.embed.weight.detach().double().requires_grad_(True)
    middle = torch.tanh(CASES["doubled"](model.mix)(torch.ones(1, 6, 8, dtype=torch.float64)))
    functional.linear(middle, leaf).sum().backward()
    assert np.allclose(elements_of(statistics, "virtual_gradient")[row], leaf.grad, rtol=1e-4)


class Counting(nn.Module):
    """Takes integers without an embedding: nothing that ones could be put in."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 2)

    def forward(self, x):
        return self.fc(functional.one_hot(x, 5).float())


def test_what_a_model_does_not_have_is_left_out_with_the_reason_or_refused_by_name():
    data = [torch.randint(0, 5, (4,)) for _ in range(3)]
    task = bf.Task(Counting(), calibration=data[:1], validation=data[1:2], holdout=data[2:], quality="kl")
    space = bf.SearchSpace.from_model(task.model, data[0], formats=["w4", "w8"])
    calibration = bf.calibrate(task, space)
    found = collected(task, space, calibration, seed=0)
    assert set(found.left_out) == {"virtual_gradient", "synflow"}
    assert "only integers" in found.left_out["virtual_gradient"]
    assert "float64" in found.left_out["synflow"]  # this model converts to float32 itself
    assert "gradient" in found.statistics.tensors
    with pytest.raises(UnsupportedModel, match="only integers"):
        collect(task, space, calibration, seed=0, inputs=["weight", "virtual_gradient"])


class Opaque(nn.Module):
    """Leaves autograd in the middle."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.two(torch.from_numpy(self.one(x).detach().numpy()))


def test_a_model_without_gradients_keeps_the_rest():
    data = [torch.randn(4, 4) for _ in range(3)]
    task = bf.Task(Opaque(), calibration=data[:1], validation=data[1:2], holdout=data[2:], quality="relative_error")
    space = bf.SearchSpace.from_model(task.model, data[0], formats=["w4", "w8"])
    found = collected(task, space, bf.calibrate(task, space), seed=0)
    assert {"gradient", "fisher", "hessian_diagonal", "hessian_trace"} <= set(found.left_out)
    assert {"weight", "error", "activation", "output_error"} <= set(found.statistics.names)
    assert all(reason for reason in found.left_out.values())


def test_the_same_seed_gives_the_same_numbers_and_the_model_is_left_as_it_was():
    task, space, calibration = images("loss")
    task.model.conv.weight.requires_grad_(False)
    task.model.train()
    before, steps = fingerprint(task.model), []
    first = collect(task, space, calibration, seed=3, advance=steps.append)
    torch.manual_seed(99)
    assert collect(task, space, calibration, seed=3).digest == first.digest
    assert collect(task, space, calibration, seed=4).digest != first.digest
    assert unchanged(task.model, before)
    assert task.model.training
    assert [each.requires_grad for each in task.model.parameters()] == [False, True, True, True]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in task.model.modules())
    assert 0 < sum(steps) <= collect_steps(task, space)


def test_bad_arguments_are_refused(mixed):
    with pytest.raises(InvalidInput, match="did you mean 'weight'"):
        collect(*mixed, seed=0, inputs=["wieght"])
    with pytest.raises(InvalidInput, match="elements=0"):
        collect(*mixed, seed=0, elements=0)
    with pytest.raises(InvalidInput, match="samples=0"):
        collect(*mixed, seed=0, samples=0)
