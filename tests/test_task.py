"""Batches as users write them, what a task refuses, and what its digest depends on."""

import functools
import subprocess
import sys

import bitfront as bf
import numpy as np
import pytest
import torch
from bitfront.errors import BitfrontError, InvalidInput
from bitfront.task import QUALITIES
from torch import nn
from torch.nn import functional as F


def model_of(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def batches(count=4, samples=5, seed=1, targets=True):
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(samples, 3, generator=generator), torch.randint(0, 2, (samples,), generator=generator))
        if targets
        else torch.randn(samples, 3, generator=generator)
        for _ in range(count)
    ]


def task_of(model=None, **options):
    data = {"calibration": batches(1), "validation": batches(4, seed=2)}
    return bf.Task(model or model_of(), **{**data, **options})


# batches ---------------------------------------------------------------------------------------------------------

A, B, C = torch.randn(4, 3), torch.randn(4, 2), torch.arange(4)


@pytest.mark.parametrize(
    ("item", "inputs", "targets"),
    [
        (A, (A,), None),
        ((A, C), (A,), C),
        ([A, C], (A,), C),
        ((A, None), (A,), None),
        (((A, B), C), (A, B), C),
        (((A, B), None), (A, B), None),
        ((A, B, C), (A, B, C), None),
        ((A,), (A,), None),
        ({"x": A}, {"x": A}, None),
        (({"x": A, "y": B}, C), {"x": A, "y": B}, C),
        (bf.Batch((A,), C), (A,), C),
    ],
    ids=["tensor", "pair", "list", "no targets", "two inputs", "two inputs, no targets", "three", "one", "dict",
         "dict with targets", "batch"],
)  # fmt: skip
def test_forms_of_a_batch(item, inputs, targets):
    batch = bf.Batch.of(item)
    assert type(batch.inputs) is type(inputs)
    assert batch.targets is targets
    assert len(batch) == 4
    wanted = inputs if isinstance(inputs, dict) else {str(i): tensor for i, tensor in enumerate(inputs)}
    assert batch.tensors.keys() == wanted.keys()
    assert all(batch.tensors[name] is wanted[name] for name in wanted)


def test_a_tokenizer_output_is_a_batch():
    transformers = pytest.importorskip("transformers")
    batch = bf.Batch.of(transformers.BatchEncoding({"input_ids": A}))
    assert type(batch.inputs) is dict


@pytest.mark.parametrize(
    "item", [None, 3, "x", np.zeros((4, 3)), (), {}, (A, "label"), (A, 3), {"x": 3}, ((A, 3), C), [A, B, 3]],
    ids=str.split("none int text array empty-tuple empty-dict label number dict-of-int tuple-with-int list-of-three"),
)  # fmt: skip
def test_what_is_no_batch(item):
    with pytest.raises(InvalidInput) as caught:
        bf.Batch.of(item)
    assert "\n" not in str(caught.value)


def test_a_batch_runs_the_model():
    def model(a, b):
        return a @ b.T

    assert torch.equal(bf.Batch.of({"b": B, "a": B + 1})(model), (B + 1) @ B.T)
    assert torch.equal(bf.Batch.of(((B + 1, B), None))(model), (B + 1) @ B.T)


@pytest.mark.parametrize("item", [((A, B), C), ({"x": A, "y": B}, C), (A, None)], ids=["tuple", "dict", "bare"])
def test_pieces(item):
    batch = bf.Batch.of(item)
    piece = batch.piece(1, 3)
    assert len(piece) == 2
    assert all(torch.equal(piece.tensors[name], tensor[1:3]) for name, tensor in batch.tensors.items())
    assert piece.targets is None if batch.targets is None else torch.equal(piece.targets, batch.targets[1:3])


# tasks -----------------------------------------------------------------------------------------------------------


def test_the_second_half_of_validation_is_held_out():
    data = batches(5)
    task = task_of(validation=data)
    assert [batch.targets for batch in task.validation] == [targets for _, targets in data[:3]]
    assert [batch.targets for batch in task.holdout] == [targets for _, targets in data[3:]]
    assert (task.samples("calibration"), task.samples("validation"), task.samples("holdout")) == (5, 15, 10)


def test_a_holdout_of_its_own():
    task = task_of(validation=batches(1), holdout=batches(3, seed=5))
    assert (len(task.validation), len(task.holdout)) == (1, 3)


def test_any_iterable_of_batches():
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.randn(12, 3), torch.randint(0, 2, (12,))), batch_size=4
    )
    task = task_of(calibration=loader, validation=(batch for batch in loader))
    assert (len(task.calibration), len(task.validation), len(task.holdout)) == (3, 2, 1)


def test_the_model_is_put_in_evaluation_mode_and_named():
    model = model_of().train()
    task = task_of(model)
    assert not model.training
    assert task.name == "Sequential"
    assert task_of(name="mine").name == "mine"


