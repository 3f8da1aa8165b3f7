"""Whole evaluations against loops, and what they refuse."""

import itertools

import bitfront as bf
import numpy as np
import pytest
import torch
from bitfront.errors import InvalidInput, NonFiniteOutput, UnknownFormat, UnsupportedModel
from bitfront.evaluators import (
    Evaluator,
    FakeQuantEvaluator,
    QuantizedModel,
    Race,
    calibrate,
    difference,
    evaluation_context,
)
from bitfront.search.executor import EvaluatorRecipe, Work
from torch import nn
from torch.nn import functional as F


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.fc, self.head = nn.Embedding(9, 8), nn.Linear(8, 8), nn.Linear(8, 5)

    def forward(self, tokens):
        return {"logits": self.head(F.relu(self.fc(self.embed(tokens).mean(1))))}


def task_of(model=None, quality="kl", **options):
    torch.manual_seed(0)
    model = model or Net()
    data = [(torch.randint(0, 9, (6, 4)), torch.randint(0, 5, (6,))) for _ in range(6)]
    return bf.Task(model, calibration=data[:2], validation=data[2:], quality=quality, **options)


def space_of(task, formats=("w2", "w4", "w8", "w8a8", "bf16")):
    return bf.SearchSpace.from_model(task.model, task.calibration[0], formats=list(formats))


def test_the_float_model_is_at_zero():
    task = task_of()
    found = FakeQuantEvaluator(task, space_of(task)).evaluate({})
    assert (found.value, found.low, found.high) == (0, 0, 0)
    assert (found.metric, found.split, found.samples) == ("kl", "validation", 12)


@pytest.mark.parametrize("split", ["calibration", "validation", "holdout"])
@pytest.mark.parametrize("quality", ["kl", "accuracy", "perplexity", "relative_error"])
def test_against_a_loop(quality, split):
    task = task_of(quality=quality)
    space = space_of(task)
    calibration = calibrate(task, space)
    configuration = {"embed": "w2", "fc": "w4", "head": "w8a8"}
    found = FakeQuantEvaluator(task, space, calibration).evaluate(configuration, split)
    values = []
    for batch in task.split(split):
        with torch.no_grad():
            wanted = batch(task.model)["logits"]
            with QuantizedModel(task.model, space, calibration).applied(configuration) as model:
                given = batch(model)["logits"]
        for w, g, target in zip(wanted.double(), given.double(), batch.targets, strict=True):
            values.append(
                {
                    "kl": lambda w=w, g=g: F.kl_div(g.log_softmax(-1), w.softmax(-1), reduction="sum"),
                    "accuracy": lambda g=g, target=target: float(g.argmax() != target),
                    "perplexity": lambda g=g, target=target: -g.log_softmax(-1)[target],
                    "relative_error": lambda w=w, g=g: (w - g).norm() / w.norm(),
                }[quality]()
            )
    np.testing.assert_allclose(found.values, [float(value) for value in values], rtol=1e-4, atol=1e-7)
    mean = np.mean(found.values)
    assert found.value == pytest.approx(np.exp(mean) if quality == "perplexity" else mean)
    assert found.low <= found.value <= found.high
    assert found.samples == task.samples(split) == len(values)
    assert found.split == split
    assert found.seconds > 0


def test_fewer_bits_are_worse():
    task = task_of()
    evaluator = FakeQuantEvaluator(task, space_of(task))
    values = [evaluator.evaluate(evaluator.quantized.space.uniform(name)).value for name in ("w2", "w4", "w8")]
    assert values == sorted(values, reverse=True)
    assert values[0] > 10 * values[2] > 0


def test_it_is_an_evaluator_and_repeats_itself():
    task = task_of()
    evaluator: Evaluator = FakeQuantEvaluator(task, space_of(task))
    configuration = bf.Configuration.from_dict({"embed": "w4", "fc": "w8a8", "head": "bf16"})
    assert evaluator.evaluate(configuration).values == evaluator.evaluate(configuration).values


