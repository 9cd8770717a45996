"""Who does not want a picture to be collected: X-Robots-Tag, and the TDM Reservation Protocol (header and tdmrep.json).

Google's grammar of X-Robots-Tag: directives between commas, perhaps behind the name of the one agent that they are for;
some directives have a value of their own behind a colon, a date with a comma in it even. The directives that keep us
out are img2dataset's default, and `none`, which means noindex with nofollow.
"""

import json
import re
from collections.abc import Iterable

from protego import Protego

KEEP_OUT = frozenset({"noai", "noimageai", "noindex", "noimageindex", "none"})
_WITH_VALUE = ("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview")
_AGENT = re.compile(r"\s*([A-Za-z0-9_.*-]+)\s*:(.*)", re.DOTALL)
_MOST_RULES = 1000


def robots_tag_refusal(headers: Iterable[str], token: str) -> str:
    """The directive of an X-Robots-Tag header that keeps the agent of that token out; empty where none does."""
    for header in headers:
        for_us = True
        for piece in header.split(","):
            named = _AGENT.match(piece)
            if named and named[1].lower() not in _WITH_VALUE:
                for_us, piece = named[1].lower() in ("*", token), named[2]
            if for_us and piece.strip().lower() in KEEP_OUT:
                return piece.strip().lower()
    return ""


def tdm_reserved(header: str | None) -> bool:
    """Whether a `tdm-reservation` header reserves the rights to text and data mining."""
    return header is not None and header.strip().strip('"') == "1"


class TdmRules:
    """The rules of a site's tdmrep.json. The longest pattern that matches a path decides, as in robots.txt.

    A file that is no JSON, or is not as the protocol says, reserves nothing: sites answer unknown paths with pages.
    """

    def __init__(self, text: str) -> None:
        lines = []
        for rule in _rules(text)[:_MOST_RULES]:
            pattern, reserved = rule.get("location"), rule.get("tdm-reservation")
            if isinstance(pattern, str) and pattern.strip() and reserved in (0, 1, "0", "1"):
                path = re.sub(r"[\s#]+", "", pattern)
                path = path if path.startswith(("/", "*")) else f"/{path}"
                lines.append(f"{'Disallow' if int(reserved) else 'Allow'}: {path}")
        self._rules = Protego.parse("\n".join(["User-agent: *", *lines])) if lines else None

    def reserve(self, url: str) -> bool:
        """Whether the rights to what a URL shows are reserved."""
        return self._rules is not None and not self._rules.can_fetch(url, "any")


def _rules(text: str) -> list[dict[str, object]]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return []
    found = [found] if isinstance(found, dict) else found
    return [rule for rule in found if isinstance(rule, dict)] if isinstance(found, list) else []
