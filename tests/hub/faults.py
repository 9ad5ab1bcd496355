"""What a test asks to go wrong at the local Hub, and the log of all requests."""

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MESSAGES = {
    401: "Invalid credentials in Authorization header",
    403: "Authorization error.",
    404: "Repository not found",
    409: "Another conflicting operation is in progress",
    429: "Too Many Requests",
    500: "Internal Error - We're working hard to fix this as soon as possible!",
    503: "Service Unavailable",
    507: "Insufficient Storage",
}


@dataclass
class Exchange:
    """One request and its answer; sizes are of bodies, in bytes."""

    method: str
    path: str
    query: str
    received: int = 0
    sent: int = 0
    status: int | None = None
    finished: bool = False
    """Whether the whole answer was given to the connection."""

    def __str__(self) -> str:
        end = "" if self.finished else " (unfinished)"
        return f"{self.method} {self.path} {self.status}, {self.received} bytes in, {self.sent} out{end}"


class Log(list[Exchange]):
    """All requests in the order in which they began."""

    def find(self, method: str = "", path: str = "") -> list[Exchange]:
        """Return the requests of a method whose path (unquoted) holds a pattern."""
        return [one for one in self if method in ("", one.method) and re.search(path, one.path)]

    def uploads(self) -> dict[str, list[Exchange]]:
        """Return the PUTs of every large file by its SHA-256: with status 200 it arrived, None means it broke off."""
        found: dict[str, list[Exchange]] = {}
        for one in self.find("PUT", "^/lfs/"):
            found.setdefault(one.path.split("/")[5], []).append(one)
        return found

    @property
    def received(self) -> int:
        """Bytes of all request bodies."""
        return sum(one.received for one in self)


@dataclass
class Fault:
    """One thing that goes wrong; see `Faults.add`."""

    method: str
    path: str
    skip: int
    times: int | None
    delay: float = 0.0
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    message: str | None = None
    drop_request_at: int | None = None
    drop_answer_at: int | None = None
    seen: int = 0
    hits: int = 0


class Faults:
    """The faults in force; a test adds to it while the server runs."""

    def __init__(self) -> None:
        self.list: list[Fault] = []
        self.received = 0
        self.alarms: list[tuple[int, Callable[[], None]]] = []
        self.connections: set[Connection] = set()

    def add(self, method: str = "", path: str = "", *, skip: int = 0, times: int | None = 1, **what: Any) -> Fault:
        """Let requests fail whose method is `method` and whose path holds the pattern `path`.

        Args:
            method: `PUT`, `POST`, ...; empty for any.
            path: Regular expression searched in the unquoted path; empty for any.
            skip: How many matching requests pass before.
            times: How many then fail; None for all.
            what: `status` (with `headers`, `message`): the answer, given when the whole request was read.
                `drop_request_at`: the connection breaks after so many bytes of the request's body, nothing is done.
                `drop_answer_at`: the request is done, the connection breaks after so many bytes of the answer's
                body; 0: without any answer. `delay`: seconds to wait before all else.

        Returns:
            The fault; its `hits` counts how often it struck.
        """
        self.list.append(Fault(method, path, skip, times, **what))
        return self.list[-1]

    def clear(self) -> None:
        """Let all go well from here."""
        self.list.clear()
        self.alarms.clear()

    def after_bytes(self, count: int, call: Callable[[], None]) -> None:
        """Break all connections once `count` more bytes of request bodies have been received, and call back.

        As if the client's machine went away: of what a killed process has sent, its system would still deliver
        megabytes. The call, say a kill, comes from the server's thread.
        """
        self.alarms.append((self.received + count, call))

    def count(self, size: int) -> None:
        """Count received bytes, before they are worked on."""
        self.received += size
        due = [alarm for alarm in self.alarms if alarm[0] <= self.received]
        self.alarms = [alarm for alarm in self.alarms if alarm[0] > self.received]
        for _, call in due:
            for connection in self.connections:
                connection.reset()
            call()

    def take(self, exchange: Exchange) -> Fault:
        """Return what shall happen to a request; a fault without effect where it shall go well."""
        for fault in self.list:
            if fault.method in ("", exchange.method) and re.search(fault.path, exchange.path):
                fault.seen += 1
                if fault.seen > fault.skip and (fault.times is None or fault.hits < fault.times):
                    fault.hits += 1
                    return fault
        return Fault("", "", 0, 0)


