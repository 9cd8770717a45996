"""Build and check every step before anything runs: names, parameters, columns, types, SQL; then fingerprint it.

Each step sees the columns that the source and earlier steps give. What is wrong is said as `steps[3] keep: …`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import pyarrow as pa
from pydantic import ValidationError

from curation.draft import Draft, source_columns
from curation.ingest import Snapshot
from curation.materialise import ShardsWanted
from curation.operator import Operator
from curation.refusals import Refusals
from curation.registry import OperatorRef, Registry, dataset_steps
from curation.selection.inputs import input_columns, input_types
from curation.selection.keep import Keep
from curation.selection.step import DatasetStep
from curation.stage import CAPTURE, OperatorStep, Plan, SelectionStep, Where
from curation.storage import sidecars
from curation.storage.store import digest
from schemas import columns as c
from schemas import pixels
from schemas.columns import Column
from schemas.errors import InputError
from schemas.nearest import unknown_name
from schemas.overrides import spelled
from schemas.pipeline import CurationSpec, Step
from schemas.reading import sentence_of

CAPTURE_VERSION = 2
CAPTURE_COLUMNS = (c.SHA256, c.STORED_SHA256, c.ORIGINAL_WIDTH_PX, c.ORIGINAL_HEIGHT_PX)
_BARE_STATUS = {"download"}  # whose status and error stand without a prefix


def build_plan(spec: CurationSpec, extra: Mapping[str, pa.DataType], *, captured: bool) -> Plan:
    """Check every step of a specification over a source with these columns of its own. Raises InputError."""
    draft = Draft(Registry(spec.operators), source_columns(extra), spec.execution)
    _require_operators(spec)
    if captured:
        _add_capture(draft)
    refused = Refusals(draft.registry)
    for index, step in enumerate(spec.steps):
        before = draft.columns.copy(), draft.picture_step
        try:
            draft.steps.append(_planned(draft, index, step))
        except InputError as error:  # the others are planned as if it were not there, and all is said at once
            draft.columns, draft.picture_step = before
            draft.steps.append(cast(Any, None))
            refused.add(where_of(index, step), step, error, draft.columns)
    refused.raise_all()
    return Plan(
        tuple(draft.steps),
        draft.columns,
        draft.picture_step,
        needs_url=draft.picture_step is not None and draft.picture_step >= 0,
        capture=draft.capture,
    )


def _require_operators(spec: CurationSpec) -> None:
    """Refuse resources for what no step names."""
    names = [step.name for step in spec.steps]
    for name in spec.execution:
        if name not in names:
            raise InputError(f"execution: {unknown_name(name, names, 'steps')}")


def where_of(index: int, step: Step) -> str:
    """A step as errors name it."""
    return f"steps[{index}] {step.name}"


def name_plan(plan: Plan, spec: CurationSpec, snapshot: Snapshot, retry: int, forgotten: Sequence[str] = ()) -> str:
    """The plan's name: the digest of all that decides its result; `forgotten` are the snapshot's forgotten keys."""
    steps = [[step.label, step.name, _step_record(step)] for step in plan.steps]
    shards = spec.shards.model_dump(mode="json")
    return digest([steps, snapshot.digest, shards, retry, *([list(forgotten)] if forgotten else [])])[:32]


def _step_record(step: OperatorStep | SelectionStep) -> Any:
    if isinstance(step, OperatorStep):  # what it reads and how its columns are called is no part of its fingerprint
        return [step.base_fingerprint, dict(step.visible), step.rides_on]
    said = step.step.model_dump(mode="json", exclude={"force", "against", "assume_equal", "table"})
    return [step.step.version, step.mark, said, [file.sha256 for file in step.against]]


def _add_capture(draft: Draft) -> None:
    """Pictures that came with the source: their sidecar stands before the first step."""
    fingerprint = digest({"operator": CAPTURE, "version": CAPTURE_VERSION})
    adds = (*CAPTURE_COLUMNS, c.IMAGE)
    visible = {column.name: column.name for column in adds}
    draft.capture = OperatorStep(-1, CAPTURE, CAPTURE, OperatorRef(CAPTURE), (), adds, visible, fingerprint)
    draft.picture_step = -1
    for column in adds:
        if column.name not in draft.columns:  # what the source says of its own pictures goes before what we say
            draft.add(column, Where(column, "sidecar", -1, column.name))


def _planned(draft: Draft, index: int, step: Step) -> OperatorStep | SelectionStep:
    draft.registry.require(step.name)
    label = step.id or where_of(index, step)
    if step.name in dataset_steps():
        return _selection_step(draft, index, label, step)
    return _operator_step(draft, index, label, step)


def _operator_step(draft: Draft, index: int, label: str, step: Step) -> OperatorStep:
    parameters = _mapping(step)
    given = draft.execution.get(step.name)
    if given is not None and given.concurrency is not None:
        parameters = {"concurrency": given.concurrency, **parameters}
    ref = draft.registry.operator(step.name, parameters)
    operator = _checked(ref.operator_class(), parameters)
    operator.check()
    bind = getattr(operator, "bound", None)  # an operator whose columns' types follow from those that it reads
    if bind is not None:
        operator = bind(draft.types)
        ref = replace(ref, parameters=operator.model_dump())
    reads = {column.name: (step.reads or {}).get(column.name, column.name) for column in operator.reads}
    for own in step.reads or {}:
        if own not in reads:
            raise InputError(f"reads: the operator does not read {own!r}; it reads: {', '.join(reads) or 'nothing'}")
    for column in operator.reads:
        draft.require(column, reads[column.name])
    prefix = step.as_prefix
    visible = {column.name: f"{prefix}_{column.name}" if prefix else column.name for column in operator.adds}
    producers, rides_on = _producers(draft, {own: reads[own] for own in reads if own not in operator.judges_by})
    planned = OperatorStep(
        index,
        label,
        step.name,
        ref,
        operator.reads,
        operator.adds,
        reads | visible,
        _fingerprint(step.name, ref, operator, producers),
        rides_on,
    )
    for column in operator.adds:
        name = visible[column.name]
        draft.add(column.named(name), Where(column.named(name), "sidecar", index, column.name), step.name)
        if column.name == c.IMAGE.name:
            draft.picture_step = index
    stem = prefix or ("" if step.name in _BARE_STATUS else step.name)
    for own, outcome in ((sidecars.STATUS, c.STATUS), (sidecars.ERROR, c.ERROR)) if operator.can_fail else ():
        name = f"{stem}_{outcome.name}" if stem else outcome.name
        seen = Column(name, outcome.type, f"{outcome.name} of {label}")
        draft.add(seen, Where(seen, "sidecar", index, own), step.name)
    return planned


def _producers(draft: Draft, reads: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Fingerprints of what an operator reads, and the columns that ride along without one."""
    producers: dict[str, str] = {}
    rides_on: dict[str, None] = {}
    for own, name in reads.items():
        where = draft.columns[name]
        if where.kind == "part":
            producers[own] = name
        elif where.kind == "sidecar":
            producer = draft.producer(where.step)
            producers[own] = digest([producer.base_fingerprint, where.name])
            rides_on.update(dict.fromkeys(producer.rides_on))
            if own == c.IMAGE.name:
                producers["pixels"] = str(pixels.VERSION)
        else:
            producers[own] = where.kind
            rides_on[name] = None
    return producers, tuple(sorted(rides_on))