def test_batching_does_not_matter():
    task = task_of()
    whole = [(torch.cat([batch.inputs[0] for batch in task.holdout]), None)]
    other = bf.Task(task.model, calibration=task.calibration, validation=task.validation, holdout=whole)
    space = space_of(task)
    calibration = calibrate(task, space)
    found = [
        FakeQuantEvaluator(each, space, calibration).evaluate(space.uniform("w4"), "holdout").values
        for each in (task, other)
    ]
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-9)


def test_the_float_outputs_are_computed_once():
    task = task_of()
    evaluator = FakeQuantEvaluator(task, space_of(task))
    assert evaluator.references("validation") is evaluator.references("validation")


def test_a_quantized_model_that_overflows():
    """float16 holds the outputs, but not those of weights rounded up to the next level."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)).half()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 0.55], [1.0, 0.55]]))
        model[1].weight.copy_(torch.eye(2))
    data = [torch.tensor([[0.0, 6.5e4]]).half()] * 3
    task = bf.Task(model, calibration=data[:1], validation=data[1:], quality="relative_error")
    space = bf.SearchSpace.from_model(model, data[0], formats=["w2"])
    calibration = calibrate(task, space)
    calibration.weights["0", "w2"].scale.fill_(1.05)  # 0.55 becomes 1.05
    with pytest.raises(NonFiniteOutput, match=r"model gives NaN or infinity, first in the output of site 0 \(w2\)$"):
        FakeQuantEvaluator(task, space, calibration).evaluate({"0": "w2"})
    assert FakeQuantEvaluator(task, space, calibration).evaluate({}).value == 0


def test_a_float_model_that_is_not_finite_on_some_data():
    model = nn.Sequential(nn.Linear(2, 2))
    good, bad = torch.ones(2, 2), torch.full((2, 2), 3e38)
    with torch.no_grad():
        model[0].weight.fill_(3.0)
    task = bf.Task(model, calibration=[good], validation=[good], holdout=[bad])
    evaluator = FakeQuantEvaluator(task, bf.SearchSpace.from_model(model, good, formats=["w8"]))
    evaluator.evaluate({"0": "w8"})
    with pytest.raises(NonFiniteOutput, match="the float model gives NaN or infinity on the holdout data"):
        evaluator.evaluate({"0": "w8"}, "holdout")


def test_data_of_the_wrong_shape():
    model = nn.Sequential(nn.Linear(2, 2))
    task = bf.Task(model, calibration=[torch.ones(2, 2)], validation=[torch.ones(2, 3)], holdout=[torch.ones(2, 2)])
    evaluator = FakeQuantEvaluator(task, bf.SearchSpace.from_model(model, torch.ones(2, 2), formats=["w8"]))
    with pytest.raises(UnsupportedModel, match=r"does not accept the validation data \(0 \(2, 3\)\)"):
        evaluator.evaluate({"0": "w8"})


def test_padded_sequences_of_a_transformer_encoder():
    """Torch's fused path zeroes padded positions; float and quantized model must take the same path."""
    torch.manual_seed(0)

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 1)

        def forward(self, x, mask):
            return self.encoder(x, src_key_padding_mask=mask)

    mask = torch.zeros(3, 5, dtype=torch.bool)
    mask[:, 3:] = True
    data = [((torch.randn(3, 5, 8), mask), None) for _ in range(3)]
    task = bf.Task(Encoder(), calibration=data[:1], validation=data[1:], quality="relative_error")
    space = bf.SearchSpace.from_model(task.model, data[0], formats=["w8a8", "w8", "fp32"])
    evaluator = FakeQuantEvaluator(task, space)
    assert evaluator.evaluate({}).value == 0
    assert evaluator.evaluate(space.uniform("fp32")).value == 0
    assert 0 < evaluator.evaluate({"encoder.layers.0.linear1": "w8a8"}).value < 0.05


# bf.evaluate -----------------------------------------------------------------------------------------------------


def test_evaluate_uses_the_holdout_and_agrees_with_the_evaluator():
    task = task_of(quality="accuracy")
    configuration = {"embed": "w2", "fc": "w8a8", "head": "bf16"}
    found = bf.evaluate(task, configuration)
    expected = FakeQuantEvaluator(task, space_of(task)).evaluate(configuration, "holdout")
    assert found.split == "holdout"
    assert found.values == expected.values
    assert bf.evaluate(task, bf.Configuration.from_dict(configuration)).values == expected.values
    assert bf.evaluate(task, configuration, "validation").split == "validation"


