"""Whole evaluations against loops, and what they refuse."""

import bitfront as bf
import numpy as np
import pytest
import torch
from bitfront.errors import InvalidInput, NonFiniteOutput, UnknownFormat, UnsupportedModel
from bitfront.evaluators import Evaluator, FakeQuantEvaluator, QuantizedModel, calibrate, evaluation_context
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
