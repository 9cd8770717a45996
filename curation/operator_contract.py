"""What every row operator promises, checked: ours by the tests, a user's own by `pairmill operators --check`.

What is broken comes back as sentences. An operator is tried on a few rows (curation/sample_rows.py): it must add the
columns that it declares, in order, give each row the same values in whatever batch it stands, and fail rows alone.
"""

import ast
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from curation.execution.guarded import Guarded
from curation.execution.operator_run import stored_array
from curation.operator import OK, Batch, Failure, Operator, Output, Resources, example_parameters
from curation.registry import OperatorRef, own_files, own_source
from curation.sample_rows import sample_batch
from schemas import columns as c
from schemas.columns import Column
from schemas.errors import InputError

MOST_LINES = 150
HEAVY = frozenset({"cv2", "numba", "onnxruntime", "open_clip", "prefect", "ray", "tensorflow", "torch", "transformers"})
RAISED = "error"  # the status of a row for which `run` raised


class ContractError(Exception):
    """What an operator returns is not what it declares."""


DECLARED = {value.name: value for value in vars(c).values() if isinstance(value, Column)}


def check_folder(folder: str | Path) -> dict[str, list[str]]:
    """What each operator of a user's folder breaks, in sentences, by file. Raises InputError for no folder."""
    return {path.name: list(_breaches_in(path)) for path in own_files(folder)}


