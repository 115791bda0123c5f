"""How `langgraft serve` stands up to many clients: 32 at once for two minutes, errors and memory counted.

    python benchmarks/serve.py MODEL… [--seconds 120] [--clients 32] [--threads 0]

Starts the server as a user would, one model at a time, asks it with raw HTTP (half of the answers streamed, a tenth of
the clients hang up early, a few requests are malformed), reads the server's resident memory from /proc, and writes
the table in docs/serving.md. Every figure between the two markers comes from here.
"""

import argparse
import http.client
import json
import os
import random
import re
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from langgraft.serving.run import named
from langgraft.store import atomic_write

PAGE = Path(__file__).parent.parent / "docs" / "serving.md"
BEGIN, END = "<!-- load: written by benchmarks/serve.py -->", "<!-- end of load -->"
PROMPTS = (
    "The quick brown fox",
    "香港嘅夜景",
    "भारत की राजधानी",
    "یکی بود یکی نبود،",
    "กาลครั้งหนึ่งนานมาแล้ว",
    "def add(a, b):",
)
TOKENS = 16


@dataclass
class Seen:
    """What the clients saw."""

    seconds: list[float] = field(default_factory=list)
    tokens: int = 0
    refused: int = 0
    left: int = 0
    errors: list[str] = field(default_factory=list)


def ask(port: int, name: str, random_: random.Random, seen: Seen) -> None:
    """One request, right, wrong or given up."""
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    kind = random_.random()
    stream = random_.random() < 0.5
    body = {"model": name, "prompt": random_.choice(PROMPTS), "max_tokens": TOKENS, "temperature": 1, "stream": stream}
    if kind < 0.03:
        body["max_tokens"] = "many"
    start = time.monotonic()
    try:
        line.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        if kind > 0.9:
            time.sleep(0.5)
            seen.left += 1
            return
        answer = line.getresponse()
        data = answer.read().decode()
    finally:
        line.close()
    if kind < 0.03:
        seen.refused += answer.status == 400
        if answer.status != 400:
            seen.errors.append(f"malformed request: {answer.status}")
    elif answer.status != 200 or '"error"' in data or (stream and not data.endswith("data: [DONE]\n\n")):
        seen.errors.append(f"{answer.status}: {data[-200:]}")
    else:
        seen.seconds.append(time.monotonic() - start)
        seen.tokens += data.count("data: {") if stream else json.loads(data)["usage"]["completion_tokens"]


def resident(pid: int) -> float:
    """Resident memory of a process in MB."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024  # type: ignore[index]


def load(model: str, clients: int, seconds: float, threads: int) -> str:
    """A row of the table for one model."""
    ((name, _),) = named([model]).items()
    command = [sys.executable, "-m", "langgraft.cli", "serve", model, "--port", "0", "--threads", str(threads)]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    port = backend = None
    for line in server.stderr:
        backend = re.search(r" on (\S+), ", line) or backend
        if found := re.search(r"serving http://127\.0\.0\.1:(\d+)/v1", line):
            port = int(found[1])
            break
    if port is None or backend is None:
        sys.exit(f"the server did not start: {model}")
    said: list[str] = []
    threading.Thread(target=lambda: said.extend(server.stderr or ()), daemon=True).start()
    seen, end = Seen(), 0.0
    for number in range(4 * len(PROMPTS)):  # every slot has had every prompt before memory is read
        ask(port, name, random.Random(number), Seen())

    def client(number: int) -> None:
        random_ = random.Random(number)
        while time.monotonic() < end:
            try:
                ask(port, name, random_, seen)
            except Exception as error:  # counted and shown: that there is none is the point
                seen.errors.append(repr(error))

    end, start = time.monotonic() + seconds, time.monotonic()
    asking = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in asking:
        thread.start()
    memory = []
    for part in (0.1, 0.5, 1.0):
        time.sleep(max(0.0, start + part * seconds - time.monotonic()))
        memory.append(resident(server.pid))
    for thread in asking:
        thread.join()
    took = time.monotonic() - start
    server.terminate()
    server.wait(30)
    for error in seen.errors[:5]:
        print(error)
    tracebacks = sum("Traceback" in line for line in said)
    middle, slow = statistics.median(seen.seconds), statistics.quantiles(seen.seconds, n=20)[-1]
    return (
        f"| {name} on {backend[1]} | {len(seen.seconds):,} | {seen.left:,} | {seen.refused:,} | "
        f"{len(seen.errors) + tracebacks} | {seen.tokens / took:.0f} | {middle:.1f} s | {slow:.1f} s | "
        + " | ".join(f"{mb:,.0f} MB" for mb in memory)
        + " |"
    )


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="+")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    rows = [load(model, options.clients, options.seconds, options.threads) for model in options.models]
    table = [
        f"{options.clients} clients for {options.seconds:.0f} seconds, {TOKENS} tokens an answer, half of them "
        f"streamed; {os.cpu_count()} cores; {date.today().isoformat()}. "
        "Memory after a tenth, half and all of the time.",
        "",
        "| model | answers | hung up | malformed, refused | errors | tokens/s | median | 95% within "
        "| memory: start | middle | end |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *rows,
    ]
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    atomic_write(PAGE, f"{before}{BEGIN}\n" + "\n".join(table) + f"\n{END}{after}")
    print("\n".join(table))


if __name__ == "__main__":
    main()
