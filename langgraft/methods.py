"""Method tables: a name in a recipe -> a plain function whose keyword-only arguments are its options.

A table maps names to "module:function" so that reading it imports nothing heavy. A recipe may also name a
function of the user's own as "my_module:function".
"""

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from langgraft.errors import RecipeError


def suggest(word: str, choices: Iterable[str]) -> str:
    """A "did you mean" clause for `word`, or the list of choices when nothing is close."""
    names = sorted(choices)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return f"did you mean `{close[0]}`?" if close else f"choose one of {', '.join(names)}"


def resolve(table: Mapping[str, str], name: str, *, what: str) -> Callable[..., Any]:
    """Import the function that `table` (or the user's "module:function") gives for `name`.

    Raises:
        RecipeError: no such name, module or function, or the module imports one that is missing.
    """
    if name in table:
        module, function = table[name].split(":")
        return getattr(importlib.import_module(module), function)
    if ":" not in name:
        raise RecipeError(f"{what} `{name}` is unknown; {suggest(name, table)}")
    module, function = name.split(":", 1)
    if not all(part.isidentifier() for part in (*module.split("."), function)):
        raise RecipeError(f"{what} `{name}` is no function name; write it as `my_module:my_function`")
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise RecipeError(
                f"{what} `{name}`: module `{module}` itself imports `{error.name}`, which is missing"
            ) from error
        raise RecipeError(
            f"{what} `{name}`: there is no module `{module}` on the Python path; "
            "start the command in the folder that holds it"
        ) from error
    found = getattr(imported, function, None)
    if not callable(found):
        raise RecipeError(f"{what} `{name}`: module `{module}` has no function `{function}`")
    return found


def check_options(function: Callable[..., Any], options: Mapping[str, Any], *, what: str) -> None:
    """Check `options` against the keyword-only arguments of `function`.

    Raises:
        RecipeError: an option the function does not take (with a suggestion), or one it needs is missing.
    """
    parameters = inspect.signature(function).parameters
    keyword = {name: p for name, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    for option in options:
        if option not in keyword and not takes_any:
            hint = suggest(option, keyword) if keyword else "it takes no options"
            raise RecipeError(f"{what} has no option `{option}`; {hint}")
    for name, parameter in keyword.items():
        if parameter.default is inspect.Parameter.empty and name not in options:
            raise RecipeError(f"{what} needs the option `{name}`")