def file_breaches(source: str) -> Iterator[str]:
    """What is wrong with an operator's file, from its text alone."""
    lines = source.count("\n")
    if lines >= MOST_LINES:
        yield f"the file has {lines} lines; below {MOST_LINES} it can be read at once: move the algorithm elsewhere"
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return  # loading it says where
    public = [node.name for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    if len(public) != 1:
        yield f"the file has {len(public)} public classes ({', '.join(public) or 'none'}); one file, one operator"
    for name in sorted(HEAVY & set(_imported(tree))):
        yield f"imports {name} at its top; planning imports every operator, so import it inside `open` or `run`"


def class_breaches(cls: type[Operator]) -> Iterator[str]:
    """What is wrong with an operator's class before it is built."""
    summary, _, rest = (cls.__dict__.get("__doc__") or "").strip().partition("\n")
    if not summary.endswith(".") or (rest and rest.splitlines()[0].strip()):
        yield "the first line of the class's docstring is no sentence; `pairmill operators` shows it: end it with '.'"
    if not isinstance(cls.version, int) or cls.version < 1:
        yield f"version is {cls.version!r}; it is a number from 1, raised whenever results change"
    if not isinstance(cls.resources, Resources):
        yield "resources is no Resources(cpus=…, gpus=…, memory_gb=…)"
    for name, info in cls.model_fields.items():
        if name != "columns" and not info.description:
            yield f"parameter {name!r} has no description; write Field(…, description='…')"
    if not cls.model_config.get("frozen") or cls.model_config.get("extra") != "forbid":
        yield "model_config must stay frozen=True, extra='forbid'"


def column_breaches(operator: Operator) -> Iterator[str]:
    """What is wrong with the columns that an operator declares."""
    for what, columns in (("reads", operator.reads), ("adds", operator.adds)):
        if not isinstance(columns, tuple) or not all(isinstance(column, Column) for column in columns):
            yield f"{what} is no tuple of schemas.columns.Column"
            return
        names = [column.name for column in columns]
        if len(set(names)) < len(names):
            yield f"{what} names a column twice: {', '.join(names)}"
        for column in columns:
            ours = DECLARED.get(column.name, column)
            if ours.type != column.type:
                yield f"{what} {column.name!r} as {column.type}, but schemas/columns.py has it as {ours.type}"
            if not column.meaning:
                yield f"{what} {column.name!r} without saying what it means"
    if not operator.adds:
        yield "adds no column"


def run_breaches(operator: Operator, batch: Batch, opened: Any, *, exact: bool = True) -> Iterator[str]:
    """What an operator does wrong on a batch; `exact` demands the same bits from other batches, too."""
    try:
        whole = outcome(operator, batch, opened)
    except (ContractError, TypeError, ValueError, pa.ArrowException) as error:
        yield f"what `run` returns does not fit what the operator declares: {error}"
        return
    raised = [row for row, status in enumerate(whole["status"].to_pylist()) if status == RAISED]
    if raised:
        yield (
            f"raises on row {raised[0]} of the sample ({_row(batch, raised[0])}): {whole['error'][raised[0]]}; "
            "give the row a value, or a Failure(status, error) that says why it has none"
        )
        return
    if not exact:
        whole = whole.select(["status"])
    backwards = list(range(len(batch)))[::-1]
    half = len(batch) // 2
    for what, parts in (
        ("one row at a time", [[row] for row in range(len(batch))]),
        ("in two batches", [list(range(half)), list(range(half, len(batch)))]),
        ("in another order", [backwards]),
    ):
        again = [outcome(operator, taken(batch, rows), opened).select(whole.column_names) for rows in parts]
        order = [row for rows in parts for row in rows]
        if not pa.concat_tables(again).combine_chunks().equals(whole.take(pa.array(order)).combine_chunks()):
            yield f"gives other values {what}: a row's values must not depend on the rows beside it"


def outcome(operator: Operator, batch: Batch, opened: Any) -> pa.Table:
    """Status, error and added columns of each row, as a worker would store them. Raises where they do not fit."""
    rows = np.arange(len(batch))
    found: list[tuple[np.ndarray, pa.Table]] = []
    for some, output in Guarded(operator).stream(iter([(rows, batch)]), opened):
        found.append((some, _stored(operator, len(some), output)))
    came_back = np.concatenate([some for some, _ in found]) if found else np.zeros(0, np.int64)
    order = np.argsort(came_back, kind="stable")
    if not np.array_equal(came_back[order], rows):
        raise ContractError(f"of {len(batch)} rows, {len(came_back)} came back")
    return pa.concat_tables([table for _, table in found]).take(pa.array(order)).combine_chunks()


def taken(batch: Batch, rows: Sequence[int]) -> Batch:
    """Some rows of a batch."""
    return Batch(batch.table.take(pa.array(rows, pa.int64())), [batch.stored[row] for row in rows])


def _stored(operator: Operator, count: int, output: Output) -> pa.Table:
    values = [column for column in operator.adds if column.name != c.IMAGE.name]
    wanted, got = {column.name for column in values}, set(output.values) - {c.IMAGE.name}
    if got != wanted:
        raise ContractError(f"it adds {sorted(wanted)}, but returns {sorted(got)}")
    for name, found in output.values.items():
        if len(found) != count:
            raise ContractError(f"{name!r} has {len(found)} values for {count} rows")
    for row, failure in output.failures.items():
        if not isinstance(failure, Failure) or not 0 <= row < count:
            raise ContractError(
                f"failures map rows of the batch to Failure(status, error), but it has {row}: {failure}"
            )
    brings_pictures = len(values) < len(operator.adds)
    if brings_pictures != (output.stored is not None) and len(output.failures) < count:
        raise ContractError("pictures are returned exactly by an operator that adds `image`")
    failed = np.zeros(count, bool)
    failed[list(output.failures)] = True
    status = [output.failures[row].status if row in output.failures else OK for row in range(count)]
    errors = [output.failures[row].error if row in output.failures else None for row in range(count)]
    arrays = {column.name: stored_array(output.values[column.name], column, failed) for column in values}
    return pa.table({"status": status, "error": pa.array(errors, pa.string())} | arrays)


def _breaches_in(path: Path) -> Iterator[str]:
    try:
        yield from _breaches_of(OperatorRef(path.stem, {}, own_source(path)))
    except InputError as error:
        yield str(error).removeprefix(f"operators: your own file {path.name} ")


def _breaches_of(ref: OperatorRef) -> Iterator[str]:
    yield from file_breaches(ref.source)
    cls = ref.operator_class()
    yield from class_breaches(cls)
    parameters, unknown = example_parameters(cls)
    if unknown:
        yield f"cannot be tried: parameter {unknown!r} is required; write Field(…, examples=[…]) and it is tried so"
        return
    try:
        operator = pickle.loads(pickle.dumps(OperatorRef(ref.name, parameters, ref.source))).build()
        operator.check()
        broken = list(column_breaches(operator))
        yield from broken
        if not broken:
            yield from run_breaches(operator, sample_batch(operator), operator.open(), exact=not operator.captured)
    except ValidationError as error:
        yield f"cannot be built with its own examples: {error.errors()[0]['msg']}"
    except InputError as error:
        yield str(error)
    except Exception as error:  # a user's own code may raise anything, and the other files wait to be checked
        yield f"cannot be tried: {type(error).__name__}: {error}"


def _imported(tree: ast.Module) -> Iterator[str]:
    """Top-level packages that a module imports when it is imported."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def _row(batch: Batch, row: int) -> str:
    values = {name: value for name, value in batch.table.slice(row, 1).to_pylist()[0].items() if name != c.KEY.name}
    text = ", ".join(f"{name}={str(value)[:40]!r}" for name, value in values.items())
    return text or f"a picture of {len(batch.stored[row] or b'')} bytes"
