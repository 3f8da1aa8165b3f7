"""Metrics against naive loops in float64."""

import math
from types import SimpleNamespace

import bitfront as bf
import numpy as np
import pytest
import torch
from bitfront.errors import InvalidInput, NonFiniteOutput
from bitfront.evaluators import objective, output_tensor, per_sample
from torch import nn
from torch.nn import functional as F


def task_of(quality, loss=None):
    """A task that only says how to judge."""
    data = [(torch.randn(2, 3), torch.zeros(2, dtype=torch.int64))] * 2
    return bf.Task(nn.Linear(3, 2), calibration=data, validation=data, quality=quality, loss=loss)


def outputs(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator) * 3


def labels(*shape, classes, seed=0):
    return torch.randint(0, classes, shape, generator=torch.Generator().manual_seed(seed))


def log_softmax(logits):
    shifted = logits - max(logits)
    return shifted - math.log(sum(math.exp(value) for value in shifted))


def naive(quality, output, reference, targets):
    """One sample after another, one position after another."""
    values = []
    for sample in range(len(output)):
        wanted = reference[sample].double().numpy()
        given = output[sample].double().numpy()
        if quality == "relative_error":
            values.append(np.sqrt(((wanted - given) ** 2).sum()) / np.sqrt((wanted**2).sum()))
            continue
        if quality == "cosine":
            values.append(1 - (wanted * given).sum() / math.sqrt((wanted**2).sum() * (given**2).sum()))
            continue
        classes = output.shape[-1]
        each = []
        labels_here = targets[sample].reshape(-1).tolist() if targets is not None else None
        for position, (p, q) in enumerate(zip(wanted.reshape(-1, classes), given.reshape(-1, classes), strict=True)):
            p, q = log_softmax(p), log_softmax(q)
            if quality == "kl":
                each.append(sum(math.exp(a) * (a - b) for a, b in zip(p, q, strict=True)))
            elif labels_here[position] == -100:
                continue
            elif quality == "accuracy":
                each.append(float(int(np.argmax(q)) != labels_here[position]))
            elif quality.startswith("top"):
                first = sorted(range(classes), key=lambda index: (-q[index], index))[: int(quality[3:])]
                each.append(float(labels_here[position] not in first))
            else:
                each.append(-q[labels_here[position]])
        values.append(sum(each) / len(each))
    return values


@pytest.mark.parametrize("shape", [(5, 7), (4, 6, 7), (2, 3, 2, 7)], ids=["B C", "B T V", "B H W C"])
@pytest.mark.parametrize(
    "quality", ["kl", "relative_error", "cosine", "accuracy", "top1", "top3", "top5", "loss", "perplexity"]
)
@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("chunk", [1, 20, 1 << 15], ids=["a position at a time", "two and a rest", "all at once"])
def test_against_loops(quality, shape, ignored, chunk, monkeypatch):
    monkeypatch.setattr("bitfront.evaluators.metrics._CHUNK", chunk)
    output, reference = outputs(*shape), outputs(*shape, seed=1)
    targets = labels(*shape[:-1], classes=shape[-1])
    targets.view(-1)[: len(targets) : 2] = output.argmax(-1).view(-1)[: len(targets) : 2]  # some are right
    if ignored and len(shape) > 2:
        targets[0, 0] = -100
    values = per_sample(task_of(quality), output, reference, targets)
    assert values.dtype == torch.float64
    assert values.shape == shape[:1]
    np.testing.assert_allclose(values.numpy(), naive(quality, output, reference, targets), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-6, 1e-4, 1e-2])
def test_kl_of_nearly_equal_outputs_is_not_lost_in_rounding(scale):
    """KL = log E_p exp(d - E_p d) for a logit difference d: also where it is far below the rounding of float32."""
    reference = outputs(6, 50)
    output = reference + scale * outputs(6, 50, seed=1)
    d, p = output.double() - reference.double(), reference.double().softmax(-1)
    centred = d - (p * d).sum(-1, keepdim=True)
    expected = torch.log((p * centred.exp()).sum(-1))
    assert float(expected.min()) < 1e-2
    values = per_sample(task_of("kl"), output, reference, None)
    torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-15)


