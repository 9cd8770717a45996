"""Samples in foreign tars: names are read leniently, sizes and headers within bounds, damage is never skipped."""

import contextlib
import tarfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import pyarrow as pa

from curation.sources.samples import PICTURE_BYTES, PICTURES, TEXT_BYTES, TEXTS, Sample
from schemas.errors import SourceError

HEADER_BYTES = 1 << 20  # of a long name or of pax records
_PACKED = {".gz": "gzip", ".tgz": "gzip", ".zst": "zstd"}
_BOUNDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class _Header(tarfile.TarInfo):
    """A tar header that cannot be vast, and whose damage is an error: tarfile takes it for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            what = "it ends without its end marker" if not buf else str(error)
            raise tarfile.ReadError(what) from None
        if header.size < 0 or (header.type in _BOUNDED and header.size > HEADER_BYTES):
            raise tarfile.ReadError(f"a header of {header.size:,} bytes")
        if header.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.ReadError("a sparse member; write the tar without --sparse")
        return header

    def _proc_gnusparse_10(self, *_: object) -> None:
        raise tarfile.ReadError("a sparse member; write the tar without --sparse")


@dataclass(frozen=True)
class Member:
    """A member of a tar that could belong to a sample."""

    stem: str  # folder and base name up to its first dot
    extension: str  # after the first dot, lower case
    info: tarfile.TarInfo

    @property
    def refusal(self) -> tuple[str, str] | None:
        """Why its bytes are not read: a status and a reason."""
        if not self.info.isreg() or self.info.issparse():
            return "refused", "is a link or a device, no file"
        if self.info.name.startswith("/") or ".." in self.info.name.split("/"):
            return "refused", "leads out of the tar"
        most = PICTURE_BYTES if self.extension in PICTURES else TEXT_BYTES
        if self.info.size > most:
            return "too_large", f"has {self.info.size:,} bytes, more than {most:,}"
        return None


def read_samples(path: str, label: str, wanted: Collection[str]) -> Iterator[Sample]:
    """The samples of a tar in order, with the bytes of members that have a wanted extension.

    Members of one stem stand together; a stem that comes again is a sample that failed. Members of unknown kinds
    count as not there. Raises SourceError for a tar that is damaged or was cut.
    """
    stems: set[str] = set()
    stem, sample = "", None
    with _open(path) as tar:
        for member in _members(tar):
            if sample is None or member.stem != stem or member.extension in sample.members:
                if sample is not None:
                    yield sample
                stem, sample = member.stem, Sample(f"{label}:{_printable(member.stem)}", _printable(member.stem))
                if stem in stems:
                    sample.fail("duplicate_name", f"{sample.origin}: stands in the tar more than once")
                stems.add(stem)
            _add(sample, member, tar, wanted)
    if sample is not None:
        yield sample


def _add(sample: Sample, member: Member, tar: tarfile.TarFile, wanted: Collection[str]) -> None:
    sample.members[member.extension] = None
    refusal = member.refusal
    if refusal and member.extension in (*PICTURES, *TEXTS):
        status, why = refusal
        sample.fail(status, f"{sample.origin}: its .{member.extension} {why}")
    elif not refusal and member.extension in wanted:
        better = member.extension not in PICTURES or sample.picture == member.extension
        reader = tar.extractfile(member.info) if better else None
        sample.members[member.extension] = reader.read() if reader else None


def _members(tar: tarfile.TarFile) -> Iterator[Member]:
    while (info := tar.next()) is not None:
        tar.members = []  # type: ignore[attr-defined]  # else the headers of the whole tar stay in memory
        if info.size < 0:
            raise tarfile.ReadError(f"a member of {info.size} bytes")
        folder, slash, base = info.name.removeprefix("./").rpartition("/")
        stem, _, extension = base.partition(".")
        extension = extension.lower()
        known = extension in TEXTS or extension.rpartition(".")[2] in PICTURES
        if stem and known and not info.isdir():
            yield Member(f"{folder}{slash}{stem}", extension, info)


@contextlib.contextmanager
def _open(path: str) -> Iterator[tarfile.TarFile]:
    """A tar for one pass: plain ones skip what is not read, packed ones stream."""
    packed = next((packed for suffix, packed in _PACKED.items() if path.lower().endswith(suffix)), None)
    try:
        with contextlib.ExitStack() as stack:
            if packed:
                stream = stack.enter_context(pa.input_stream(path, compression=packed))
                yield stack.enter_context(tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header))
            else:
                yield stack.enter_context(tarfile.open(path, "r:", tarinfo=_Header))
    except (tarfile.TarError, OSError, EOFError, RecursionError) as error:
        raise SourceError(
            f"{path}: cannot be read as a tar: {error}; fetch or write it again, or leave it out"
        ) from error


def _printable(name: str) -> str:
    """A name that Arrow can hold: bytes that are no UTF-8 are escaped."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")
