"""What pipelines/curation/*.yaml may say. Parameters of steps stay raw here: each step's own class checks them."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from schemas.overrides import BESIDE_STEP

SOURCE_KINDS = ("table", "manifest", "webdataset", "folder", "img2dataset")
RESERVED_IDS = {"source", "forget"}  # fates name these as steps
_NAME = r"^[a-z][a-z0-9_]*$"


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Paths = Annotated[
    tuple[str, ...], BeforeValidator(_as_list, json_schema_input_type=str | tuple[str, ...]), Field(min_length=1)
]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Arrays(_Frozen):
    """Embeddings in numpy files beside a table: one file for each of the table's, one vector for each row, in order."""

    npz: Paths | None = Field(None, description="npz files: a path, a glob or a list")
    npy: Paths | None = Field(None, description="npy files: a path, a glob or a list")
    array: str | None = Field(None, min_length=1, description="name of the array in every npz")
    model: str | None = Field(None, description="what made the embeddings, as in ViT-L-14/openai")

    @model_validator(mode="after")
    def _one_format(self) -> "Arrays":
        if (self.npz is None) == (self.npy is None):
            raise ValueError("name exactly one of npz, npy")
        if (self.npz is None) != (self.array is None):
            raise ValueError("array: is the name of an array in every npz, and stands beside npz only and always")
        return self

    @property
    def paths(self) -> tuple[str, ...]:
        """The files, as they are named."""
        return self.npz or self.npy or ()


class Source(_Frozen):
    """Where rows come from: exactly one of the kinds. Relative paths are relative to the working directory."""

    table: Paths | None = Field(
        None, description="Parquet, CSV, TSV or JSONL (also .gz, .zst): a path, a glob or a list"
    )
    manifest: str | None = Field(None, description="a curated set; keys and signals are kept")
    webdataset: Paths | None = Field(None, description="tars of anybody's WebDataset")
    folder: str | None = Field(None, description="pictures with .txt or .json captions beside them")
    img2dataset: str | None = Field(None, description="the output folder of img2dataset")
    columns: Mapping[str, str] = Field(default_factory=dict, description="ours: theirs")
    arrays: Mapping[str, Arrays] = Field(
        default_factory=dict, description="beside a table: embeddings in numpy files, by the names of their columns"
    )
    rows_per_part: int = Field(10_000, ge=1, le=1_000_000, description="about how many rows a part has")

    @model_validator(mode="after")
    def _one_kind(self) -> "Source":
        given = [kind for kind in SOURCE_KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"name exactly one of {', '.join(SOURCE_KINDS)} (here: {', '.join(given) or 'none'})")
        if self.arrays and self.table is None:
            raise ValueError(f"arrays: stand beside a table only; {self.kind} has no rows in files of their own")
        return self

    @property
    def kind(self) -> str:
        """Which kind of source it is."""
        return next(kind for kind in SOURCE_KINDS if getattr(self, kind) is not None)


