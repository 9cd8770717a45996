"""What the page can ask for: questions as JSON, pictures as JPEG, keys as files, and the page itself."""

import os
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import numpy as np
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from curation.analytics.answer import json_value
from curation.analytics.explorer import exporting
from curation.analytics.explorer.described import described
from curation.analytics.explorer.facets import Signal
from curation.analytics.explorer.likeness import Likenesses
from curation.analytics.explorer.ranking import ranked
from curation.analytics.explorer.selecting import Selector
from curation.analytics.explorer.story import exact, story
from curation.analytics.explorer.table import Table
from curation.analytics.explorer.thresholds import threshold
from curation.analytics.explorer.thumbnails_ahead import ThumbnailsAhead
from curation.analytics.explorer.wishes import Page, Selection, Threshold
from schemas.errors import PairmillError

PAGE = Path(__file__).parent / "page"
_MOST_BYTES = 200_000  # of a question
_GONE = (
    "the files of {label} were rewritten or removed since this page was opened, as `forget --purge` and `prune` do; "
    "stop `pairmill explore` and start it again"
)
Wish = TypeVar("Wish", bound=BaseModel)


class Explorer:
    """Answers over one table."""

    def __init__(self, table: Table, thumbnails: ThumbnailsAhead) -> None:
        self.table = table
        self.thumbnails = thumbnails
        self.selector = Selector(table)
        self.likenesses = Likenesses(table)

    def about(self) -> dict[str, Any]:
        """What the page must know to draw itself."""
        bars = self.select(Selection())["bars"]
        return described(self.table, list(self.likenesses.columns.values())) | {"bars": bars}

    def select(self, wish: Selection) -> dict[str, Any]:
        """How many rows a selection has, and how many of them each bar."""
        chosen = self.selector.choose(wish)
        return {"rows": chosen.rows, "bars": dict(zip(self.table.facets, chosen.counts_FS.tolist(), strict=True))}

    def rows(self, wish: Page) -> dict[str, Any]:
        """A page of a selection's rows."""
        kept_N = self.selector.choose(wish.selection).kept_N
        stop, cosines = wish.start + wish.count, None
        if wish.like is not None:
            positions, cosines = self.likenesses.first(wish.like, kept_N, wish.start, stop)
        elif wish.by is not None:
            signal = self.table.signal(wish.by)
            positions = ranked(signal, kept_N, wish.start, stop, highest=wish.order == "desc")
        else:
            positions = np.flatnonzero(kept_N)[wish.start : stop]
        rows = self._rows(positions)
        for row, cosine in zip(rows, () if cosines is None else cosines.tolist(), strict=False):
            row["likeness"] = None if cosine != cosine else cosine
        return {"rows": rows}

    def threshold(self, wish: Threshold) -> dict[str, Any]:
        """What a threshold would leave."""
        answer = threshold(self.table, self.selector, wish)
        answer["edges"] = [
            {side: self._rows(found) for side, found in asdict(edge).items()} for edge in answer["edges"]
        ]
        return answer

    def steps(self, wish: Selection) -> dict[str, Any]:
        """The selection as steps of a specification."""
        return exporting.steps(self.table, wish)

    def _rows(self, positions: np.ndarray) -> list[dict[str, Any]]:
        rows = self.table.records(positions)
        for row in rows:
            for name, value in row.items():
                facet = self.table.facets.get(name)
                is_single = isinstance(facet, Signal) and facet.values_N.dtype == np.float32
                row[name] = _short(value) if is_single and value is not None else exact(json_value(value))
        self.thumbnails.expect([row["key"] for row in rows])
        return rows


def _short(value: float) -> float | None:
    """A number of single precision in as few digits as name it; no NaN."""
    return float(str(np.float32(value))) if np.isfinite(value) else None


def made_app(explorer: Explorer) -> Starlette:
    """The app, which the gate stands before."""
    questions: dict[str, tuple[type[BaseModel], Callable[[Any], Any]]] = {
        "select": (Selection, explorer.select),
        "rows": (Page, explorer.rows),
        "threshold": (Threshold, explorer.threshold),
        "steps": (Selection, explorer.steps),
    }
    answering = partial(_answering, explorer.table)
    routes: list[BaseRoute] = [
        Route(f"/api/{name}", _question(answering, *each), methods=["POST"]) for name, each in questions.items()
    ]
    routes += [
        Route("/", lambda _: FileResponse(PAGE / "index.html")),
        Route("/api/about", answering(lambda _: JSONResponse(explorer.about()))),
        Route("/api/story/{key}", answering(lambda r: JSONResponse(story(explorer.table, r.path_params["key"])))),
        Route("/thumbnail/{key}", answering(lambda r: _picture(explorer.thumbnails.get(r.path_params["key"])))),
        Route("/picture/{key}", answering(lambda r: _picture(explorer.thumbnails.large(r.path_params["key"])))),
        Route("/keys{suffix}", answering(lambda r: _keys(explorer, r))),
        Mount("/page", StaticFiles(directory=PAGE)),
    ]

    return Starlette(routes=routes, exception_handlers={Exception: _failed})


def _failed(_: Request, error: Exception) -> Response:
    """What the page is told of an error that nobody foresaw; the terminal has its traceback, and the server goes on."""
    said = f"pairmill itself failed ({type(error).__name__}: {error}); the terminal of `pairmill explore` says where"
    return JSONResponse({"error": said}, 500)


def _answering(table: Table, answer: Callable[[Request], Response]) -> Callable[[Request], Any]:
    """A route whose answer is computed beside the loop; what is wrong with a question comes back as a sentence."""

    async def answered(request: Request) -> Response:
        try:
            return await run_in_threadpool(answer, request)
        except (PairmillError, duckdb.Error) as error:
            if table.is_gone:
                return JSONResponse({"error": _GONE.format(label=table.chosen.label)}, 410)
            if not isinstance(error, PairmillError):
                raise
            return JSONResponse({"error": str(error)}, 400)

    return answered


def _question(
    answering: Callable[[Callable[[Request], Response]], Callable[[Request], Any]],
    kind: type[Wish],
    answer: Callable[[Wish], Any],
) -> Callable[[Request], Any]:
    async def answered(request: Request) -> Response:
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > _MOST_BYTES:
                return JSONResponse({"error": f"a question has at most {_MOST_BYTES:,} bytes"}, 413)
        try:
            wish = kind.model_validate_json(body)
        except ValidationError as error:
            return _misasked(error)
        return await answering(lambda _: JSONResponse(answer(wish)))(request)

    return answered


def _misasked(error: ValidationError) -> Response:
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) or "the question"
    return JSONResponse({"error": f"{where}: {first['msg']}"}, 400)


def _picture(jpeg: bytes | None) -> Response:
    if jpeg is None:  # many rows never had one, which is no error
        return Response(status_code=204)
    return Response(
        jpeg, media_type="image/jpeg", headers={"cache-control": "private, max-age=300"}
    )  # not longer: it may be purged


def _keys(explorer: Explorer, request: Request) -> Response:
    suffix = request.path_params["suffix"]
    if suffix not in (".parquet", ".txt"):
        return Response(status_code=404)
    try:
        wish = Selection.model_validate_json(request.query_params.get("selection", "{}"))
    except ValidationError as error:
        return _misasked(error)
    path = exporting.keys_file(explorer.table, explorer.selector.choose(wish).kept_N, suffix)
    kind = "application/vnd.apache.parquet" if suffix == ".parquet" else "text/plain; charset=us-ascii"
    return FileResponse(path, media_type=kind, filename=f"keys{suffix}", background=BackgroundTask(os.unlink, path))
