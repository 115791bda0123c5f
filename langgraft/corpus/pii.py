"""Personal data masked in text: e-mail and network addresses, telephone, card, account and identity numbers.

Every kind is a pattern and, where the number has one, its checksum; a number that fails it is left alone. What
only looks like personal data is left as well: version and section numbers, private and documentation addresses,
numbers inside identifiers, decimals and paths. Placeholders are capitals in angle brackets, which are no word
of any language, and masking a masked text changes nothing.
"""

import functools
import ipaddress
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import regex

from langgraft.errors import CorpusError
from langgraft.methods import suggest

Check = Callable[[str, str], bool]


class Kind(NamedTuple):
    """A kind of personal data: what it looks like, and whether a match (and the text before it) is really one."""

    pattern: regex.Pattern[str]
    check: Check
    placeholder: str
    languages: frozenset[str] | None = None


# Before and after a number: nothing that would make it part of an identifier, a path, a decimal or a longer number.
# Letters of other scripts may touch it, because Thai, Chinese and Japanese write no spaces.
_W = r"A-Za-z\d_"
_BEFORE, _AFTER = rf"(?<![{_W}@#/\\=&?.,:+*^~%-])", rf"(?![{_W}@#/\\=&*^~%]|[-.,:+]\d)"
_INDIA = frozenset(("hi", "bn", "mr", "te", "ta", "gu", "ur", "kn", "or", "ml", "pa", "as", "mai", "sat", "ks", "ne"))
_RESERVED = regex.compile(r"@(?:[\w-]+\.)*example(?:\.[a-z]+)?$|\.(?:example|test|invalid|localhost|local)$")
_FILES = regex.compile(r"@\d+x\.\w+$|\.(?:png|jpe?g|gif|svg|webp|css|js|html?|py|md)$", regex.IGNORECASE)
_CALLED = (
    r"(?:tele?phone|tel|phone|mobile|mob|fax|cell|whatsapp|call|फ़?ोन|फोन|मोबाइल|दूरभाष|โทรศัพท์|โทรสาร|โทร|มือถือ|"
    r"電話|電邮|手機|手机|电话|傳真|传真|携帯|تلفن|موبایل|همراه|هاتف|جوال|فکس|☎|📞)"
)


def _digits(text: str) -> str:
    """The decimal digits of any script, as ASCII."""
    return "".join(str(unicodedata.decimal(char)) for char in text if char.isdecimal())


def _email(found: str, _before: str) -> bool:
    lowered = found.lower()
    return not (lowered.startswith("git@") or _RESERVED.search(lowered) or _FILES.search(lowered))


def _ipv4(found: str, before: str) -> bool:
    """Public addresses with a number of 100 or more: the others (2% of all) look like version numbers."""
    if regex.search(r"(?:version|release|firmware|build|ver|v|rev)[\s.:=]*$", before, regex.IGNORECASE):
        return False
    parts = [int(part) for part in found.split(".")]
    return max(parts) <= 255 and max(parts) >= 100 and _public(found)


def _ipv6(found: str, _before: str) -> bool:
    return _public(found)


def _public(found: str) -> bool:
    try:
        return ipaddress.ip_address(found).is_global
    except ValueError:
        return False


def _phone(found: str, _before: str) -> bool:
    return 8 <= len(_digits(found)) <= 15


def _called_phone(found: str, _before: str) -> bool:
    return 7 <= len(_digits(found)) <= 15


def luhn(digits: str) -> bool:
    """Whether the last digit is right (ISO/IEC 7812-1): cards."""
    total = 0
    for i, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + i % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _card(found: str, _before: str) -> bool:
    """Fifteen digits (34, 37) or sixteen (4, 2221-2720, 51-55, 60, 62, 65), not all alike."""
    digits = _digits(found)
    if len(digits) == 15:
        issued = digits[:2] in ("34", "37")
    else:
        first, four = int(digits[:2]), int(digits[:4])
        issued = digits[0] == "4" or 51 <= first <= 55 or first in (60, 62, 65) or 2221 <= four <= 2720
    return issued and len(set(digits)) > 2 and luhn(digits)


def iban(text: str) -> bool:
    """Whether the check digits are right (ISO 13616: remainder 1 modulo 97)."""
    bare = text.replace(" ", "")
    if not 15 <= len(bare) <= 34:
        return False
    return int("".join(str(int(char, 36)) for char in bare[4:] + bare[:4])) % 97 == 1


