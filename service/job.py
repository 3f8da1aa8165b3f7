"""The job: what a user asks for, as a strict schema."""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from ..errors import InvalidInput
from ..formats import Format
from . import safe_yaml

if TYPE_CHECKING:
    from ..evaluators import Recipe
    from ..search import FinetuneSettings


#: A path (relative to the job file), or the URL of a file system that fsspec knows.
Location = Annotated[str, BeforeValidator(lambda given: str(given) if isinstance(given, Path) else given)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSource(_Part):
    """Where the model comes from: ``zoo``, ``factory``, ``exported`` or ``architecture``."""

    zoo: str | None = Field(None, description="name of a zoo entry, such as efficientnet_lite0")
    factory: str | None = Field(
        None,
        description='"package.module:function" that returns the nn.Module; a service takes it only from modules that '
        "it was started with (`--allow-module`)",
    )
    exported: Location | None = Field(
        None, description=".pt2 archive of `torch.export.save`: a path, a URL, or upload:SHA256"
    )
    architecture: str | None = Field(
        None, description="name of a zoo entry whose network takes the tensors of `weights` instead of its own"
    )
    arguments: dict[str, Any] = Field(
        default_factory=dict, description="keyword arguments of the factory or the architecture"
    )
    weights: Location | None = Field(
        None,
        description=".safetensors (for a factory also .pt/.pth that holds tensors only): a path, a URL (s3://, "
        "file://, …), or upload:SHA256",
    )

    @model_validator(mode="after")
    def _one_source(self) -> ModelSource:
        sources = ("zoo", "factory", "exported", "architecture")
        if sum(getattr(self, name) is not None for name in sources) != 1:
            raise ValueError("give exactly one of zoo, factory, exported and architecture")
        if self.factory is not None and self.factory.count(":") != 1:
            raise ValueError(f"factory {self.factory!r} must read 'package.module:function'")
        if (self.zoo or self.exported) is not None and (self.arguments or self.weights):
            brings = "a zoo entry" if self.zoo is not None else "an exported program"
            raise ValueError(f"arguments and weights belong to a factory or an architecture; {brings} brings its own")
        if self.architecture is not None and self.weights is None:
            raise ValueError("an architecture needs weights (.safetensors); for those of the zoo give zoo")
        return self


class DataSource(_Part):
    """Where the data comes from: ``.npz`` files (arrays ``inputs`` or named inputs, and ``targets``), or the zoo."""

    zoo: str | None = Field(None, description="take the data of this zoo entry; default: that of the model")
    calibration: Location | int | None = Field(
        None, description=".npz file (a path or a URL: s3://, file://, …), or with zoo data the number of samples"
    )
    validation: Location | int | None = Field(None, description="as calibration; candidates are measured on it")
    holdout: Location | int | None = Field(
        None,
        description="as calibration; of every two samples one helps to choose among the finalists, the other judges "
        "the choice (fewer than 32: all judge). Without it the second half of validation is set apart",
    )
    batch: Annotated[int, Field(ge=1)] = Field(16, description="samples per forward pass (npz data)")


class ArchitectureSource(_Part):
    """A family of architectures to choose from, together with the formats (docs/architecture.md)."""

    family: str = Field(
        description="compression (of the model), elastic, nasbench201, a family that an installed package registers, "
        'or "package.module:function" of your own, called with the task and the arguments (local runs only)'
    )
    arguments: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of the family")
    proxy: str = Field("sqnr", description="predicts the loss of formats; every architecture is scored, so a cheap one")

    @field_validator("family")
    @classmethod
    def _known_family(cls, name: str) -> str:
        if ":" in name:
            if name.count(":") != 1:
                raise ValueError(f"{name!r} must read 'package.module:function'")
            return name
        from ..search.families import families  # only where a job names one

        known = families()
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise ValueError(f"unknown family {name!r}; did you mean {near!r}? Known: {', '.join(sorted(known))}")
        return name


class Space(_Part):
    """What may be chosen."""

    formats: list[str] = Field(
        default_factory=lambda: ["w2", "w4", "w8", "bf16"],
        min_length=1,
        description="w2 … w8, w4g128, w8a8, fp8, mxfp4, bf16, …: `bitfront formats`",
    )
    exclude: list[str] = Field(default_factory=list, description="globs of site names that stay in float")
    ties: Literal["auto", "residual", "none"] | list[list[str]] = Field(
        "auto", description="auto: q/k/v and gate/up share a format; residual: down-sampling too; or groups of names"
    )
    architecture: ArchitectureSource | None = Field(None, description="null: the model as it is")

    @model_validator(mode="after")
    def _known_formats(self) -> Space:
        for name in self.formats:
            Format.parse(name)
        return self


class RecipeChange(_Part):
    """What another recipe does otherwise; what is left out is as in ``quantization``."""

    weights: Literal["mse", "minmax", "gptq", "adaround", "adaquant"] | None = None
    activations: Literal["minmax", "moving_average", "percentile", "mse", "entropy"] | None = None
    equalization: Literal["none", "cross_layer", "smoothquant"] | None = None
    bias_correction: bool | None = None
    batch_norm: bool | None = None


class Quantization(_Part):
    """How scales, codes and ranges are chosen, the same for every candidate."""

    weights: Literal["mse", "minmax", "gptq", "adaround", "adaquant"] = Field(
        "mse",
        description="mse, minmax: to nearest, scales of least squared error or that clip nothing; gptq, adaround, "
        "adaquant: reconstruct the output of each layer on the calibration data",
    )
    activations: Literal["minmax", "moving_average", "percentile", "mse", "entropy"] = Field(
        "mse", description="the observer that chooses static activation ranges"
    )
    equalization: Literal["none", "cross_layer", "smoothquant"] = Field(
        "none", description="function-preserving change of the float model before anything is rounded"
    )
    bias_correction: bool = Field(False, description="take back the mean shift that rounding causes in a layer")
    batch_norm: bool = Field(False, description="estimate batch-norm statistics again for every configuration")
    search: Annotated[list[RecipeChange], Field(min_length=1)] | Literal["auto"] | None = Field(
        None,
        description="other recipes to compare with this one before the search, by successive halving on real "
        "evaluations; the best is used. A list of changes, such as [{weights: gptq}, {bias_correction: true}]; auto: "
        "one change at a time, as far as the model and the formats make a difference; null: this recipe as it is",
    )

    @property
    def recipe(self) -> Recipe:
        """What the evaluators are told; the first to be compared where recipes are searched."""
        from ..evaluators import Recipe  # brings in torch, which reading a job does not need

        return Recipe(**self.model_dump(exclude={"search"}))

    @property
    def listed(self) -> tuple[Recipe, ...]:
        """This recipe and its changes, where they are listed."""
        changes = self.search if isinstance(self.search, list) else []
        return tuple(dict.fromkeys([self.recipe, *(replace(self.recipe, **_given(each)) for each in changes)]))


def _given(change: _Part) -> dict[str, Any]:
    return change.model_dump(exclude_none=True)


class Device(_Part):
    """What latency is priced for."""

    name: str = Field("cpu", description="cpu (measured on this machine) or a name of `bitfront devices`")
    batch: Annotated[int, Field(ge=1)] = Field(1, description="samples per forward pass")
    runtime: str | None = Field(
        None,
        description="whose measured tables price a named GPU (`bitfront devices NAME` lists them), or `roofline` for "
        "its data sheet; by default the tables if there are any",
    )
    tables: Literal["any", "required"] = Field(
        "any",
        description="required: a named GPU is priced by measured tables or not at all; a service lets the job wait "
        "until somebody has uploaded one",
    )
    whole_models: Annotated[int, Field(ge=0, le=64)] = Field(
        8,
        description="cpu: exports that are timed whole, so that latency counts the operators outside the sites and the "
        "conversions between unlike neighbours; 0: the sum of the kernels alone",
    )


class Stop(_Part):
    """What ends a search before its evaluations or seconds are spent."""

    no_improvement: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="so many evaluations in a row that improve neither the measured front nor the best in budget",
    )
    target: dict[str, float] = Field(
        default_factory=dict, description="quality and prices, largest values that one measured configuration meets"
    )


