"""Which shards of a corpus one of several machines cleans. Light, as the command line reads it."""

import os
from typing import NamedTuple

from langgraft.errors import InputError


class Part(NamedTuple):
    """Every `of`th shard, from the `number`th (1 is the first): what one of several machines cleans."""

    number: int
    of: int

    def has(self, shard: int) -> bool:
        """Whether a shard, counted from 0, belongs to this part."""
        return shard % self.of == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @classmethod
    def parse(cls, text: str) -> "Part":
        """`3/16`: the third of sixteen.

        Raises:
            InputError: it is not written so, or there is no such part.
        """
        number, slash, of = text.partition("/")
        if not (slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
            raise InputError(f"part `{text}`: write which of how many, such as 3/16")
        return cls(int(number), int(of))


def cores() -> int:
    """CPU cores that this process may use, which on a shared node are not all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
