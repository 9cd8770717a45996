"""What the views are called, which columns they have, and what each means: comments that DuckDB shows.

The columns of `samples` and `curated` are a data set's own: their meanings stand in its manifest.
"""

from collections.abc import Mapping

import pyarrow as pa

from schemas import columns as c

VIEWS = {
    "samples": "one row per key of the version's source snapshot: its columns, signals and fate, sorted by key",
    "curated": "one row per curated pair as it stands in the shards, embeddings included",
    "funnel": "rows into and out of every step, and why the others did not pass",
    "shards": "one row per shard: files, rows, bytes, digests",
    "parts": "one row per part of the pool that has rows of the version's source snapshot",
    "columns": "name, type and meaning of the columns of samples and curated",
    "runs": "every run on this store, in the order they started",
    "evaluations": "one row per score of a model that was trained on a set of this store, in the order of time",
    "downloads": "one row per URL and time that it was wanted: status, host, attempts, when, seconds, bytes",
}
OF_STORE = {"runs", "evaluations"}  # the others are of one version

_INT, _TEXT, _COUNT, _TIME = pa.int32(), pa.string(), pa.int64(), pa.timestamp("us")
_TABLES: dict[str, dict[str, tuple[pa.DataType, str]]] = {
    "funnel": {
        "number": (_INT, "place of the step; 0 is the source"),
        "step": (_TEXT, "the step, as in steps[3] dedup, or its id"),
        "kind": (_TEXT, "what the step does: the name of its operator"),
        "rows_in": (_COUNT, "rows alive before the step"),
        "rows_out": (_COUNT, "rows alive after it"),
        "reason": (_TEXT, "why the others did not pass"),
    },
    "shards": {
        "number": (_INT, "place of the shard; shards that are held out come last"),
        "tar": (_TEXT, "its tar, relative to the manifest's folder; NULL for sets without pictures"),
        "parquet": (_TEXT, "its Parquet file, relative to the manifest's folder"),
        "rows": (_COUNT, "pairs in it"),
        "tar_bytes": (_COUNT, "length of the tar in bytes"),
        "parquet_bytes": (_COUNT, "length of the Parquet file in bytes"),
        "tar_sha256": (_TEXT, "SHA-256 of the tar, hex"),
        "parquet_sha256": (_TEXT, "SHA-256 of the Parquet file, hex"),
        "holdout": (pa.bool_(), "whether the shard is held out for evaluation"),
        "redacted": (_COUNT, "pairs that `forget --purge` has taken out of it"),
    },
    "parts": {
        "number": (_INT, "place of the part among those of the snapshot"),
        "part": (_TEXT, "its name: number of the ingest, and of the part in it"),
        "rows": (_COUNT, "rows that it has in the pool"),
        "members": (_COUNT, "how many of them the version's source snapshot has"),
        "bytes": (_COUNT, "length in bytes of its file of keys, URLs and captions"),
        "file": (_TEXT, "that file, relative to the store"),
    },
    "columns": {
        "number": (_INT, "place among the columns"),
        "name": (_TEXT, "the column"),
        "type": (_TEXT, "its type, as Arrow says it"),
        "meaning": (_TEXT, "what its values mean"),
        "step": (_TEXT, "the step that adds it; source for those that came with the rows"),
        "in_shards": (pa.bool_(), "whether shards have it, too"),
    },
    "runs": {
        "number": (_INT, "place in the order of start"),
        "name": (_TEXT, "the data set"),
        "plan": (_TEXT, "the plan that was run"),
        "version": (_TEXT, "the version it made; NULL where the run has not finished"),
        "finished_at": (_TIME, "when it finished, UTC; NULL where it has not"),
    },
    "evaluations": {
        "name": (_TEXT, "the data set that the model was trained on"),
        "version": (_TEXT, "and which version of it"),
        "training": (_TEXT, "the training's name"),
        "model": (_TEXT, "folder of the model"),
        "step": (_COUNT, "the training's step at which the model was; NULL where nobody knows"),
        "evaluation": (_TEXT, "what the scores stand under in the specification"),
        "class": (_TEXT, "the class or group that the score is of, such as `blue` or `split testA`; NULL for all"),
        "metric": (_TEXT, "what was measured: top1, mean_per_class_recall, image_to_text_recall@1 …"),
        "value": (pa.float64(), "the score; shares from 0 to 1"),
        "evaluated_at": (_TIME, "when, UTC"),
    },
}
TABLES = {view: pa.schema({n: kind for n, (kind, _) in columns.items()}) for view, columns in _TABLES.items()}
FATE_COLUMNS = (c.FATE, c.FATE_STEP, c.FATE_REASON, c.DUPLICATE_OF)
MEANINGS: Mapping[str, Mapping[str, str]] = {
    **{view: {name: meaning for name, (_, meaning) in columns.items()} for view, columns in _TABLES.items()},
    "downloads": {
        "key": "key of the first row that wanted the URL",
        "url": "the address that was asked for",
        "host": "the host that answered last",
        "status": "what became of it: ok, or the class of failure",
        "http_status": "HTTP status of the last answer",
        "attempts": "how often it was asked for; 0 where its status says why it was not",
        "fetched_at": "when this was known, UTC",
        "seconds": "time in transfer, all attempts together",
        "fetched_bytes": "length of what was fetched",
        "content_type": "type that the host claimed",
        "redirects": "redirects of the last attempt",
        "detail": "what the HTTP client said of a failure, in its own words",
    },
}
