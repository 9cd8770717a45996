"""What pipelines/curation/*.yaml may say. Parameters of steps stay raw here: each step's own class checks them."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

SOURCE_KINDS = ("table", "manifest", "webdataset", "folder", "img2dataset")
_BESIDE = ("id", "as", "reads")


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Paths = Annotated[tuple[str, ...], BeforeValidator(_as_list), Field(min_length=1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


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
    rows_per_part: int = Field(10_000, ge=1, le=1_000_000, description="about how many rows a part has")

    @model_validator(mode="after")
    def _one_kind(self) -> "Source":
        given = [kind for kind in SOURCE_KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"name exactly one of {', '.join(SOURCE_KINDS)} (here: {', '.join(given) or 'none'})")
        return self

    @property
    def kind(self) -> str:
        """Which kind of source it is."""
        return next(kind for kind in SOURCE_KINDS if getattr(self, kind) is not None)


class Step(_Frozen):
    """One step: its name and parameters, and what may stand beside them."""

    name: str
    parameters: Any = None
    id: str | None = Field(None, pattern=r"^[a-z][a-z0-9_]*$")
    as_prefix: str | None = Field(None, pattern=r"^[a-z][a-z0-9_]*$")
    reads: Mapping[str, str] | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_yaml(cls, value: Any) -> Any:
        """`language`, or `{download: {…}, id: …}`; id, as and reads may also stand among the parameters."""
        if isinstance(value, str):
            return {"name": value}
        if not isinstance(value, dict) or "name" in value:
            return value
        names = [name for name in value if name not in _BESIDE]
        if len(names) != 1:
            raise ValueError(
                f"a step has one name, beside id, as and reads (here: {', '.join(map(str, names)) or 'none'})"
            )
        parameters = value[names[0]]
        beside = {name: value[name] for name in _BESIDE if name in value}
        if isinstance(parameters, dict):
            inner = {name: parameters[name] for name in _BESIDE if name in parameters}
            parameters = {name: inside for name, inside in parameters.items() if name not in _BESIDE}
            beside = inner | beside
        beside["as_prefix"] = beside.pop("as", None)
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
    """A curated set: where its rows come from, the steps that choose among them, and how it is written."""

    name: str = Field(pattern=r"^[a-z0-9_-]+$", description="names the curated set")
    store: str = Field("data", description="the folder that keeps bytes, signals and selections")
    source: Source
    operators: Paths | tuple[()] = Field((), description="folders with operators of your own")
    execution: Mapping[str, Resources] = Field(default_factory=dict)
    steps: tuple[Step, ...] = ()
    shards: Shards = Shards()

    @model_validator(mode="after")
    def _ids_are_unique(self) -> "CurationSpec":
        seen: set[str] = set()
        for step in self.steps:
            if step.id is not None and step.id in seen:
                raise ValueError(f"two steps have the id {step.id!r}; ids name one step each")
            seen.add(step.id or "")
        return self


def spec_schema(parameters: Mapping[str, type[BaseModel]]) -> dict[str, Any]:
    """JSON Schema of a specification for editors; `parameters` are the steps' own classes by name."""
    schema = CurationSpec.model_json_schema(by_alias=True)
    beside = {
        "id": {"type": "string", "pattern": "^[a-z][a-z0-9_]*$"},
        "as": {"type": "string", "pattern": "^[a-z][a-z0-9_]*$"},
        "reads": {"type": "object", "additionalProperties": {"type": "string"}},
    }
    steps: list[dict[str, Any]] = [{"enum": sorted(parameters)}]
    for name, model in sorted(parameters.items()):
        own = model.model_json_schema(ref_template="#/$defs/" + re.sub(r"\W", "_", name) + "_{model}")
        for inner, definition in own.pop("$defs", {}).items():
            schema["$defs"][f"{re.sub(r'[^0-9a-zA-Z_]', '_', name)}_{inner}"] = definition
        accepts = (
            {"type": "string"}
            if name == "keep"
            else {"anyOf": [own | {"additionalProperties": True}, {"type": "null"}]}
        )
        steps.append({"type": "object", "properties": {name: accepts, **beside}, "required": [name]})
    schema["properties"]["steps"] = {"type": "array", "items": {"anyOf": steps}}
    schema.get("$defs", {}).pop("Step", None)
    return schema
