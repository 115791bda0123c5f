"""Licences: what follows from base and text, and what is refused."""

import pytest

from langgraft.errors import ModelError
from langgraft.exporting.licenses import check_choice, model_license


@pytest.mark.parametrize(
    ("base", "data", "expected"),
    [
        ("apache-2.0", ["CC0-1.0"], "apache-2.0"),
        ("apache-2.0", ["CC-BY-4.0", "MIT"], "apache-2.0"),
        ("MIT", [], "mit"),
        ("apache-2.0", ["CC-BY-SA-3.0"], "cc-by-sa-3.0"),
        ("apache-2.0", ["CC-BY-SA-3.0", "CC-BY-SA-4.0"], "cc-by-sa-4.0"),
        ("apache-2.0", ["CC-BY-SA-4.0", "GPL-3.0-or-later"], "gpl-3.0"),
        ("apache-2.0", ["CC-BY-NC-4.0"], "cc-by-nc-4.0"),
        ("apache-2.0", ["CC-BY-NC-SA-3.0", "CC-BY-NC-4.0", "CC-BY-4.0"], "cc-by-nc-sa-3.0"),
        ("llama3.2", ["CC0-1.0"], "llama3.2"),
        ("gemma", ["CC-BY-4.0"], "gemma"),
    ],
)
def test_what_follows(base: str, data: list[str], expected: str) -> None:
    name, why = model_license(base, data)
    assert name == expected
    assert why
    check_choice(expected, base, data)


@pytest.mark.parametrize(
    ("base", "data", "reason"),
    [
        ("", ["CC0-1.0"], "the base's licence is unknown"),
        ("apache-2.0", [""], "the licence of some text is unknown"),
        ("apache-2.0", ["my own"], "the licence of some text is other"),
        ("apache-2.0", ["CC-BY-ND-4.0"], "allows no derived works"),
        ("apache-2.0", ["CC-BY-SA-4.0", "CC-BY-NC-4.0"], "cc-by-sa-4.0 and cc-by-nc-4.0 cannot be kept"),
        ("apache-2.0", ["CC-BY-SA-4.0", "GFDL"], "cannot be kept by one model"),
        ("llama3.1", ["CC-BY-SA-4.0"], r"llama3\.1 and cc-by-sa-4\.0 cannot be kept"),
        ("gemma", ["CC-BY-NC-4.0"], "gemma and cc-by-nc-4.0 cannot be kept"),
    ],
)
def test_what_is_refused(base: str, data: list[str], reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        model_license(base, data)


@pytest.mark.parametrize(
    ("choice", "base", "data", "reason"),
    [
        ("apache-2.0", "apache-2.0", ["CC-BY-NC-4.0"], "drops what cc-by-nc-4.0 asks for"),
        ("mit", "apache-2.0", ["CC-BY-SA-4.0"], "drops what cc-by-sa-4.0 asks for"),
        ("apache-2.0", "gemma", [], "drops what gemma asks for"),
        ("apache2", "apache-2.0", [], "no licence id of the hub"),
    ],
)
def test_a_choice_that_is_too_free(choice: str, base: str, data: list[str], reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        check_choice(choice, base, data)


def test_a_choice_for_what_is_unknown() -> None:
    check_choice("cc-by-nc-4.0", "", ["", "my own"])
    check_choice("cc-by-nc-sa-4.0", "apache-2.0", ["CC-BY-NC-4.0", ""])
    with pytest.raises(ModelError, match="drops"):
        check_choice("mit", "", ["", "CC-BY-SA-4.0"])
