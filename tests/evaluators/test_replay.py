"""Shards of candidates against single evaluations, bit by bit, on all kinds of models."""

import hashlib
import itertools

import bitfront as bf
import numpy as np
import pytest
import torch
from bitfront import zoo
from bitfront.errors import InvalidInput, NonFiniteOutput
from bitfront.evaluators import FakeQuantEvaluator, QuantizedModel, calibrate, output_tensor
from bitfront.evaluators.batch_norm import batch_norm_statistics, taken_on
from bitfront.evaluators.quantizers import ActivationQuantizer
from bitfront.evaluators.replay import NotReplayable, PrefixRunner, capture
from bitfront.measurement import Measurement
from torch import nn
from torch.nn import functional as F

FORMATS = ["w2", "w4", "w4a4", "w8a8", "bf16"]


class Tied(nn.Module):
    """Embedding tied to the head, a convolution called twice, attention, a linear layer called by keyword."""

    def __init__(self):
        super().__init__()
        self.embed, self.conv, self.head = nn.Embedding(11, 8), nn.Conv1d(8, 8, 3, padding=1), nn.Linear(8, 11)
        self.attn, self.fc = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 8)
        self.head.weight = self.embed.weight

    def forward(self, tokens):
        y = self.conv(F.relu(self.conv(self.embed(tokens).mT))).mT
        y = y + self.attn(y, y, y, need_weights=False)[0]
        return {"hidden": tokens, "logits": self.head(torch.tanh(self.fc(input=y)))}


