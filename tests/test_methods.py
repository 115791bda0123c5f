import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langgraft.errors import RecipeError
from langgraft.methods import check_options, resolve, suggest

TABLE = {"mean": "langgraft.surgery.init:mean", "zeros": "langgraft.surgery.init:zeros"}


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`mine.py` on the Python path."""
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("mine", "broken"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "mine.py").write_text("number = 1\ndef method(a, *, k=1): return a\n")
    (tmp_path / "broken.py").write_text("import there_is_no_such_module\n")
    return tmp_path


@pytest.mark.usefixtures("module")
def test_a_row_and_a_function_of_the_users_own() -> None:
    assert resolve(TABLE, "mean", what="init").__name__ == "mean"
    assert resolve(TABLE, "mine:method", what="init")(3) == 3


@pytest.mark.parametrize(
    "name, message",
    [
        ("maen", "init `maen` is unknown; did you mean `mean`"),
        ("qqq", "choose one of mean, zeros"),
        ("absent:method", "no module `absent` on the Python path"),
        ("mine.sub:method", "no module `mine.sub`"),
        ("mine:absent", "module `mine` has no function `absent`"),
        ("mine:number", "module `mine` has no function `number`"),
        ("broken:method", "module `broken` itself imports `there_is_no_such_module`"),
        (":method", "write it as `my_module:my_function`"),
        (".mine:method", "write it as `my_module:my_function`"),
        ("mine:", "write it as `my_module:my_function`"),
    ],
)
@pytest.mark.usefixtures("module")
def test_names_that_give_nothing(name: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        resolve(TABLE, name, what="init")


def takes(a: int, *, std: float = 1.0, seed: int) -> None:
    del a, std, seed


def takes_none(a: int) -> None:
    del a


def takes_any(**options: Any) -> None:
    del options


@pytest.mark.parametrize(
    "function, options, message",
    [
        (takes, {"sdt": 1, "seed": 1}, "it has no option `sdt`; did you mean `std`"),
        (takes, {"a": 1, "seed": 1}, "it has no option `a`"),
        (takes, {"std": 1}, "it needs the option `seed`"),
        (takes_none, {"b": 1}, "it has no option `b`; it takes no options"),
    ],
)
def test_options_are_checked_by_signature(function: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        check_options(function, options, what="it")


def test_options_that_fit() -> None:
    check_options(takes, {"seed": 1}, what="it")
    check_options(takes_any, {"whatever": 1}, what="it")


@given(st.text(), st.sets(st.text(min_size=1), min_size=1))
def test_a_suggestion_names_a_choice(word: str, choices: set[str]) -> None:
    assert any(choice in suggest(word, choices) for choice in choices)
