"""Taking a configuration on and off, against a deep copy that is quantized by hand."""

import copy
import itertools
from contextlib import nullcontext

import bitfront as bf
import pytest
import torch
from bitfront.errors import InvalidInput, UnknownFormat, UnsupportedModel
from bitfront.evaluators import QuantizedModel, calibrate, run_float
from bitfront.formats import Format
from bitfront.task import Batch
from torch import nn
from torch.nn import functional as F

FORMATS = ["w2", "w3", "w4", "w8", "w4a4", "w8a8", "bf16", "fp32"]


class Net(nn.Module):
    """Embedding tied to the head, a convolution called twice, attention, a linear layer called by keyword."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.conv = nn.Conv1d(8, 8, 3, padding=1)
        self.up = nn.ConvTranspose1d(8, 8, 3, padding=1)
        self.attn = nn.MultiheadAttention(8, 2, batch_first=True)
        self.fc = nn.Linear(8, 8)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens):
        x = self.embed(tokens)
        y = F.relu(self.conv(x.mT))
        y = self.up(F.relu(self.conv(y))).mT
        y = y + self.attn(y, y, y, need_weights=False)[0]
        return self.head(torch.tanh(self.fc(input=y)))


def make(formats=FORMATS, **options):
    torch.manual_seed(0)
    model = Net()
    data = [torch.randint(0, 11, (4, 6)) for _ in range(3)]
    task = bf.Task(model, calibration=data[:1], validation=data[1:])
    space = bf.SearchSpace.from_model(model, data[0], formats=list(formats), **options)
    return task, space, calibrate(task, space)


@pytest.fixture(scope="module")
def made():
    return make()


def inputs(seed=3):
    return torch.randint(0, 11, (5, 6), generator=torch.Generator().manual_seed(seed))


def naive_codes(weight, scale, axis, bits):
    along = [-1 if i == axis else 1 for i in range(weight.ndim)]
    return (weight / scale.reshape(along)).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1), scale.reshape(along)


def naive(task, space, calibration, configuration):
    """A deep copy with its weights replaced and forwards wrapped, written down by the formulas."""
    model = copy.deepcopy(task.model)

    def wrap(module, rounded):
        forward = module.forward

        def wrapped(*args, **kwargs):
            if kwargs:
                return forward(**{name: rounded(value) for name, value in kwargs.items()})
            return forward(rounded(args[0]))

        module.forward = wrapped

    for site in space.sites:
        if site.name not in configuration:
            continue
        target = Format.parse(configuration[site.name])
        parameter = model.get_parameter(site.parameter)
        if target.name == "bf16":
            parameter.data = parameter.data.bfloat16().float()
        elif target.weight.number == "int":
            scale = calibration.weights[site.name, f"w{target.weight_bits}"].scale
            codes, along = naive_codes(parameter.data, scale, site.channel_axis, target.weight_bits)
            parameter.data = codes * along
        for name in site.modules:
            module = model.get_submodule(name)
            if isinstance(module, (nn.Embedding, nn.MultiheadAttention)):
                continue
            if target.name == "bf16":
                wrap(module, lambda value: value.bfloat16().float())
            elif target.quantizes_activations:
                low, high = map(float, calibration.ranges[name, f"a{target.activation_bits}"])
                low, high, top = min(low, 0), max(high, 0), 2**target.activation_bits - 1
                step = float(torch.tensor((high - low) / top))
                zero = round(-low / step)
                wrap(
                    module, lambda v, step=step, zero=zero, top=top: ((v / step).round() + zero).clamp(0, top).sub(zero)
                    * step,
                )  # fmt: skip
    return model


def every_uniform(space):
    return [configuration.to_dict() for configuration in space.uniforms().values()]


def mixtures(space):
    cycle = itertools.cycle(range(7))
    return [{site.name: site.formats[next(cycle) % len(site.formats)] for site in space.sites} for _ in range(4)]


def test_equals_a_model_quantized_by_hand(made):
    task, space, calibration = made
    quantized, x = QuantizedModel(task.model, space, calibration), inputs()
    plain = task.model(x)
    for configuration in [*every_uniform(space), *mixtures(space), {"fc": "w8a8"}, {"embed": "bf16"}, {}]:
        with quantized.applied(configuration) as model, torch.no_grad():
            given = model(x)
        expected = naive(task, space, calibration, configuration)(x)
        torch.testing.assert_close(given, expected, rtol=1e-5, atol=1e-6)
        if set(configuration.values()) - {"fp32"}:
            assert not torch.allclose(given, plain, rtol=1e-5, atol=1e-6)
        assert torch.equal(task.model(x), plain)


def snapshot(model):
    parameters = {name: (id(tensor), tensor.data_ptr(), tensor.clone()) for name, tensor in model.named_parameters()}
    return parameters, [len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules()]


def same(before, after):
    return (
        before[1] == after[1]
        and before[0].keys() == after[0].keys()
        and all(
            one[:2] == other[:2] and torch.equal(one[2], other[2])
            for one, other in zip(before[0].values(), after[0].values(), strict=True)
        )
    )


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_inside_restores_the_model_exactly(made, error):
    task, space, calibration = made
    before = snapshot(task.model)
    with pytest.raises(error), QuantizedModel(task.model, space, calibration).applied(mixtures(space)[0]):  # noqa: PT012
        assert not same(before, snapshot(task.model))
        raise error
    assert same(before, snapshot(task.model))


@pytest.mark.parametrize(
    ("configuration", "error", "message"),
    [
        ({"fc": "w4", "nothing": "w4"}, InvalidInput, "unknown sites: nothing"),
        ({"fc": "w4", "conv": "w44"}, UnknownFormat, "w44"),
        ({"fc": "w4", "conv": "w5"}, InvalidInput, "site conv was not calibrated for w5"),
        ({"fc": "w4", "embed": "w8a8"}, InvalidInput, "site embed .linear. cannot take w8a8: choose a weight-only"),
        ({"attn.in_proj": "w8a8"}, InvalidInput, "site attn.in_proj .mha_in_proj. cannot take w8a8"),
    ],
)
def test_a_wrong_configuration_changes_nothing(made, configuration, error, message):
    task, space, calibration = made
    before = snapshot(task.model)
    with pytest.raises(error, match=message), QuantizedModel(task.model, space, calibration).applied(configuration):
        pytest.fail("entered")
    assert same(before, snapshot(task.model))


def test_activations_need_ranges():
    task, space, calibration = make(["w4", "w8"])
    assert calibration.ranges == {}
    quantized = QuantizedModel(task.model, space, calibration)
    with pytest.raises(InvalidInput, match="no range for a8 at conv"), quantized.applied({"conv": "w8a8"}):
        pytest.fail("entered")


def test_configurations_nest(made):
    task, space, calibration = made
    quantized, x = QuantizedModel(task.model, space, calibration), inputs()
    before = snapshot(task.model)
    with quantized.applied({"fc": "w2", "conv": "w4"}) as model, torch.no_grad():
        outer = model(x)
        with quantized.applied({"fc": "w8"}):
            assert not torch.equal(model(x), outer)
        assert torch.equal(model(x), outer)
    assert same(before, snapshot(task.model))


def test_hooks_of_the_user_stay(made):
    task, space, calibration = made
    seen = []
    handle = task.model.fc.register_forward_pre_hook(lambda module, args, kwargs: seen.append(1), with_kwargs=True)
    with QuantizedModel(task.model, space, calibration).applied({"fc": "w8a8"}) as model, torch.no_grad():
        model(inputs())
    task.model(inputs())
    handle.remove()
    assert len(seen) == 2


def test_the_cache_keeps_to_its_bound(made):
    task, space, calibration = made
    sites = {site.name: site for site in space.sites}
    size = sites["fc"].elements * 4
    quantized = QuantizedModel(task.model, space, calibration, cache_bytes=3 * size)
    for bits in (2, 3, 4, 8, 2):
        quantized.weight(sites["fc"], Format.parse(f"w{bits}").weight)
        assert quantized.cache.held == len(quantized.cache.keys) * size <= 3 * size
    assert quantized.cache.keys == [("fc", "w4"), ("fc", "w8"), ("fc", "w2")]
    four = quantized.weight(sites["fc"], Format.parse("w4").weight)
    assert four is quantized.weight(sites["fc"], Format.parse("w4a4").weight)  # the same codes, used last
    quantized.weight(sites["fc"], Format.parse("w3").weight)
    assert quantized.cache.keys == [("fc", "w2"), ("fc", "w4"), ("fc", "w3")]


def test_without_a_cache_it_computes_the_same(made):
    task, space, calibration = made
    x, configuration = inputs(), mixtures(space)[1]
    found = []
    for size in (0, 4_000_000_000):
        quantized = QuantizedModel(task.model, space, calibration, cache_bytes=size)
        for _ in range(2):
            with quantized.applied(configuration) as model, torch.no_grad():
                found.append(model(x))
    assert all(torch.equal(found[0], each) for each in found)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_models_in_half_precision(kind):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3)).to(kind)
    data = [torch.randn(4, 6).to(kind) for _ in range(3)]
    task = bf.Task(model, calibration=data[:1], validation=data[1:])
    space = bf.SearchSpace.from_model(model, data[0], formats=["w4", "w8a8", "bf16"])
    quantized = QuantizedModel(model, space, calibrate(task, space))
    with torch.no_grad():
        plain = model(data[0])
    for name, configuration in space.uniforms().items():
        with quantized.applied(configuration), torch.no_grad():
            output = model(data[0])
        assert output.dtype == kind
        assert torch.equal(output, plain) == (name == "bf16" and kind == torch.bfloat16)
        assert float((output - plain).float().norm() / plain.float().norm()) < 0.4


def test_integers_where_a_float_should_enter():
    class Bad(nn.Linear):
        def forward(self, x):
            return super().forward(x.float())

    model = nn.Sequential(Bad(3, 2))
    data = [torch.ones(2, 3, dtype=torch.int64)] * 3
    task = bf.Task(model, calibration=data[:1], validation=data[1:])
    space = bf.SearchSpace.from_model(model, data[0], formats=["bf16", "w8a8"])
    quantized = QuantizedModel(model, space, calibrate(task, space))
    with pytest.raises(InvalidInput, match="Bad gets no floating-point input"), quantized.applied({"0": "bf16"}):
        model(data[0])
    with pytest.raises(InvalidInput, match="no range for a8 at 0"), quantized.applied({"0": "w8a8"}):
        model(data[0])


@pytest.mark.parametrize("error", [None, RuntimeError])
def test_evaluation_mode_inside_and_every_modules_own_mode_afterwards(made, error):
    task, space, calibration = made
    quantized = QuantizedModel(task.model, space, calibration)
    task.model.train()
    task.model.attn.eval()
    before = [module.training for module in task.model.modules()]
    try:
        with pytest.raises(error) if error else nullcontext(), quantized.applied({"fc": "w4"}) as model:
            assert not any(module.training for module in model.modules())
            with quantized.applied({"fc": "w2"}):
                pass
            assert not any(module.training for module in model.modules())
            if error:
                raise error
        assert [module.training for module in task.model.modules()] == before
        with pytest.raises(UnsupportedModel):
            run_float(task.model, Batch.of(torch.ones(2, 2)), "validation")  # floats are no indices
        assert [module.training for module in task.model.modules()] == before
    finally:
        task.model.eval()


def test_two_quantized_models_of_one_model_nest(made):
    task, space, calibration = made
    one, other = (QuantizedModel(task.model, space, calibration) for _ in range(2))
    before = snapshot(task.model)
    with one.applied(space.uniform("w2")), other.applied({"fc": "w4"}), one.applied({"fc": "w8"}):
        pass
    assert same(before, snapshot(task.model))
    with one.applied({}):
        pass