def test_evaluate_takes_partial_configurations():
    """The embedding, which takes no w8a8, is not named and must not stand in the way."""
    task = task_of()
    assert bf.evaluate(task, {}).value == 0
    found = bf.evaluate(task, {"fc": "w8a8"})
    assert found.value > 0
    space = space_of(task)
    assert found.values == FakeQuantEvaluator(task, space).evaluate({"fc": "w8a8"}, "holdout").values


@pytest.mark.parametrize(
    ("configuration", "error", "message"),
    [
        ({"fcc": "w4"}, InvalidInput, "unknown sites fcc; nearest to the first: fc"),
        ({"fc": "w44"}, UnknownFormat, "w44"),
        ({"embed": "w8a8"}, InvalidInput, r"site embed \(embedding\) does not offer 'w8a8'; it offers fp32"),
    ],
)
def test_evaluate_refuses(configuration, error, message):
    with pytest.raises(error, match=message) as caught:
        bf.evaluate(task_of(), configuration)
    assert "\n" not in str(caught.value)


# what stored results are found by --------------------------------------------------------------------------------


def test_context():
    task = task_of()
    calibration = calibrate(task, space_of(task))
    context = evaluation_context(task, calibration, "validation")
    assert context == evaluation_context(task_of(), calibration, "validation")
    others = {
        evaluation_context(task, calibration, "holdout"),
        evaluation_context(task_of(quality="relative_error"), calibration, "validation"),
        evaluation_context(task, calibrate(task, space_of(task, ["w4"])), "validation"),
    }
    assert len(others | {context}) == 4


def test_the_context_knows_whether_statistics_are_estimated_again():
    task = norm_task()
    calibration = calibrate(task, space_of(task, ["w4"]))
    contexts = {
        evaluation_context(task, calibration, "validation", reestimate_batch_norm=again) for again in (False, True)
    }
    assert len(contexts) == 2
    plain = task_of()  # no batch normalization: the same measurements
    calibration = calibrate(plain, space_of(plain, ["w4"]))
    contexts = {
        evaluation_context(plain, calibration, "validation", reestimate_batch_norm=again) for again in (False, True)
    }
    assert len(contexts) == 1


# re-estimated batch normalization --------------------------------------------------------------------------------


def norm_task(calibration=None, gain=1.0):
    """Two linear layers, a batch normalization between them; ``gain`` on the input of the normalization."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
    model[1].running_mean.normal_()
    with torch.no_grad():
        model[0].weight.mul_(gain)
    data = [torch.randn(8, 4) for _ in range(4)]
    return bf.Task(model, calibration=calibration or data[:1], validation=data[1:3], holdout=data[3:])


def test_float_statistics_that_are_not_finite_are_one_error():
    task = norm_task(calibration=[torch.full((8, 4), 3e38)], gain=10)
    space = bf.SearchSpace.from_model(task.model, task.validation[0], formats=["w2", "w4"])
    runs = []
    task.model[1].register_forward_pre_hook(lambda *_: runs.append(1))
    evaluator = FakeQuantEvaluator(task, space, calibrate(task, space), reestimate_batch_norm=True)
    chosen = [space.uniform("w2"), space.uniform("w4")] * 3
    runs.clear()
    with pytest.raises(NonFiniteOutput, match="the float model on the calibration data: the input of 1 holds NaN"):
        evaluator.evaluate_many(chosen, done=lambda *_: pytest.fail("a candidate was judged"))
    assert len(runs) == len(task.validation) + 1
    with pytest.raises(NonFiniteOutput, match="the float model on the calibration data"):
        evaluator.evaluate(chosen[0])


def test_what_is_not_finite_is_looked_for_under_the_statistics_that_were_taken_on():
    """Rounding one channel to 0 makes its re-estimated variance tiny; only under that does the output overflow."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.BatchNorm1d(2, affine=False, eps=1e-12), nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 0.1], [1.0, 0.0]]))
        model[2].weight.fill_(3e35)
        model[2].bias.zero_()
    calibration = torch.tensor([[0.0, 30.0], [0.0, -30.0], [0.0, 1.0], [0.0, -1.0]])
    data = [torch.ones(2, 2)] * 2
    task = bf.Task(model, calibration=[calibration], validation=data[:1], holdout=data[1:], quality="relative_error")
    space = bf.SearchSpace.from_model(model, data[0], formats=["w2"])
    scales = calibrate(task, space)
    scales.weights["0", "w2"].scale.fill_(1.0)  # 0.1 becomes 0: the first channel no longer varies there
    evaluator = FakeQuantEvaluator(task, space, scales, reestimate_batch_norm=True)
    assert FakeQuantEvaluator(task, space, scales).evaluate({"0": "w2"}).samples == 2
    with pytest.raises(NonFiniteOutput, match=r"first in the output of site 2 \(float\)$"):
        evaluator.evaluate({"0": "w2"})


