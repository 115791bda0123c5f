"""Load models, bind a port, serve until interrupted."""

import contextlib
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from langgraft.errors import InputError, LanggraftError
from langgraft.progress import Log
from langgraft.serving.models import open_model


def named(models: Sequence[str]) -> dict[str, str]:
    """`NAME=MODEL` or `MODEL` -> model by name; by default a model is called as its folder or file is.

    Raises:
        InputError: two have the same name.
    """
    found: dict[str, str] = {}
    for given in models:
        name, equals, model = given.partition("=")
        if not equals or "/" in name or Path(given).exists():
            name, model = _name_of(given), given
        if name in found:
            raise InputError(f"two models are called `{name}`; name them: {name}-1={found[name]} {name}-2={model}")
        found[name] = model
    return found


def _name_of(model: str) -> str:
    bare = model.removeprefix("package:").rstrip("/")
    path = Path(bare)
    return path.stem if path.suffix == ".gguf" else path.name or path.resolve().name


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
        InputError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=512)
    except (OSError, OverflowError) as error:
        raise InputError(
            f"{host} port {port} cannot be used ({getattr(error, 'strerror', None) or error}); choose another --port"
        ) from error


def serve(
    models: Sequence[str],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    api_key: str | None = None,
    context: int = 0,
    slots: int = 4,
    threads: int = 0,
    device: str = "auto",
    limits: dict[str, int] | None = None,
    page: dict[str, Any] | None = None,
    opened: Callable[[str], object] | None = None,
    log: Log | None = None,
) -> None:
    """Serve models over the OpenAI interface until interrupted.

    Args:
        models: see `named`.
        limits: fields of `langgraft.serving.server.Limits`.
        page: arguments of `langgraft.serving.page.page` beside the models.
        opened: called with the address once the server listens.

    Raises:
        LanggraftError: the extra `serve` is not installed, a model cannot be loaded, or the port is taken.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise LanggraftError("serving needs starlette and uvicorn; run `pip install 'langgraft[serve]'`") from error
    from langgraft.serving.page import page as make_page
    from langgraft.serving.server import LOOPBACK, Limits, application
    from langgraft.serving.worker import Worker

    if api_key is not None and not api_key.strip():
        raise InputError("the API key is empty; give one, or none at all")
    log, bounds = log or Log(), Limits(**(limits or {}))
    paths = named(models)
    listening = bind(host, port)  # before the models: a taken port should not cost a minute of loading
    address = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
    if host not in LOOPBACK and api_key is None:
        log.say(f"warning: anybody who reaches {host} can use these models; set LANGGRAFT_API_KEY to ask for a key")
    workers = {}
    for name, path in paths.items():
        model = open_model(path, context=context, slots=slots, threads=threads, device=device)
        workers[name] = Worker(model, waiting=bounds.waiting)
        log.say(f"{name}: {path} on {model.backend}, {model.context:,} tokens of context, {slots} at a time")
    facts = {name: worker.model for name, worker in workers.items()}
    html = make_page(facts, key_needed=api_key is not None, most_tokens=bounds.max_tokens, **(page or {}))
    app = application(workers, limits=bounds, api_key=api_key, local=host in LOOPBACK, page=html, log=log)
    config = uvicorn.Config(
        app, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=3, lifespan="on"
    )
    log.say(f"serving {address}/v1 (page: {address}/); Ctrl-C stops it")
    if opened is not None:
        opened(address)
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listening])