class Watched:
    """The application behind a log and the faults."""

    def __init__(self, app: ASGIApp, faults: Faults, log: Log) -> None:
        self.app = app
        self.faults = faults
        self.log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Quoted, so that the router does not take the slashes of `refs%2Fpr%2F1` for its own.
        scope["path"] = scope["raw_path"].decode()
        exchange = Exchange(scope["method"], unquote(scope["path"]), scope["query_string"].decode())
        self.log.append(exchange)
        connection = Connection(exchange, self.faults.take(exchange), self.faults, receive, send)
        await asyncio.sleep(connection.fault.delay)
        self.faults.connections.add(connection)
        try:
            if connection.fault.status is None:
                await self.app(scope, connection.receive, connection.send)
            else:
                await connection.answer_with_error(connection.fault.status)
        except ClientDisconnect:
            pass  # the log says so: the answer is not finished
        finally:
            self.faults.connections.remove(connection)
        if connection.broken:
            # So that uvicorn learns of it before it looks for an answer.
            await asyncio.sleep(0.01)


class Connection:
    """The two ends of an exchange, with its fault."""

    def __init__(self, exchange: Exchange, fault: Fault, faults: Faults, receive: Receive, send: Send) -> None:
        self.exchange = exchange
        self.fault = fault
        self.faults = faults
        self._receive = receive
        self._send = send
        # uvicorn hands out bound methods of the object that has the connection.
        self.transport: asyncio.Transport = receive.__self__.transport  # type: ignore[attr-defined]
        self.broken = False

    async def receive(self) -> Message:
        """Pass the request's body on, up to the byte where the connection shall break."""
        limit = self.fault.drop_request_at
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.broken = True
        elif not self.broken:
            size = len(message["body"])
            if limit is not None and (self.exchange.received + size >= limit or not message["more_body"]):
                size = min(size, limit - self.exchange.received)
                self.reset()
            self.exchange.received += size
            self.faults.count(size)
        return {"type": "http.disconnect"} if self.broken else message

    def reset(self) -> None:
        """Break the connection; for the application, the client has gone."""
        self.broken = True
        self.transport.abort()

    async def send(self, message: Message) -> None:
        """Pass the answer on, up to the byte where the connection shall break."""
        limit = self.fault.drop_answer_at
        if self.broken:
            return
        if message["type"] == "http.response.start":
            if limit == 0:
                self.hang_up()
                return
            self.exchange.status = message["status"]
        else:
            body = message.get("body", b"")
            if limit is not None and self.exchange.sent + len(body) >= limit:
                body = body[: limit - self.exchange.sent]
                await self._send({"type": "http.response.body", "body": body, "more_body": True})
                self.exchange.sent += len(body)
                self.hang_up()
                return
            self.exchange.sent += len(body)
            self.exchange.finished = not message.get("more_body", False)
        await self._send(message)

    def hang_up(self) -> None:
        """Close the connection behind what was sent."""
        self.broken = True
        self.transport.close()

    async def answer_with_error(self, status: int) -> None:
        """Read the whole request, do nothing, and answer with the fault's status."""
        while (message := await self.receive())["type"] == "http.request" and message["more_body"]:
            pass
        text = self.fault.message or MESSAGES.get(status, "Error")
        headers = {"Content-Type": "application/json", "X-Error-Message": text, **self.fault.headers}
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        body = json.dumps({"error": text}).encode()
        raw.append((b"content-length", str(len(body)).encode()))
        await self.send({"type": "http.response.start", "status": status, "headers": raw})
        await self.send({"type": "http.response.body", "body": body})
