"""Before a site's first picture: what its robots.txt and its tdmrep.json say of us. Pictures wait for that.

A robots.txt that is not there (4xx) allows all; one that cannot be had (5xx, a broken answer) forbids all for now, and
what failed before any answer came is the failure of every picture that waited: the site itself is out of reach.
"""

import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace

from curation.fetch import outcomes
from curation.fetch.hosts.host_policy import HostPolicy
from curation.fetch.hosts.opt_out import TdmRules
from curation.fetch.hosts.robots import Robots, product_token
from curation.fetch.hosts.site_book import FETCH, WAIT, SiteAnswers, Wanted
from curation.fetch.http.job import Job, Purpose
from curation.fetch.http.transfer import Answer
from curation.fetch.http.urls import parse_url
from curation.fetch.outcomes import OK, Request
from curation.fetch.policy import FetchPolicy

_PATHS = {Purpose.ROBOTS: "/robots.txt", Purpose.TDMREP: "/.well-known/tdmrep.json"}
_NO_ROW = -1
_FAILURE_HOLDS_S = 60.0  # before a site whose rules could not be had is asked again
_MOST_SITES = 20_000  # whose rules are kept ready
_FOR_NOW = (408, 429)  # of the 4xx, the ones that say nothing about the file


@dataclass(frozen=True)
class _Rules:
    """What holds for a site: its rules, or the failure that stands for them until a moment."""

    robots: Robots | None = None
    tdm: TdmRules | None = None
    failure: Answer | None = None
    until: float = float("inf")


class SiteChecks:
    """Tells what sites allow; makes the requests that find it out, and keeps the jobs that wait for them."""

    def __init__(self, policy: FetchPolicy, hosts: HostPolicy) -> None:
        self._hosts = hosts
        self._wanted: Wanted = (*(("robots",) if policy.robots else ()), *(("tdmrep",) if policy.opt_out else ()))
        self._token = product_token(policy.user_agent)
        self._rules: OrderedDict[str, _Rules] = OrderedDict()
        self._waiting: dict[str, list[Job]] = {}
        self._asking: set[str] = set()  # sites that a request for their rules is under way to
        self._half: dict[str, SiteAnswers] = {}  # robots.txt is there, tdmrep.json is not yet

    def keeps(self, job: Job) -> bool:
        """Whether a job must wait for its site's rules; then it is kept here, and the site is to be looked `into`."""
        if job.purpose is not Purpose.PICTURE or not self._wanted:
            return False
        site = job.target.site
        rules = self._rules.get(site)
        if rules is not None and rules.until > time.monotonic():
            return False
        self._rules.pop(site, None)
        self._waiting.setdefault(site, []).append(job)
        return True

    def refusal(self, job: Job) -> Answer | None:
        """Why a picture is not fetched, by the rules that are there; None where it may be."""
        rules, target = self._rules.get(job.target.site), job.target
        if job.purpose is not Purpose.PICTURE or rules is None:
            return None
        if rules.failure is not None:
            return rules.failure
        if rules.robots is not None and not rules.robots.allows(target.url):
            return Answer(outcomes.ROBOTS_DISALLOWED, f"robots.txt of {target.site} does not allow it")
        if rules.tdm is not None and rules.tdm.reserve(target.url):
            return Answer(outcomes.TDM_RESERVED, f"tdmrep.json of {target.site} reserves the rights")
        return None

    def into(self, site: str) -> list[Job]:
        """What may go on for a site that jobs wait for: those jobs, or the request for its rules, or nothing yet."""
        if site in self._asking:
            return []
        if site in self._waiting and site not in self._rules:
            found = self._hosts.ask_site(site, self._wanted)
            if found == FETCH:
                self._asking.add(site)
                return [_request(Purpose.ROBOTS if "robots" in self._wanted else Purpose.TDMREP, site)]
            if found != WAIT:
                self._learn(found)
        return self._released(site)

    def finished(self, job: Job, answer: Answer) -> list[Job]:
        """What may go on after a request for a site's rules has ended: the next request, or who waited."""
        site = job.site
        if job.purpose is Purpose.TDMREP:
            found = self._half.pop(site, SiteAnswers(site, time.time()))
            self._learn(replace(found, tdmrep=_text(answer), tdmrep_http_status=answer.http_status), tell=True)
            return self._released(site)
        failure = _failure(job, answer)
        if failure is not None:
            self._rules[site] = _Rules(failure=failure, until=time.monotonic() + _FAILURE_HOLDS_S)
            self._hosts.tell_site(site, None)
            return self._released(site)
        found = SiteAnswers(site, time.time(), _text(answer), answer.http_status)
        if "tdmrep" in self._wanted:
            self._half[site] = found
            return [_request(Purpose.TDMREP, site)]
        self._learn(found, tell=True)
        return self._released(site)

    def drain(self) -> Iterator[Job]:
        """All jobs that wait."""
        for site in list(self._waiting):
            yield from self._waiting.pop(site)

    def _released(self, site: str) -> list[Job]:
        if site not in self._rules:
            return []
        self._asking.discard(site)
        return self._waiting.pop(site, [])

    def _learn(self, found: SiteAnswers, *, tell: bool = False) -> None:
        if tell:
            self._hosts.tell_site(found.site, found)
        robots = Robots(found.robots, self._token) if "robots" in self._wanted and found.robots else None
        tdm = TdmRules(found.tdmrep) if "tdmrep" in self._wanted and found.tdmrep else None
        self._rules[found.site] = _Rules(robots, tdm)
        while len(self._rules) > _MOST_SITES:
            self._rules.popitem(last=False)


def _request(purpose: Purpose, site: str) -> Job:
    url = f"{site}{_PATHS[purpose]}"
    return Job(Request(_NO_ROW, url), parse_url(url), purpose, site, its_turn=True)


def _text(answer: Answer) -> str:
    return (answer.body or b"").decode("utf-8", "replace")


def _failure(job: Job, answer: Answer) -> Answer | None:
    """Why nothing is known of a site after it was asked for robots.txt; None where it is known."""
    http_status = answer.http_status
    if answer.status in (OK, outcomes.EMPTY, outcomes.REDIRECTS):
        return None
    if http_status is not None and 400 <= http_status < 500 and http_status not in _FOR_NOW:
        return None
    if http_status is None and job.redirects == 0:
        return Answer(answer.status, f"{answer.error} (when asked for robots.txt)")
    said = answer.error or "no answer that can be read"
    return Answer(outcomes.ROBOTS_UNREACHABLE, f"robots.txt of {job.site} cannot be had: {said}")
