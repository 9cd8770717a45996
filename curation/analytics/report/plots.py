"""Plots as Vega-Lite by Altair: one function per kind of plot, each from the plot's data alone.

Colours are names (`curated`, `ink` …) that the page's script replaces, so that one plot serves light and dark pages.
Fields have names of our own, never those of a user's columns: a column may be called `a.b[0]`, which Vega would parse.
"""

from collections.abc import Callable, Mapping
from typing import Any

from curation.analytics.report.contents import Plot

_FATES = ("curated", "dropped", "failed")  # in the order in which they are stacked; colours go by the same names
_HEIGHT_PX = 200
_ROW_PX = 24
_CELL_PX = 34
_ROOM = 1.35  # of the longest bar, for the counts behind it


def vega_lite(plot: Plot) -> dict[str, Any]:
    """The plot as a Vega-Lite specification that holds its data."""
    import altair as alt

    with alt.data_transformers.enable("default", max_rows=None):
        chart = _KINDS[plot.kind](plot)
        made: dict[str, Any] = chart.properties(description=plot.description).to_dict()
    del made["config"]  # the page's own
    return made


def _funnel(plot: Plot) -> Any:
    import altair as alt

    steps = list(dict.fromkeys(row["step"] for row in plot.rows))
    most = max((row["rows"] for row in plot.rows), default=0)
    ends = [
        {"step": step, "rows": passed["rows"] + ended["rows"], "said": _counts(passed["rows"], ended["rows"])}
        for step, passed, ended in zip(steps, plot.rows[::2], plot.rows[1::2], strict=True)
    ]
    colours = alt.Scale(domain=["passed", *_FATES[1:]], range=["@curated", "@dropped", "@failed"])
    across = alt.X("rows:Q", title="rows", axis=_ticks(alt), scale=alt.Scale(domain=[0, _ROOM * most], nice=False))
    down = alt.Y("step:N", sort=steps, title=None, axis=alt.Axis(labelLimit=150))
    bars = (
        _data(alt, plot.rows)
        .mark_bar(cornerRadius=2)
        .encode(
            x=across,
            y=down,
            color=alt.Color("part:N", scale=colours, title=None, legend=alt.Legend(orient="top")),
            order="layer:Q",
            tooltip=[_text(alt, "step"), _text(alt, "part"), _count(alt, "rows"), _text(alt, "why")],
        )
    )
    said = _data(alt, ends).mark_text(align="left", dx=6, color="@soft").encode(x=across, y=down, text="said:N")
    return alt.layer(bars, said).properties(width="container", height=_ROW_PX * len(steps))


def _histogram(plot: Plot) -> Any:
    import altair as alt

    scale = alt.Scale(type="log", nice=False) if plot.settings["is_log"] else alt.Scale(zero=False, nice=False)
    title = plot.settings["meaning"] + (" (logarithmic)" if plot.settings["is_log"] else "")
    bars = (
        _data(alt, [{**row, "layer": _FATES.index(row["fate"])} for row in plot.rows])
        .mark_bar(binSpacing=1)
        .encode(
            x=alt.X(
                "start:Q",
                bin="binned",
                scale=scale,
                title=title,
                axis=alt.Axis(tickCount=8, labelOverlap=True, labelSeparation=8),
            ),
            x2="end:Q",
            y=alt.Y("rows:Q", title="rows", stack=True, axis=_ticks(alt)),
            color=_fates(alt),
            order="layer:Q",
            tooltip=[_number(alt, "start"), _number(alt, "end"), _text(alt, "fate"), _count(alt, "rows")],
        )
    )
    lines = [{**line, "said": f"{line['operator']} {line['value']:.6g}"} for line in plot.settings["thresholds"]]
    layers = [bars]
    if lines:
        base = _data(alt, lines).encode(x="value:Q", tooltip=[_text(alt, "step"), _text(alt, "said")])
        layers.append(base.mark_rule(strokeDash=[5, 3], strokeWidth=2, color="@threshold"))
        layers.append(base.mark_text(align="left", dx=5, y=8, fontWeight="bold", color="@ink").encode(text="said:N"))
    return alt.layer(*layers).properties(width="container", height=_HEIGHT_PX)


def _bars(plot: Plot) -> Any:
    import altair as alt

    rows = [
        {"value": row["value"], "layer": layer, "fate": fate, "rows": count}
        for row in plot.rows
        for layer, fate, count in ((0, "curated", row["curated"]), (1, "not curated", row["rows"] - row["curated"]))
    ]
    order = [row["value"] for row in plot.rows]
    colours = alt.Scale(domain=["curated", "not curated"], range=["@curated", "@dropped"])
    return (
        _data(alt, rows)
        .mark_bar(cornerRadius=2)
        .encode(
            x=alt.X("rows:Q", title="rows", axis=_ticks(alt)),
            y=alt.Y("value:N", sort=order, title=None, axis=alt.Axis(labelLimit=200)),
            color=alt.Color("fate:N", scale=colours, title=None, legend=alt.Legend(orient="top")),
            order="layer:Q",
            tooltip=[_text(alt, "value"), _text(alt, "fate"), _count(alt, "rows")],
        )
        .properties(width="container", height=_ROW_PX * len(order))
    )


