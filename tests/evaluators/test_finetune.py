"""Finetuning of tiny networks: what it starts from, what it changes, what it leaves alone, what it returns."""

import copy

import bitfront as bf
import pytest
import torch
from bitfront.errors import InvalidInput, NonFiniteOutput
from bitfront.evaluators import FakeQuantEvaluator, QuantizedModel, calibrate, finetune
from bitfront.evaluators.calibration import Calibration
from bitfront.evaluators.finetuning.finetune import _with_references
from bitfront.evaluators.finetuning.student import Student
from torch import nn
from torch.nn import functional as F


class Net(nn.Module):
    """Convolution with batch norm, a layer called twice, attention, a head tied to an embedding, outputs in a dict."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(9, 32)
        self.conv, self.norm = nn.Conv1d(32, 32, 3, padding=1), nn.BatchNorm1d(32)
        self.twice, self.attention = nn.Linear(32, 32), nn.MultiheadAttention(32, 2, batch_first=True)
        self.head = nn.Linear(32, 9)
        self.head.weight = self.embed.weight

    def forward(self, tokens):
        x = self.embed(tokens)
        x = F.relu(self.norm(self.conv(x.transpose(1, 2)))).transpose(1, 2)
        x = self.twice(F.relu(self.twice(x)))
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return {"logits": self.head(x.mean(1))}


def task_of(quality="kl", batches=5, seed=0, **options):
    torch.manual_seed(0)
    model = Net()
    model(torch.randint(0, 9, (64, 6)))  # statistics of the batch norm
    torch.manual_seed(seed)
    data = [(torch.randint(0, 9, (8, 6)), torch.randint(0, 9, (8,))) for _ in range(batches + 4)]
    options = {"calibration": data[:batches], "validation": data[batches:]} | options
    return bf.Task(model, quality=quality, **options)


def space_of(task, formats=("w2", "w3", "w4", "w8", "w8a8", "w3a8", "w2a4", "bf16")):
    return bf.SearchSpace.from_model(task.model, task.calibration[0], formats=list(formats))


def mixed(space):
    """A configuration with something of everything, whatever the attention's sites are called."""
    wanted = {"embed": "w4", "conv": "w3a8", "twice": "w2a4"}
    return {name: wanted.get(name, "w2" if "in_proj" in name else "w8") for name in space.names}


def output_of(run, batch):
    with torch.no_grad():
        return run(batch)["logits"]


def state_of(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    "formats",
    [("w2", "w3", "w4", "w8", "w3a8", "w2a4"), ("w4g32", "w3z", "w4t", "bf16"), ("fp8", "nf4", "fp8d", "we2m1"),
     ("wmxfp4", "mxfp4", "nvfp4", "w8a8d", "w4g32", "w4")],
)  # fmt: skip
def test_the_student_begins_as_the_quantized_model(formats):
    """With tied weights, a layer called twice, attention, batch norm, and every kind of format."""
    task = task_of()
    space = space_of(task, formats)
    calibration = calibrate(task, space)
    for shift in range(2):
        choice = {
            site.name: site.formats[(index + shift) % len(site.formats)] for index, site in enumerate(space.sites)
        }
        student = Student(task.model, space, choice, calibration)
        with student.running() as run:
            found = output_of(run, task.calibration[0])
        with QuantizedModel(task.model, space, calibration).applied(choice) as model:
            wanted = output_of(lambda batch, model=model: batch(model), task.calibration[0])
            for site in space.sites:
                assert torch.equal(weight_of(student, site), model.get_parameter(site.parameter)), site.name
        # torch multiplies parameters and plain tensors by different kernels: a last bit may tip a rounding
        torch.testing.assert_close(found, wanted, rtol=0.02, atol=0.02)
        for module, fake in student._inputs.items():
            value = torch.randn(3, 5, task.model.get_submodule(module).weight.shape[1])
            target = bf.Format.parse(choice[module]).activation
            assert torch.equal(fake(value).detach(), calibration.activation(module, target)(value)), module


def weight_of(student, site):
    return student._weights[site.name](student.model.get_parameter(site.parameter)).detach()