class Fidelity(_Part):
    """Successive halving: candidates are first measured on few samples, and the better ones on more."""

    samples: Annotated[int, Field(ge=1)] = Field(32, description="validation samples of the first rung")
    factor: Annotated[int, Field(ge=2)] = Field(
        4, description="the next rung has so many times the samples, for one of so many candidates"
    )


class Search(_Part):
    """How much is measured, by whom it is proposed, and when it ends."""

    evaluations: Annotated[int, Field(ge=1)] = Field(32, description="configurations measured, uniform ones included")
    seconds: Annotated[float, Field(gt=0)] | None = Field(None, description="stop measuring candidates after this")
    seed: int = Field(0, description="of every random choice")
    proposers: Annotated[list[str], Field(min_length=1)] | Literal["auto"] = Field(
        "auto", description="who proposes what is measured; auto: a mixture whose shares go by what each has gained"
    )
    stop: Stop = Stop()
    fidelity: Fidelity | None = Field(None, description="null: every candidate on the whole validation data")
    finalists: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="most candidates measured on held-out data beside uniform configurations and exact allocations, "
        "the best first; default: the whole measured front, under constraints the 8 best too",
    )

    @field_validator("proposers")
    @classmethod
    def _known_proposers(cls, names: list[str] | str) -> list[str] | str:
        if isinstance(names, str):
            return names
        from ..search.proposers import proposers  # only where a job names some: it brings in the samplers

        known = proposers()
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
                raise ValueError(f"unknown proposer {name!r}; did you mean {near!r}? Known: {', '.join(sorted(known))}")
        return list(dict.fromkeys(names))


