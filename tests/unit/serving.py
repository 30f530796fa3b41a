"""A server on this machine that speaks OpenAI's API and misbehaves as it is told."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

Reply = tuple[int, Any]
HANG_UP = 0


@dataclass
class Service:
    """What the server was asked, how much of it at once, and what it says to a request's body."""

    url: str = ""
    reply: Callable[[dict[str, Any]], Reply] = lambda body: (200, chat(f"wrote {body['messages'][0]['content']}"))
    asked: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    running: int = 0
    most: int = 0
    lock: Lock = field(default_factory=Lock)

    def count(self, more: int) -> None:
        with self.lock:
            self.running += more
            self.most = max(self.most, self.running)


def chat(text: str | None, finish: str = "stop", **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish, **more}
    return {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}


def refusal(words: str) -> dict[str, Any]:
    return {"error": {"message": words, "type": "some_error", "param": None, "code": None}}


@contextmanager
def serving() -> Iterator[Service]:
    """Serve on a free port of this machine."""
    told = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)) or "{}")
            with told.lock:
                told.asked.append(body)
                told.paths.append(self.path)
                told.keys.append(self.headers["Authorization"])
            told.count(+1)
            status, content = told.reply(body)
            told.count(-1)
            if status == HANG_UP:
                self.close_connection = True
                return
            is_json = not isinstance(content, bytes)
            data = json.dumps(content).encode() if is_json else content
            self.send_response(status)
            self.send_header("Content-Type", "application/json" if is_json else "text/html")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            try:
                self.wfile.write(data)
            except OSError:  # a client that did not wait
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    told.url = f"http://127.0.0.1:{server.server_port}/v1"
    yield told
    server.shutdown()
    thread.join()
    server.server_close()
