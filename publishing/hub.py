"""Questions to the Hub: what is worth asking again is asked again, and what fails is one line with a remedy."""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Callable
from typing import TypeVar

import httpx2
from huggingface_hub import constants, get_session
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import parse_ratelimit_headers
from tqdm import tqdm

ATTEMPTS = 6
FIRST_WAIT = 1.0
LONGEST_WAIT = 30.0
"""Seconds; the wait doubles from attempt to attempt, unless the Hub says how long to wait."""
SILENCE = 120.0
"""Seconds without a byte after which a connection counts as dead; huggingface_hub would wait for ever."""
PASSING = (408, 429, 500, 502, 503, 504)
"""Status codes of troubles that pass."""
SAME_COMMAND = "run the same command again: what has arrived is not sent again"
REMEDIES = {
    401: "the token is not valid; log in again with `hf auth login`, or set HF_TOKEN",
    404: "there is nothing of this name, or the token has no access to it",
    403: "the token may not do this; give it write access to this namespace (https://huggingface.co/settings/tokens)",
    413: "a file or the request is larger than the Hub allows",
    429: "too many requests; wait some minutes and run the same command again",
    507: "the Hub has no space left for this namespace; free some or ask its owner for more",
}
Result = TypeVar("Result")


class _NoQueries(logging.Filter):
    """Shortens addresses in the warnings of huggingface_hub: the queries of upload addresses are signatures."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = re.sub(r"\?\S+", "", record.getMessage()), ()
        return True


_NO_QUERIES = _NoQueries()


def log_no_queries() -> None:
    """Let huggingface_hub's warnings on failed requests hold no signed address."""
    logging.getLogger("huggingface_hub.utils._http").addFilter(_NO_QUERIES)


class PublishError(ValueError):
    """Something cannot be published; the message is one line and says what to do."""


def ask(question: Callable[[], Result], about: str) -> Result:
    """Call the Hub; troubles that pass are waited out.

    Only for calls that may be made twice: their answer, not their effect, can be lost.

    Args:
        question: The call.
        about: What it is for, to be named in an error.

    Raises:
        RepositoryNotFoundError: As the Hub says it; the caller decides what it means.
        RevisionNotFoundError: Likewise.
        PublishError: Everything else that went wrong with the connection or at the Hub.
    """
    for attempt in range(ATTEMPTS):
        get_session().timeout = SILENCE  # Each time, because huggingface_hub replaces the session after some errors.
        try:
            return question()
        except (GatedRepoError, OfflineModeIsEnabled) as error:
            raise explained(error, about) from error
        except (RepositoryNotFoundError, RevisionNotFoundError):
            raise
        except (HfHubHTTPError, httpx2.TransportError, LocalEntryNotFoundError) as error:
            cause = root_cause(error)  # A download hides it.
            if not passes(cause) or attempt + 1 == ATTEMPTS:
                raise explained(error, about) from error
            wait(cause, attempt, about)
    raise AssertionError("the last attempt returns or raises")


def passes(error: BaseException) -> bool:
    """Whether an error is one of the connection or of a busy Hub, so that another attempt may succeed."""
    return isinstance(error, httpx2.TransportError) or _status(error) in PASSING


def wait(error: BaseException, attempt: int, about: str) -> None:
    """Sleep before the next attempt, and say so.

    Args:
        error: Why the last attempt failed; where its headers say how long to wait (`Retry-After`, `RateLimit`), they
            are obeyed.
        attempt: Number of failed attempts before this one.
        about: What is tried.
    """
    seconds = min(FIRST_WAIT * 2**attempt, LONGEST_WAIT)
    response = getattr(error, "response", None)
    headers = {} if response is None else response.headers
    stated, limit = headers.get("retry-after", ""), parse_ratelimit_headers(headers)
    if stated.isdigit():
        seconds = float(stated)
    elif limit is not None and limit.remaining == 0:
        seconds = limit.reset_in_seconds + 1.0
    tqdm.write(f"{about}: {reason(error)}; trying again in {seconds:.0f} s", file=sys.stderr)
    time.sleep(seconds)


def explained(error: BaseException, about: str) -> PublishError:
    """An error of the Hub or of the connection as one line that names the remedy."""
    error = root_cause(error)
    status = _status(error)
    if isinstance(error, OfflineModeIsEnabled):
        remedy = "HF_HUB_OFFLINE is set; unset it to reach the Hub"
    elif isinstance(error, RepositoryNotFoundError):
        remedy = "there is no such repository, or the token has no access to it"
    elif status in REMEDIES:
        remedy = REMEDIES[status]
    elif passes(error):
        remedy = SAME_COMMAND
    else:
        remedy = "nothing was changed by this step"
    return PublishError(f"{about}: {reason(error)}: {remedy}")


def reason(error: BaseException) -> str:
    """What happened, without addresses: those of uploads are signed, and hold a secret for a while."""
    status = _status(error)
    if status is None:
        return f"no answer from {constants.ENDPOINT} ({type(error).__name__})"
    message = getattr(error, "server_message", None) or ""
    return f"the Hub answered {status}" + (f" ({' '.join(message.split())})" if message else "")


def root_cause(error: BaseException) -> BaseException:
    """The error of the Hub or the connection within those that wrap it."""
    while not isinstance(error, HfHubHTTPError | httpx2.TransportError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _status(error: BaseException) -> int | None:
    response = getattr(error, "response", None)
    return None if response is None else response.status_code