def test_a_model_without_batch_normalization_is_replayed_though_it_was_asked_for():
    task = task_of()
    space = space_of(task)
    evaluator = FakeQuantEvaluator(task, space, replay="always", reestimate_batch_norm=True)
    assert not evaluator.reestimate_batch_norm
    assert evaluator.replayer.worthwhile(2, "validation")
    evaluator = FakeQuantEvaluator(norm_task(), space_of(norm_task(), ["w4"]), None, replay="always")
    assert evaluator.replayer.worthwhile(2, "validation")
    evaluator = FakeQuantEvaluator(
        norm_task(), space_of(norm_task(), ["w4"]), replay="always", reestimate_batch_norm=True
    )
    assert evaluator.reestimate_batch_norm
    assert not evaluator.replayer.worthwhile(2, "validation")


# evaluation mode -------------------------------------------------------------------------------------------------


class Regular(nn.Module):
    """Batch normalization and dropout: both compute something else in training mode."""

    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        return self.b(self.dropout(F.relu(self.norm(self.a(x)))))


def modes(model):
    return [module.training for module in model.modules()]


@pytest.mark.parametrize("replay", ["always", "never"])
@pytest.mark.parametrize("again", [False, True])
def test_a_model_in_training_mode_is_evaluated_in_evaluation_mode(replay, again):
    torch.manual_seed(0)
    data = [torch.randn(8, 4) for _ in range(4)]
    task = bf.Task(Regular(), calibration=data[:1], validation=data[1:3], holdout=data[3:])
    space = bf.SearchSpace.from_model(task.model, data[0], formats=["w2", "w4", "w8a8"])
    chosen = [space.uniform("w2"), space.uniform("w4"), {"b": "w8a8"}, {}]
    calibration = calibrate(task, space)
    expected = [
        FakeQuantEvaluator(task, space, calibration, reestimate_batch_norm=again).evaluate(each).values
        for each in chosen
    ]
    task.model.train()
    task.model.a.eval()  # each module has a mode of its own
    before, statistics = modes(task.model), [buffer.clone() for buffer in task.model.buffers()]
    evaluator = FakeQuantEvaluator(task, space, calibrate(task, space), replay=replay, reestimate_batch_norm=again)
    assert [evaluator.evaluate(each).values for each in chosen] == expected
    assert [found.values for found in evaluator.evaluate_many(chosen)] == expected
    assert not evaluator.not_replayed
    assert bf.evaluate(task, chosen[0], "validation").samples == 16
    assert modes(task.model) == before
    assert all(map(torch.equal, statistics, task.model.buffers()))


# changes behind the evaluator's back -----------------------------------------------------------------------------


def replace_parameter(model):
    model.fc.weight = nn.Parameter(torch.ones(8, 8))


def move_data(model):
    model.fc.weight.data = model.fc.weight.data.clone()


def step(model):
    with torch.no_grad():
        model.fc.bias.add_(1)


def load(model):
    model.load_state_dict({name: tensor * 2 for name, tensor in model.state_dict().items()})


