"""Sites, shapes, MACs and ties of real module kinds, against hand-computed values and torch's own counter."""

import bitfront as bf
import pytest
import torch
from bitfront.errors import InvalidInput, NonFiniteOutput, UnknownFormat, UnsupportedModel
from bitfront.zoo.resnet import ResNet
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

ALL = ["w2", "w4", "w8", "w8a8", "bf16", "fp32"]


def space_of(model, inputs, formats=("w4", "w8"), **options):
    return bf.SearchSpace.from_model(model, inputs, formats=list(formats), **options)


def only(space):
    (site,) = space.sites
    return site


def counted_macs(model, *args, **kwargs):
    """Half of what torch's counter says: it counts a multiplication and an addition apart."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(*args, **kwargs)
    return counter.get_total_flops() // 2


# one layer of each kind ------------------------------------------------------------------------------------------

LAYERS = {
    "linear": (nn.Linear(6, 5), (3, 6), 6 * 5, 0),
    "conv1d": (nn.Conv1d(4, 6, 3, stride=2, padding=1), (3, 4, 9), 5 * 6 * 4 * 3, 0),
    "conv2d": (nn.Conv2d(4, 8, 3, groups=2, dilation=2), (3, 4, 9, 8), 5 * 4 * 8 * 2 * 9, 0),
    "conv3d": (nn.Conv3d(2, 3, (1, 2, 3), bias=False), (3, 2, 4, 4, 4), 4 * 3 * 2 * 3 * 2 * 6, 0),
    "conv_transpose1d": (nn.ConvTranspose1d(4, 6, 3, stride=2), (3, 4, 5), 4 * 5 * 6 * 3, 1),
    "conv_transpose2d": (nn.ConvTranspose2d(4, 6, 3, groups=2), (3, 4, 5, 5), 4 * 25 * 3 * 9, 1),
    "conv_transpose3d": (nn.ConvTranspose3d(2, 3, 2, output_padding=1, stride=2), (3, 2, 2, 2, 2), 2 * 8 * 3 * 8, 1),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer(kind):
    layer, shape, macs, axis = LAYERS[kind]
    model, inputs = nn.Sequential(layer), torch.randn(shape)
    site = only(space_of(model, inputs, ALL))
    assert (site.name, site.kind, site.parameter, site.modules) == ("0", kind, "0.weight", ("0",))
    assert site.weight_shape == tuple(layer.weight.shape)
    assert site.channel_axis == axis
    assert site.macs == macs
    assert 3 * site.macs == counted_macs(model, inputs)
    assert site.input_shape == shape
    assert site.output_shape == tuple(model(inputs).shape)
    assert (site.samples, site.calls, site.weight_bits) == (3, 1, 32)
    assert site.formats == ("w2", "w4", "w8a8", "w8", "bf16", "fp32")
    attributes = dict(site.attributes)
    assert attributes["bias"] == (layer.bias is not None)
    for key in ("stride", "padding", "dilation", "groups"):
        assert attributes.get(key) == getattr(layer, key, None)


def test_a_linear_layer_on_sequences_counts_every_position():
    inputs = torch.randn(2, 7, 6)
    assert only(space_of(nn.Sequential(nn.Linear(6, 5)), inputs)).macs == 7 * 6 * 5


def test_embedding_is_a_look_up():
    site = only(space_of(nn.Sequential(nn.Embedding(11, 4)), torch.randint(0, 11, (2, 5)), ALL))
    assert (site.kind, site.macs, site.channel_axis, site.weight_shape) == ("embedding", 0, 0, (11, 4))
    assert site.formats == ("w2", "w4", "w8", "bf16", "fp32")


def test_hugging_face_conv1d():
    transformers = pytest.importorskip("transformers.pytorch_utils")
    model, inputs = nn.Sequential(transformers.Conv1D(5, 6)), torch.randn(3, 2, 6)  # 6 -> 5
    site = only(space_of(model, inputs, ALL))
    assert (site.kind, site.weight_shape, site.channel_axis) == ("hf_conv1d", (6, 5), 1)
    assert site.macs == 2 * 6 * 5
    assert 3 * site.macs == counted_macs(model, inputs)


def test_a_model_that_is_itself_a_layer():
    site = only(space_of(nn.Linear(3, 4), torch.randn(2, 3)))
    assert (site.name, site.parameter, site.modules) == ("", "weight", ("",))


# multi-head attention --------------------------------------------------------------------------------------------


class Attend(nn.Module):
    def __init__(self, keyword=False, **options):
        super().__init__()
        self.attn = nn.MultiheadAttention(8, 2, batch_first=True, **options)
        self.keyword = keyword

    def forward(self, q, k, v):
        if self.keyword:
            return self.attn(value=v, need_weights=False, key=k, query=q)[0]
        return self.attn(q, k, v, need_weights=False)[0]


def test_packed_attention():
    x = torch.randn(2, 5, 8)
    space = space_of(Attend(), ((x, x, x), None), ALL)
    packed, out = space.sites
    assert (packed.name, packed.kind, packed.parameter) == ("attn.in_proj", "mha_in_proj", "attn.in_proj_weight")
    assert (out.name, out.kind, out.parameter) == ("attn.out_proj", "mha_out_proj", "attn.out_proj.weight")
    assert packed.weight_shape == (24, 8)
    assert packed.macs == 3 * 5 * 8 * 8
    assert out.macs == 5 * 8 * 8
    assert packed.modules == out.modules == ("attn",)
    assert packed.formats == out.formats == ("w2", "w4", "w8", "bf16", "fp32")
    assert not space.unused
    assert not space.skipped


@pytest.mark.parametrize("keyword", [False, True])
def test_separate_projections(keyword):
    q, k, v = torch.randn(2, 5, 8), torch.randn(2, 7, 3), torch.randn(2, 7, 4)
    space = space_of(Attend(keyword, kdim=3, vdim=4), ((q, k, v), None))
    assert [(site.name, site.macs) for site in space.sites] == [
        ("attn.q_proj", 5 * 8 * 8),
        ("attn.k_proj", 7 * 3 * 8),
        ("attn.v_proj", 7 * 4 * 8),
        ("attn.out_proj", 5 * 8 * 8),
    ]
    assert space.sites[1].parameter == "attn.k_proj_weight"


def test_every_layer_of_a_transformer_encoder_is_reached():
    """In evaluation mode torch would take a fused path that calls none of them."""
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2).eval()
    before = torch.backends.mha.get_fastpath_enabled()
    space = space_of(model, torch.randn(2, 5, 8))
    assert space.names == [
        f"layers.{i}.{part}"
        for i in (0, 1)
        for part in ("self_attn.in_proj", "self_attn.out_proj", "linear1", "linear2")
    ]
    assert not space.unused
    assert torch.backends.mha.get_fastpath_enabled() == before


# calls, shared weights, unused and parametrized modules ----------------------------------------------------------


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(3, 3, 3, padding=1)
        self.unused = nn.Linear(2, 2)
        self.alias = self.conv
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        return self.head(self.alias(F.avg_pool1d(self.conv(x), 2)).mean(-1))


def test_a_module_called_twice_is_one_site():
    space = space_of(Twice(), torch.randn(4, 3, 8))
    conv, head = space.sites
    assert (conv.name, conv.calls, conv.modules) == ("conv", 2, ("conv",))
    assert conv.macs == (8 + 4) * 3 * 9
    assert (head.calls, head.macs) == (1, 6)
    assert space.unused == ("unused",)


class TiedHead(nn.Module):
    def __init__(self, call_embedding=True):
        super().__init__()
        self.embed = nn.Embedding(11, 4)
        self.fc = nn.Linear(4, 4)
        self.head = nn.Linear(4, 11, bias=False)
        self.head.weight = self.embed.weight
        self.call_embedding = call_embedding

    def forward(self, x):
        return self.head(self.fc(self.embed(x) if self.call_embedding else F.one_hot(x, 4).float()))


def test_a_shared_weight_is_one_site():
    space = space_of(TiedHead(), torch.randint(0, 11, (2, 5)), ALL)
    shared, fc = space.sites
    assert (shared.name, shared.parameter, shared.modules) == ("embed", "embed.weight", ("embed", "head"))
    assert (shared.kind, shared.calls, shared.macs) == ("linear", 2, 5 * 4 * 11)
    assert shared.formats == ("w2", "w4", "w8", "bf16", "fp32")  # an index cannot be rounded
    assert "w8a8" in fc.formats
    assert space.fixed_bytes == 4 * 4  # the bias of fc alone


def test_a_weight_shared_with_an_unused_module_is_not_counted_twice():
    space = space_of(TiedHead(call_embedding=False), torch.randint(0, 4, (2, 5)))
    assert space.names == ["fc", "head"]
    assert space.unused == ("embed",)
    assert space.fixed_bytes == 4 * 4
    assert space.sites[1].parameter in dict(TiedHead().named_parameters())


def test_two_linear_layers_that_share():
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    site = only(space_of(model, torch.randn(2, 3), ALL))
    assert (site.modules, site.macs, site.calls) == (("0", "2"), 18, 2)
    assert "w8a8" in site.formats


@pytest.mark.parametrize("norm", [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm])
def test_parametrized_weights_are_skipped_and_said_so(norm):
    model = nn.Sequential(norm(nn.Linear(3, 3)), nn.Linear(3, 2))
    space = space_of(model, torch.randn(2, 3))
    assert space.names == ["1"]
    assert "parametrized" in space.skipped["0"]


def test_fixed_bytes_are_all_else():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    model.register_buffer("steps", torch.zeros(3, dtype=torch.int64))
    model.register_buffer("scratch", torch.zeros(100), persistent=False)
    inputs = torch.randn(2, 1, 4, 4)
    biases, norm, steps = (4 + 2) * 4, 4 * 4 * 4 + 8, 3 * 8
    assert space_of(model, inputs).fixed_bytes == biases + norm + steps
    assert space_of(model, inputs, exclude=["0"]).fixed_bytes == biases + norm + steps + 4 * 9 * 4
    whole = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    space = space_of(model, inputs)
    assert whole == space.fixed_bytes + sum(site.elements * 4 for site in space.sites)


def test_half_precision_weights_are_told():
    assert only(space_of(nn.Sequential(nn.Linear(3, 3)).bfloat16(), torch.randn(2, 3).bfloat16())).weight_bits == 16


def test_sites_stand_in_order_of_execution():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.middle, self.first = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            return self.last(self.middle(self.first(x)))

    assert space_of(Backwards(), torch.randn(2, 3)).names == ["first", "middle", "last"]


@pytest.mark.parametrize("samples", [1, 2, 5])
def test_macs_of_a_whole_network_are_per_sample(samples):
    model, inputs = ResNet(1, 4), torch.randn(samples, 1, 8, 8)
    assert samples * sum(site.macs for site in space_of(model, inputs).sites) == counted_macs(model, inputs)


# inputs ----------------------------------------------------------------------------------------------------------


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, a, b=None):
        return {"logits": self.fc(a if b is None else a + b)}


@pytest.mark.parametrize(
    "inputs",
    [
        torch.randn(2, 3),
        (torch.randn(2, 3), torch.zeros(2)),  # inputs and targets
        ((torch.randn(2, 3), torch.randn(2, 3)), None),
        {"a": torch.randn(2, 3), "b": torch.randn(2, 3)},
        ({"b": torch.randn(2, 3), "a": torch.randn(2, 3)}, torch.zeros(2)),
    ],
    ids=["tensor", "with targets", "tuple", "dict", "dict with targets"],
)
def test_forms_of_inputs(inputs):
    assert only(space_of(TwoInputs(), inputs)).input_shape == (2, 3)


# what cannot be searched -----------------------------------------------------------------------------------------


def one_line(caught):
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_model_that_fails_is_one_line():
    class Failing(nn.Module):
        def forward(self, x):
            raise RuntimeError("first line\nsecond line")

    with pytest.raises(UnsupportedModel, match=r"example inputs \(0 \(2, 3\)\): first line; give inputs") as caught:
        space_of(Failing(), torch.randn(2, 3))
    one_line(caught)


def test_inputs_of_the_wrong_shape():
    with pytest.raises(UnsupportedModel, match=r"\(2, 4\).*mat1 and mat2"):
        space_of(nn.Sequential(nn.Linear(3, 2)), torch.randn(2, 4))
    with pytest.raises(UnsupportedModel, match="unexpected keyword"):
        space_of(TwoInputs(), {"c": torch.randn(2, 3)})


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_outputs_that_are_not_finite(poison):
    model = TwoInputs()
    with torch.no_grad():
        model.fc.bias[0] = poison
    with pytest.raises(NonFiniteOutput, match="NaN or infinity"):
        space_of(model, torch.randn(2, 3))


def test_no_sites():
    with pytest.raises(UnsupportedModel, match="Sequential has no layer whose weights could be quantized"):
        space_of(nn.Sequential(nn.BatchNorm1d(3)), torch.randn(2, 3))
    with pytest.raises(UnsupportedModel, match="0: its weight is not a plain parameter"):
        space_of(nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))), torch.randn(2, 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"formats": []}, "no formats given"),
        ({"formats": "w4"}, r"formats must be a list of names.*write \['w4'\]"),
        (
            {"exclude": ["layer3.9.conv1"]},
            "exclude: 'layer3.9.conv1' matches no site; nearest site names: layer3.0.conv1",
        ),
        ({"exclude": "fc"}, r"exclude must be a list of globs.*write \['fc'\]"),
        ({"exclude": ["*"]}, "exclude leaves no site"),
        ({"ties": "x"}, "ties='x'; choose 'auto', 'residual', 'none'"),
        ({"ties": None}, "ties=None; choose"),
        ({"ties": ["fc", "conv1"]}, "give groups of site names"),
        ({"ties": [["layer1.*", "layer7.*"]]}, r"ties: 'layer7\.\*' matches no site"),
        ({"ties": [["fc"]]}, "names only fc; a tie needs at least two sites"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_bad_options(options, message):
    with pytest.raises(InvalidInput, match=message) as caught:
        bf.SearchSpace.from_model(ResNet(1, 4), torch.randn(2, 1, 8, 8), **options)
    one_line(caught)


def test_unknown_formats_come_before_the_model_runs():
    class Never(nn.Module):
        def forward(self, x):
            pytest.fail("ran")

    with pytest.raises(UnknownFormat, match="w44"):
        space_of(Never(), torch.randn(2, 3), ["w44"])


def test_sites_that_no_format_fits():
    with pytest.raises(InvalidInput, match=r"site 0 \(embedding\) can take none of w8a8; add a weight-only format"):
        space_of(nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 2)), torch.zeros(2, 3, dtype=torch.int64), ["w8a8"])


def test_a_linear_layer_tied_to_an_embedding_chooses_with_it():
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 2))
    space = space_of(model, torch.zeros(2, 3, dtype=torch.int64), ["w8a8", "w8"], ties=[["0", "1"]])
    assert space.ties == [bf.Tie(("0", "1"), "asked for")]
    assert space.uniform("w8a8").to_dict() == {"0": "w8", "1": "w8"}


# ties ------------------------------------------------------------------------------------------------------------


def tied(space):
    return [tie.sites for tie in space.ties]


@pytest.mark.parametrize(
    ("leaves", "label"),
    [
        (("q_proj", "k_proj", "v_proj"), "q/k/v"),
        (("query", "key", "value"), "q/k/v"),
        (("query_proj", "key_proj", "value_proj"), "q/k/v"),
        (("q_lin", "k_lin", "v_lin"), "q/k/v"),
        (("to_q", "to_k", "to_v"), "q/k/v"),
        (("linear_q", "linear_k", "linear_v"), "q/k/v"),
        (("q", "k", "v"), "q/k/v"),
        (("wq", "wk", "wv"), "q/k/v"),
        (("gate_proj", "up_proj"), "gate/up"),
        (("w1", "w3"), "gate/up"),
        (("wi_0", "wi_1"), "gate/up"),
    ],
)
def test_siblings_that_runtimes_fuse(leaves, label):
    class Block(nn.Module):
        def __init__(self, one_source):
            super().__init__()
            self.one_source = one_source
            for leaf in leaves:
                self.add_module(leaf, nn.Linear(4, 4))
            self.other = nn.Linear(4, 4)

        def forward(self, x):
            found = [getattr(self, leaf)(x if self.one_source else x + 0) for leaf in leaves]
            return self.other(torch.stack(found).sum(0)) + self.other(x)

    space = space_of(Block(True), torch.randn(2, 4))
    assert tied(space) == [leaves]
    assert space.ties[0].reason.startswith(label)
    assert tied(space_of(Block(False), torch.randn(2, 4))) == []
    assert tied(space_of(Block(True), torch.randn(2, 4), ties="none")) == []
    assert tied(space_of(Block(True), torch.randn(2, 4), exclude=list(leaves[1:]))) == []


def test_unrelated_siblings_are_free():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.left(x) * self.right(x)

    assert tied(space_of(Pair(), torch.randn(2, 4), ties="residual")) == []


def test_bert():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16
    )
    torch.manual_seed(0)
    model = transformers.BertModel(config)
    inputs = {"input_ids": torch.randint(0, 30, (2, 6)), "attention_mask": torch.ones(2, 6, dtype=torch.int64)}
    space = space_of(model, inputs, ALL, ties="residual")
    layer = "encoder.layer.{}.attention.self.{}"
    assert tied(space) == [tuple(layer.format(i, part) for part in ("query", "key", "value")) for i in (0, 1)]
    assert {site.kind for site in space.sites} == {"embedding", "linear"}
    query = next(site for site in space.sites if site.name.endswith("query"))
    assert query.macs == 6 * 8 * 8
    names = space.names
    assert names[0] == "embeddings.word_embeddings"
    assert names.index(layer.format(0, "query")) < names.index("encoder.layer.0.output.dense")
    assert names[-1] == "pooler.dense"


def test_llama_with_a_tied_head():
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=16, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config)
    space = space_of(model, {"input_ids": torch.randint(0, 30, (2, 6))}, ALL)
    block = "model.layers.0."
    assert tied(space) == [
        tuple(f"{block}self_attn.{part}_proj" for part in "qkv"),
        tuple(f"{block}mlp.{part}_proj" for part in ("gate", "up")),
    ]
    shared = space.sites[0]
    assert shared.modules == ("model.embed_tokens", "lm_head")
    assert shared.macs == 6 * 8 * 30
    assert len(space.sites) == 1 + 4 + 3


def test_gpt2_runs_on_conv1d():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=30, n_positions=8, n_embd=8, n_layer=1, n_head=2)
    space = space_of(transformers.GPT2LMHeadModel(config), {"input_ids": torch.randint(0, 30, (2, 6))})
    kinds = {site.name: site.kind for site in space.sites}
    assert kinds["transformer.h.0.attn.c_attn"] == kinds["transformer.h.0.mlp.c_proj"] == "hf_conv1d"
    assert kinds["transformer.wte"] == "linear"  # shared with the head


@pytest.mark.parametrize("inplace", [False, True])
def test_residual_ties_join_down_sampling_to_the_main_path(inplace):
    model = ResNet(2, 4)
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = inplace
    inputs = torch.randn(2, 1, 8, 8)
    assert tied(space_of(model, inputs)) == []
    space = space_of(model, inputs, ties="residual")
    assert sorted(tied(space)) == [(f"layer{i}.0.conv2", f"layer{i}.0.downsample.0") for i in (2, 3)]
    assert {tie.reason for tie in space.ties} == {"joined by a residual addition"}


def test_residual_addition_in_place():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.main, self.down = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 1)
            self.norm, self.next = nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1)

        def forward(self, x):
            y = self.norm(self.main(x))
            y += self.down(x)
            return self.next(F.relu(y)) + y

    assert tied(space_of(Block(), torch.randn(2, 2, 4, 4), ties="residual")) == [("main", "down")]


def test_layers_along_one_stream_are_not_tied():
    """Linear bottlenecks: the second adds to what the first wrote, but other layers read that too."""

    class Bottlenecks(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.expand, self.second = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 4, 1), nn.Conv2d(4, 2, 1)

        def forward(self, x):
            x = self.first(x)
            assert x.shape[1] == 2
            return x + self.second(F.relu6(self.expand(x)))

    assert tied(space_of(Bottlenecks(), torch.randn(2, 2, 4, 4), ties="residual")) == []


def test_token_and_position_embeddings_are_not_tied():
    class Embeddings(nn.Module):
        def __init__(self):
            super().__init__()
            self.token, self.position = nn.Embedding(9, 4), nn.Embedding(9, 4)

        def forward(self, x):
            return self.token(x) + self.position(torch.arange(x.shape[1]).expand_as(x))

    assert tied(space_of(Embeddings(), torch.zeros(2, 3, dtype=torch.int64), ties="residual")) == []


def test_explicit_ties_by_globs_join_what_overlaps():
    model, inputs = ResNet(2, 4), torch.randn(2, 1, 8, 8)
    space = space_of(model, inputs, ties=[["layer1.*.conv1"], ["layer1.1.conv1", "fc"], ["layer3.0.*"]])
    assert tied(space) == [
        ("layer1.0.conv1", "layer1.1.conv1", "fc"),
        ("layer3.0.conv1", "layer3.0.conv2", "layer3.0.downsample.0"),
    ]


def test_explicit_ties_come_on_top_of_the_automatic_ones():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v, self.out = (nn.Linear(4, 4) for _ in range(4))

        def forward(self, x):
            return self.out(self.q(x) + self.k(x) + self.v(x))

    assert tied(space_of(Block(), torch.randn(2, 4), ties=[["out", "v"]])) == [("q", "k", "v", "out")]
    assert tied(space_of(Block(), torch.randn(2, 4), ties=[])) == [("q", "k", "v")]