def test_a_class_that_the_float_model_rules_out():
    """p of 1e-200 counts as what it is: the surprise of the candidate is large, not infinite, and p log p is 0."""
    reference, output = torch.tensor([[500.0, 0.0, 1.0]]), torch.tensor([[0.0, 500.0, 1.0]])
    assert float(per_sample(task_of("kl"), output, reference, None)) == pytest.approx(500.0)


def test_equal_outputs_are_ranked_by_class():
    """A dead model, with all outputs equal, does not pass for a good one."""
    dead, targets = torch.zeros(4, 10), torch.tensor([0, 2, 3, 9])
    assert per_sample(task_of("top3"), dead, dead, targets).tolist() == [0, 0, 1, 1]
    assert (
        per_sample(task_of("top1"), dead, dead, targets).tolist()
        == per_sample(task_of("accuracy"), dead, dead, targets).tolist()
    )


def test_cosine_ignores_length_and_knows_zero_vectors():
    reference = torch.tensor([[1.0, 2.0], [1.0, 2.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    output = torch.tensor([[3.0, 6.0], [-1.0, -2.0], [0.0, 5.0], [1.0, 0.0], [0.0, 0.0]])
    values = per_sample(task_of("cosine"), output, reference, None)
    np.testing.assert_allclose(values, [0, 2, 1, 1, 0], atol=1e-15)


@pytest.mark.parametrize("quality", ["kl", "relative_error", "cosine"])
def test_the_float_model_is_at_zero(quality):
    output = outputs(5, 7)
    assert per_sample(task_of(quality), output, output.clone(), None).abs().max() < 1e-12


def test_kl_is_never_negative_and_ignores_a_constant():
    output = outputs(50, 7)
    nearby = output + 1e-7 * outputs(50, 7, seed=1)
    assert bool((per_sample(task_of("kl"), nearby, output, None) >= 0).all())
    shifted = per_sample(task_of("kl"), output + 5, output, None)
    assert float(shifted.max()) < 1e-10


def test_relative_error_of_one_number_per_sample_and_of_zeros():
    task = task_of("relative_error")
    values = per_sample(task, torch.tensor([1.1, -2.0]), torch.tensor([1.0, -1.0]), None)
    np.testing.assert_allclose(values.numpy(), [0.1, 1.0], rtol=1e-6)
    assert per_sample(task, torch.zeros(2, 3), torch.zeros(2, 3), None).tolist() == [0, 0]


def test_a_loss_of_the_users_own_sees_one_sample_at_a_time():
    seen = []

    def loss(output, targets):
        seen.append((tuple(output.shape), tuple(targets.shape)))
        return ((output - targets) ** 2).mean()

    output, targets = outputs(4, 3), outputs(4, 3, seed=1)
    values = per_sample(task_of("loss", loss), output, output, targets)
    np.testing.assert_allclose(values.numpy(), ((output - targets) ** 2).mean(1).numpy(), rtol=1e-6)
    assert seen == [((1, 3), (1, 3))] * 4


def test_a_callable_quality():
    def quality(output, targets):
        return (output.argmax(-1) - targets).abs()

    output, targets = outputs(4, 3), labels(4, classes=3)
    expected = [abs(int(o.argmax()) - int(t)) for o, t in zip(output, targets, strict=True)]
    assert per_sample(task_of(quality), output, output, targets).tolist() == expected
    listed = per_sample(task_of(lambda output, targets: [0.5] * len(output)), output, output, None)
    assert listed.tolist() == [0.5] * 4


def test_integer_targets_of_any_width():
    output, targets = outputs(4, 3), labels(4, classes=3)
    wanted = per_sample(task_of("loss"), output, output, targets)
    for kind in (torch.uint8, torch.int32):
        assert torch.equal(per_sample(task_of("loss"), output, output, targets.to(kind)), wanted)


def test_half_precision_outputs():
    output, targets = outputs(4, 3).bfloat16(), labels(4, classes=3)
    for quality in ("kl", "relative_error", "cosine", "accuracy", "top2", "loss"):
        values = per_sample(task_of(quality), output, output, targets)
        assert torch.equal(values, per_sample(task_of(quality), output.float(), output.float(), targets))


@pytest.mark.parametrize(
    "quality", ["kl", "relative_error", "cosine", "accuracy", "top2", "loss", "perplexity", lambda o, t: o[:, 0]]
)
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_outputs_that_are_not_finite(quality, poison):
    output = outputs(4, 3)
    output[2, 1] = poison
    with pytest.raises(NonFiniteOutput, match="quantized model gives NaN or infinity"):
        per_sample(task_of(quality), output, outputs(4, 3), labels(4, classes=3))


def logarithm(output, targets):
    return torch.log(output[:, 0] * 0)


@pytest.mark.parametrize(
    ("task", "name"), [(task_of(logarithm), "logarithm"), (task_of("loss", lambda o, t: o.sum() / 0), "loss")]
)
def test_a_metric_that_is_not_finite(task, name):
    with pytest.raises(NonFiniteOutput, match=f"quality '{name}' is NaN or infinite"):
        per_sample(task, outputs(4, 3), outputs(4, 3), labels(4, classes=3))


@pytest.mark.parametrize(
    ("quality", "output", "targets", "message"),
    [
        ("kl", outputs(4, 1), None, r"needs logits \[..., classes\], got shape \(4, 1\)"),
        ("kl", outputs(4), None, "needs logits"),
        ("loss", outputs(4, 3), None, "quality 'loss' needs targets"),
        ("accuracy", outputs(4, 3), None, "quality 'accuracy' needs targets"),
        ("accuracy", outputs(4, 3), labels(4, 1, classes=3), r"outputs \(4, 3\) and targets int64 \(4, 1\)"),
        ("accuracy", outputs(4, 3), outputs(4), "targets float32"),
        ("accuracy", outputs(4, 1), labels(4, classes=1), "choose another quality, or give a callable"),
        ("accuracy", outputs(4, 3, 8, 8), labels(4, 8, 8, classes=3), r"integer targets \[...\]"),
        ("top5", outputs(4, 10), None, "quality 'top5' needs targets"),
        ("top5", outputs(4, 5), labels(4, classes=5), "needs more than 5 classes, the model has 5; choose 'top2'"),
        ("top5", outputs(4, 8), labels(4, classes=8) + 1, r"quality 'top5': targets lie in .* the model has 8 classes"),
        ("top2", outputs(4, 3), labels(4, 1, classes=3), r"quality 'top2' needs outputs \[..., classes\]"),
        ("loss", outputs(4, 3), outputs(4, 3), "cross-entropy needs outputs .* give the task a loss of its own"),
        ("perplexity", outputs(4, 5, 3), labels(4, classes=3), "cross-entropy needs outputs"),
        ("loss", outputs(4, 3), labels(4, classes=3) + 1, r"targets lie in \[1, 3\], the model has 3 classes"),
        ("loss", outputs(4, 3), torch.full((4,), -1), r"targets lie in \[-1, -1\]"),
        ("perplexity", outputs(2, 3, 3), torch.tensor([[0, 1, 2], [-100] * 3]), "a sample has no target"),
        (lambda o, t: o, outputs(4, 3), None, r"returned shape \(4, 3\); it must return one value per sample \(4,\)"),
        (lambda o, t: o.mean(), outputs(4, 3), None, r"returned shape \(\)"),
    ],
)
def test_shapes_that_do_not_fit(quality, output, targets, message):
    with pytest.raises(InvalidInput, match=message) as caught:
        per_sample(task_of(quality), output, output, targets)
    assert "\n" not in str(caught.value)


def test_a_loss_that_is_no_number():
    task = task_of("loss", nn.CrossEntropyLoss(reduction="none"))
    assert per_sample(task, outputs(4, 3), outputs(4, 3), labels(4, classes=3)).shape == (4,)  # one each: a number
    with pytest.raises(InvalidInput, match=r"the task's loss returned shape \(1, 3\)"):
        per_sample(task_of("loss", lambda o, t: o), outputs(4, 3), outputs(4, 3), labels(4, classes=3))
    assert per_sample(task_of("loss", lambda o, t: 0.25), outputs(4, 3), None or outputs(4, 3),
                      labels(4, classes=3)).tolist() == [0.25] * 4  # fmt: skip


# what is judged --------------------------------------------------------------------------------------------------


def test_output_tensor():
    logits, other = outputs(4, 3), outputs(4, 2)
    for output in (
        logits,
        {"loss": other, "logits": logits},
        {"last_hidden_state": logits, "pooler_output": other},
        SimpleNamespace(other=other, logits=logits),
        (logits, other),
        [labels(4, classes=3), logits],
    ):
        assert output_tensor(output) is logits
    transformers = pytest.importorskip("transformers.modeling_outputs")
    assert output_tensor(transformers.SequenceClassifierOutput(loss=torch.tensor(1.0), logits=logits)) is logits


@pytest.mark.parametrize(
    ("output", "kind"),
    [(None, "NoneType"), ("x", "str"), ((), "tuple"), ({"boxes": [1]}, "dict"), (labels(4, classes=3), "int64"),
     (torch.tensor(1.0), r"float32 \(\)"), ({"logits": None}, "dict")],
)  # fmt: skip
def test_what_cannot_be_judged(output, kind):
    with pytest.raises(InvalidInput, match=f"the model returns .*{kind}.*; it must return"):
        output_tensor(output)


# what proxies differentiate --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 7), (4, 6, 7)])
@pytest.mark.parametrize("quality", ["loss", "accuracy", "perplexity", lambda o, t: o[:, 0]])
def test_objective_with_targets_is_the_mean_cross_entropy(quality, shape):
    output, targets = outputs(*shape), labels(*shape[:-1], classes=7)
    expected = np.mean(naive("loss", output, output, targets))
    assert float(objective(task_of(quality), output, output, targets)) == pytest.approx(expected, rel=1e-5)
    assert float(objective(task_of(quality), output, output, targets.int())) == pytest.approx(expected, rel=1e-5)


def test_objective_with_a_loss_of_its_own():
    output, targets = outputs(4, 3), outputs(4, 3, seed=1)
    found = objective(task_of("loss", F.mse_loss), output, output, targets)
    assert float(found) == pytest.approx(float(((output - targets) ** 2).mean()))


@pytest.mark.parametrize(("quality", "targets"), [("kl", labels(4, classes=3)), ("kl", None), ("loss", None)])
def test_objective_against_the_float_outputs(quality, targets):
    output, reference = outputs(4, 3), outputs(4, 3, seed=1)
    found = objective(task_of(quality), output, reference, targets)
    assert float(found) == pytest.approx(np.mean(naive("kl", output, reference, None)), rel=1e-5)


@pytest.mark.parametrize("shape", [(4, 3), (4, 1), (4,)])
def test_objective_of_relative_error(shape):
    output, reference = outputs(*shape), outputs(*shape, seed=1)
    expected = 0.5 * float(((output - reference) ** 2).sum() / (reference**2).sum())
    assert float(objective(task_of("relative_error"), output, reference, None)) == pytest.approx(expected, rel=1e-5)
    if shape[-1] < 2 or len(shape) < 2:
        assert float(objective(task_of("kl"), output, reference, None)) == pytest.approx(expected, rel=1e-5)


def test_objective_of_cosine_is_the_mean_of_the_metric():
    output, reference = outputs(4, 5, 3), outputs(4, 5, 3, seed=1)
    for targets in (None, labels(4, 5, classes=3)):
        found = objective(task_of("cosine"), output, reference, targets)
        assert float(found) == pytest.approx(np.mean(naive("cosine", output, reference, None)), rel=1e-5)


@pytest.mark.parametrize("quality", ["kl", "relative_error", "cosine"])
def test_objectives_without_targets_are_flat_and_convex_at_the_float_outputs(quality):
    reference = outputs(3, 4).double()
    task = task_of(quality)

    def at(output):
        return objective(task, output, reference, None)

    (gradient,) = torch.autograd.grad(at(moved := reference.clone().requires_grad_()), moved)
    assert gradient.abs().max() < 1e-12
    hessian = torch.autograd.functional.hessian(at, reference).reshape(12, 12)
    eigenvalues = torch.linalg.eigvalsh(hessian)
    assert eigenvalues.min() > -1e-12
    assert eigenvalues.max() > 1e-3
