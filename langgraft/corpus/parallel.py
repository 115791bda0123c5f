"""Formats of parallel text: pairs of texts that say the same, written as documents that a model can learn from.

Every function of `FORMATS` takes the pairs in order and yields texts. Pairs that follow one another and come from one
source share a document, as they did where they were taken from. A pair is the unit: what the two sides hold is not cut
and matched any further, since nothing here knows which word is which. The same pairs, options and seed give the same
texts. That parallel text helps in further pretraining, and that the two languages should alternate in it: Kondo et al.
2024 (arXiv 2407.03145).
"""

import itertools
import random
import string
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from langgraft.corpus.document import Pair
from langgraft.errors import RecipeError
from langgraft.methods import check_options, resolve
from langgraft.text import Language

FORMATS: dict[str, str] = {
    "translation": "langgraft.corpus.parallel:translation",
    "interleaved": "langgraft.corpus.parallel:interleaved",
    "bilingual": "langgraft.corpus.parallel:bilingual",
    "code_switched": "langgraft.corpus.parallel:code_switched",
}
Format = Callable[..., Iterator[str]]

# `{from}` and `{to}` are English names of the languages, `{from_native}` and `{to_native}` their own.
TEMPLATES = (
    "{from}: {text}\n{to}: {translation}",
    "{from_native}: {text}\n{to_native}: {translation}",
    "Translate from {from} to {to}.\n{text}\n{translation}",
    "{text}\nIn {to}: {translation}",
)
_FIELDS = frozenset(("from", "to", "from_native", "to_native", "text", "translation"))


def formatted(
    pairs: Iterable[Pair],
    name: str,
    target: Language,
    source: Language,
    *,
    seed: int = 0,
    options: Mapping[str, object] | None = None,
) -> Iterator[str]:
    """The texts of one format: a name in `FORMATS`, or a `my_module:function` of your own.

    Args:
        pairs: `text` is in the language `target`, `pair` in `source`.
        options: of the format, by name.

    Raises:
        RecipeError: there is no such format or option, or a template cannot be filled.
    """
    asked = {"seed": seed, **(options or {})}
    yield from check_format(name, asked)(pairs, target, source, **asked)


def check_format(name: str, options: Mapping[str, object]) -> Format:
    """The function of a format; one of your own must take `seed` too.

    Raises:
        RecipeError: as `formatted`.
    """
    function: Format = resolve(FORMATS, name, what="format of parallel text")
    check_options(function, {"seed": 0, **options}, what=f"format `{name}`")
    for option in ("most", "least"):
        count = options.get(option)
        if count is not None and (not isinstance(count, int) or count < 1):
            raise RecipeError(f"format `{name}`: {option} is a number of pairs from 1 on, not {count!r}")
    templates = options.get("templates")
    if name == "translation" and templates is not None:
        _check_templates(templates)
    if options.get("directions", "both") not in ("both", "to_target", "to_source"):
        raise RecipeError(
            f'format `{name}`: directions is "both", "to_target" or "to_source", not {options["directions"]!r}'
        )
    return function


def _check_templates(templates: object) -> None:
    if not isinstance(templates, list | tuple) or not templates:
        raise RecipeError("format `translation`: templates is a list of one or more texts")
    for template in templates:
        try:
            found = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
        except (ValueError, TypeError) as error:
            raise RecipeError(f"format `translation`: template {template!r} cannot be read: {error}") from error
        if wrong := sorted(found - _FIELDS):
            known = ", ".join(sorted(_FIELDS))
            raise RecipeError(f"format `translation`: template {template!r} has {{{wrong[0]}}}; there are {known}")
        if not {"text", "translation"} <= found:
            raise RecipeError(f"format `translation`: template {template!r} needs {{text}} and {{translation}}")


