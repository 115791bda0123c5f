"""A hub of our own on the loopback: as much of its interface as commits of small files and of large ones need."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub:
    """What the client sent: `files` by name and `by` repository, `created` repositories, `tokens` in headers, `log`.

    Weights come as large files do: first the content, of which `sent` lists the hashes, and then a commit that names
    it. A commit to a repository of a kind (`models`, `datasets`) in `refused` is refused once.
    """

    def __init__(self, refuse: int = 0) -> None:
        self.files: dict[str, bytes] = {}
        self.by: dict[str, dict[str, bytes]] = {}
        self.created: list[dict[str, Any]] = []
        self.tokens: set[str] = set()
        self.log: list[str] = []
        self.large: dict[str, bytes] = {}
        self.sent: list[str] = []
        self.refuse = refuse
        self.refused: list[str] = []
        self.url = ""

    def commit(self, repository: str, lines: list[dict[str, Any]]) -> None:
        """Take in the files of a commit."""
        for entry in lines:
            value = entry["value"]
            if entry["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                self.files[value["path"]] = self.large[value["oid"]]
            else:
                continue
            self.by.setdefault(repository, {})[value["path"]] = self.files[value["path"]]

    def batch(self, objects: list[dict[str, Any]]) -> dict[str, Any]:
        """Which of the large files are to be sent, and where."""
        found = [
            {**one, "actions": {"upload": {"href": f"{self.url}/large/{one['oid']}"}}}
            if one["oid"] not in self.large
            else one
            for one in objects
        ]
        return {"transfer": "basic", "objects": found}


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

        def do_PUT(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            hub.sent.append(hashlib.sha256(content).hexdigest())
            hub.large[hub.sent[-1]] = content
            self.answer({})

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
                names = [file["path"] for file in json.loads(body)["files"]]
                modes = {name: "lfs" if name.endswith(".safetensors") else "regular" for name in names}
                self.answer(
                    {"files": [{"path": n, "uploadMode": mode, "shouldIgnore": False} for n, mode in modes.items()]}
                )
            elif self.path.endswith("/info/lfs/objects/batch"):
                self.answer(hub.batch(json.loads(body)["objects"]))
            elif "/commit/" in self.path and self.path.split("/")[2] in hub.refused:
                hub.refused.remove(self.path.split("/")[2])
                self.answer({"error": "not now"}, 403)
            elif "/commit/" in self.path:
                kind, repository = self.path.removeprefix("/api/").partition("/commit/")[0].split("/", 1)
                place = f"datasets/{repository}" if kind == "datasets" else repository
                hub.commit(f"{kind}/{repository}", [json.loads(line) for line in body.decode().splitlines()])
                self.answer({"success": True, "commitOid": "0" * 40, "commitUrl": f"{hub.url}/{place}/commit/0"})
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
