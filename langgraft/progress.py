"""Progress with rate and time left, to the terminal and to a log file.

One line per report rather than a redrawn bar: it reads the same in a terminal, in `tail -f`, and in a Slurm
output file.
"""

import sys
import time
from datetime import datetime
from pathlib import Path


class Log:
    """Writes human output to stderr and, when a file is given, appends it there with the time of day."""

    def __init__(self, path: Path | None = None, *, quiet: bool = False) -> None:
        self.path = path
        self.quiet = quiet

    def say(self, text: str) -> None:
        """Write one line."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f"{datetime.now().isoformat(timespec='seconds')}  {text}\n")

    def progress(self, what: str, total: int, *, unit: str, done: int = 0, every: float = 5.0) -> "Progress":
        """Start a counter of `total` `unit`s, `done` of which were finished by an earlier process."""
        return Progress(self, what, total, unit=unit, done=done, every=every)


class Progress:
    """Counts work and says, at most every `every` seconds, how far it is, how fast, and how long it takes."""

    def __init__(self, log: Log, what: str, total: int, *, unit: str, done: int, every: float) -> None:
        self.log, self.what, self.total, self.unit, self.every = log, what, total, unit, every
        self.done = self.start_done = done
        self.start = self.last = time.monotonic()

    def advance(self, n: int = 1, note: str = "") -> None:
        """Count `n` more units; `note` is added to the line if one is printed."""
        self.done += n
        now = time.monotonic()
        if now - self.last < self.every and self.done < self.total:
            return
        self.last = now
        rate = (self.done - self.start_done) / max(now - self.start, 1e-9)
        # Work done in batches may end a little above the total.
        left = max(self.total - self.done, 0) / rate if rate else 0.0
        percent = 100 * self.done / max(self.total, 1)
        line = f"{self.what}: {self.done:,}/{self.total:,} {self.unit} ({percent:.0f}%), {rate:,.1f} {self.unit}/s"
        self.log.say(f"{line}, {clock(left)} left{', ' + note if note else ''}")


def clock(seconds: float) -> str:
    """`75` -> `1:15`; `3675` -> `1:01:15`."""
    minutes, secs = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{secs:02d}" if hours else f"{minutes}:{secs:02d}"
