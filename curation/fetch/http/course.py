"""What a request does after an answer: it goes where the answer leads, tries again in a while, or ends."""

import random

from curation.fetch import outcomes
from curation.fetch.http.job import Job
from curation.fetch.http.transfer import Answer
from curation.fetch.http.urls import UrlError, parse_url, redirected
from curation.fetch.outcomes import RETRIED
from curation.fetch.policy import FetchPolicy

_RETRIES_UNHEARD = 1  # of a host that let the time pass without any answer


def after(job: Job, answer: Answer, policy: FetchPolicy) -> Answer | float:
    """The answer that it ends with, or the seconds until it goes on; the job is changed for what comes next."""
    if answer.location is not None:
        return _follow(job, answer, policy) or 0.0
    asked_s = answer.retry_after_s or 0.0
    unheard = answer.timed_out and answer.http_status is None and answer.status != outcomes.DNS
    retries = min(policy.retries, _RETRIES_UNHEARD) if unheard else policy.retries
    if answer.status in RETRIED and job.attempts <= retries and asked_s <= policy.most_retry_after_s:
        pause_s = policy.backoff_s * 2 ** (job.attempts - 1) * random.uniform(0.5, 1.0)
        job.target = parse_url(job.request.url)
        job.redirects, job.attempt_s, job.last = 0, 0.0, answer
        return max(pause_s, asked_s)
    return answer


def _follow(job: Job, answer: Answer, policy: FetchPolicy) -> Answer | None:
    """Go where a redirect leads: every hop passes through the policy of the first URL. Or why it is not gone to."""
    job.redirects += 1
    if job.redirects > policy.most_redirects:
        failure = outcomes.REDIRECTS, f"the server redirects more than {policy.most_redirects} times"
    elif job.attempt_s >= policy.timeout_s:
        failure = outcomes.TIMEOUT, f"no picture after {policy.timeout_s:g} s of redirects"
    else:
        try:
            job.target = redirected(job.target, answer.location or "")
            return None
        except UrlError as error:
            failure = error.status, f"redirected: {error}"
    return Answer(*failure, http_status=answer.http_status)