@pytest.mark.parametrize("change", [replace_parameter, move_data, step, load])
def test_weights_that_changed_since_are_refused(change):
    task = task_of()
    space = space_of(task, ["w4"])
    evaluator = FakeQuantEvaluator(task, space)
    before = evaluator.evaluate(space.uniform("w4"))
    assert evaluator.evaluate_many([space.uniform("w4")] * 2)[1].values == before.values
    change(task.model)
    for measure in (evaluator.evaluate, lambda chosen: evaluator.evaluate_many([chosen])):
        with pytest.raises(InvalidInput, match=r"weights changed since this evaluator was made \(.+\); make a new one"):
            measure(space.uniform("w4"))
    FakeQuantEvaluator(task, space).evaluate(space.uniform("w4"))


def test_statistics_that_changed_since_are_refused():
    task = norm_task()
    space = space_of(task, ["w4"])
    evaluator = FakeQuantEvaluator(task, space, reestimate_batch_norm=True)
    evaluator.evaluate(space.uniform("w4"))
    task.model.train()(torch.randn(8, 4))
    with pytest.raises(InvalidInput, match=r"statistics of batch normalization changed .* \(1\)"):
        evaluator.evaluate(space.uniform("w4"))


# bad arguments ---------------------------------------------------------------------------------------------------


def test_bad_arguments_are_refused():
    task = task_of()
    space = space_of(task, ["w4"])
    calibration = calibrate(task, space)
    with pytest.raises(InvalidInput, match="replay='sometimes'; choose 'auto' or 'always' or 'never'"):
        FakeQuantEvaluator(task, space, calibration, replay="sometimes")
    with pytest.raises(InvalidInput, match="cache_bytes=-1; give 0 or more"):
        FakeQuantEvaluator(task, space, calibration, cache_bytes=-1)
    evaluator = FakeQuantEvaluator(task, space, calibration)
    for measure in (evaluator.evaluate, lambda chosen, split: bf.evaluate(task, chosen, split)):
        with pytest.raises(
            InvalidInput, match="unknown split 'test'; choose 'calibration' or 'validation' or 'holdout'"
        ):
            measure({}, "test")
        with pytest.raises(InvalidInput, match=r"a configuration is a mapping \{site name: format name\}, got str"):
            measure("w4", "holdout")
    race = Race(evaluator.evaluate({"fc": "w4"}).values)
    for races in ([], [race]):
        with pytest.raises(InvalidInput, match=f"{len(races)} races for 2 configurations; give one, or None, for each"):
            evaluator.evaluate_many([{}, {}], races=races)


def test_a_stopped_measurement_is_shorter_and_not_comparable():
    task = task_of()
    space = space_of(task, ["w2", "w8"])
    evaluator = FakeQuantEvaluator(task, space)
    rival = evaluator.evaluate(space.uniform("w8"))
    lost = evaluator.evaluate(space.uniform("w2"), race=Race(rival.values, error=0.5))
    assert lost.samples == len(lost.values) < rival.samples == task.samples("validation")
    with pytest.raises(InvalidInput, match="not measured on the same samples"):
        difference(lost, rival)


def test_work_is_cut_into_shards_in_the_order_of_the_evaluator():
    task = task_of()
    space = space_of(task, ["w2", "w4"])
    calibration = calibrate(task, space)
    chosen = [
        bf.Configuration.from_dict({"embed": a, "fc": b, "head": c})
        for c in ("w4", "w2") for b in ("w4", "w2") for a in ("w4", "w2")
    ]  # fmt: skip
    works = [Work(each, split) for split in ("validation", "holdout") for each in chosen]
    ordered = [chosen[index] for index in FakeQuantEvaluator(task, space, calibration).order(chosen)]
    assert [tuple(each[name] for name in space.names) for each in ordered] == sorted(
        itertools.product(("w2", "w4"), repeat=3)
    )
    flat = [works[index] for index in EvaluatorRecipe(task, space, calibration).order(works)]
    assert [work.configuration for work in flat] == ordered * 2
    assert [work.split for work in flat] == ["holdout"] * 8 + ["validation"] * 8
