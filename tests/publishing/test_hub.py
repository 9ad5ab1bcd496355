import logging
import time
from collections.abc import Callable, Iterable

import httpx2
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from defect_hub.publishing.hub import (
    ATTEMPTS,
    LONGEST_WAIT,
    PublishError,
    ask,
    explained,
    log_no_queries,
    passes,
    reason,
    root_cause,
)

SIGNED = "https://storage/lfs/1?X-Amz-Signature=secret"


def answer(
    status: int,
    message: str | None = None,
    kind: type[HfHubHTTPError] = HfHubHTTPError,
    headers: dict[str, str] | None = None,
) -> HfHubHTTPError:
    """An error of the Hub, as huggingface_hub raises it."""
    response = httpx2.Response(status, headers=headers, request=httpx2.Request("PUT", SIGNED))
    return kind(f"{status} for {SIGNED}", response=response, server_message=message)


def question(answers: Iterable[BaseException | str]) -> Callable[[], str]:
    """A call that has these outcomes one after the other."""
    left = iter(answers)

    def call() -> str:
        outcome = next(left)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return call


def hidden(cause: BaseException) -> LocalEntryNotFoundError:
    """What a download makes of an error."""
    error = LocalEntryNotFoundError("cannot find the requested files")
    error.__cause__ = cause
    return error


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr(time, "sleep", found.append)
    return found


def test_what_passes_is_asked_again_ever_more_slowly(waits: list[float]) -> None:
    troubles = [answer(503), httpx2.ReadError("reset"), hidden(answer(500)), hidden(httpx2.ConnectTimeout("late"))]
    assert ask(question([*troubles, "yes"]), "dataset org/x") == "yes"
    assert waits == [1, 2, 4, 8]


def test_patience_ends(waits: list[float]) -> None:
    with pytest.raises(PublishError, match="answered 502: run the same command again"):
        ask(question([answer(502)] * ATTEMPTS), "dataset org/x")
    assert len(waits) == ATTEMPTS - 1
    assert max(waits) <= LONGEST_WAIT


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Retry-After": "100"}, 100),
        ({"Retry-After": "0"}, 0),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 1),
        ({"RateLimit": '"api";r=0;t=55'}, 56),
        ({"RateLimit": '"api";r=9;t=55'}, 1),
        ({}, 1),
    ],
)
def test_the_hub_says_how_long_to_wait(waits: list[float], headers: dict[str, str], expected: float) -> None:
    ask(question([answer(429, headers=headers), "yes"]), "dataset org/x")
    assert waits == [expected]


def test_waiting_is_told_on_stderr_without_secrets(waits: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    ask(question([answer(503, "come\nback  later"), httpx2.ReadError(SIGNED), "yes"]), "dataset org/x")
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        "dataset org/x: the Hub answered 503 (come back later); trying again in 1 s",
        f"dataset org/x: no answer from {constants.ENDPOINT} (ReadError); trying again in 2 s",
    ]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 412, 413, 507])
def test_what_does_not_pass_is_asked_once(waits: list[float], status: int) -> None:
    with pytest.raises(PublishError, match=f"^dataset org/x: the Hub answered {status}.*: "):
        ask(question([answer(status)]), "dataset org/x")
    assert waits == []


@pytest.mark.parametrize("kind", [RepositoryNotFoundError, RevisionNotFoundError])
def test_what_is_missing_is_left_to_the_caller(waits: list[float], kind: type[HfHubHTTPError]) -> None:
    with pytest.raises(kind):
        ask(question([answer(404, kind=kind)]), "dataset org/x")
    assert waits == []


def test_other_errors_are_not_touched(waits: list[float]) -> None:
    with pytest.raises(KeyError):
        ask(question([KeyError("a fault of ours")]), "dataset org/x")


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (answer(401), "log in again with `hf auth login`"),
        (answer(403), "give it write access"),
        (answer(403, kind=GatedRepoError), "the token has no access to it"),
        (answer(404, kind=RepositoryNotFoundError), "there is no such repository, or the token has no access to it"),
        (answer(413), "larger than the Hub allows"),
        (answer(429), "wait some minutes"),
        (answer(507), "no space left"),
        (answer(503), "run the same command again"),
        (httpx2.ConnectError("refused"), "run the same command again"),
        (OfflineModeIsEnabled("offline"), "unset it"),
        (answer(418), "nothing was changed by this step"),
    ],
)
def test_an_error_is_one_line_with_a_remedy(error: BaseException, remedy: str) -> None:
    message = str(explained(error, "model org/x"))
    assert message.startswith("model org/x: ")
    assert remedy in message
    assert "\n" not in message
    assert "Signature" not in message


def test_the_reason_is_one_line_whatever_the_hub_says() -> None:
    assert reason(answer(400, "first\n\nsecond\tthird ")) == "the Hub answered 400 (first second third)"
    assert reason(answer(400)) == "the Hub answered 400"


def test_only_troubles_of_the_way_and_of_a_busy_hub_pass() -> None:
    assert all(passes(answer(status)) for status in (408, 429, 500, 502, 503, 504))
    assert passes(httpx2.RemoteProtocolError("closed")) and passes(httpx2.WriteTimeout("late"))
    assert not any(passes(answer(status)) for status in (400, 401, 403, 404, 409, 412, 501, 507))
    assert not passes(OSError("disk"))


def test_the_root_is_found_below_what_wraps_it() -> None:
    inner = answer(503)
    assert root_cause(hidden(inner)) is inner
    assert root_cause(hidden(hidden(inner))) is inner
    alone = RuntimeError("x")
    assert root_cause(alone) is alone


def test_signed_addresses_do_not_come_into_warnings(caplog: pytest.LogCaptureFixture) -> None:
    log_no_queries()
    logger = logging.getLogger("huggingface_hub.utils._http")
    logger.warning(f"HTTP Error 503 thrown while requesting PUT {SIGNED}")
    logger.warning("'%s' thrown while requesting %s %s", "reset", "PUT", SIGNED)
    assert [record.getMessage() for record in caplog.records] == [
        "HTTP Error 503 thrown while requesting PUT https://storage/lfs/1",
        "'reset' thrown while requesting PUT https://storage/lfs/1",
    ]