def translation(
    pairs: Iterable[Pair],
    target: Language,
    source: Language,
    *,
    templates: Sequence[str] = TEMPLATES,
    directions: str = "both",
    most: int = 4,
    seed: int = 0,
) -> Iterator[str]:
    """A text and its translation under a short header; several pairs under one template make a document.

    With `directions = "both"` every pair is there twice, once each way. A model learns the directions it has seen
    (Kondo et al. 2024, arXiv 2407.03145).

    Args:
        templates: one is drawn for each document. Fields: `{text}`, `{translation}`, the languages' English names
            `{from}` and `{to}`, and their own `{from_native}` and `{to_native}`.
        directions: "both", "to_target" (into the new language) or "to_source".
        most: pairs of one document; a number from 1 to this is drawn for each.
    """
    for number, group in enumerate(_documents(pairs, 1, most, f"translation {seed}")):
        draw = random.Random(f"template {seed} {number}")
        for way in ("to_target", "to_source"):
            template = draw.choice(templates)
            if directions not in ("both", way):
                continue
            first, second = (source, target) if way == "to_target" else (target, source)
            names = {"from": first.name, "to": second.name}
            names |= {"from_native": first.native_name, "to_native": second.native_name}
            turned = [(p.pair, p.text) if way == "to_target" else (p.text, p.pair) for p in group]
            yield "\n\n".join(template.format(text=a, translation=b, **names) for a, b in turned)


def interleaved(
    pairs: Iterable[Pair], target: Language, source: Language, *, most: int = 8, seed: int = 0
) -> Iterator[str]:
    """Both languages in turn, a line each: a text, its translation, the next text, its translation.

    Which language comes first is drawn for each document.

    Args:
        most: pairs of one document; a number from 1 to this is drawn for each.
    """
    del target, source  # nothing is said about the languages
    for number, group in enumerate(_documents(pairs, 1, most, f"interleaved {seed}")):
        swapped = random.Random(f"first {seed} {number}").random() < 0.5
        yield "\n".join(f"{p.pair}\n{p.text}" if swapped else f"{p.text}\n{p.pair}" for p in group)


def bilingual(
    pairs: Iterable[Pair], target: Language, source: Language, *, most: int = 4, seed: int = 0
) -> Iterator[str]:
    """Running text in the new language with the translation of each sentence in brackets: `HI (EN) HI (EN)`.

    Args:
        most: pairs of one document; a number from 1 to this is drawn for each.
    """
    del target, source
    for group in _documents(pairs, 1, most, f"bilingual {seed}"):
        yield " ".join(f"{_line(p.text)} ({_line(p.pair)})" for p in group)


def code_switched(
    pairs: Iterable[Pair], target: Language, source: Language, *, least: int = 2, most: int = 8, seed: int = 0
) -> Iterator[str]:
    """Text that changes its language between sentences; each pair is there once, in one of the two languages.

    The language changes after every one or two pairs, as is drawn; a document holds both. Without a dictionary or word
    alignment nothing is switched inside a sentence: this is the sentence-level code-switching of Yoo et al. 2025
    (arXiv 2411.02460), not their token-level one. Documents end with their source, so pairs that stand alone in theirs
    are left out.

    Args:
        least, most: pairs of one document; a number between them is drawn for each.
    """
    for number, group in enumerate(_documents(pairs, max(least, 2), max(most, least, 2), f"code-switched {seed}")):
        if len(group) < 2:
            continue
        draw = random.Random(f"switch {seed} {number}")
        in_target, left, written, seen = draw.random() < 0.5, draw.choice((1, 2)), list[str](), set[bool]()
        for place, one in enumerate(group):
            last = place == len(group) - 1
            if left == 0 or (last and len(seen) == 1 and in_target in seen):
                in_target, left = not in_target, draw.choice((1, 2))
            written.append(one.text if in_target else one.pair)
            seen.add(in_target)
            left -= 1
        spaces = target.spaces or source.spaces
        yield (" " if spaces else "").join(_line(text) for text in written)


def _documents(pairs: Iterable[Pair], least: int, most: int, seed: str) -> Iterator[list[Pair]]:
    """Pairs that follow one another in one source, a drawn number of them at a time; fewer at a source's end."""
    draw = random.Random(seed)
    for _, of_source in itertools.groupby(pairs, key=lambda pair: pair.source):
        while group := list(itertools.islice(of_source, draw.randint(least, most))):
            yield group


def _line(text: str) -> str:
    return " ".join(text.split())