class InPlace(nn.Module):
    """Writing into values that are read again, through views, and into the input of two rounded layers."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Linear(6, 6) for _ in range(4))
        self.relu, self.dropout = nn.ReLU(inplace=True), nn.Dropout(0.5)

    def forward(self, x):
        y = self.a(x)
        flat = y.view(-1)
        self.relu(y)
        z = self.b(self.dropout(y))
        flat.mul_(1.5)
        w = self.c(y) + self.d(y)
        w[:, 0] += flat.sum()
        return w + z, y


class Norms(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 3)
        self.conv2 = nn.Conv2d(4, 4, 1, bias=False)
        self.norm.running_mean.normal_()

    def forward(self, x, scale=None):
        y = F.relu(self.norm(self.conv(x)))
        y = (y + self.conv2(y)).mean((2, 3))
        return (self.fc(y if scale is None else y * scale), y)


class Siblings(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x):
        return self.o(torch.softmax(self.q(x) @ self.k(x).mT, -1) @ self.v(x))


def tokens(count=6, width=5):
    return [torch.randint(0, 11, (4, width)) for _ in range(count)]


def task_of(model, data, **options):
    return bf.Task(model, calibration=data[:2], validation=data[2:4], holdout=data[4:], **options)


def example(name):
    torch.manual_seed(0)
    if name == "tied":
        return task_of(Tied(), tokens())
    if name == "in place":
        return task_of(InPlace(), [torch.randn(5, 6) for _ in range(6)], quality="relative_error")
    if name == "keywords":
        data = [{"scale": torch.rand(4, 1), "x": torch.randn(4, 2, 6, 6)} for _ in range(6)]
        return task_of(Norms(), data)
    return task_of(Siblings(), [torch.randn(3, 4, 8) for _ in range(6)], quality="relative_error")


def configurations(space, count=9, seed=0):
    """Mixtures with long and short common beginnings, a repetition, and a partial one."""
    generator = torch.Generator().manual_seed(seed)
    base = {site.name: site.formats[-1] for site in space.sites}
    found = [{}, base]
    while len(found) < count:
        mixture = dict(found[-1] or base)
        for position in torch.randint(0, len(space.sites), (2,), generator=generator).tolist():
            site = space.sites[position]
            mixture[site.name] = site.formats[int(torch.randint(0, len(site.formats), (1,), generator=generator))]
        found.append(mixture)
    return [*found, found[2], dict(itertools.islice(found[3].items(), 2))]


def state(model):
    content = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        content.update(name.encode() + tensor.numpy().tobytes())
    hooks = [(len(each._forward_hooks), len(each._forward_pre_hooks), each.training) for each in model.modules()]
    pointers = [(name, id(each), each.data_ptr()) for name, each in model.named_parameters()]
    return content.hexdigest(), hooks, pointers


def pairs(task, formats=FORMATS, **options):
    space = bf.SearchSpace.from_model(task.model, task.calibration[0], formats=formats, ties="none")
    calibration = calibrate(task, space)
    shard = FakeQuantEvaluator(task, space, calibration, replay="always", **options)
    return space, shard, FakeQuantEvaluator(task, space, calibration)


def same(many, single, chosen, split="validation"):
    for configuration, found in zip(chosen, many, strict=True):
        expected = single.evaluate(configuration, split)
        assert (found.values, found.low, found.high) == (expected.values, expected.low, expected.high)
        assert (found.split, found.metric, found.samples) == (split, expected.metric, expected.samples)


@pytest.mark.parametrize("cache_bytes", [10**9, 2000, 0])
@pytest.mark.parametrize("name", ["tied", "in place", "keywords", "siblings"])
def test_a_shard_gives_what_single_evaluations_give(name, cache_bytes):
    task = example(name)
    before = state(task.model)
    space, shard, single = pairs(task, cache_bytes=cache_bytes)
    chosen = configurations(space)
    for split in ("validation", "holdout"):
        same(shard.evaluate_many(chosen, split), single, chosen, split)
    assert shard.not_replayed == {}
    assert state(task.model) == before


@pytest.mark.parametrize("name", ["digits_resnet20", "char_gpt", "minilm_l6"])
def test_zoo_models(name):
    entry = zoo.load(name)
    data = [bf.task.Batch.of(each).piece(0, 2) for each in entry.validation[:3]]
    task = bf.Task(entry.model, calibration=data[:1], validation=data[1:2], holdout=data[2:], quality="relative_error")
    space = bf.SearchSpace.from_model(entry.model, data[0], formats=["fp8", "bf16", "w8a8"])
    calibration = calibrate(task, space, bf.evaluators.Recipe(weights="minmax"))
    chosen = configurations(space, 4)
    shard = FakeQuantEvaluator(task, space, calibration, replay="always")
    same(shard.evaluate_many(chosen), FakeQuantEvaluator(task, space, calibration), chosen)
    assert shard.not_replayed == {}


def test_common_beginnings_are_computed_once_and_siblings_rounded_once(monkeypatch):
    task = example("siblings")
    _space, shard, _ = pairs(task, ["w8a8", "w4a8"])
    base = dict.fromkeys("qkvo", "w8a8")
    runner = shard.replayer.runner("validation", 0)
    assert isinstance(runner, PrefixRunner)
    length = len(runner.program.operations)
    last = next(place for place, each in enumerate(runner.program.operations) if each.rounds == "o")
    rounded = []
    original = ActivationQuantizer.__call__
    monkeypatch.setattr(ActivationQuantizer, "__call__", lambda self, x: rounded.append(1) or original(self, x))
    shard.evaluate_many([base, base | {"o": "w4a8"}, base])
    batches = len(task.validation)
    # the weight of `o` is read right after its input was rounded; the third is the first again
    assert runner.operations_run == batches * (length + length - (last + 1))
    assert len(rounded) == batches * 2  # q, k and v together, and o


@pytest.mark.parametrize(("budget", "share"), [(10**9, 1), (0, 2)])
def test_without_room_everything_is_run(budget, share):
    space, shard, _ = pairs(example("siblings"))
    shard.evaluate_many([space.uniform("w8a8")] * 2)
    runner = shard.replayer.runner("validation", 0)
    runner.operations_run, runner.budget = 0, budget
    shard.evaluate_many([space.uniform("w8a8")] * 2)
    assert runner.operations_run == 2 * share * len(runner.program.operations)


def test_results_come_in_the_order_given_and_each_is_told_when_done():
    space, shard, single = pairs(example("tied"))
    chosen = [space.uniform(name) for name in ("w8a8", "w2", "bf16", "w4")]
    told = {}
    found = shard.evaluate_many(chosen, done=told.__setitem__)
    assert [told[index] for index in range(4)] == found
    same(found, single, chosen)
    assert all(each.seconds > 0 for each in found)


def test_order_puts_long_common_beginnings_together():
    space, shard, _ = pairs(example("siblings"))
    sites = space.names
    chosen = [dict(zip(sites, word, strict=True)) for word in itertools.product(["w2", "w8a8"], repeat=len(sites))]
    shuffled = [chosen[index] for index in torch.randperm(len(chosen)).tolist()]
    order = shard.order(shuffled)
    assert [shuffled[index] for index in order] == sorted(chosen, key=lambda each: [each[name] for name in sites])


def test_batches_of_several_shapes():
    torch.manual_seed(0)
    data = [each for width in (3, 5) for each in tokens(3, width)]
    task = bf.Task(Tied(), calibration=data[:1], validation=[data[0], data[3], data[1]], holdout=data[4:])
    space, shard, single = pairs(task)
    chosen = configurations(space, 5)
    same(shard.evaluate_many(chosen), single, chosen)
    assert len({id(shard.replayer.runner("validation", position)) for position in range(3)}) == 2


def test_more_shapes_than_are_captured(monkeypatch):
    monkeypatch.setattr("bitfront.evaluators.replay.replayer._SHAPES", 1)
    torch.manual_seed(0)
    data = [*tokens(2, 3), *tokens(3, 5)]
    task = bf.Task(Tied(), calibration=data[:1], validation=data[1:4], holdout=data[4:])
    space, shard, single = pairs(task)
    chosen = configurations(space, 4)
    same(shard.evaluate_many(chosen), single, chosen)
    assert list(shard.not_replayed.values()) == ["inputs of 1 other shapes were captured before"]


# models that are not replayed --------------------------------------------------------------------------------------


class Depends(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(6, 6)

    def forward(self, x):
        return self.a(x) if float(x.sum()) > 0 else self.a(x) * 2


class Counts(Depends):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls.add_(1)
        return self.a(x)


class Remembers(Depends):
    """Computes something else at the second call, which a capture cannot know."""

    def __init__(self):
        super().__init__()
        self.last = {}

    def forward(self, x):
        if torch.compiler.is_exporting():
            return self.a(x) + 1
        return self.a(x)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Depends, "torch.export cannot capture"),
        (Counts, "writes into its inputs, parameters or buffers"),
        (Remembers, "replay of validation batch 0"),
    ],
)
def test_other_models_run_themselves_and_the_reason_is_kept(model, reason):
    torch.manual_seed(0)
    task = task_of(model(), [torch.randn(5, 6) for _ in range(6)], quality="relative_error")
    space, shard, single = pairs(task)
    chosen = configurations(space, 4)
    same(shard.evaluate_many(chosen), single, chosen)
    assert len(shard.not_replayed) == 1
    assert reason in next(iter(shard.not_replayed.values()))


def test_hooks_of_the_user_are_run_not_captured():
    task = example("siblings")
    space, shard, _ = pairs(task)
    seen = []
    handle = task.model.q.register_forward_hook(lambda *_: seen.append(1))
    shard.evaluate_many([space.uniform("w2"), space.uniform("w4")])
    handle.remove()
    assert len(seen) == 3 * len(task.validation)  # float, w2, w4
    assert "module q has forward hooks" in next(iter(shard.not_replayed.values()))


def test_the_module_is_as_before_when_capture_fails():
    model = Depends()
    task = task_of(model, [torch.randn(5, 6) for _ in range(6)])
    before = state(model)
    with pytest.raises(NotReplayable, match="cannot capture"):
        capture(model, task.validation[0], ["a"])
    assert state(model) == before


def test_integers_where_a_float_should_enter_are_refused_as_by_single_evaluations():
    class Casts(nn.Linear):
        def forward(self, x):
            return super().forward(x.float())

    model = nn.Sequential(Casts(3, 4), nn.Linear(4, 2))
    task = task_of(model, [torch.ones(2, 3, dtype=torch.int64)] * 6)
    _space, shard, single = pairs(task, ["bf16", "w4"])
    same(shard.evaluate_many([{"0": "w4"}, {"0": "w4", "1": "bf16"}]), single, [{"0": "w4"}, {"0": "w4", "1": "bf16"}])
    with pytest.raises(InvalidInput, match="gets no floating-point input"):
        shard.evaluate_many([{"0": "w4"}, {"0": "bf16"}])


def test_capture_waits_until_it_is_worthwhile():
    task = example("siblings")
    space = bf.SearchSpace.from_model(task.model, task.calibration[0], formats=FORMATS)
    shard = FakeQuantEvaluator(task, space)
    chosen = [space.uniform("w2"), space.uniform("w4")]
    assert not shard.replayer.worthwhile(2, "validation")
    assert shard.replayer.worthwhile(10**9, "validation")
    assert not FakeQuantEvaluator(task, space, replay="never").replayer.worthwhile(10**9, "validation")
    assert all(isinstance(each, Measurement) for each in shard.evaluate_many(chosen))


# candidates that do not come to the end ----------------------------------------------------------------------------


class Ends:
    """A race that is lost after so many samples."""

    def __init__(self, samples):
        self.samples, self.seen = samples, []

    def lost(self, values):
        self.seen.append(len(values))
        return len(values) >= self.samples


@pytest.mark.parametrize("mode", ["always", "never"])
def test_races(mode):
    torch.manual_seed(0)
    data = tokens(8)
    task = bf.Task(Tied(), calibration=data[:1], validation=data[1:5], holdout=data[5:])
    space = bf.SearchSpace.from_model(task.model, data[0], formats=FORMATS)
    evaluator = FakeQuantEvaluator(task, space, replay=mode)
    chosen = [space.uniform(name) for name in ("w2", "w4", "bf16")]
    races = [Ends(8), None, Ends(100)]
    found = evaluator.evaluate_many(chosen, races=races)
    assert [each.samples for each in found] == [8, 16, 16]
    assert races[0].seen == [4, 8]
    assert races[2].seen == [4, 8, 12]
    whole = evaluator.evaluate(chosen[0])
    assert found[0].values == whole.values[:8]
    assert evaluator.evaluate(chosen[0], race=Ends(5)).values == whole.values[:8]


class Overflows(nn.Module):
    """In float16; the second layer overflows when its weight is rounded up."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(2, 2, bias=False) for _ in range(3))
        with torch.no_grad():
            for each in self.parameters():
                each.copy_(torch.eye(2))
            self.second.weight.fill_(0.6)

    def forward(self, x):
        return self.third(F.relu(self.second(self.first(x))))


