"""Bytes of tokens in, text that can be shown out: whole characters, whole graphemes, nothing of a stop string."""

import codecs
from collections.abc import Sequence

import regex

LONGEST = 64  # code points; a model that loops on combining marks must not hold the stream for ever
_GRAPHEME = regex.compile(r"\X")


class TextStream:
    """Holds text back until nothing that may follow can change how it looks.

    A byte-level token may end inside a character, a character may get a vowel sign from the next token (Unicode
    extended grapheme clusters, UAX #29), and a stop string may be spread over tokens. Joined, what `feed` and
    `finish` return is the text before the first stop string; bytes that are no UTF-8 become U+FFFD, and half
    a character at the very end, where the limit cut it, is left out.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self.stopped: str | None = None
        self._stop = tuple(text for text in stop if text)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""

    def feed(self, data: bytes) -> str:
        """Take the bytes of a token; returns the text that may be shown now, often none."""
        return self._take(self._decoder.decode(data), last=False)

    def finish(self) -> str:
        """What is left at the end of generation; the first bytes of a character that did not come are dropped."""
        return self._take("", last=True)

    def _take(self, text: str, *, last: bool) -> str:
        if self.stopped is not None:
            return ""
        self._held += text
        starts = [(self._held.find(stop), stop) for stop in self._stop if stop in self._held]
        if starts:
            # The one complete first counts, so that the result does not depend on how the text is cut into tokens.
            _, cut, self.stopped = min((start + len(stop), start, stop) for start, stop in starts)
            last = True
        else:
            cut = len(self._held) if last else self._safe()
        shown, self._held = self._held[:cut], "" if last else self._held[cut:]
        return shown

    def _safe(self) -> int:
        """How many characters of the held text can be shown: up to its last grapheme and any start of a stop."""
        begun = max((_overlap(self._held, stop) for stop in self._stop), default=0)
        limit = len(self._held) - begun
        ends = [match.end() for match in _GRAPHEME.finditer(self._held)]
        if len(ends) == 1 and ends[0] > LONGEST:
            return limit
        return max((end for end in ends[:-1] if end <= limit), default=0)


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
