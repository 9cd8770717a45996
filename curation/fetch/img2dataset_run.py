"""Runs the real img2dataset over some URLs, in the environment where it is installed, and reads what it wrote."""

import contextlib
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import RunError

_SHARD_ROWS = 1000  # what is handed on at once
_MAIN = "from img2dataset import main; main()"


class Outcome(NamedTuple):
    """What img2dataset's Parquet and tar say of one row."""

    row: int
    status: str  # success, failed_to_download or failed_to_resize
    message: str | None
    sha256: str | None  # of the fetched bytes
    original_width_px: int | None
    original_height_px: int | None
    picture: bytes | None


def run_img2dataset(
    python: Path, rows: Sequence[int], urls: Sequence[str], options: Mapping[str, str], deadline_s: float | None
) -> Iterator[list[Outcome]]:
    """The outcomes of the shards that img2dataset finished before the deadline. Raises RunError where it failed.

    `options` are img2dataset's own, by the names of its command line; `python` has it installed.
    """
    with tempfile.TemporaryDirectory(prefix="img2dataset-") as name:
        folder = Path(name)
        pq.write_table(pa.table({"url": list(urls), "row": list(rows)}), folder / "urls.parquet")
        fixed = {
            "url_list": str(folder / "urls.parquet"),
            "input_format": "parquet",
            "output_folder": str(folder / "out"),
            "output_format": "webdataset",
            "save_additional_columns": '["row"]',
            "number_sample_per_shard": str(_SHARD_ROWS),
            "processes_count": "1",
            "compute_hash": "sha256",
            "extract_exif": "False",
        }
        _run(python, {**fixed, **options}, folder, deadline_s)
        for parquet in sorted((folder / "out").glob("*.parquet")):
            yield _outcomes(parquet)


def _run(python: Path, options: Mapping[str, str], folder: Path, deadline_s: float | None) -> None:
    command = [str(python), "-I", "-c", _MAIN, *(f"--{name}={value}" for name, value in options.items())]
    environment = {**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1"}
    with open(folder / "log", "w+b") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        try:
            code = process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            return
        finally:
            _end(process)
        if code:
            log.seek(0)
            said = log.read()[-2000:].decode(errors="replace").strip()
            raise RunError(f"img2dataset ended with exit code {code}: {said}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Stop it and what it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, 9)
    process.wait()


def _outcomes(parquet: Path) -> list[Outcome]:
    pictures: dict[str, bytes] = {}
    with tarfile.open(parquet.with_suffix(".tar")) as tar:
        for member in tar:
            key, _, extension = member.name.partition(".")
            stream = tar.extractfile(member) if extension in ("jpg", "png", "webp") else None
            if stream is not None:
                pictures[key] = stream.read()
    return [_outcome(line, pictures) for line in pq.read_table(parquet).to_pylist()]


def _outcome(line: Mapping[str, Any], pictures: Mapping[str, bytes]) -> Outcome:
    return Outcome(
        line["row"],
        line["status"],
        line["error_message"],
        line["sha256"],
        line["original_width"],
        line["original_height"],
        pictures.get(line["key"]),
    )