def overflowing(where):
    model = Overflows().half()
    task = task_of(model, [torch.full((2, 2), 5e4).half() for _ in range(6)], quality="relative_error")
    space, shard, single = pairs(task, ["w2", "w8", "bf16"])
    scales = shard.quantized.calibration.weights
    if where == "output":
        scales["second", "w2"].scale.fill_(1.0)  # 0.6 becomes 1, and the sum of two inputs overflows
    if where == "weight":
        scales["second", "w2"].scale.fill_(torch.inf)
    return space, shard, single


@pytest.mark.parametrize("where", ["output", "weight"])
def test_the_first_site_that_is_not_finite_is_named(where):
    _space, shard, single = overflowing(where)
    before = state(shard.task.model)
    bad = {"first": "w8", "second": "w2", "third": "w8"}
    message = rf"the quantized model gives NaN or infinity, first in the {where} of site second \(w2\)$"
    with pytest.raises(NonFiniteOutput, match=message):
        single.evaluate(bad)
    good = {"first": "w8", "second": "w8", "third": "w8"}
    one, two, three = shard.evaluate_many([good, bad, good | {"third": "w2"}])
    assert isinstance(two, NonFiniteOutput)
    assert str(two).endswith(f"first in the {where} of site second (w2)")
    same([one, three], single, [good, good | {"third": "w2"}])
    assert state(shard.task.model) == before


