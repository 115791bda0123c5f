"""The page of `langgraft compare`: every model's answer to the same prompt, side by side, as it is written."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from langgraft.serving.model import LanguageModel
from langgraft.serving.prompts import PROMPTS
from langgraft.text import language

_RIGHT_TO_LEFT = frozenset(("Arabic", "Hebrew", "Syriac", "Thaana", "Nko", "Adlam", "Hanifi_Rohingya"))


def direction(code: str) -> str:
    """`rtl` or `ltr`, by the usual script of a language."""
    return "rtl" if language(code).scripts[0] in _RIGHT_TO_LEFT else "ltr"


def page(
    models: Mapping[str, LanguageModel],
    *,
    key_needed: bool,
    most_tokens: int,
    code: str = "en",
    prompts: Sequence[str] = (),
) -> str:
    """One self-contained HTML page that talks to the server it comes from.

    Args:
        code: the language whose prompts are offered first.
        prompts: prompts of the user's own, offered before the built-in ones.

    Raises:
        InputError: the language is unknown.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    own = language(code).code
    codes = sorted({*PROMPTS, own}, key=lambda one: (one != own, one != "en", language(one).name))
    facts = {
        "models": [
            {"name": name, "backend": model.backend, "context": model.context, "chat": model.template is not None}
            for name, model in models.items()
        ],
        "languages": [
            {
                "code": one,
                "name": language(one).name,
                "native": language(one).native_name,
                "dir": direction(one),
                "texts": [*(prompts if one == own else ()), *PROMPTS.get(one, ((), ()))[0]],
                "questions": [*(prompts if one == own else ()), *PROMPTS.get(one, ((), ()))[1]],
            }
            for one in codes
        ],
        "keyNeeded": key_needed,
        "mostTokens": most_tokens,
    }
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("page.html").render(facts=facts)
