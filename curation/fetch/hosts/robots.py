"""robots.txt (RFC 9309), read by protego: groups, longest match, `*` and `$`, percent-encoding, Allow wins ties.

protego takes a group for ours when its name stands anywhere in our name (`User-agent: pair` would bind `pairmill`); the
RFC wants the product token to be equal. So the names in User-agent lines are made plain before protego sees them.
"""

import re

from protego import Protego

MOST_BYTES = 500 * 1024  # of robots.txt that are read (RFC 9309, 2.5)
_AGENT_LINE = re.compile(r"(?im)^([ \t]*user-?agent[ \t]*:)[ \t]*([^\n#]*)")
_TOKEN = re.compile(r"[A-Za-z_-]+")
_OURS, _OTHERS = "ours", "somebody-else"


def product_token(user_agent: str) -> str:
    """The name by which robots.txt and headers address us: `pairmill` of `Pairmill/0.1 (…)`; empty for none."""
    found = _TOKEN.match(user_agent.strip())
    return found[0].lower() if found else ""


class Robots:
    """The rules of one robots.txt that hold for us."""

    def __init__(self, text: str, token: str) -> None:
        plain = text.lstrip("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
        self._rules = Protego.parse(_AGENT_LINE.sub(lambda line: f"{line[1]} {_agent(line[2], token)}", plain))

    def allows(self, url: str) -> bool:
        """Whether a URL of that host may be fetched."""
        return bool(self._rules.can_fetch(url, _OURS))


def _agent(name: str, token: str) -> str:
    name = name.strip()
    if name.startswith("*"):
        return "*"
    found = _TOKEN.match(name)
    return _OURS if found and found[0].lower() == token else _OTHERS