def test_what_arises_between_sites_is_named_by_where_it_enters():
    class Divides(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4, bias=False), nn.Linear(4, 2)

        def forward(self, x):
            y = self.a(x)
            return self.b(1 / y)

    torch.manual_seed(0)
    task = task_of(Divides(), [torch.randn(3, 4) for _ in range(6)], quality="relative_error")
    _space, shard, single = pairs(task, ["w2", "w8"])
    shard.quantized.calibration.weights["a", "w2"].scale.fill_(1e6)  # all codes are 0
    with pytest.raises(NonFiniteOutput, match=r"first in what enters site b \(w8\)"):
        single.evaluate({"a": "w2", "b": "w8"})


def test_an_exception_in_the_metric_leaves_the_model_as_it_was():
    def judge(output, targets):
        raise KeyError("no such thing")

    task = example("siblings")
    broken = bf.Task(task.model, calibration=task.calibration, validation=task.validation, quality=judge,
                     holdout=task.holdout)  # fmt: skip
    space, shard, single = pairs(broken)
    before = state(task.model)
    with pytest.raises(KeyError):
        single.evaluate(space.uniform("w4a4"))
    with pytest.raises(KeyError):
        shard.evaluate_many([space.uniform("w4a4"), space.uniform("w2")])
    assert state(task.model) == before