def _fingerprint(name: str, ref: OperatorRef, operator: Operator, producers: Mapping[str, str]) -> str:
    parameters = operator.model_dump(mode="json", include=set(operator.result_parameters()))
    record = {
        "operator": name,
        "version": operator.version,
        "source": ref.source_digest,
        "parameters": parameters,
        "weights": operator.weights_digest(),
        "reads": dict(producers),
    }
    return digest(record)


def _selection_step(draft: Draft, index: int, label: str, step: Step) -> SelectionStep:
    cls = dataset_steps()[step.name]
    for given, word in ((step.as_prefix, "as"), (step.reads, "reads")):
        if given:
            raise InputError(f"{word}: stands beside operators only; {step.name} names its columns itself")
    if issubclass(cls, Keep):
        if not isinstance(step.parameters, str):
            raise InputError("wants an SQL predicate, as in `keep: width_px >= 64`")
        built: DatasetStep = cls(predicate=step.parameters)
    else:
        built = _checked(cls, _mapping(step))
    built = built.bound({name: where.column for name, where in draft.columns.items()})
    built.check(input_types(built, draft.types))
    reads = tuple(input_columns(built, draft.types))
    mark = getattr(built, "mark", None)
    marks = (Column(mark, pa.bool_(), f"whether {label} would keep the row"),) if mark else ()
    for column in (*marks, *built.adds):
        draft.add(column, Where(column, "mark", index, column.name), step.name)
    return SelectionStep(index, label, step.name, built, reads, mark)


def _mapping(step: Step) -> Mapping[str, Any]:
    if step.parameters is None:
        return {}
    if not isinstance(step.parameters, Mapping):
        raise InputError(f"wants its parameters as names and values, as in `{step.name}: {{name: value}}`")
    return step.parameters


def _checked(cls: Any, parameters: Mapping[str, Any]) -> Any:
    """A step of that class. Raises InputError with a sentence for every parameter that is wrong."""
    try:
        return cls(**parameters)
    except ValidationError as error:
        known = list(cls.model_fields)
        said = [(spelled(detail["loc"]), sentence_of(detail, known)) for detail in error.errors()]
        raise InputError("; ".join(f"{place}: {text}" if place else text for place, text in said)) from error


def shards_wanted(spec: CurationSpec, plan: Plan) -> ShardsWanted:
    """The `shards` section checked against the plan's columns. Raises InputError."""
    shards = spec.shards
    if shards.format == "webdataset" and plan.picture_step is None:
        raise InputError(
            "shards: format webdataset wants pictures, and no step brings them; add `download`, "
            "or write `format: parquet` for a set without pictures"
        )
    for name in [shards.caption, *(shards.columns or [])]:
        if name not in plan.columns:
            raise InputError(f"shards: there is no column {name!r}; there are: {', '.join(plan.columns)}")
    if not pa.types.is_string(plan.columns[shards.caption].column.type):
        raise InputError(f"shards: caption: column {shards.caption!r} is no text")
    fixed = {c.KEY.name, c.URL.name, c.CAPTION.name, c.IMAGE.name}
    status = {n for n, w in plan.columns.items() if w.kind == "sidecar" and w.name in (sidecars.STATUS, sidecars.ERROR)}
    columns = shards.columns if shards.columns is not None else [n for n in plan.columns if n not in fixed | status]
    holdout = shards.holdout.rows if shards.holdout else 0
    chosen = tuple(name for name in columns if name not in fixed)
    return ShardsWanted(shards.format, shards.rows, shards.seed, shards.caption, chosen, holdout)
