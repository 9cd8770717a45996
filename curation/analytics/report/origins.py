"""Where the rows come from and what they are: languages, formats, sizes, hosts, downloads, repeated captions."""

from curation.analytics.report.contents import Column, Plot, Section, Table
from curation.analytics.report.questions import CAPTION, Questions
from schemas import columns as c

_MOST = 20
_COUNTS = (Column("rows", "Rows", "count"), Column("curated", "Curated", "count"), Column("share", "Share", "share"))
_SIZE_PAIRS = (("width_px", "height_px"), ("original_width_px", "original_height_px"))


def languages(asked: Questions) -> Section:
    """The most frequent languages of captions, and formats of pictures."""
    blocks: list[Plot | Table] = []
    for name, title in ((c.LANGUAGE.name, "Languages of captions"), (c.FORMAT.name, "Formats of pictures")):
        if name in asked.types:
            rows = _with_shares(asked.ask("frequent", {"most": _MOST}, column=f'"{name}"'))
            if len(rows) > 1:
                blocks.append(Plot(name, title, "bars", _said(rows, "value"), rows))
            blocks.append(Table(name, title, (Column("value", name), *_COUNTS), rows))
    text = (
        () if c.LANGUAGE.name in asked.types else ("No step tells the language of captions; the step language does.",)
    )
    return Section("languages", "Languages and formats", text, tuple(blocks))


def sizes(asked: Questions) -> Section:
    """How large pictures are."""
    pair = next((pair for pair in _SIZE_PAIRS if set(pair) <= asked.types.keys()), None)
    if pair is None:
        return Section("sizes", "Sizes", ("No step tells how large pictures are; the step inspect_image does.",))
    rows = asked.ask("sizes", width=f'"{pair[0]}"', height=f'"{pair[1]}"')
    for row in rows:
        row |= {"width_px": 2 ** (row["width_step"] / 2), "wider_px": 2 ** ((row["width_step"] + 1) / 2)}
        row |= {"height_px": 2 ** (row["height_step"] / 2), "higher_px": 2 ** ((row["height_step"] + 1) / 2)}
    most = sorted(rows, key=lambda row: -row["rows"])[:3]
    said = "; ".join(f"about {row['width_px']:.0f} × {row['height_px']:.0f} px: {row['rows']:,} rows" for row in most)
    text = f"By {pair[0]} and {pair[1]}, in steps of half an octave, of all rows that have them."
    return Section("sizes", "Sizes", (text,), (Plot("sizes", "Pictures by width and height", "sizes", said, rows),))


def hosts(asked: Questions) -> Section:
    """The hosts with most rows."""
    rows = _with_shares(asked.ask("hosts", {"most": _MOST}))
    if not rows:
        return Section("hosts", "Hosts", ("No row has a URL.",))
    columns = (Column("host", "Host"), *_COUNTS, Column("failed", "Failed", "count"))
    plot = Plot(
        "hosts", "Hosts with most rows", "bars", _said(rows, "host"), [row | {"value": row["host"]} for row in rows]
    )
    return Section("hosts", "Hosts", (), (plot, Table("hosts", f"The first {_MOST}", columns, rows)))


def downloads(asked: Questions) -> Section:
    """What became of the addresses that were asked for."""
    rows = asked.ask("downloads")
    if not rows:
        return Section("downloads", "Downloads", ("The store has no record of downloads for this version.",))
    columns = (
        Column("status", "Outcome"),
        Column("urls", "Addresses", "count"),
        Column("repeated", "Asked again", "count"),
        Column("not_asked", "Never asked", "count"),
        Column("bytes", "Fetched", "bytes"),
        Column("seconds", "In transfer", "seconds"),
    )
    text = "One line per class of outcome: ok, or why there is no picture. Times are of all transfers together."
    return Section("downloads", "Downloads", (text,), (Table("downloads", "Outcomes", columns, rows),))


def captions(asked: Questions) -> Section:
    """The captions that most rows share."""
    rows = _with_shares(asked.ask("captions", {"most": _MOST}, caption=CAPTION))
    if not rows:
        return Section("captions", "Repeated captions", ("No two rows have the same caption.",))
    table = Table("captions", "Most repeated", (Column("caption", "Caption"), *_COUNTS), rows)
    return Section("captions", "Repeated captions", (), (table,))


def _with_shares(rows: list[dict]) -> list[dict]:  # type: ignore[type-arg]
    return [row | {"share": row["curated"] / row["rows"]} for row in rows]


def _said(rows: list[dict], name: str) -> str:  # type: ignore[type-arg]
    return "; ".join(f"{row[name]}: {row['rows']:,} rows, {row['curated']:,} curated" for row in rows)
