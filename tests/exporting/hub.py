"""A hub of our own on the loopback: as much of its interface as one commit of small files needs."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub:
    """What the client sent: `files` of the commit, `created` repositories, `tokens` in the headers, `log`."""

    def __init__(self, refuse: int = 0) -> None:
        self.files: dict[str, bytes] = {}
        self.created: list[dict[str, Any]] = []
        self.tokens: set[str] = set()
        self.log: list[str] = []
        self.refuse = refuse
        self.url = ""


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def answer(self, value: Any, code: int = 200) -> None:
            data = json.dumps(value).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            hub.log.append(f"GET {self.path}")
            self.answer({"error": "not there"}, 404)

        def do_POST(self) -> None:
            hub.log.append(f"POST {self.path}")
            hub.tokens.add(self.headers.get("Authorization", ""))
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if "validate-yaml" in self.path:
                self.answer({"errors": [], "warnings": []})
            elif hub.refuse:
                # A hub that tells a secret back: the client's message must not carry it on.
                self.answer({"error": f"no rights for {self.headers.get('Authorization')}"}, hub.refuse)
            elif self.path == "/api/repos/create":
                hub.created.append(json.loads(body))
                self.answer({"url": f"{hub.url}/someone/model", "id": "someone/model"})
            elif "/preupload/" in self.path:
                files = json.loads(body)["files"]
                self.answer(
                    {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
                )
            elif "/commit/" in self.path:
                for line in body.decode().splitlines():
                    entry = json.loads(line)
                    if entry["key"] == "file":
                        hub.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
                self.answer({"success": True, "commitOid": "0" * 40, "commitUrl": f"{hub.url}/someone/model/commit/0"})
            else:
                self.answer({"error": "not there"}, 404)

    return Handler


@contextmanager
def hub(refuse: int = 0) -> Iterator[Hub]:
    """Run the hub on a free port while the block runs; `refuse` is the status of every answer but the card's."""
    state = Hub(refuse)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
