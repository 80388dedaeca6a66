"""A server in a thread, and a client that speaks plain HTTP to it."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from descant.gen import serve
from descant.gen.serve_limits import Limits
from descant.gen.serve_work import Tools

END = ("done", "failed", "cancelled")


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Client:
    port: int
    folder: Path
    """Where the server keeps its files."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self, path: str, method: str = "GET", body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            link.request(method, path, body, dict(headers or {}))
            reply = link.getresponse()
            return Reply(reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read())
        finally:
            link.close()

    def post(self, path: str, data: Any, **headers: str) -> Reply:
        return self.ask(path, "POST", json.dumps(data).encode(), {"content-type": "application/json", **headers})

    def send(self, path: str, sound: bytes, name: str = "in.wav", **fields: str) -> Reply:
        return self.ask(path, "POST", *form(sound, name, fields))

    def wait(self, reply: Reply) -> Any:
        """The job of a reply, once it is finished."""
        assert reply.status == 202, reply.body
        end = time.monotonic() + 120
        while time.monotonic() < end:
            state = self.ask(reply.json["url"]).json
            if state["status"] in END:
                return state
            time.sleep(0.02)
        raise AssertionError(f"still not finished: {state}")


def form(sound: bytes, name: str, fields: Mapping[str, str]) -> tuple[bytes, dict[str, str]]:
    """A body of multipart/form-data (RFC 7578) and its headers."""
    edge = "edge-of-the-form"
    parts = [
        f'--{edge}\r\ncontent-disposition: form-data; name="{key}"\r\n\r\n{value}\r\n' for key, value in fields.items()
    ]
    head = (
        f'--{edge}\r\ncontent-disposition: form-data; name="file"; filename="{name}"\r\ncontent-type: audio/wav\r\n\r\n'
    )
    body = "".join(parts).encode() + head.encode() + sound + f"\r\n--{edge}--\r\n".encode()
    return body, {"content-type": f"multipart/form-data; boundary={edge}"}


@contextmanager
def running(tools: Sequence[Tools], **limits: Any) -> Iterator[Client]:
    with serve.opened(serve.Place(port=0, limits=Limits(**limits)), tools) as (server, door, store):
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, daemon=True)
        thread.start()
        try:
            yield Client(door.getsockname()[1], store.folder)
        finally:
            server.should_exit = True
            thread.join(timeout=20)
            assert not thread.is_alive()