class Step(_Frozen):
    """One step: its name and parameters, and what may stand beside them.

    In YAML it is `language`, or `download: {…}` with `id`, `as` and `reads` beside it or among the parameters. The
    parameters of `derive` are columns of the user's own, which may have any name: there, they stand beside.
    """

    name: str
    parameters: Any = None
    id: str | None = Field(None, pattern=_NAME)
    as_prefix: str | None = Field(None, alias="as", pattern=_NAME)
    reads: Mapping[str, str] | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_yaml(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if not isinstance(value, dict):
            raise ValueError("a step is a name, or a name with its parameters, as in `download: {timeout_s: 20}`")
        if "name" in value:
            return value  # as a manifest holds it
        names = [name for name in value if name not in BESIDE_STEP]
        if len(names) != 1:
            found = ", ".join(map(str, names)) or "none"
            raise ValueError(f"a step has one name, beside {', '.join(BESIDE_STEP)} (here: {found})")
        parameters = value[names[0]]
        beside = {name: value[name] for name in BESIDE_STEP if name in value}
        if isinstance(parameters, dict) and names[0] != "derive":
            inner = {name: parameters[name] for name in BESIDE_STEP if name in parameters}
            parameters = {name: inside for name, inside in parameters.items() if name not in BESIDE_STEP}
            twice = [name for name in inner if name in beside]
            if twice:
                raise ValueError(f"{twice[0]!r} stands beside the parameters and among them; keep one")
            beside |= inner
        return {"name": names[0], "parameters": parameters, **beside}


class Holdout(_Frozen):
    """Rows for evaluation, in shards of their own: those with the lowest SHA-256("holdout" + key)."""

    rows: int = Field(ge=1)


class Shards(_Frozen):
    """How the curated set is written."""

    format: Literal["webdataset", "parquet"] = "webdataset"
    rows: int = Field(10_000, ge=1, le=10_000_000, description="rows per shard; only the last may be smaller")
    seed: int = Field(0, description="seed of the global shuffle")
    caption: str = Field("caption", description="the column that becomes <key>.txt")
    columns: tuple[str, ...] | None = Field(None, description="columns to carry; all by default")
    holdout: Holdout | None = None


class Resources(_Frozen):
    """What workers of one operator get. Never changes a result."""

    cpus: float | None = Field(None, gt=0)
    gpus: float | None = Field(None, ge=0)
    memory_gb: float | None = Field(None, gt=0)
    actors: int | None = Field(None, ge=1)
    concurrency: int | None = Field(None, ge=1)


class CurationSpec(_Frozen):
    """A curated set: where its rows come from, the steps that choose among them, and how it is written.

    A relative path is relative to the working directory.
    """

    name: str = Field(pattern=r"^[a-z0-9_-]+$", description="names the curated set")
    store: str = Field("data", min_length=1, description="the folder that keeps bytes, signals and selections")
    source: Source
    operators: Annotated[tuple[str, ...], BeforeValidator(_as_list, json_schema_input_type=str | tuple[str, ...])] = (
        Field((), description="folders with operators of your own")
    )
    execution: Mapping[str, Resources] = Field(
        default_factory=dict, description="resources by operator; never changes a result"
    )
    steps: tuple[Step, ...] = Field((), description="what happens to each row, in this order")
    shards: Shards = Shards()

    @model_validator(mode="after")
    def _ids_name_one_step_each(self) -> "CurationSpec":
        seen = dict.fromkeys(RESERVED_IDS | set(type(self).model_fields), "has a meaning of its own")
        for number, step in enumerate(self.steps):
            if step.id is None:
                continue
            if step.id in {other.name for other in self.steps if other is not step}:
                raise ValueError(f"steps[{number}] {step.name}: the id {step.id!r} is the name of another step")
            if step.id in seen:
                raise ValueError(f"steps[{number}] {step.name}: the id {step.id!r} {seen[step.id]}; choose another")
            seen[step.id] = f"is also that of steps[{number}]"
        return self


def spec_schema(parameters: Mapping[str, type[BaseModel]]) -> dict[str, Any]:
    """JSON Schema of a specification for editors; `parameters` are the steps' own classes by name."""
    schema = CurationSpec.model_json_schema(by_alias=True)
    definitions = schema["$defs"]
    beside = {name: definitions["Step"]["properties"][name] for name in BESIDE_STEP}
    del definitions["Step"]
    bare: list[str] = []
    forms: list[dict[str, Any]] = []
    for name, model in sorted(parameters.items()):
        own = model.model_json_schema(ref_template=f"#/$defs/{name}_{{model}}")
        definitions |= {f"{name}_{inner}": value for inner, value in own.pop("$defs", {}).items()}
        if own.get("type") == "object" and name != "derive":
            own["properties"] = own.get("properties", {}) | beside
        if own.get("type") == "object" and not own.get("required"):
            bare.append(name)
            own = {"anyOf": [own, {"type": "null"}]}
        form = {"type": "object", "properties": {name: own, **beside}, "required": [name]}
        forms.append(
            form | {"additionalProperties": False, "description": (model.__doc__ or "").strip().split("\n")[0]}
        )
    definitions["step"] = {"anyOf": [{"enum": bare}, *forms]}
    definitions["own_step"] = _own_step(sorted(parameters))
    own = {"anyOf": [{"$ref": "#/$defs/step"}, {"$ref": "#/$defs/own_step"}]}
    # Only a specification that names folders of own operators may have steps whose names are not known here.
    schema["if"] = {"required": ["operators"]}
    schema["then"] = {"properties": {"steps": {"items": own}}}
    schema["else"] = {"properties": {"steps": {"items": {"$ref": "#/$defs/step"}}}}
    schema["properties"]["steps"]["items"] = {}
    return schema


def _own_step(known: Sequence[str]) -> dict[str, Any]:
    """A step by a user's own operator: any name that is not taken, whose parameters are checked when it is loaded."""
    forms = [
        {"type": "string", "pattern": _NAME, "not": {"enum": known}},
        {
            "type": "object",
            "propertyNames": {"not": {"enum": known}},
            "minProperties": 1,
            "maxProperties": 1 + len(BESIDE_STEP),
        },
    ]
    return {"anyOf": forms, "description": "an operator of your own"}
