"""Predicates that people type: bound as `keep` binds them, within the limits of the table."""

import duckdb

from curation import sql
from curation.analytics.explorer.table import Table
from curation.selection.keep import Keep
from curation.sql_expression import require_function_of_row, used_columns
from schemas import columns as c
from schemas.errors import InputError

FATES = (c.FATE.name, c.FATE_STEP.name, c.FATE_REASON.name, c.DUPLICATE_OF.name)


def require_predicate(table: Table, text: str, *, in_step: bool = False) -> None:
    """Refuse what could not stand in `keep: <SQL>`; a step cannot ask about fates, the page can.

    Raises InputError as `check` does, and for what takes too much memory or time.
    """
    types = {name: kind for name, kind in table.types.items() if not (in_step and name in FATES)}
    require_function_of_row(text, types)
    step = Keep(predicate=text)
    try:  # here, where it is limited: DuckDB computes constants when it binds, such as range(1000000000)
        with table.asked() as connection:
            bound = connection.sql(f"SELECT (\n{text}\n) AS kept FROM (FROM samples WHERE false)").to_arrow_table()
    except InputError as error:
        if isinstance(error.__cause__, duckdb.BinderException | duckdb.CatalogException):
            sql.bind(step.inputs, types)  # says it in the words of `check`
        raise
    step.check(dict.fromkeys(step.inputs, bound.schema.field(0).type))
    if in_step and used_columns(text, table.types) & set(FATES):
        sql.bind(step.inputs, types)  # raises
