"""Everything that can stand in `steps`, told by the classes themselves."""

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel

from curation.operator import Operator, example_parameters
from curation.registry import Registry, dataset_steps
from flows.wording import columns_of
from schemas.pipeline import spec_schema


def catalogue() -> list[dict[str, Any]]:
    """One record per step: name, kind, summary, parameters, reads, adds."""
    registry = Registry()
    rows = [_operator(name, registry.operator(name).operator_class()) for name in registry.operators]
    return rows + [_step(name, cls) for name, cls in sorted(dataset_steps().items())]


def catalogue_text() -> str:
    """The catalogue for people: a line per step, its parameters and columns below."""
    blocks = []
    for row in catalogue():
        lines = [f"{row['name']} ({row['kind']}): {row['summary']}"]
        pairs = [(f"    {p['name']}", _default(p), p["description"]) for p in row["parameters"]]
        if pairs:
            lines.append(columns_of(pairs))
        for what in ("reads", "adds"):
            if row[what]:
                lines.append(f"    {what}: {', '.join(row[what])}")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def catalogue_markdown() -> str:
    """The catalogue as the two tables of the README."""
    rows = catalogue()
    operators = [
        (f"`{row['name']}`", row["summary"], ", ".join(f"`{name}`" for name in row["adds"]) or "what you name")
        for row in rows
        if row["kind"] == "operator"
    ]
    steps = [(f"`{row['name']}`", row["summary"], _parameter_names(row)) for row in rows if row["kind"] != "operator"]
    return "\n\n".join(
        [
            _markdown_table(("operator", "what it does", "columns it adds"), operators),
            _markdown_table(("dataset step", "what it does", "parameters"), steps),
        ]
    )


def _parameter_names(row: dict[str, Any]) -> str:
    if dataset_steps()[row["name"]].model_json_schema().get("type") == "string":
        return f"none: `{row['name']}: <SQL>`"
    return ", ".join(f"`{parameter['name']}`" for parameter in row["parameters"])


def _markdown_table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ("---",) * len(head), *rows])


def json_schema() -> dict[str, Any]:
    """JSON Schema of a specification, with every step's parameters."""
    registry = Registry()
    steps: dict[str, type[BaseModel]] = dict(dataset_steps())
    return spec_schema(steps | {name: registry.operator(name).operator_class() for name in registry.operators})


def _operator(name: str, cls: type[Operator]) -> dict[str, Any]:
    example = _example(cls)
    return {
        "name": name,
        "kind": "operator",
        "summary": _summary(cls),
        "parameters": _parameters(cls),
        "reads": [column.name for column in example.reads] if example else [],
        "adds": [column.name for column in example.adds] if example else [],
    }


def _step(name: str, cls: type[BaseModel]) -> dict[str, Any]:
    return {"name": name, "kind": "dataset step", "summary": _summary(cls), "parameters": _parameters(cls)} | {
        "reads": [],
        "adds": [],
    }


def _example(cls: type[Operator]) -> Operator | None:
    """The operator with its defaults and examples; None where a parameter has neither, and columns depend on it."""
    parameters, unknown = example_parameters(cls)
    return None if unknown else cls(**parameters)


def _summary(cls: type) -> str:
    return (cls.__doc__ or "").strip().splitlines()[0]


def _parameters(cls: type[BaseModel]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "required": info.is_required(),
            "default": None if info.is_required() else _plain(info.get_default(call_default_factory=True)),
            "description": info.description or "",
        }
        for name, info in cls.model_fields.items()
    ]


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else repr(value) if value else []


def _default(parameter: dict[str, Any]) -> str:
    return "required" if parameter["required"] else str(parameter["default"])
