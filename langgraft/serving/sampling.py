"""Which token comes next: one sampler for every backend, on the logits as numpy has them."""

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from langgraft.errors import InputError

if TYPE_CHECKING:
    import numpy as np


COLD = 1e-5  # below it, only rounding would separate the likeliest token from chance


@dataclass(frozen=True)
class Sampling:
    """How to choose tokens and when to stop; the names are those of the OpenAI and transformers interfaces.

    `temperature` 0 (or below `COLD`) takes the likeliest token. `logprobs` n records each token's log-probability and
    its n likeliest rivals, as the model gives them: before temperature, penalties and cuts.
    """

    max_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            InputError: a value is out of its range; the message names it.
        """
        bounds = {
            "max_tokens": (0, 2**31),
            "temperature": (0, 100),
            "top_p": (0, 1),
            "top_k": (0, 2**31),
            "min_p": (0, 1),
            "repetition_penalty": (0.01, 100),
            "presence_penalty": (-100, 100),
            "frequency_penalty": (-100, 100),
        }
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if not low <= value <= high:  # false for NaN too
                raise InputError(f"{name} is {value}; it must be between {low} and {high}")


class Sampler:
    """Chooses the tokens of one text; deterministic for a seed."""

    def __init__(self, sampling: Sampling, prompt: "list[int]") -> None:
        import numpy as np

        self._sampling = sampling
        self._random = np.random.default_rng(sampling.seed)
        self._counts: Counter[int] = Counter()
        self._seen = set(prompt)

    def choose(self, logits: "np.ndarray") -> int:
        """The next token; `logits` (float32, shape (tokens,)) are left as they are."""
        import numpy as np

        chosen = self._sampling
        scores = self._penalised(logits)
        if chosen.temperature < COLD:
            token = int(np.argmax(scores))
        else:
            ids, shares = self._candidates(scores / chosen.temperature)
            sums = np.cumsum(shares)
            token = int(ids[np.searchsorted(sums[:-1], self._random.random() * sums[-1], side="right")])
        self._counts[token] += 1
        self._seen.add(token)
        return token

    def _penalised(self, logits: "np.ndarray") -> "np.ndarray":
        """Logits less what repetition costs (CTRL, arXiv 1909.05858; presence and frequency as OpenAI has them)."""
        import numpy as np

        chosen = self._sampling
        scores = logits.astype(np.float64)
        if chosen.repetition_penalty != 1 and self._seen:
            seen = np.fromiter(self._seen, dtype=np.int64)
            before = scores[seen]
            factor = chosen.repetition_penalty
            scores[seen] = np.where(before > 0, before / factor, before * factor)
        if chosen.presence_penalty or chosen.frequency_penalty:
            for token, count in self._counts.items():
                scores[token] -= chosen.presence_penalty + chosen.frequency_penalty * count
        return scores

    def _candidates(self, scores: "np.ndarray") -> "tuple[np.ndarray, np.ndarray]":
        """Ids that may be drawn, likeliest first, and their weights: top-k, then nucleus (arXiv 1904.09751), min-p."""
        import numpy as np

        chosen = self._sampling
        if chosen.top_k and chosen.top_k < len(scores):
            ids = np.argpartition(scores, -chosen.top_k)[-chosen.top_k :]
        else:
            ids = np.flatnonzero(scores > scores.max() - 40)  # e^-40: what is left out is never drawn
        ids = ids[np.lexsort((ids, -scores[ids]))]
        weights = np.exp(scores[ids] - scores[ids[0]])
        shares = weights / weights.sum()
        keep = max(1, int(np.count_nonzero(np.cumsum(shares) - shares < chosen.top_p)))
        keep = min(keep, max(1, int(np.count_nonzero(shares >= chosen.min_p * shares[0]))))
        return ids[:keep], shares[:keep]


def log_softmax(logits: "np.ndarray") -> "np.ndarray":
    """Natural logarithms of the probabilities, float64."""
    import numpy as np

    shifted = logits.astype(np.float64) - logits.max()
    return shifted - np.log(np.exp(shifted).sum())