def test_codes_of_a_reconstruction_are_where_it_begins():
    task = task_of()
    space = space_of(task, ("w3",))
    calibration, choice = calibrate(task, space), space.uniform("w3")
    generator = torch.Generator().manual_seed(1)
    for site in space.sites:
        codes = calibration.quantize(site, task.model.get_parameter(site.parameter), bf.Format.parse("w3").weight).codes
        moved = codes + torch.randint(-1, 2, codes.shape, generator=generator)
        calibration.codes[site.name, "w3"] = moved.clamp(-4, 3).to(torch.int8)
    student = Student(task.model, space, choice, calibration)
    with QuantizedModel(task.model, space, calibration).applied(choice) as model:
        for site in space.sites:
            torch.testing.assert_close(weight_of(student, site), model.get_parameter(site.parameter), rtol=0, atol=0)
    for site in space.sites:  # and the weights are still between the float ones and the codes
        mine, original = (each.get_parameter(site.parameter) for each in (student.model, task.model))
        assert not torch.equal(mine, original)
        assert len(mine.unique()) > 100


def test_bias_corrections_go_into_the_biases():
    task = task_of()
    space = space_of(task, ("w3",))
    calibration, shift = calibrate(task, space), torch.arange(32.0)
    calibration.biases["conv", "w3"] = shift
    student = Student(task.model, space, space.uniform("w3"), calibration)
    assert torch.equal(student.model.conv.bias, task.model.conv.bias + shift)
    assert not student.calibration().biases
    task.model.conv.bias = None
    with pytest.raises(InvalidInput, match="site conv has a bias correction and no bias"):
        Student(task.model, space, space.uniform("w3"), calibration)


@pytest.fixture(scope="module")
def tuned():
    task = task_of()
    space = space_of(task)
    before = state_of(task.model)
    done = finetune(task, space, mixed(space), epochs=12, learning_rate=2e-3, patience=12)
    return task, space, before, done


def test_it_helps(tuned):
    *_, done = tuned
    assert done.best.kept_aside < 0.5 * done.history[0].kept_aside
    assert done.difference.better
    assert done.after.value < 0.5 * done.before.value
    assert (done.after.split, done.before.split) == ("holdout", "holdout")
    assert "no post-training result" in done.summary


def test_before_is_what_the_evaluator_measures(tuned):
    task, space, _, done = tuned
    found = FakeQuantEvaluator(task, space).evaluate(done.configuration, "holdout")
    assert done.before.values == pytest.approx(found.values, rel=1e-4, abs=1e-6)


def test_what_is_returned_computes_what_was_measured(tuned):
    """The copy with the learnt calibration, in the ordinary evaluator: the outputs behind ``after``, to the bit."""
    task, _, _, done = tuned
    quantized = QuantizedModel(done.model, done.space, Calibration.from_arrays(done.calibration.to_arrays()))
    with quantized.applied(done.configuration) as model, torch.no_grad():
        outputs = [batch(model)["logits"] for batch in task.holdout]
        references = [batch(task.model)["logits"] for batch in task.holdout]
    values = torch.cat(
        [
            F.kl_div(output.double().log_softmax(-1), reference.double().softmax(-1), reduction="none").sum(-1)
            for output, reference in zip(outputs, references, strict=True)
        ]
    )
    assert values.tolist() == pytest.approx(done.after.values, rel=1e-9)


def test_an_evaluator_of_the_copy_agrees_where_no_float_model_is_compared_with():
    task = task_of("accuracy")
    space = space_of(task, ("w2",))
    done = finetune(task, space, space.uniform("w2"), epochs=2, loss="task")
    copied = bf.Task(
        done.model, calibration=task.calibration, validation=task.validation, holdout=task.holdout, quality="accuracy"
    )
    found = FakeQuantEvaluator(copied, done.space, done.calibration).evaluate(done.configuration, "holdout")
    assert found.values == done.after.values


def test_the_callers_model_is_untouched(tuned):
    task, _, before, done = tuned
    assert same(state_of(task.model), before)
    assert not any(module._forward_pre_hooks for module in task.model.modules())
    assert all(parameter.grad is None for parameter in task.model.parameters())
    assert not any(module._forward_pre_hooks for module in done.model.modules())
    assert not done.model.training


