"""Exported programs as models: the same sites, the same space and the same quality as the model itself."""

import copy
import io
import pickle

import bitfront as bf
import pytest
import torch
from bitfront import zoo
from bitfront.errors import InvalidInput, UnsupportedModel
from bitfront.service import parse_job
from bitfront.service.assemble import assemble
from bitfront.service.exported_model import load_exported
from bitfront.task import Batch
from torch import nn

ANY = torch.export.Dim.DYNAMIC


def archive(model, inputs, sizes=None):
    """What ``torch.export.save`` writes for a model and its inputs, for batches of any size."""
    named = isinstance(inputs, dict)
    shapes = sizes or ({key: {0: ANY} for key in inputs} if named else tuple({0: ANY} for _ in inputs))
    program = torch.export.export(model.eval(), *((), inputs) if named else (inputs,), dynamic_shapes=shapes)
    content = io.BytesIO()
    torch.export.save(program, content)
    return content.getvalue()


class Transformer(nn.Module):
    """Embedding, attention with separate projections, a gated MLP, a shared output head; inputs by name."""

    def __init__(self, width=16, words=11):
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.norm = nn.LayerNorm(width)
        self.gate_proj, self.up_proj = (nn.Linear(width, 2 * width, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(2 * width, width)
        self.head = nn.Linear(width, words, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens, mask):
        x = self.embedding(tokens)
        y = self.norm(x)
        scores = self.q_proj(y) @ self.k_proj(y).transpose(1, 2)
        x = x + (scores + mask[:, None]).softmax(-1) @ self.v_proj(y)
        return self.head(x + self.down_proj(nn.functional.silu(self.gate_proj(x)) * self.up_proj(x)))


class Convolutions(nn.Module):
    """Every kind of convolution, one of them called twice, and a function that is no module."""

    def __init__(self):
        super().__init__()
        self.flat = nn.Conv1d(3, 4, 3, stride=2, padding=1, groups=1)
        self.wide = nn.Conv2d(1, 4, (3, 1), padding="same", dilation=2)
        self.deep = nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False)
        self.up = nn.ConvTranspose2d(4, 2, 2, stride=2, output_padding=1)
        self.act = nn.ReLU()

    def forward(self, x):
        x = self.wide(self.flat(x)[:, None])
        x = self.act(self.deep(self.act(self.deep(x))))
        return nn.functional.conv2d(self.up(x), torch.ones(1, 2, 1, 1))


def seeded(build):
    torch.manual_seed(0)
    return build().eval()


def batches(make, count=3):
    generator = torch.Generator().manual_seed(1)
    return [make(generator) for _ in range(count)]


def tokens(generator):
    words = torch.randint(11, (4, 6), generator=generator)
    return {"tokens": words, "mask": torch.zeros(4, 6)}


def test_digits_resnet20_is_the_same_search():
    entry = zoo.load("digits_resnet20", calibration=32, validation=32, holdout=8)
    inputs = entry.calibration[0][0]
    model = load_exported(io.BytesIO(archive(entry.model, (inputs,))), "it", [Batch.of(b) for b in entry.calibration])
    same_search(entry.model, model, [batch[0] for batch in entry.calibration], [batch[0] for batch in entry.validation])


@pytest.mark.parametrize(
    ("build", "make", "ties"),
    [(Transformer, tokens, 2), (Convolutions, lambda g: torch.randn(4, 3, 12, generator=g), 0)],
    ids=["transformer", "convolutions"],
)
def test_small_models_are_the_same_search(build, make, ties):
    model, data = seeded(build), batches(make)
    example = data[0] if isinstance(data[0], dict) else (data[0],)
    loaded = load_exported(io.BytesIO(archive(model, example)), "it", [Batch.of(batch) for batch in data])
    assert len(same_search(model, loaded, data, data).ties) == ties


def same_search(eager, exported, calibration, validation):
    """The space and the quality of uniform w4 are those of the eager model."""
    spaces, values = [], []
    for model in (eager, exported):
        task = bf.Task(model, calibration=calibration, validation=validation, quality="kl")
        space = bf.SearchSpace.from_model(model, task.calibration[0].piece(0, 2), ["w4", "w8"])
        spaces.append(space)
        values.append(bf.evaluate(task, space.uniform("w4")).value)
    assert spaces[0].sites == spaces[1].sites
    assert spaces[0].digest == spaces[1].digest
    assert values[0] == values[1] > 0
    return spaces[1]


def test_it_can_be_copied_sent_and_called_by_position_and_by_name():
    model, (batch,) = seeded(Transformer), batches(tokens, 1)
    loaded = load_exported(io.BytesIO(archive(model, batch)), "it", [Batch.of(batch)])
    expected = model(**batch)
    for each in (loaded, copy.deepcopy(loaded), pickle.loads(pickle.dumps(loaded))):
        assert torch.equal(each(**batch), expected)
        assert torch.equal(each(*batch.values()), expected)
        assert each.head.weight is each.embedding.weight
    with pytest.raises(InvalidInput, match="takes tokens, mask; it was given 1 inputs by position and none by name"):
        loaded(batch["tokens"])


def test_a_part_that_is_more_than_its_layer_stays_what_it_is():
    class Doubled(nn.Linear):
        def forward(self, x):
            return super().forward(x) * 2

    torch.manual_seed(0)
    model, x = nn.Sequential(Doubled(4, 4), nn.Linear(4, 2)).eval(), torch.randn(3, 4)
    loaded = load_exported(io.BytesIO(archive(model, (x,))), "it", [Batch.of(x)])
    assert torch.equal(loaded(x), model(x))
    assert bf.SearchSpace.from_model(loaded, x, ["w4"]).names == ["1"]


def test_a_fixed_batch_is_refused_with_what_to_do():
    model, x = nn.Sequential(nn.Linear(4, 2)), torch.randn(3, 4)
    content = archive(model, (x,), ({},))
    with pytest.raises(UnsupportedModel, match=r"fixed shape \[3, 4\]; export it for batches of any size.*DYNAMIC"):
        load_exported(io.BytesIO(content), "it", [Batch.of(x)])


def test_data_of_another_shape_is_refused():
    model, x = nn.Sequential(nn.Linear(4, 2)), torch.randn(3, 4)
    content = archive(model, (x,))
    with pytest.raises(UnsupportedModel, match=r"has the shape \[any, 4\]; the data gives \[3, 5\]"):
        load_exported(io.BytesIO(content), "it", [Batch.of(torch.randn(3, 5))])
    with pytest.raises(UnsupportedModel, match="the data has 2 inputs"):
        load_exported(io.BytesIO(content), "it", [Batch.of({"a": x, "b": x})])


def test_outputs_keep_their_structure():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            return {"first": self.fc(x), "rest": (x, x + 1)}

    model, x = seeded(Two), torch.randn(3, 4)
    found = load_exported(io.BytesIO(archive(model, (x,))), "it", [Batch.of(x)])(x)
    assert list(found) == ["first", "rest"]
    assert torch.equal(found["rest"][1], x + 1)


def test_a_job_names_it(tmp_path):
    import numpy as np

    model, x = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(12, 4)
    (tmp_path / "net.pt2").write_bytes(archive(model, (x[:4],)))
    np.savez(tmp_path / "data.npz", inputs=x.numpy())
    data = {"calibration": "data.npz", "validation": "data.npz", "batch": 4}
    job = parse_job({"model": {"exported": "net.pt2"}, "data": data})
    assert job.title == "net"
    made = assemble(job, tmp_path)
    assert made.space.names == ["0", "2"]
    assert torch.equal(made.task.model(x), model(x))


def test_an_architecture_takes_weights_folded_or_not(tmp_path):
    import numpy as np
    from bitfront.zoo.fold import fold_batch_norm
    from bitfront.zoo.resnet import ResNet
    from safetensors.torch import save_file

    plain = seeded(lambda: ResNet(blocks=1, width=4, stride=1, classes=3))
    x = torch.randn(4, 1, 8, 8)
    np.savez(tmp_path / "data.npz", inputs=x.numpy())
    for name, model in (("plain", plain), ("folded", fold_batch_norm(plain))):
        save_file(model.state_dict(), tmp_path / f"{name}.safetensors")
        source = {
            "architecture": "digits_resnet20",
            "arguments": {"blocks": 1, "width": 4, "classes": 3},
            "weights": f"{name}.safetensors",
        }
        data = {"calibration": "data.npz", "validation": "data.npz", "batch": 2}
        made = assemble(parse_job({"model": source, "data": data}), tmp_path)
        assert torch.allclose(made.task.model(x), plain(x), atol=1e-5)
    wrong = {"model": {**source, "arguments": {"blocks": 2}}, "data": data}
    with pytest.raises(InvalidInput, match="does not fit ResNet"):
        assemble(parse_job(wrong), tmp_path)
    for arguments, told in (({"depth": 3}, "takes blocks, width, stride, classes"), ({"width": 10**9}, "from 1 to")):
        with pytest.raises(InvalidInput, match=told):
            assemble(parse_job({"model": {**source, "arguments": arguments}, "data": data}), tmp_path)