class Workers(_Part):
    """Who measures."""

    count: Annotated[int, Field(ge=1)] | None = Field(None, description="Ray actors; default: one per CPU")
    cpus: Annotated[float, Field(gt=0)] = Field(1, description="CPUs reserved by each")
    gpus: Annotated[float, Field(ge=0)] | None = Field(
        None, description="GPUs reserved by each; default: one where the model lies on a GPU, else none"
    )
    address: str | None = Field(
        None,
        description='of a running Ray cluster, such as "ray://head:10001" or "auto"; default: a local one is started',
    )
    storage: str | None = Field(
        None,
        description="where Ray Tune keeps its own records: a URL, or a folder that all machines see; default: a "
        "temporary folder",
    )


class FinetuneChange(_Part):
    """Other hyper-parameters of finetuning; what is left out is as in ``finetune``."""

    learning_rate: Annotated[float, Field(gt=0)] | None = None
    loss: Literal["distillation", "task"] | None = None


class Finetuning(_Part):
    """Quantization-aware finetuning of the best configuration, reported apart from post-training results."""

    epochs: Annotated[int, Field(ge=1)] = Field(20, description="most passes over the calibration data")
    learning_rate: Annotated[float, Field(gt=0)] = Field(3e-4, description="of Adam")
    loss: Literal["distillation", "task"] = Field(
        "distillation", description="from the float model's outputs, or the task's loss on the targets"
    )
    search: Annotated[list[FinetuneChange], Field(min_length=1)] | Literal["auto"] | None = Field(
        None,
        description="other hyper-parameters to compare with these, with epochs as fidelity, judged on the validation "
        "data. A list of changes, such as [{learning_rate: 0.001}]; auto: a third and three times the learning rate; "
        "null: these as they are",
    )

    @property
    def settings(self) -> tuple[FinetuneSettings, ...]:
        """These hyper-parameters and the others to compare with."""
        from ..search import FinetuneSettings

        own = FinetuneSettings(self.learning_rate, self.loss)
        if self.search == "auto":
            return (own, *(replace(own, learning_rate=self.learning_rate * factor) for factor in (1 / 3, 3)))
        changes = self.search if isinstance(self.search, list) else []
        return tuple(dict.fromkeys([own, *(replace(own, **_given(each)) for each in changes)]))

    @property
    def rungs(self) -> tuple[int, ...]:
        """Epochs that the settings are compared at: a ninth, a third, and all."""
        return tuple(dict.fromkeys(max(1, self.epochs // part) for part in (9, 3, 1)))


class Export(_Part):
    """What the best configuration is exported to."""

    target: str = Field(
        "onnx",
        description="an export target (docs/export.md); formats that it cannot load at a site are not offered there, "
        "and sites that its runtime fuses share a format",
    )
    generation: Literal["turing", "ampere", "ada", "hopper", "blackwell", "cpu"] | None = Field(
        None,
        description="device generation that must have a kernel of the target's for every format; null: whatever the "
        "runtime loads will do",
    )
    against_float: bool = Field(False, description="also time the float model in the target's runtime, in turn")


class Budget(_Part):
    """The most that the whole job may take, over all its attempts."""

    seconds: Annotated[float, Field(gt=0)] | None = Field(None, description="of workers' time")
    cost: Annotated[float, Field(gt=0)] | None = Field(
        None, description="in the currency of the service, which knows what an hour of a worker costs"
    )
    evaluations: Annotated[int, Field(ge=1)] | None = Field(
        None, description="at most so many, whatever search.evaluations says"
    )


class Job(_Part):
    """A search job."""

    name: str = Field("", description="shown in reports; default: the model's name")
    model: ModelSource
    data: DataSource = DataSource()
    space: Space = Space()
    quantization: Quantization = Quantization()
    quality: Literal["kl", "loss", "accuracy", "top5", "perplexity", "relative_error", "cosine"] | None = Field(
        None, description="default: that of the zoo entry, else kl"
    )
    device: Device = Device()
    objectives: list[str] = Field(
        default_factory=lambda: ["quality", "size_mb", "latency_ms"],
        description="quality and at least one of size_mb, latency_ms, avg_bits, effective_bits, bops",
    )
    constraints: dict[str, float] = Field(default_factory=dict, description="price: largest value allowed")
    proxies: Annotated[list[str], Field(min_length=1)] | Literal["auto"] = Field(
        default_factory=lambda: ["hessian_trace", "sqnr"],
        description="predict the loss; the first evaluations are shared between them, the rest go to the best; auto: a "
        "cheap set, from which the first measurements choose one or weight them; formula:FILE.json or "
        "formula:EXPRESSION: a formula of your own (`bitfront proxies evolve`)",
    )
    search: Search = Search()
    budget: Budget = Budget()
    workers: Workers = Workers()
    finetune: Finetuning | None = Field(None, description="null: post-training quantization only")
    export: Export | None = Field(Export(), description="null: do not export")

    @model_validator(mode="after")
    def _of_architectures(self) -> Job:
        if self.space.architecture is None:
            return self
        default = Search()
        without = {
            "search.proposers": self.search.proposers == default.proposers,
            "search.stop": self.search.stop == default.stop,
            "search.fidelity": self.search.fidelity is None,
            "quantization.search": self.quantization.search is None,
            "finetune": self.finetune is None,
        }
        for name, absent in without.items():
            if not absent:
                raise ValueError(f"a search over architectures (space.architecture) does not take {name}; leave it out")
        return self

    @property
    def title(self) -> str:
        """The name to show."""
        model = self.model
        exported = (model.exported or "").rpartition("/")[2].removesuffix(".pt2")
        return self.name or model.zoo or model.architecture or exported or (model.factory or "").split(":")[-1]

    def plain(self) -> dict[str, Any]:
        """The job as plain data, every default written out."""
        return self.model_dump(mode="json")


def read_job(path: str | Path) -> tuple[Job, Path]:
    """Read a job file.

    Args:
        path: a YAML file.

    Returns:
        The job, and the folder that its relative paths start from.

    Raises:
        InvalidInput: the file is missing, not YAML, or breaks the schema; the message names every wrong key with the
            nearest valid one.
    """
    file = Path(path)
    try:
        content = safe_yaml.load(file.read_text(), origin=str(file))
    except FileNotFoundError:
        raise InvalidInput(f"no job file {file}; see examples/ for one to start from") from None
    except (IsADirectoryError, PermissionError, UnicodeDecodeError) as cause:
        raise InvalidInput(f"cannot read the job file {file}: {cause}") from None
    if not isinstance(content, dict):
        raise InvalidInput(f"{file} must hold keys such as model, data, space; it holds {type(content).__name__}")
    folder = file.resolve().parent
    return within_budget(_with_formulas(parse_job(content, str(file)), folder)), folder


def within_budget(job: Job, cost_per_hour: float | None = None) -> Job:
    """The job with its search held to its budget.

    Args:
        job: as written.
        cost_per_hour: of a worker.

    Raises:
        InvalidInput: the budget is in money and what a worker costs is not known.
    """
    budget, search = job.budget, job.search
    if budget.cost is not None and cost_per_hour is None:
        raise InvalidInput(
            f"budget.cost: {budget.cost:g}, but nobody said what an hour of a worker costs here; give budget.seconds"
        )
    paid = 3600 * budget.cost / cost_per_hour if budget.cost is not None and cost_per_hour else None
    seconds = [each for each in (search.seconds, budget.seconds, paid) if each is not None]
    changed = {
        "evaluations": min(search.evaluations, budget.evaluations or search.evaluations),
        "seconds": min(seconds, default=None),
    }
    return job.model_copy(update={"search": search.model_copy(update=changed)})


def _with_formulas(job: Job, folder: Path) -> Job:
    """Formula files are replaced by what they hold: the record of a job says what was computed."""
    if job.proxies == "auto" or not any(name.startswith("formula:") for name in job.proxies):
        return job
    from ..proxies.formulas.reference import resolved

    return job.model_copy(update={"proxies": [resolved(name, folder) for name in job.proxies]})


def parse_job(content: dict[str, Any], origin: str = "job") -> Job:
    """A job from plain data.

    Raises:
        InvalidInput: the data breaks the schema; one line that names what is wrong and what to write instead.
    """
    try:
        return Job.model_validate(content)
    except ValidationError as cause:
        told = [_tell(error) for error in cause.errors()]
        raise InvalidInput(f"{origin}: {'; '.join(dict.fromkeys(told))}") from None


def violations(content: dict[str, Any]) -> list[tuple[list[str], str]]:
    """Every violation of the schema: the path to it, and what to write instead; empty where there is none."""
    try:
        Job.model_validate(content)
    except ValidationError as cause:
        told = {_tell(error): [str(part) for part in error["loc"] if not _is_branch(part)] for error in cause.errors()}
        return [(path, message) for message, path in told.items()]
    return []


def _tell(error: Any) -> str:
    """One schema violation in words."""
    path = [str(part) for part in error["loc"] if not _is_branch(part)]
    where = ".".join(path) or "job"
    if error["type"] == "extra_forbidden":
        valid = _keys(path[:-1])
        near = difflib.get_close_matches(path[-1], valid, n=1, cutoff=0.0)
        return f"unknown key {where!r}; did you mean {near[0]!r}? (valid here: {', '.join(valid)})"
    if error["type"] == "missing":
        return f"key {where!r} is missing"
    message = str(error["msg"]).removeprefix("Value error, ")
    given = error.get("input")
    shown = f", got {given!r}" if isinstance(given, (str, int, float, bool, type(None))) else ""
    return f"{where}: {message[:1].lower()}{message[1:]}{shown if error['type'] != 'value_error' else ''}"


def _is_branch(part: Any) -> bool:
    """Whether a location part names a branch of a union rather than a key of the job."""
    return isinstance(part, str) and ("[" in part or part in ("path", "int", "literal"))


def _keys(path: list[str]) -> list[str]:
    """The valid keys below a path of the schema; positions in lists are passed over."""
    kind: Any = Job
    for part in path:
        if not part.isdigit():
            kind = _model_in(kind.model_fields[part].annotation)
    return sorted(kind.model_fields)


def _model_in(annotation: Any) -> Any:
    """The first part of the schema that an annotation holds, however deep; ``None`` if there is none."""
    if hasattr(annotation, "model_fields"):
        return annotation
    return next((found for each in get_args(annotation) if (found := _model_in(each)) is not None), None)