def test_everything_learns_but_the_statistics(tuned):
    task, _, _, done = tuned
    assert done.model.head.weight is done.model.embed.weight
    statistics = {name for name, _ in task.model.named_buffers()}
    for name, tensor in done.model.state_dict().items():
        changed = not torch.equal(tensor, task.model.state_dict()[name])
        assert changed is (name not in statistics), name
    begun = calibrate(task, done.space)
    for key, scales in done.calibration.weights.items():
        assert not torch.equal(scales.scale, begun.weights[key].scale), key
    assert done.calibration.ranges.keys() == begun.ranges.keys()
    for key, found in done.calibration.ranges.items():
        assert not torch.equal(found.high, begun.ranges[key].high), key


def test_the_gradient_flags_are_those_of_the_model():
    task = task_of()
    task.model.conv.weight.requires_grad_(False)
    space = space_of(task, ("w4",))
    done = finetune(task, space, space.uniform("w4"), epochs=1)
    assert [p.requires_grad for p in done.model.parameters()] == [p.requires_grad for p in task.model.parameters()]
    assert not torch.equal(done.model.conv.weight, task.model.conv.weight)


def test_the_seed_decides_and_the_global_state_does_not():
    task = task_of()
    space = space_of(task, ("w2",))
    made = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(made))
        made.append(finetune(task, space, space.uniform("w2"), epochs=2, seed=seed))
    assert same(state_of(made[0].model), state_of(made[1].model))
    assert made[0].calibration.digest == made[1].calibration.digest
    assert not same(state_of(made[0].model), state_of(made[2].model))


def test_validation_and_holdout_data_teach_nothing():
    task, other = task_of(), task_of()
    for name in ("validation", "holdout"):
        setattr(other, name, [bf.Batch((8 - batch.inputs[0],), batch.targets) for batch in other.split(name)])
    made = [finetune(each, space_of(each), space_of(each).uniform("w2"), epochs=2) for each in (task, other)]
    assert same(state_of(made[0].model), state_of(made[1].model))
    assert made[0].history[1:] == made[1].history[1:]
    assert made[0].after.values != made[1].after.values


def test_the_best_epoch_is_taken_and_training_stops_early():
    """A learning rate far too large makes everything worse: the weights stay as they were."""
    task, steps = task_of(), []
    space = space_of(task, ("w8",))
    begun = calibrate(task, space)
    done = finetune(task, space, space.uniform("w8"), epochs=20, learning_rate=0.3, patience=3, advance=steps.append)
    assert done.best.number == 0
    assert [epoch.number for epoch in done.history] == [0, 1, 2, 3]
    assert steps == [1, 1, 1]
    assert same(state_of(done.model), state_of(task.model))
    assert done.calibration.digest == begun.digest
    assert done.after.values == done.before.values
    assert "gained nothing in 3 epochs" in done.summary


def test_where_nothing_is_gained_weights_and_calibration_are_as_they_were():
    """Also where the student began from the codes of a reconstruction and with corrected biases."""
    task = task_of()
    task.model.conv.weight.requires_grad_(False)
    space = space_of(task, ("w4", "w8"))
    begun = calibrate(task, space)
    begun.biases["conv", "w8"] = torch.full((32,), 0.01)
    for site in space.sites:
        weight = task.model.get_parameter(site.parameter)
        begun.codes[site.name, "w8"] = begun.quantize(site, weight, bf.Format.parse("w8").weight).codes
    done = finetune(task, space, space.uniform("w8"), begun, epochs=2, learning_rate=0.3)
    assert done.best.number == 0
    assert same(state_of(done.model), state_of(task.model))
    assert done.model is not task.model
    assert [p.requires_grad for p in done.model.parameters()] == [p.requires_grad for p in task.model.parameters()]
    assert done.calibration.digest == begun.digest
    assert done.calibration.biases
    assert done.after.values == done.before.values
    found = FakeQuantEvaluator(task, done.space, done.calibration).evaluate(done.configuration, "holdout")
    assert done.before.values == pytest.approx(found.values, rel=1e-9)
    assert not done.gained