_TIMES = (
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 3, 4, 0, 6, 7, 8, 9, 5), (2, 3, 4, 0, 1, 7, 8, 9, 5, 6),
    (3, 4, 0, 1, 2, 8, 9, 5, 6, 7), (4, 0, 1, 2, 3, 9, 5, 6, 7, 8), (5, 9, 8, 7, 6, 0, 4, 3, 2, 1),
    (6, 5, 9, 8, 7, 1, 0, 4, 3, 2), (7, 6, 5, 9, 8, 2, 1, 0, 4, 3), (8, 7, 6, 5, 9, 3, 2, 1, 0, 4),
    (9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
)  # fmt: skip
_TURN = (
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9), (1, 5, 7, 6, 2, 8, 3, 0, 9, 4), (5, 8, 0, 3, 7, 9, 6, 1, 4, 2),
    (8, 9, 1, 6, 0, 4, 3, 5, 2, 7), (9, 4, 5, 3, 1, 2, 6, 8, 7, 0), (4, 2, 8, 6, 5, 7, 3, 9, 0, 1),
    (2, 7, 9, 3, 8, 0, 6, 4, 1, 5), (7, 0, 4, 6, 9, 1, 3, 2, 5, 8),
)  # fmt: skip


def verhoeff(digits: str) -> bool:
    """Whether the last digit is right (Verhoeff 1969): Aadhaar."""
    state = 0
    for i, digit in enumerate(reversed(digits)):
        state = _TIMES[state][_TURN[i % 8][int(digit)]]
    return state == 0


def _aadhaar(found: str, _before: str) -> bool:
    digits = _digits(found)
    return digits[0] not in "01" and len(set(digits)) > 2 and verhoeff(digits)


def thai_id(digits: str) -> bool:
    """Whether the last of 13 digits is right (weights 13 to 2, modulo 11)."""
    total = sum(int(digit) * (13 - i) for i, digit in enumerate(digits[:12]))
    return len(digits) == 13 and (11 - total % 11) % 10 == int(digits[12])


def _thai(found: str, _before: str) -> bool:
    digits = _digits(found)
    return digits[0] in "12345678" and thai_id(digits)


def hkid(text: str) -> bool:
    """Whether the character in brackets is right (weights 9 to 1, modulo 11; a missing first letter counts 36)."""
    bare = [char for char in text.upper() if char.isalnum()]
    values = [36] * (9 - len(bare)) + [int(char, 36) for char in bare]
    return len(values) == 9 and sum(value * (9 - i) for i, value in enumerate(values)) % 11 == 0


def _hkid(found: str, _before: str) -> bool:
    return hkid(unicodedata.normalize("NFKC", found))


def _compile(pattern: str, flags: int = 0) -> regex.Pattern[str]:
    return regex.compile(pattern, flags)