# biases and batch normalization --------------------------------------------------------------------------------------


def test_corrected_biases_are_exchanged():
    task = example("keywords")
    space, shard, single = pairs(task)
    shift = torch.tensor([1.0, -2.0, 3.0])
    calibration = shard.quantized.calibration
    bare = QuantizedModel(task.model, space, calibrate(task, space))
    calibration.biases["fc", "w4"] = shift
    before = state(task.model)
    batch = task.validation[0]
    with torch.no_grad():
        with bare.applied({"fc": "w4"}) as model:
            expected = batch(model)[0] + shift
        with shard.quantized.applied({"fc": "w4"}) as model:
            torch.testing.assert_close(batch(model)[0], expected)
            with shard.quantized.applied({"fc": "w4"}):
                torch.testing.assert_close(batch(model)[0], expected)
        with shard.quantized.applied({"fc": "w2"}) as model, bare.applied({"fc": "w2"}) as other:
            assert torch.equal(batch(model)[0], batch(other)[0])
    assert state(task.model) == before
    chosen = [{"fc": "w2"}, {"fc": "w4"}, {"conv": "w2", "fc": "w4"}, {"conv": "w2", "fc": "w8a8"}]
    same(shard.evaluate_many(chosen), single, chosen)


def test_a_bias_that_is_not_there():
    task = example("keywords")
    _space, shard, _ = pairs(task)
    shard.quantized.calibration.biases["conv2", "w4"] = torch.zeros(4)
    with pytest.raises(InvalidInput, match="site conv2 has no bias to correct for w4; evaluate the task that prepared"):
        shard.evaluate({"conv2": "w4"})


def test_batch_normalization_is_estimated_again_for_each_configuration():
    task = example("keywords")
    space, shard, plain = pairs(task, ["w2", "w8"], reestimate_batch_norm=True)
    before, chosen = state(task.model), space.uniform("w2")
    floats = batch_norm_statistics(task.model, task.calibration)
    with plain.quantized.applied(chosen) as model:
        moved = batch_norm_statistics(model, task.calibration, floats)
    with plain.quantized.applied(chosen) as model, taken_on(model, moved), torch.no_grad():
        outputs = [output_tensor(batch(model)) for batch in task.validation]
    values = [plain.judged(output, "validation", index) for index, output in enumerate(outputs)]
    assert shard.evaluate(chosen).values == tuple(np.concatenate(values))
    assert shard.evaluate(chosen).value != plain.evaluate(chosen).value
    many = shard.evaluate_many([space.uniform("w8"), chosen])
    assert many[1].values == shard.evaluate(chosen).values
    assert state(task.model) == before


def test_a_smoothed_model_is_replayed_and_a_users_hook_is_not():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 5))
    data = [torch.randn(8, 16) for _ in range(3)]
    task = bf.Task(model, calibration=data[:1], validation=data[1:2], holdout=data[2:])
    space = bf.SearchSpace.from_model(model, data[0], formats=["w4", "w8a8"])
    recipe = bf.Recipe(equalization="smoothquant")
    smoothed = bf.prepared(task, space, recipe)
    chosen = [{"0": a, "2": b} for a in ("w4", "w8a8") for b in ("w4", "w8a8")]
    calibration = calibrate(smoothed, space, recipe)
    single = FakeQuantEvaluator(smoothed, space, calibration, replay="never")
    replayed = FakeQuantEvaluator(smoothed, space, calibration, replay="always")
    many = replayed.evaluate_many(chosen)
    assert not replayed.not_replayed
    assert [each.values for each in many] == [single.evaluate(each).values for each in chosen]
    smoothed.model[0].register_forward_hook(lambda *_: None)
    hooked = FakeQuantEvaluator(smoothed, space, calibration, replay="always")
    assert [each.values for each in hooked.evaluate_many(chosen)] == [each.values for each in many]
    assert "hooks" in next(iter(hooked.not_replayed.values()))
