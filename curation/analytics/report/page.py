"""A report as an HTML page that needs nothing beside it, as Markdown, or as JSON; the same report gives the same bytes.

The page may load nothing and talk to nobody: its Content-Security-Policy names its scripts and its style by digest, so
that nothing that stands in a caption can run. Vega compiles its expressions, which needs 'unsafe-eval' for them.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

from curation.analytics.report.contents import Gallery, Plot, Report, Table

FORMATS = {"html": ".html", "markdown": ".md", "json": ".json"}
_BYTES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
_MATRICES = {"matrix": ("filter", "rows"), "correlation": ("signal", "value")}


def html(report: Report, pictures: Mapping[str, bytes | None]) -> str:
    """The page; `pictures` are thumbnails (JPEG) by key."""
    from curation.analytics.report.plots import vega_lite

    plots = [block for section in report.sections for block in section.blocks if isinstance(block, Plot)]
    places = {id(plot): place for place, plot in enumerate(plots)}
    style, scripts = _file("page.css"), (_vega(), _file("page.js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src {_source(style)}; "
        f"script-src {' '.join(map(_source, scripts))} 'unsafe-eval'; base-uri 'none'; form-action 'none'"
    )
    return _rendered(
        "page.html",
        report=report,
        pictures={key: _data_url(jpeg) for key, jpeg in pictures.items() if jpeg is not None},
        plots=[vega_lite(plot) for plot in plots],
        place_of=lambda plot: places[id(plot)],
        policy=policy,
        style=style,
        scripts=scripts,
    )


def markdown(report: Report) -> str:
    """The report for a terminal, a pull request or a card; plots in words, matrices as tables."""
    return _rendered("page.md", report=report, matrix=_matrix)


def as_json(report: Report) -> str:
    """The report's data."""
    return json.dumps(report.record(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def written(value: Any, kind: str) -> str:
    """A value as people read it; `kind` as in `contents.Column`."""
    if value is None:
        return "–"
    if kind == "count":
        return f"{value:,}"
    if kind == "share":
        return f"{100 * value:.1f} %"
    if kind == "bytes":
        return next((f"{value / size:,.1f} {unit}" for size, unit in _BYTES if value >= size), f"{value:,} bytes")
    if kind == "seconds":
        return f"{value:,.1f} s"
    return f"{value:,.6g}" if kind == "number" else str(value)


def _rendered(name: str, **values: Any) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_file),
        autoescape=name.endswith(".html"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"written": written, "cell": _cell}
    environment.tests |= {
        name: lambda block, kind=kind: isinstance(block, kind)
        for name, kind in (("table", Table), ("plot", Plot), ("gallery", Gallery))
    }
    return environment.get_template(name).render(**values)


def _matrix(plot: Plot) -> tuple[Sequence[str], list[list[str]]] | None:
    """Names, and a row of cells for each of them, of a plot that is a matrix."""
    if plot.kind not in _MATRICES:
        return None
    across, value = _MATRICES[plot.kind]
    order = plot.settings["order"]
    cells = {(row["other"], row[across]): row[value] for row in plot.rows}
    kind = "count" if value == "rows" else "number"
    return order, [[written(cells[down, name], kind) for name in order] for down in order]


def _cell(text: str) -> str:
    """Text that Markdown shows as it is, on one line: captions hold pipes, tags and links."""
    flat = " ".join(str(text).split())
    return "".join(f"\\{char}" if char in "\\`*_[]<|~" else "&amp;" if char == "&" else char for char in flat)


@cache
def _vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, which the end of no script and no comment interrupts."""
    import vl_convert

    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _source(text: str) -> str:
    """Text of the page as a Content-Security-Policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _data_url(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def _file(name: str) -> str:
    return (resources.files(__package__) / name).read_text(encoding="utf-8")