def _matrix(plot: Plot) -> Any:
    import altair as alt

    order = list(plot.settings["order"])
    both = _axes(alt, plot, order, "filter", "other")
    tooltip = [_text(alt, "filter"), _text(alt, "other"), _count(alt, "rows"), _count(alt, "compared")]
    cells = both.mark_rect(cornerRadius=2).encode(
        color=alt.Color("rows:Q", scale=alt.Scale(range=["@paper", "@much-bad"], interpolate="rgb"), legend=None),
        tooltip=tooltip,
    )
    said = alt.expr.if_(alt.datum.rows == None, "?", alt.expr.format(alt.datum.rows, ".3~s"))  # noqa: E711
    text = both.transform_calculate(said=said).mark_text(fontSize=10, color="@ink").encode(text="said:N")
    return alt.layer(cells, text).properties(width=_CELL_PX * len(order), height=_CELL_PX * len(order))


def _correlation(plot: Plot) -> Any:
    import altair as alt

    order = list(plot.settings["order"])
    both = _axes(alt, plot, order, "signal", "other")
    tooltip = [_text(alt, "signal"), _text(alt, "other"), _number(alt, "value"), _count(alt, "rows")]
    scale = alt.Scale(domain=[-1, 0, 1], range=["@much-bad", "@paper", "@much-good"], interpolate="rgb")
    cells = both.mark_rect(cornerRadius=2).encode(color=alt.Color("value:Q", scale=scale, legend=None), tooltip=tooltip)
    text = both.mark_text(fontSize=10, color="@ink").encode(text=alt.Text("value:Q", format=".2f"))
    return alt.layer(cells, text).properties(width=_CELL_PX * len(order), height=_CELL_PX * len(order))


def _sizes(plot: Plot) -> Any:
    import altair as alt

    scale = alt.Scale(type="log", base=2, nice=False)
    axis = alt.Axis(format="d", labelOverlap=True)
    colours = alt.Scale(type="sqrt", range=["@ground", "@curated"], interpolate="rgb")
    return (
        _data(alt, plot.rows)
        .mark_rect()
        .encode(
            x=alt.X("width_px:Q", scale=scale, axis=axis, title="width in pixels"),
            x2="wider_px:Q",
            y=alt.Y("height_px:Q", scale=scale, axis=axis, title="height in pixels"),
            y2="higher_px:Q",
            color=alt.Color("rows:Q", scale=colours, title="rows"),
            tooltip=[_number(alt, "width_px"), _number(alt, "height_px"), _count(alt, "rows"), _count(alt, "curated")],
        )
        .properties(width="container", height=2 * _HEIGHT_PX)
    )


_KINDS: Mapping[str, Callable[[Plot], Any]] = {
    "funnel": _funnel,
    "histogram": _histogram,
    "bars": _bars,
    "matrix": _matrix,
    "correlation": _correlation,
    "sizes": _sizes,
}


def _data(alt: Any, rows: Any) -> Any:
    return alt.Chart(alt.Data(values=list(rows)))


def _axes(alt: Any, plot: Plot, order: list[str], across: str, down: str) -> Any:
    """Every pair of names as a cell."""
    axis = alt.Axis(labelLimit=140, labelAngle=-40)
    return _data(alt, plot.rows).encode(
        x=alt.X(f"{across}:N", sort=order, title=None, axis=axis),
        y=alt.Y(f"{down}:N", sort=order, title=None, axis=alt.Axis(labelLimit=160)),
    )


def _ticks(alt: Any) -> Any:
    return alt.Axis(format=",d", tickCount=5, tickMinStep=1, labelOverlap=True, labelSeparation=8)


def _counts(passed: int, ended: int) -> str:
    return f"{passed:,} (−{ended:,})" if ended else f"{passed:,}"


def _fates(alt: Any) -> Any:
    scale = alt.Scale(domain=list(_FATES), range=[f"@{fate}" for fate in _FATES])
    return alt.Color("fate:N", scale=scale, title=None, legend=alt.Legend(orient="top"))


def _text(alt: Any, name: str) -> Any:
    return alt.Tooltip(f"{name}:N")


def _count(alt: Any, name: str) -> Any:
    return alt.Tooltip(f"{name}:Q", format=",")


def _number(alt: Any, name: str) -> Any:
    return alt.Tooltip(f"{name}:Q", format=".4~g")
