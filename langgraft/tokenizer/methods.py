"""Methods of extending a tokenizer: name -> function `f(base, texts, out, *, language, new_tokens, ...)`.

A method reads the tokenizer folder `base` and, where it learns, `texts`; it writes the folder `out` and returns an
`Extension`. Its further keyword-only arguments are its options.
"""

import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from langgraft.errors import TokenizerError
from langgraft.methods import resolve
from langgraft.store import read_json
from langgraft.text import Language
from langgraft.tokenizer.extend import Extension
from langgraft.tokenizer.files import next_id, read_tokenizer, write_tokenizer

METHODS: dict[str, str] = {
    "continue": "langgraft.tokenizer.extend:extend",
    "merge": "langgraft.tokenizer.merge:merge",
    "train": "langgraft.tokenizer.train:train",
    "added": "langgraft.tokenizer.added:added",
    "none": "langgraft.tokenizer.methods:keep",
}


def keep(
    base: Path,
    texts: Iterable[str],  # noqa: ARG001
    out: Path,
    *,
    language: Language,  # noqa: ARG001
    new_tokens: int,  # noqa: ARG001
) -> Extension:
    """Write the base's tokenizer as it is."""
    data = read_tokenizer(base)
    write_tokenizer(data, Path(base), Path(out))
    path = Path(base) / "config.json"
    return Extension(next_id(data, read_json(path) if path.is_file() else {}))


def apply(
    method: str,
    base: Path,
    texts: Iterable[str],
    out: Path,
    *,
    language: Language,
    new_tokens: int | None,
    **options: Any,
) -> Extension:
    """Extend with the method of that name; options that it does not take are left out, as are options of None.

    Raises:
        RecipeError: there is no such method.
        TokenizerError: it needs an option that is missing, or as the method says.
    """
    function = resolve(METHODS, method, what="tokenizer method")
    takes = inspect.signature(function).parameters
    given = {name: value for name, value in options.items() if name in takes and value is not None}
    for name, parameter in takes.items():
        required = parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty
        if required and name not in (*given, "language", "new_tokens"):
            raise TokenizerError(f"tokenizer method `{method}` needs `{name}`")
    extension: Extension = function(base, texts, out, language=language, new_tokens=new_tokens, **given)
    return extension
