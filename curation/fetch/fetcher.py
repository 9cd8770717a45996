"""From rows that want a picture to their outcomes: fetched, decoded, completed. One per worker, for all its batches."""

from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from curation.fetch.completed import Arrived, Completed, completed
from curation.fetch.hosts.host_policy import HostLimits, HostPolicy
from curation.fetch.hosts.leased_hosts import open_hosts
from curation.fetch.img2dataset_engine import Img2DatasetFetcher
from curation.fetch.img2dataset_environment import img2dataset_python
from curation.fetch.isolation.decoding import Decoder, InlineDecoder
from curation.fetch.isolation.isolated import IsolatedDecoder
from curation.fetch.once_per_url import Wanted, fetch_once_per_url
from curation.fetch.pictures.large_buffers import keep_large_buffers
from curation.fetch.pictures.libturbojpeg import require_decoder
from curation.fetch.pictures.picture_form import AS_THEY_COME, PictureForm
from curation.fetch.pictures.readiness import make_ready
from curation.fetch.pictures.to_stored import to_stored
from curation.fetch.policy import FetchPolicy
from curation.operator import Workplace

_PATIENCE_S = 0.02  # without a fetch that ends, until we look at what has been decoded meanwhile


class Fetches(Protocol):
    """What a worker fetches with."""

    def completed(self, wanted: Iterable[Wanted], policy: FetchPolicy) -> Generator[Completed, None, None]:
        """The outcome of every row, in any order."""


@dataclass(frozen=True)
class Fetcher:
    """What all fetches of a worker share: how hosts are treated, and what decodes."""

    hosts: HostPolicy
    decoder: Decoder

    @classmethod
    def at(cls, workplace: Workplace, limits: HostLimits, form: PictureForm, *, isolate: bool) -> "Fetcher":
        """With what sites said before, and with its share of the limits where there are other workers.

        Raises RunError where this machine cannot decode as the form wants.
        """
        return cls(open_hosts(limits, workplace.store, workplace.hosts), _decoder(form, isolate=isolate))

    def completed(self, wanted: Iterable[Wanted], policy: FetchPolicy) -> Generator[Completed, None, None]:
        """The outcome of every row, in the order in which fetches and decoding end."""
        with closing(fetch_once_per_url(wanted, policy, self.hosts, _PATIENCE_S)) as results:
            arrivals = (None if result is None else Arrived(*result, policy.block_lists) for result in results)
            to_decode = (None if one is None else (one, one.to_decode) for one in arrivals)
            with closing(self.decoder.stream(to_decode)) as decoded:
                for arrived, picture in decoded:
                    yield from completed(arrived, picture)


def img2dataset_fetcher(form: PictureForm, *, isolate: bool) -> Img2DatasetFetcher:
    """The real img2dataset, in an environment that is made for it where there is none. Raises RunError."""
    return Img2DatasetFetcher(img2dataset_python(), form, _decoder(AS_THEY_COME, isolate=isolate))


def _decoder(form: PictureForm, *, isolate: bool) -> Decoder:
    """What decodes; an isolated one's process is started with the first picture, and made ready there."""
    to_picture, prepare = partial(to_stored, form=form), partial(make_ready, form)
    if isolate:
        require_decoder(form)
        return IsolatedDecoder(to_picture, prepare=prepare)
    prepare()
    keep_large_buffers()
    return InlineDecoder(to_picture)
