"""Archives that would run code, fill the memory or read beyond their data are refused before torch sees them."""

import io
import json
import operator
import pickle
import zipfile

import pytest
import torch
from bitfront.errors import InvalidInput
from bitfront.service.exported_archive import check_archive, rewrite
from bitfront.service.exported_model import check_operator, load_exported
from bitfront.task import Batch
from torch import nn


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture(scope="module")
def good():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    program = torch.export.export(model, (torch.randn(3, 4),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    content = io.BytesIO()
    torch.export.save(program, content)
    return content.getvalue()


def members(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(parts, compression=zipfile.ZIP_STORED):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return content.getvalue()


def changed(content, part, change):
    """The archive with one JSON member changed."""
    parts = members(content)
    name = next(name for name in parts if name.endswith(part))
    found = json.loads(parts[name])
    change(found)
    return packed({**parts, name: json.dumps(found)})


def node(found, **values):
    found["graph_module"]["graph"]["nodes"][0].update(values)


def target(text):
    return lambda found: node(found, target=text)


def size(text):
    def change(found):
        for value in found["graph_module"]["graph"]["tensor_values"].values():
            for each in value["sizes"]:
                if "as_expr" in each:
                    each["as_expr"]["expr_str"] = text

    return change


def first_weight(**values):
    return lambda found: next(iter(found["config"].values())).update(values)


def first_meta(**values):
    return lambda found: next(iter(found["config"].values()))["tensor_meta"].update(values)


def structure(text):
    def change(found):
        found["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = text

    return change


def renamed(found):
    found["graph_module"]["graph"]["nodes"][0]["outputs"][0]["as_tensor"]["name"] = "x = __import__('os')"


def nested(found):
    found["graph_module"]["graph"]["nodes"][0]["inputs"][0]["arg"] = {"as_graph": {"name": "g", "graph": {}}}


PROGRAM = {
    "any function": (target("torch.load"), "the operator 'torch.load' is not allowed"),
    "not ATen": (target("torch.ops.prim.device.default"), "only ATen's are"),
    "an attribute": (target("torch.ops.aten.__init__.__globals__"), "only ATen's are"),
    "operator.methodcaller": (target("_operator.methodcaller"), "only ATen's are"),
    "code as a name": (renamed, "is no name"),
    "a graph inside": (nested, "'as_graph' is not allowed in a graph"),
    "code as a size": (size("__import__('os').system('true')"), "is no arithmetic of sizes"),
    "an attribute as a size": (size("Symbol('s0', positive=True).func"), "is no arithmetic of sizes"),
    "a huge power": (size("Pow(Integer(9), Pow(Integer(9), Integer(9)))"), "is no arithmetic of sizes"),
    "another huge power": (size("9**9**9"), "is no arithmetic of sizes"),
    "an imported type": (
        structure('[1, {"type": "collections.defaultdict", "context": "{}", "children_spec": []}]'),
        "inputs or outputs of type collections.defaultdict",
    ),
    "code as a key": (
        structure('[1, {"type": "builtins.dict", "context": "[\\"a)(b\\"]", "children_spec": []}]'),
        "inputs or outputs of type",
    ),
    "code as a path": (
        lambda found: node(found, metadata={"nn_module_stack": "a,b');x('c,d"}),
        "a module path that is not allowed",
    ),
    "changed buffers": (
        lambda found: found["graph_module"]["signature"]["output_specs"].append({"buffer_mutation": {}}),
        "export it in eval mode",
    ),
}


@pytest.mark.parametrize(("change", "told"), PROGRAM.values(), ids=PROGRAM)
def test_what_a_program_may_not_say(good, change, told):
    content = changed(good, "models/model.json", change)
    with pytest.raises(InvalidInput, match=told):
        check_archive(io.BytesIO(content), "it")


def test_operators_that_reach_beyond_tensors():
    aten = torch.ops.aten
    for harmless in (aten.linear.default, aten.gelu.default, aten.pad.default, aten.einsum.default, operator.add):
        check_operator(harmless, "it")
    for harmful in (aten.from_file.default, torch.ops.prim.device.default):
        with pytest.raises(InvalidInput, match="not allowed"):
            check_operator(harmful, "it")
    for function in (torch.load, operator.methodcaller):
        with pytest.raises(InvalidInput, match="is no operator"):
            check_operator(function, "it")


WEIGHTS = {
    "pickled": (first_weight(use_pickle=True), "is pickled; only raw tensors"),
    "elsewhere": (first_weight(path_name="../../../etc/passwd"), "reaches beyond its data"),
    "longer than its data": (first_meta(sizes=[{"as_int": 10**6}, {"as_int": 4}]), "reaches beyond its data"),
    "beyond by stride": (first_meta(strides=[{"as_int": 10**6}, {"as_int": 1}]), "reaches beyond its data"),
    "negative": (first_meta(strides=[{"as_int": -4}, {"as_int": 1}]), "is no size"),
    "symbolic": (first_meta(sizes=[{"as_expr": {"expr_str": "s0"}}]), "not laid out as"),
    "a type of its own": (first_meta(dtype=99), "a type that is not allowed"),
}


@pytest.mark.parametrize(("change", "told"), WEIGHTS.values(), ids=WEIGHTS)
def test_what_tensors_may_not_be(good, change, told):
    with pytest.raises(InvalidInput, match=told):
        check_archive(io.BytesIO(changed(good, "weights_config.json", change)), "it")


def test_members_that_are_not_allowed(good):
    parts = members(good)
    root = next(iter(parts)).partition("/")[0]
    cases = [
        ({f"{root}/data/aotinductor/model/x.so": b"ELF"}, "compiled code that is not allowed"),
        ({f"{root}/data/weights/model.pt": b"pickle"}, "a member that is not allowed"),
        ({f"{root}/data/constants/custom_obj_0": b"pickle"}, "a member that is not allowed"),
        ({f"{root}/../../x": b""}, "leads out of the archive"),
        ({"/etc/x": b""}, "expected one folder"),
        ({f"{root}/models/second.json": b"{}"}, "expected one exported program, found 2"),
    ]
    for added, told in cases:
        with pytest.raises(InvalidInput, match=told):
            check_archive(io.BytesIO(packed({**parts, **added})), "it")


def test_bombs_and_broken_files(good):
    parts = members(good)
    root = next(iter(parts)).partition("/")[0]
    bomb = packed({**parts, f"{root}/extra/zeros": bytes(50_000_000)}, zipfile.ZIP_DEFLATED)
    assert len(bomb) < 1_000_000
    for content, told in (
        (bomb, "is compressed"),
        (b"", "no archive of torch.export.save"),
        (b"PK\x03\x04 nothing", "no archive of torch.export.save"),
        (good[: len(good) // 2], "no archive of torch.export.save"),
        (packed({"a/models/model.json": "{}"}), "not laid out as torch.export.save does"),
        (packed({f"a/{n}": b"" for n in range(3)}), "expected one exported program, found 0"),
        (pickle.dumps({"a": 1}), "no archive of torch.export.save"),
    ):
        with pytest.raises(InvalidInput, match=told):
            check_archive(io.BytesIO(content), "it")


def test_pickled_sample_inputs_are_never_read(good, tmp_path):
    parts = members(good)
    name = next(name for name in parts if "sample_inputs" in name)
    poisoned = io.BytesIO()
    torch.save(Bomb(tmp_path / "ran"), poisoned)
    content = packed({**parts, name: poisoned.getvalue()})
    model = load_exported(io.BytesIO(content), "it", [Batch.of(torch.randn(3, 4))])
    assert isinstance(model, nn.Module)
    assert not (tmp_path / "ran").exists()


def test_the_copy_holds_the_checked_parts_alone(good, tmp_path):
    parts = members(good)
    root = next(iter(parts)).partition("/")[0]
    source = io.BytesIO(packed({**parts, f"{root}/extra/note": b"hello"}))
    found = check_archive(source, "it")
    rewrite(source, found, tmp_path / "copy.pt2", b"samples")
    copied = members((tmp_path / "copy.pt2").read_bytes())
    assert not any("extra" in name for name in copied)
    assert copied["model/data/sample_inputs/model.pt"] == b"samples"
    program = json.loads(copied["model/models/model.json"])
    assert program["guards_code"] == []
    assert all("stack_trace" not in each["metadata"] for each in program["graph_module"]["graph"]["nodes"])
    assert copied["model/data/weights/weight_0"] == parts[f"{root}/data/weights/weight_0"]