def test_data_and_calibration_follow_the_model_to_its_device():
    task = task_of()
    space = space_of(task, ("w3", "w8a8", "w4z"))
    calibration = calibrate(task, space)
    choice = {site.name: site.formats[index % len(site.formats)] for index, site in enumerate(space.sites)}
    choice |= {"twice": "w3", "conv": "w8a8"}
    twice = next(site for site in space.sites if site.name == "twice")
    wanted = bf.Format.parse("w3").weight
    calibration.codes["twice", "w3"] = calibration.quantize(twice, task.model.twice.weight, wanted).codes
    task.model.to("meta")
    student = Student(task.model, space, choice, calibration)
    with student.running() as run, torch.enable_grad():
        output = run(task.calibration[0])["logits"]
        output.sum().backward()
    assert output.device.type == "meta"
    assert {parameter.grad.device.type for parameter in student.steps} == {"meta"}
    for batch, reference in _with_references(task, task.calibration):
        assert {tensor.device.type for tensor in (*batch.tensors.values(), batch.targets, reference)} == {"meta"}


@pytest.mark.parametrize("quality", ["relative_error", "cosine", "loss", lambda o, t: (o - 1).square().mean(-1)])
def test_qualities(quality):
    task = task_of(quality)
    space = space_of(task, ("w3",))
    done = finetune(task, space, {"twice": "w3", "conv": "w3"}, epochs=4, learning_rate=1e-4)
    assert done.best.number > 0
    assert {site.name for site in done.space.sites} == {"twice", "conv"}
    assert done.after.metric == task.metric


def test_one_calibration_batch_is_cut():
    task = task_of(batches=1)
    space = space_of(task, ("w3",))
    first, again, other = (finetune(task, space, space.uniform("w3"), epochs=2, seed=seed) for seed in (0, 0, 1))
    assert len(first.history) == 3
    assert first.history[0].kept_aside == again.history[0].kept_aside
    assert first.history[0].kept_aside != other.history[0].kept_aside
    task.calibration = [task.calibration[0].piece(0, 1)]
    with pytest.raises(InvalidInput, match="at least two calibration samples"):
        finetune(task, space, space.uniform("w3"), epochs=2)


@pytest.mark.parametrize(
    ("configuration", "options", "message"),
    [
        ({}, {}, "the configuration names no site"),
        ({"nowhere": "w2"}, {}, "the configuration names nowhere; this space has embed"),
        ({"conv": "w5"}, {}, "site conv does not offer 'w5'; it offers w2"),
        ({"conv": "w2"}, {"epochs": 0}, "epochs=0 and patience=8: finetuning needs at least 1"),
        ({"conv": "w2"}, {"patience": 0}, "patience=0"),
        ({"conv": "w2"}, {"learning_rate": -1}, "learning_rate=-1 must be positive"),
        ({"conv": "w2"}, {"loss": "mse"}, "unknown loss 'mse' for finetuning; choose distillation or task"),
    ],
)
def test_what_is_refused(configuration, options, message):
    task = task_of()
    with pytest.raises(InvalidInput, match=message) as caught:
        finetune(task, space_of(task), configuration, **options)
    assert "\n" not in str(caught.value)


def test_the_tasks_loss_needs_targets():
    task = task_of()
    task.calibration = [bf.Batch(batch.inputs) for batch in task.calibration]
    with pytest.raises(InvalidInput, match="loss='task' needs targets"):
        finetune(task, space_of(task), {"conv": "w2"}, loss="task")


def test_a_loss_that_is_not_finite():
    task = task_of(loss=lambda output, targets: output.sum() / 0)
    with pytest.raises(NonFiniteOutput, match="NaN or infinite on the calibration data"):
        finetune(task, space_of(task), {"conv": "w2"}, loss="task")


def test_a_model_without_targets_or_batch_dict():
    """Inputs by keyword, outputs that are no logits."""
    torch.manual_seed(0)

    class Regression(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(6, 16), nn.Linear(16, 1)

        def forward(self, x):
            return self.second(torch.tanh(self.first(x)))[:, 0]

    data = [{"x": torch.randn(16, 6)} for _ in range(6)]
    task = bf.Task(Regression(), calibration=data[:4], validation=data[4:], quality="relative_error")
    space = bf.SearchSpace.from_model(task.model, data[0], formats=["w3", "w3a8"])
    before = copy.deepcopy(task.model.state_dict())
    done = finetune(task, space, space.uniform("w3a8"), epochs=20, learning_rate=3e-3)
    assert done.after.value < done.before.value
    assert same(task.model.state_dict(), before)
