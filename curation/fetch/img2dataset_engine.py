"""`engine: img2dataset`: the real img2dataset fetches and resizes, and its result is taken over as a part.

It runs in an environment of its own. It asks no robots.txt, keeps no limits per host, and does not look at the
addresses that it connects to: of our guards stand only those that need no connection. What it brings passes through
our decoder, so that the store holds no metadata and nothing that cannot be decoded.
"""

import itertools
import json
import re
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from curation.fetch import outcomes
from curation.fetch.completed import Arrived, Completed, completed
from curation.fetch.http.urls import UrlError, parse_url
from curation.fetch.img2dataset_run import Outcome, run_img2dataset
from curation.fetch.isolation.decoding import Decoder
from curation.fetch.once_per_url import NO_URL, Wanted
from curation.fetch.outcomes import Fetched, http_class
from curation.fetch.pictures.picture_form import BAD_ASPECT_RATIO, TOO_LARGE_AREA, TOO_SMALL, PictureForm
from curation.fetch.pictures.to_stored import Stored
from curation.fetch.policy import USER_AGENT, FetchPolicy
from schemas.pixels import DecodeError

_HTTP_ERROR = re.compile(r"HTTP Error (\d{3})")
_SAID = {  # what stands in its messages, and what it means
    "X-Robots-Tag": outcomes.OPT_OUT_HEADER,
    "timed out": outcomes.TIMEOUT,
    "Temporary failure in name resolution": outcomes.DNS,
    "Name or service not known": outcomes.NO_SUCH_HOST,
    "No address associated": outcomes.NO_SUCH_HOST,
    "SSL": outcomes.TLS,
    "image too small": TOO_SMALL,
    "image area too large": TOO_LARGE_AREA,
    "aspect ratio too large": BAD_ASPECT_RATIO,
    "ecoding error": "not_an_image",
}
_OTHERWISE = {"failed_to_download": outcomes.CONNECT, "failed_to_resize": "decode_error"}


@dataclass(frozen=True)
class Img2DatasetFetcher:
    """What all fetches of a worker share: the Python that has img2dataset, the form it is asked for, our decoder."""

    python: Path
    form: PictureForm
    decoder: Decoder

    def completed(self, wanted: Iterable[Wanted], policy: FetchPolicy) -> Generator[Completed, None, None]:
        """The outcome of every row; all rows are drawn before the first is fetched. Raises RunError."""
        waiting: dict[int, list[Wanted]] = {}
        for url, rows in itertools.groupby(wanted, key=lambda one: one.url):
            together = list(rows)
            refused = _refusal(url, policy)
            if refused is None:
                waiting[together[0].row] = together
            else:
                yield from completed(Arrived(together, refused, policy.block_lists), None)
        if waiting:
            with closing(self.decoder.stream(self._arrivals(waiting, policy))) as decoded:
                for (arrived, outcome), picture in decoded:
                    yield from completed(arrived, _as_fetched(picture, outcome))

    def _arrivals(
        self, waiting: dict[int, list[Wanted]], policy: FetchPolicy
    ) -> Iterator[tuple[tuple[Arrived, Outcome | None], bytes | None]]:
        urls = [str(rows[0].url) for rows in waiting.values()]
        options = command_line(self.form, policy)
        for shard in run_img2dataset(self.python, list(waiting), urls, options, policy.part_deadline_s):
            for outcome in shard:
                arrived = Arrived(waiting.pop(outcome.row), fetched(outcome), policy.block_lists, outcome.sha256)
                yield (arrived, outcome), arrived.to_decode
        late = Fetched(-1, outcomes.DEADLINE, "img2dataset was not done with it in the time that its part had")
        for rows in waiting.values():
            yield (Arrived(rows, replace(late, at=time.time()), policy.block_lists), None), None


def require_possible(said: Mapping[str, Any]) -> None:
    """Raise ValueError where a parameter of `download` has no counterpart in img2dataset."""
    ours = {"longest_side_px", "shortest_side_px", "max_bytes", "per_host", "requests_per_s", "robots", "decode"}
    ours.add("store_original")
    unlike = {name: value for name, value in said.items() if name in ours and value not in (None, False, "full")}
    for name in unlike:
        raise ValueError(f"engine: img2dataset has no {name}; it resizes by `resize` and `image_size_px`")


def command_line(form: PictureForm, policy: FetchPolicy) -> dict[str, str]:
    """What img2dataset's command line is told, by the names of its options."""
    said: dict[str, Any] = {
        "resize_mode": form.resize or "no",
        "image_size": form.image_size_px or 256,
        "resize_only_if_bigger": form.resize_only_if_bigger,
        "min_image_size": form.min_image_size_px,
        "encode_format": form.encoded_as,
        "encode_quality": form.quality,
        "skip_reencode": form.skip_reencode,
        "disable_all_reencoding": form.disable_all_reencoding,
        "thread_count": policy.concurrency,
        "timeout": max(1, round(policy.timeout_s)),
        "retries": policy.retries,
    }
    optional: dict[str, Any] = {
        "max_image_area": form.max_image_area_px,
        "max_aspect_ratio": form.max_aspect_ratio,
        "user_agent_token": None if policy.user_agent == USER_AGENT else policy.user_agent,
        "disallowed_header_directives": None if policy.opt_out else [],
    }
    said |= {name: value for name, value in optional.items() if value is not None}
    return {name: json.dumps(value) if isinstance(value, str | list) else str(value) for name, value in said.items()}


def fetched(outcome: Outcome) -> Fetched:
    """What came of a URL, in our words."""
    if outcome.picture is not None:
        return Fetched(outcome.row, outcomes.OK, body=outcome.picture, attempts=1, at=time.time())
    message = (outcome.message or "said nothing").strip()
    http = _HTTP_ERROR.search(message)
    meant = (status for part, status in _SAID.items() if part in message)
    status = http_class(int(http[1])) if http else next(meant, _OTHERWISE.get(outcome.status, outcomes.CONNECT))
    http_status = int(http[1]) if http else None
    return Fetched(outcome.row, status, f"img2dataset: {message}", http_status=http_status, attempts=1, at=time.time())


def _refusal(url: str | None, policy: FetchPolicy) -> Fetched | None:
    """Why a URL is not handed over, by what can be said without a connection."""
    if not url or not url.strip():
        return NO_URL
    try:
        target = parse_url(url)
    except UrlError as error:
        return Fetched(-1, error.status, str(error), at=time.time())
    if unsafe := policy.guard.early_refusal(target.host, target.port):
        return Fetched(-1, *unsafe, host=target.host, at=time.time())
    if blocked := policy.block_lists.host(target.host):
        sentence = f"{blocked} is on the list of blocked domains"
        return Fetched(-1, outcomes.BLOCKED_DOMAIN, sentence, host=target.host, at=time.time())
    return None


def _as_fetched(picture: Stored | DecodeError | None, outcome: Outcome | None) -> Stored | DecodeError | None:
    """The picture with the size that img2dataset found: what we decoded is its result, not the original."""
    width_px, height_px = (outcome.original_width_px, outcome.original_height_px) if outcome else (None, None)
    if not isinstance(picture, Stored) or width_px is None or height_px is None:
        return picture
    return replace(picture, original_width_px=width_px, original_height_px=height_px)
