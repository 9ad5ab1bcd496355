"""A local judge: `/v1/chat/completions` on a loopback port, in a thread; a test says what it answers."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

RATINGS = {"correctness": 90, "completeness": 70, "details": 50, "interpretability": 80}


def completion(text: Any) -> Response:
    return JSONResponse({"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]})


def failure(status: int, message: str = "trouble", **headers: str) -> Response:
    return JSONResponse({"error": {"message": message}}, status, headers)


class JudgeServer:
    """A judge of its own for one test.

    Attributes:
        url: The `base_url`.
        answer: Body of a request -> the response; a test replaces it.
        delay: Seconds that every answer takes.
        asked: All bodies, in the order of their arrival.
        times: When they arrived.
        headers: Of the last request.
        most_at_once: The most requests that were open at a time.
    """

    def __init__(self) -> None:
        self.answer: Callable[[dict], Response] = lambda body: completion(json.dumps(RATINGS))
        self.delay = 0.0
        self.asked: list[dict] = []
        self.times: list[float] = []
        self.headers: dict[str, str] = {}
        self.most_at_once = self._open = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"
        app = Starlette(routes=[Route("/v1/chat/completions", self._complete, methods=["POST"])])
        self._server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None))
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)

    async def _complete(self, request: Request) -> Response:
        body = await request.json()
        self.asked.append(body)
        self.times.append(time.monotonic())
        self.headers = dict(request.headers)
        self._open += 1
        self.most_at_once = max(self.most_at_once, self._open)
        try:
            await asyncio.sleep(self.delay)
            return self.answer(body)
        finally:
            self._open -= 1

    def descriptions(self) -> list[str]:
        """Return the descriptions asked about, in order."""
        return [description_of(body) for body in self.asked]

    def __enter__(self) -> Self:
        self._thread.start()
        while not self._server.started:
            time.sleep(0.005)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(10)
        self._socket.close()


def description_of(body: dict) -> str:
    """Return the description inside a request."""
    return json.loads(body["messages"][1]["content"][-1]["text"])["description"]
