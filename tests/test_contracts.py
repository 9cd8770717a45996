"""What every operator promises, over all of them; a user's own are held to the same by `pairmill operators --check`."""

import json
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SmallWeb
from operator_cases import BROKEN, NAMES, Case, case, golden, record, tiny_clip
from pydantic import ValidationError

from curation.operator import Operator
from curation.operator_contract import (
    DECLARED,
    class_breaches,
    column_breaches,
    file_breaches,
    outcome,
    run_breaches,
)
from curation.plan import build_plan
from curation.registry import Registry, dataset_steps, operator_names
from curation.sample_rows import sample_batch
from schemas.columns import IMAGE, any_embedding
from schemas.pipeline import CurationSpec

ROOT = Path(__file__).parents[1]
CLASSES = {name: Registry().operator(name).operator_class() for name in operator_names()}
RECORD = "PAIRMILL_RECORD"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def opened() -> dict[str, object]:
    """What `open` returned, by case: a model is loaded once."""
    return {}


@pytest.fixture(params=NAMES)
def tried(request: pytest.FixtureRequest, web: SmallWeb, model: Path, opened: dict[str, object]) -> tuple[str, Case]:
    found = case(request.param, model, web.put)
    if request.param not in opened:
        opened[request.param] = found.operator.open()
    return request.param, found


def test_every_operator_has_a_case() -> None:
    assert {type(case(name, Path(), lambda path, *_: path).operator) for name in NAMES} == set(CLASSES.values())


@pytest.mark.parametrize("name", CLASSES)
def test_an_operator_is_one_class_in_a_short_file_that_imports_nothing_heavy(name: str) -> None:
    source = (ROOT / "curation" / "operators" / f"{name}.py").read_text()
    assert list(file_breaches(source)) == []
    assert list(class_breaches(CLASSES[name])) == []


@pytest.mark.parametrize("name", sorted(dataset_steps()))
def test_a_dataset_step_says_in_one_sentence_what_it_does(name: str) -> None:
    step = dataset_steps()[name]
    assert (step.__doc__ or "").splitlines()[0].endswith(".")
    assert all(info.description for field, info in step.model_fields.items() if field != "mark")


def test_columns_are_those_of_the_one_list_of_columns(tried: tuple[str, Case]) -> None:
    name, found = tried
    assert list(column_breaches(found.operator)) == []
    own = {column.name for column in (*found.operator.reads, *found.operator.adds)}
    embeddings = {column.name for column in found.operator.adds if column.is_embedding}
    read = {column.name for column in found.operator.reads if column == any_embedding(column.name)}
    derived = {"aspect", "shouted"} if name == "derive" else read
    assert own - derived - embeddings <= set(DECLARED)


def test_an_operator_is_frozen_and_survives_the_way_to_a_worker(tried: tuple[str, Case]) -> None:
    _, found = tried
    again = pickle.loads(pickle.dumps(found.operator))
    assert again == found.operator
    assert (again.reads, again.adds) == (found.operator.reads, found.operator.adds)
    with pytest.raises((ValidationError, ValueError, TypeError)):
        found.operator.anything = 1  # type: ignore[attr-defined]
    with pytest.raises(ValidationError):
        type(found.operator)(**found.operator.model_dump(), no_such_parameter=1)


def test_a_row_has_the_same_values_in_whatever_batch_it_stands(
    tried: tuple[str, Case], opened: dict[str, object]
) -> None:
    name, found = tried
    assert list(run_breaches(found.operator, found.batch, opened[name])) == []


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"derive", "download"}))
def test_an_operator_bears_the_rows_of_every_real_pool(
    name: str, web: SmallWeb, model: Path, opened: dict[str, object]
) -> None:
    operator = case(name, model, web.put).operator
    batch = sample_batch(operator)
    assert list(run_breaches(operator, batch, opened.get(name) or operator.open())) == []


