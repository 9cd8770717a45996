"""Writes the report on a version to a file."""

import os
from contextlib import closing
from pathlib import Path

from curation.analytics.report.page import FORMATS, as_json, html, markdown
from curation.analytics.report.report import report
from curation.analytics.thumbnails import Pictures
from curation.storage.store import Store
from curation.versions import Chosen, resolve
from schemas.errors import InputError

_THUMBNAIL_PX = 192


def write_report(store_path: Path | str, name: str | None, output: Path, form: str = "html") -> Path:
    """Write the report on the version that `name` means (None: the only set's newest) and return the file.

    `output` is a file, or a folder that gets `NAME-VERSION.html` (.md, .json). Raises InputError.
    """
    if form not in FORMATS:
        raise InputError(f"report: there is no format {form!r}; there are {', '.join(FORMATS)}")
    store = Store.existing(store_path)
    chosen = resolve(store, name)
    label = f"{chosen.manifest.name}-{chosen.manifest.version}"
    path = output / f"{label}{FORMATS[form]}" if output.is_dir() else output
    if not path.parent.is_dir():
        raise InputError(
            f"report: there is no folder {path.parent} to write {path.name} into; make it, or name another"
        )
    text = _text(store, chosen, form)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"report: {path} cannot be written ({error.strerror}); name another with --output") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _text(store: Store, chosen: Chosen, form: str) -> str:
    made = report(store, chosen)
    if form == "json":
        return as_json(made)
    if form == "markdown":
        return markdown(made)
    with closing(Pictures(store, chosen)) as pictures:
        return html(made, pictures.thumbnails(made.keys, _THUMBNAIL_PX))
