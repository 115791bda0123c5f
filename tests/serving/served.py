"""A real server in this process: uvicorn on a free port, in a thread."""

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from langgraft.progress import Log
from langgraft.serving.models import open_model
from langgraft.serving.page import page
from langgraft.serving.run import bind
from langgraft.serving.server import Limits, application
from langgraft.serving.worker import Worker


class Heard(Log):
    """Keeps what was logged."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        """Keep it."""
        self.lines.append(text)


@contextlib.contextmanager
def serving(
    models: Mapping[str, Path],
    *,
    slots: int = 4,
    limits: Limits | None = None,
    log: Heard | None = None,
    **options: Any,
) -> Iterator[str]:
    """The address of a server for these models; closed at the end."""
    import uvicorn

    bounds = limits or Limits(max_tokens=64)
    workers = {
        name: Worker(open_model(str(path), context=128, slots=slots, threads=1), waiting=bounds.waiting)
        for name, path in models.items()
    }
    facts = {name: worker.model for name, worker in workers.items()}
    html = page(facts, key_needed="api_key" in options, most_tokens=bounds.max_tokens, code="fa")
    app = application(workers, limits=bounds, page=html, log=log or Heard(), **options)
    listening = bind("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive(), "the server did not stop"