@pytest.mark.parametrize(
    "tried", ["clip_embed", "image_hash", "image_hash_dhash", "image_hash_pdq", "inspect_image"], indirect=True
)
def test_a_broken_picture_fails_alone(tried: tuple[str, Case], opened: dict[str, object]) -> None:
    name, found = tried
    assert IMAGE in found.operator.reads
    statuses = outcome(found.operator, found.batch, opened[name])["status"].to_pylist()
    assert [row for row, status in enumerate(statuses) if status != "ok"] == [BROKEN]


def test_an_operators_values_are_those_recorded_for_its_version(
    tried: tuple[str, Case], opened: dict[str, object]
) -> None:
    name, found = tried
    table = outcome(found.operator, found.batch, opened[name]).drop_columns(["error"])
    values = {column: shown(found.operator, column, table[column].to_pylist()) for column in table.column_names}
    key = f"{name}@{found.operator.version}"
    if key not in golden()["outputs"] and RECORD in os.environ:
        record(key, values)
    recorded = golden()["outputs"].get(key)
    assert recorded is not None, f"{key} is not recorded; do so with {RECORD}=1 in the environment of this test"
    assert list(recorded) == list(values)
    for column, now in values.items():
        assert equal(now, recorded[column], found.tolerance), (
            f"{name}: {column} is {now}, recorded was {recorded[column]}; an operator whose values change gets a new "
            "version, else stores mix old and new ones"
        )


def test_nothing_is_recorded_of_operators_and_versions_that_are_gone() -> None:
    versions = {name: case(name, Path(), lambda path, *_: path).operator.version for name in NAMES}
    assert set(golden()["outputs"]) == {f"{name}@{version}" for name, version in versions.items()}


def shown(operator: Operator, column: str, values: list) -> list:
    """Values as JSON holds them; a vector as its numbers."""
    import numpy as np

    if not any(added.name == column and added.is_embedding for added in operator.adds):
        return json.loads(json.dumps(values, default=bytes.hex))
    return [v if v is None else [round(x, 4) for x in np.frombuffer(v, np.float16).tolist()] for v in values]


def equal(now: object, then: object, tolerance: float) -> bool:
    if isinstance(now, list) and isinstance(then, list):
        return len(now) == len(then) and all(equal(a, b, tolerance) for a, b in zip(now, then, strict=True))
    if isinstance(now, float) and isinstance(then, float):
        return math.isclose(now, then, rel_tol=0, abs_tol=tolerance) or now == then
    return now == then


def test_settings_are_no_part_of_a_fingerprint() -> None:
    settings = {"allow_networks", "concurrency", "per_host", "requests_per_s", "retries", "timeout_s", "user_agent"}
    settings |= {
        "block_domains",
        "block_hashes",
        "isolate",
        "opt_out",
        "part_deadline_s",
        "ports",
        "robots",
        "expect_sha256",
    }
    assert set(CLASSES["download"].model_fields) - set(CLASSES["download"].result_parameters()) == settings
    assert CLASSES["clip_embed"].result_parameters() == ["batch_size", "precision"]  # weights_digest names the model
    default, other_setting, other_size = (
        fingerprint({"download": parameters}) for parameters in ({}, {"timeout_s": 3}, {"shortest_side_px": 64})
    )
    assert default == other_setting
    assert default != other_size


def fingerprint(step: dict) -> str:
    spec = CurationSpec.model_validate({"name": "x", "source": {"table": "x.parquet"}, "steps": [step]})
    (planned,) = build_plan(spec, {}, captured=False).steps
    return planned.base_fingerprint  # type: ignore[union-attr]


def test_planning_imports_neither_torch_nor_ray_nor_prefect() -> None:
    code = (
        "import sys, curation.plan\n"
        "from curation.registry import Registry\n"
        "[Registry().operator(name).operator_class() for name in Registry().operators]\n"
        "print([n for n in ('numba', 'open_clip', 'prefect', 'ray', 'torch', 'transformers') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