def my_error(outputs, targets):
    return (outputs.argmax(-1) != targets).float()


@pytest.mark.parametrize(
    ("quality", "metric"), [*((name, name) for name in QUALITIES if name not in ("accuracy", "top5")),
                            ("accuracy", "error"), ("top5", "top5_error"), ("top3", "top3_error"),
                            (my_error, "my_error"), (nn.MSELoss(), "MSELoss")],
)  # fmt: skip
def test_names_of_metrics(quality, metric):
    assert task_of(quality=quality).metric == metric


def poisoned(value):
    (inputs, targets), *rest = batches()
    inputs[0, 0] = value
    return [(inputs, targets), *rest]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": {"weight": 1}}, "the model must be a torch.nn.Module, got dict"),
        ({"quality": "acuracy"}, "unknown quality 'acuracy'; choose accuracy, or give a callable"),
        ({"quality": "top0"}, "unknown quality 'top0'; choose top5, or give a callable"),
        ({"quality": 7}, "unknown quality 7; choose kl or loss or"),
        ({"loss": "mse"}, "loss must be a callable"),
        ({"calibration": []}, "the calibration data is empty"),
        ({"validation": []}, "the validation data is empty"),
        ({"holdout": []}, "the holdout data is empty"),
        ({"validation": batches(1)}, "validation needs at least two batches.*or a holdout of its own"),
        ({"calibration": torch.randn(5, 3)}, "calibration must be a list .* of batches, got Tensor"),
        ({"validation": {"x": torch.randn(5, 3)}}, "validation must be a list"),
        ({"holdout": bf.Batch((A,))}, "holdout must be a list .*got Batch"),
        ({"calibration": None}, "calibration must be a list .*got NoneType"),
        ({"calibration": "calib.npz"}, "calibration must be a list .*got str"),
        ({"calibration": [3]}, "a batch is .inputs, targets."),
        ({"calibration": batches(1, samples=0)}, "calibration batch 0 has no samples"),
        ({"validation": [*batches(1), (torch.randn(2, 3, 1), None)]}, r"holdout batch 0 has inputs \{0: 3-d float32\}"),
        ({"validation": [(torch.zeros(2, 3).long(), None)] * 2}, r"\{0: 2-d int64\}, calibration batch 0 has \{0: 2-d"),
        ({"calibration": [{"x": A}]}, r"validation batch 0 has inputs .* calibration batch 0 has \{x: "),
        ({"calibration": poisoned(float("nan"))}, "calibration batch 0, input 0: holds NaN or infinity"),
        ({"validation": poisoned(-float("inf"))}, "validation batch 0, input 0: holds NaN"),
        ({"calibration": [(torch.randn(4, 3), torch.zeros(5))]}, r"4 samples and targets of shape \(5,\)"),
        ({"calibration": [(torch.randn(4, 3), torch.tensor(1))]}, r"4 samples and targets of shape \(\)"),
        *[({"validation": batches(targets=False), "quality": name}, f"'{name}' needs targets, and the validation")
          for name in ("loss", "accuracy", "perplexity")],
        ({"holdout": batches(targets=False), "quality": "accuracy"}, "needs targets, and the holdout data has none"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_a_task_refuses(options, message):
    with pytest.raises(BitfrontError, match=message) as caught:
        task_of(**options)
    assert isinstance(caught.value, InvalidInput)
    assert "\n" not in str(caught.value)


def test_lengths_may_differ():
    """Sentences of different lengths, a last batch of fewer samples."""
    task_of(nn.Embedding(9, 2), calibration=[torch.zeros(4, 7).long()],
            validation=[torch.zeros(4, 5).long(), torch.zeros(1, 3).long()])  # fmt: skip


def test_calibration_needs_no_targets():
    task_of(calibration=batches(targets=False), quality="accuracy")


# digests ---------------------------------------------------------------------------------------------------------


def squared(outputs, targets):
    return (outputs[:, 0] - targets) ** 2


def scaled(factor):
    return lambda outputs, targets: factor * (outputs[:, 0] - targets) ** 2


def changed_weight():
    model = model_of()
    with torch.no_grad():
        model[2].bias[0] += 1e-6
    return model


def changed_target():
    data = batches(4, seed=2)
    data[1][1][0] = 1 - data[1][1][0]
    return data


WEIGHTED = [nn.CrossEntropyLoss(weight=torch.tensor([1.0, weight])) for weight in (1.0, 2.0)]
DIFFERENT = {
    "weights": {"model": changed_weight()},
    "layers without weights": {"model": nn.Sequential(model_of()[0], nn.GELU(), model_of()[2])},
    "parameters of layers": {"model": nn.Sequential(model_of()[0], nn.ReLU(), model_of()[2], nn.Softmax(-1))},
    "data": {"validation": batches(4, seed=3)},
    "one target": {"validation": changed_target()},
    "no targets": {"validation": [inputs for inputs, _ in batches(4, seed=2)]},
    "other batches": {"validation": [(torch.cat([a, b]), torch.cat([c, d])) for (a, c), (b, d) in
                                     [batches(4, seed=2)[:2]] * 2]},
    "metric": {"quality": "relative_error"},
    "metric of the user": {"quality": squared},
    "the same with a number": {"quality": scaled(1.0)},
    "another number": {"quality": scaled(2.0)},
    "partial": {"quality": functools.partial(squared)},
    "loss": {"quality": "loss"},
    "loss of the user": {"quality": "loss", "loss": F.multi_margin_loss},
    "its options": {"quality": "loss", "loss": functools.partial(F.multi_margin_loss, margin=2.0)},
    "object": {"quality": "loss", "loss": nn.CrossEntropyLoss()},
    "its attributes": {"quality": "loss", "loss": nn.CrossEntropyLoss(label_smoothing=0.1)},
    "its weights": {"quality": "loss", "loss": WEIGHTED[0]},
    "other weights": {"quality": "loss", "loss": WEIGHTED[1]},
}  # fmt: skip


def test_the_digest_changes_with_weights_data_and_metric():
    digests = {name: task_of(**options).digest("validation") for name, options in DIFFERENT.items()}
    digests["nothing"] = task_of().digest("validation")
    assert len(set(digests.values())) == len(digests), digests


@pytest.mark.parametrize(
    "options",
    [{}, {"name": "other"}, {"calibration": batches(2, seed=9)}, {"holdout": batches(3, seed=8), "validation":
     batches(4, seed=2)[:2]}, {"loss": F.cross_entropy}],
    ids=["again", "name", "other calibration", "other holdout", "a loss that kl does not use"],
)  # fmt: skip
def test_the_digest_changes_with_nothing_else(options):
    assert task_of(**options).digest("validation") == task_of().digest("validation")


def test_the_digest_survives_use():
    task = task_of(quality="accuracy")
    before = task.digest("calibration", "validation")
    assert before != task.digest("validation")
    bf.evaluate(task, {"0": "w4a8", "2": "w2"})
    assert task.digest("calibration", "validation") == before


def test_the_digest_takes_every_kind_of_tensor():
    model = model_of()
    for kind in (torch.bool, torch.int64, torch.bfloat16, torch.float64):
        model.register_buffer(f"b{str(kind)[6:]}", torch.ones(3, 2).to(kind).t())
    model.register_buffer("empty", torch.zeros(0))
    model.register_buffer("scalar", torch.tensor(2.0))
    first = task_of(model).digest("validation")
    model.bbool[0, 0] = False
    assert task_of(model).digest("validation") != first


_PROGRAM = """
import torch, bitfront as bf
from torch import nn
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(3, 2))
data = [(torch.ones(2, 3), torch.zeros(2).long())] * 2
kinds = {"kl", "loss", "accuracy", "perplexity", "relative_error", "a", "b", "c"}
def quality(outputs, targets, power=2, seen=kinds):
    return (outputs[:, 0] ** power) if len(outputs) in {1, 2, 3} else len(seen)
def loss(outputs, targets):
    return (lambda x: x.mean())(quality(outputs, targets))
print(bf.Task(model, calibration=data, validation=data, quality=quality, loss=loss).digest("validation"))
"""


def test_the_digest_is_the_same_in_every_process():
    """Addresses, hash seeds and set orders differ between processes; workers must find what others stored."""
    found = [
        subprocess.run(
            [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    ]
    assert found[0] == found[1]
    assert len(found[0].strip()) == 16


def test_the_digest_sees_what_a_model_computes():
    def model_of(activation):
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                torch.manual_seed(0)
                self.fc = nn.Linear(4, 3)

            forward = activation

        return Net()

    def relu(self, x):
        return torch.relu(self.fc(x))

    def tanh(self, x):
        return torch.tanh(self.fc(x))

    data = [torch.ones(2, 4)]
    tasks = [bf.Task(model_of(each), calibration=data, validation=data, holdout=data) for each in (relu, relu, tanh)]
    one, same, other = (task.digest("validation") for task in tasks)
    assert one == same != other
    handle = tasks[0].model.register_forward_hook(lambda module, args, output: output + 1)
    assert tasks[0].digest("validation") != one
    handle.remove()
    assert tasks[0].digest("validation") == one


def test_a_metric_of_the_users_own_does_not_pass_for_a_built_in_one():
    def perplexity(outputs, targets):
        return torch.full((len(outputs),), 10.0)

    data = [torch.ones(2, 4)]
    task = bf.Task(nn.Linear(4, 3), calibration=data, validation=data, holdout=data, quality=perplexity)
    assert task.metric == "custom_perplexity"
    assert bf.evaluate(task, {}).value == 10
