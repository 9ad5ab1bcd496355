"""An OpenAI-compatible chat endpoint: one question, one text; what passes is waited out."""

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from threading import Event
from typing import Any, Self

import httpx2
from tqdm import tqdm

KEY_VARIABLE = "JUDGE_API_KEY"
ATTEMPTS = 6
FIRST_WAIT = 1.0
LONGEST_WAIT = 600.0
"""Seconds. The wait doubles with every attempt, unless the endpoint states one; a longer one is not waited out."""
PASSING = (408, 409, 425, 429, 500, 502, 503, 504, 529)
"""Status codes of troubles that pass."""
OF_THE_QUESTION = (400, 413, 415, 422)
"""Status codes that another question need not get."""


class EndpointError(ConnectionError):
    """The endpoint answers no question at all, now; one line that says why and what to do."""


class QuestionError(ConnectionError):
    """The endpoint did not answer this question; one line that says why."""


class ChatEndpoint:
    """`POST {base_url}/chat/completions`; may be used by several threads at once.

    Args:
        base_url: for example "https://api.openai.com/v1" or "http://localhost:8000/v1".
        api_key: sent as a bearer token; default the environment variable JUDGE_API_KEY; without one nothing is sent.
            It is taken out of everything the endpoint says, so that it stands in no message and no file (one of less
            than 8 characters is taken for a placeholder, such as "EMPTY").
        timeout: seconds without a byte after which an attempt counts as lost.

    Raises:
        ValueError: the address is none of http or https, or the key cannot be one.
    """

    # Not by huggingface_hub's client: without a key it sends the user's Hub token to any address, it rewrites
    # `response_format`, and HF_HUB_OFFLINE would stop it from reaching a local server.
    def __init__(self, base_url: str, api_key: str | None = None, timeout: float = 120.0) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise ValueError(f"base_url must begin with http:// or https://, got {base_url!r}")
        key = (api_key or os.environ.get(KEY_VARIABLE, "")).strip()
        if not (key.isascii() and key.isprintable()):
            raise ValueError(
                f"api_key (or {KEY_VARIABLE}) must be of printable ASCII characters; it is not shown here"
            )
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._secret = key if len(key) >= 8 else None
        headers = {"Content-Type": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        self._client = httpx2.Client(headers=headers, timeout=timeout)
        self._stopped = Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def stop_waiting(self) -> None:
        """Make no further attempts: questions under way are answered, or fail, now."""
        self._stopped.set()

    def ask(self, model: str, messages: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> str:
        """Return the text of the answer.

        Args:
            model: name at the endpoint.
            messages: of the chat.
            options: further fields of the request, for example the temperature.

        Raises:
            QuestionError: the question was refused, or got no answer in several attempts.
            EndpointError: the endpoint cannot be reached, or the key or the model is wrong.
            ValueError: the answer holds no text.
        """
        # As bytes of ASCII: a text may hold code points that are not valid UTF-8.
        body = json.dumps({"model": model, "messages": messages, **options}).encode()
        for attempt in range(1, ATTEMPTS + 1):
            wait = FIRST_WAIT * 2 ** (attempt - 1)
            try:
                response = self._client.post(self._url, content=body)
            except httpx2.RequestError as error:
                reason = f"no answer ({type(error).__name__})"
                if isinstance(error, httpx2.ConnectError) and attempt == ATTEMPTS:
                    raise EndpointError(f"base_url: the judge cannot be reached: {reason}; is it running?") from None
            else:
                if response.status_code == 200:
                    return self._text_of(response)
                reason = f"the endpoint answered {response.status_code}: {self._message_of(response)}"
                if response.status_code not in PASSING:
                    raise _lasting(response.status_code, reason)
                wait = _stated_wait(response, wait)
            if wait > LONGEST_WAIT:
                raise QuestionError(f"{reason}; asked to wait {wait:.0f} s: run again later")
            if attempt < ATTEMPTS:
                tqdm.write(f"judge: {reason}; trying again in {wait:.0f} s", file=sys.stderr)
                if self._stopped.wait(wait):
                    break
        raise QuestionError(f"{reason} ({attempt} attempts)")

    def _text_of(self, response: httpx2.Response) -> str:
        try:
            text = response.json()["choices"][0]["message"]["content"]
        except (LookupError, TypeError, ValueError, RecursionError):
            text = None
        if not isinstance(text, str):
            raise ValueError(f"the endpoint's answer holds no text: {self._line(response.text)}")
        return self._without_key(text)

    def _message_of(self, response: httpx2.Response) -> str:
        try:
            message = response.json()["error"]["message"]
        except (LookupError, TypeError, ValueError, RecursionError):
            message = response.text
        return self._line(str(message))

    def _line(self, text: str) -> str:
        """Return the start of what the endpoint said, in one line."""
        return " ".join(self._without_key(text).split())[:200]

    def _without_key(self, text: str) -> str:
        return text.replace(self._secret, "***") if self._secret else text


def _lasting(status: int, reason: str) -> ConnectionError:
    if status in OF_THE_QUESTION:
        return QuestionError(reason)
    remedy = "check base_url and model"
    if status in (401, 402, 403):
        remedy = f"check api_key (or {KEY_VARIABLE}) and what it may use"
    return EndpointError(f"{reason}; {remedy}")


def _stated_wait(response: httpx2.Response, otherwise: float) -> float:
    """Return the seconds of `Retry-After`, which may also be a date."""
    stated = response.headers.get("retry-after", "").strip()
    if stated.replace(".", "", 1).isdigit():
        return float(stated)
    try:
        return max(parsedate_to_datetime(stated).timestamp() - time.time(), 0.0)
    except ValueError:
        return otherwise