_GROUPS = r"(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?"
_HEX = "[0-9a-fA-F]"
_IPV6 = rf"[23]{_HEX}{{3}}:(?:{_HEX}{{0,4}}:){{1,6}}{_HEX}{{0,4}}"
_FOREIGN = r"\+[1-9](?:[ ().-]{0,2}\d){8,14}"
_AMERICAN = r"\(\d{3}\) ?\d{3}-\d{4}"
_CALLED_NUMBER = rf"(?i)(?<=(?<!\p{{L}}){_CALLED}[^\w\n+]{{0,4}})[(+]?\d(?:[ ().-]{{0,2}}\d){{6,14}}(?!\d|[.,]\d)"
# Several rows of one kind are tried in order; numbers with a checksum come before telephone numbers.
KINDS: dict[str, tuple[Kind, ...]] = {
    "email": (
        Kind(
            _compile(
                rf"(?<![{_W}.+/%-])[\w.+%-]{{1,64}}@(?:[a-z0-9](?:[a-z0-9-]{{0,61}}[a-z0-9])?\.)+[a-z]{{2,24}}(?![{_W}@])",
                regex.ASCII | regex.IGNORECASE,
            ),
            _email,
            "<EMAIL>",
        ),
    ),
    "ip": (
        Kind(_compile(rf"(?<![{_W}.@#=+-])(?:[0-9]{{1,3}}\.){{3}}[0-9]{{1,3}}(?![{_W}@-]|\.\d)"), _ipv4, "<IP>"),
        Kind(_compile(rf"(?<![{_W}:.]){_IPV6}(?![{_W}:])"), _ipv6, "<IP>"),
    ),
    "card": (Kind(_compile(rf"{_BEFORE}\d(?:[ -]?\d){{14,15}}{_AFTER}"), _card, "<CARD>"),),
    "iban": (
        Kind(
            _compile(rf"(?<![{_W}/=#.-])[A-Z]{{2}}[0-9]{{2}}{_GROUPS}(?![{_W}/=-])"),
            lambda found, _before: iban(found),
            "<IBAN>",
        ),
    ),
    "id": (
        Kind(_compile(rf"{_BEFORE}\d-\d{{4}}-\d{{5}}-\d{{2}}-\d{_AFTER}"), _thai, "<ID>"),
        Kind(_compile(rf"{_BEFORE}\d{{13}}{_AFTER}"), _thai, "<ID>", frozenset(("th",))),
        Kind(_compile(rf"{_BEFORE}\d{{4}}[ -]\d{{4}}[ -]\d{{4}}{_AFTER}(?![ -]\d)"), _aadhaar, "<ID>"),
        Kind(_compile(rf"{_BEFORE}\d{{12}}{_AFTER}"), _aadhaar, "<ID>", _INDIA),
        Kind(_compile(r"(?<![A-Za-z\d/=#_.-])[A-Z]{1,2}\d{6} ?[(（][0-9A][)）]"), _hkid, "<ID>"),
    ),
    "phone": (
        Kind(_compile(rf"(?<![{_W})\]+*/=^.-])(?<![\d)=*/^] ){_FOREIGN}(?![{_W}]|[.,]\d)"), _phone, "<PHONE>"),
        Kind(_compile(_CALLED_NUMBER), _called_phone, "<PHONE>"),
        Kind(_compile(rf"{_BEFORE}0[689]\d?-\d{{3}}-?\d{{4}}{_AFTER}"), _phone, "<PHONE>", frozenset(("th",))),
        Kind(_compile(rf"{_BEFORE}0\d{{1,3}}-\d{{2,4}}-\d{{4}}{_AFTER}"), _phone, "<PHONE>", frozenset(("ja",))),
        Kind(_compile(rf"{_BEFORE}(?:0|۰)(?:9|۹)\d{{9}}{_AFTER}"), _phone, "<PHONE>", frozenset(("fa",))),
        Kind(_compile(rf"{_BEFORE}[6-9]\d{{4}}[ -]\d{{5}}{_AFTER}"), _phone, "<PHONE>", _INDIA),
        Kind(_compile(rf"(?<![{_W}.+/=-]){_AMERICAN}(?![{_W}]|-\d)"), _phone, "<PHONE>", frozenset(("en",))),
    ),
}  # fmt: skip


def check_kinds(kinds: Iterable[str]) -> tuple[str, ...]:
    """`kinds` in the order in which they are masked; "all" means every one.

    Raises:
        CorpusError: a kind is unknown.
    """
    wanted = list(kinds)
    for kind in wanted:
        if kind != "all" and kind not in KINDS:
            raise CorpusError(f"mask: `{kind}` is no kind of personal data; {suggest(kind, [*KINDS, 'all'])}")
    return tuple(kind for kind in KINDS if kind in wanted or "all" in wanted)


def mask(text: str, code: str, kinds: Sequence[str] = ("all",)) -> tuple[str, Counter[str]]:
    """`text` with personal data replaced by placeholders, and how many of each kind there were.

    E-mail and public IP addresses; card numbers (Luhn) and IBANs; Aadhaar, Thai and Hong Kong identity numbers
    with a right check digit; telephone numbers that are international (+…), follow a word such as "Tel", or have
    the shape used where the language `code` is spoken.

    Raises:
        CorpusError: a kind is unknown.
    """
    found: Counter[str] = Counter()
    for kind in _order(tuple(kinds)):
        if (kind == "email" and "@" not in text) or (kind != "email" and not _NUMBER.search(text)):
            continue
        for row in KINDS[kind]:
            if row.languages is None or code in row.languages:
                text = _replace(text, row, kind, found)
    return text, found


_NUMBER = regex.compile(r"\d")
_order = functools.lru_cache(maxsize=32)(check_kinds)


def _replace(text: str, row: Kind, kind: str, found: Counter[str]) -> str:
    def one(match: regex.Match[str]) -> str:
        before = text[max(0, match.start() - 16) : match.start()]
        if not row.check(match.group(), before):
            return str(match.group())
        found[kind] += 1
        return row.placeholder

    return str(row.pattern.sub(one, text))
