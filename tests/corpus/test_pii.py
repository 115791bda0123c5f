"""Personal data is found, and what only looks like it is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langgraft.corpus.pii import KINDS, hkid, iban, luhn, mask, thai_id, verhoeff
from langgraft.errors import CorpusError

FOUND = [
    ("en", "email", "Write to jane.doe+news@mail.some-host.org, please.", "Write to <EMAIL>, please."),
    ("hi", "email", "ईमेल: ram@desh.in।", "ईमेल: <EMAIL>।"),
    ("th", "email", "ติดต่อsomchai@krung.co.thได้", "ติดต่อ<EMAIL>ได้"),
    ("fa", "email", "نشانی ali@shahr.ir است", "نشانی <EMAIL> است"),
    ("en", "ip", "from 185.12.64.1, then", "from <IP>, then"),
    ("en", "ip", "http://185.12.64.1/a and 2a02:2e0:3fe:1001:302::", "http://<IP>/a and <IP>"),
    ("en", "card", "paid with 4111 1111 1111 1234 5", "paid with 4111 1111 1111 1234 5"),
    ("en", "card", "paid with 4539-1488-0343-6467.", "paid with <CARD>."),
    ("fa", "card", "کارت ۴۵۳۹۱۴۸۸۰۳۴۳۶۴۶۷ است", "کارت <CARD> است"),
    ("en", "iban", "IBAN GB82 WEST 1234 5698 7654 32 here", "IBAN <IBAN> here"),
    ("hi", "id", "आधार 2341 2341 2346 है", "आधार <ID> है"),
    ("th", "id", "เลข 1-1017-00203-45-0 ครับ", "เลข <ID> ครับ"),
    ("th", "id", "เลข1101700203450ครับ", "เลข<ID>ครับ"),
    ("yue", "id", "身份證號碼A123456(3)。", "身份證號碼<ID>。"),
    ("hi", "phone", "कॉल +91 98765 43210 पर", "कॉल <PHONE> पर"),
    ("hi", "phone", "मोबाइल: ९८७६५४३२१०", "मोबाइल: <PHONE>"),
    ("th", "phone", "โทร. 02-123-4567 ครับ", "โทร. <PHONE> ครับ"),
    ("th", "phone", "ที่ 081-234-5678 ครับ", "ที่ <PHONE> ครับ"),
    ("ja", "phone", "受付 03-1234-5678 まで", "受付 <PHONE> まで"),
    ("fa", "phone", "شماره ۰۹۱۲۳۴۵۶۷۸۹ است", "شماره <PHONE> است"),
    ("yue", "phone", "電話：2345 6789。", "電話：<PHONE>。"),
    ("en", "phone", "Phone (415) 555-2671 or call 415-555-2671", "Phone <PHONE> or call <PHONE>"),
]
LEFT = [
    "Version 1.2.3.4 and Chrome/120.0.6099.129, firmware 210.1.2.3, v192.0.1.200",
    "see section 4.2.1.3 and 12.30.45.60; at 192.168.0.1, 127.0.0.1, 10.255.1.1, 203.0.113.7",
    "git@github.com:owner/name.git, logo@2x.png, you@example.com, root@localhost, @decorator, a@b",
    "ISBN 978-3-16-148410-0 and 9783161484100, 1990-1995, 2024-01-31 12:30:45, 31.12.2024",
    "123e4567-e89b-12d3-a456-426614174000 deadbeef4539148803436467 0x4539148803436467",
    "3.14159265358979 0.4539148803436467 x=4539148803436467 /order/4539148803436467 4,539,148,803,436,467",
    "std::vector<int>::iterator, 12:30:45, 00:1a:2b:3c:4d:5e, a +12345678, 5 + 12345678, 1e+10, C++17",
    "population 1,234,567,890 in 2011; 1 000 000 000 000; 1234567890123 ms; tel. aviv 2024",
    "numpy==2.0.1 torch>=2.11 --port=5432 #123456 sha256:4539148803436467",
]


@pytest.mark.parametrize(("code", "kind", "text", "masked"), FOUND, ids=lambda value: value if value in KINDS else "")
def test_found(code: str, kind: str, text: str, masked: str) -> None:
    result, counts = mask(text, code)
    assert result == masked
    assert counts == ({kind: masked.count("<")} if "<" in masked else {})


@pytest.mark.parametrize("code", ["en", "hi", "th", "ja", "fa", "yue"])
@pytest.mark.parametrize("text", LEFT)
def test_left(code: str, text: str) -> None:
    assert mask(text, code) == (text, {})


def test_only_the_kinds_asked_for() -> None:
    text = "a@mail.org 185.12.64.1"
    assert mask(text, "en", ["email"])[0] == "<EMAIL> 185.12.64.1"
    assert mask(text, "en", ["ip"]) == ("a@mail.org <IP>", {"ip": 1})
    assert mask(text, "en", []) == (text, {})
    with pytest.raises(CorpusError, match="`mail` is no kind of personal data; did you mean `email`"):
        mask(text, "en", ["mail"])


def wrong_digits(text: str) -> list[str]:
    """Every number that differs from `text` in one digit."""
    spots = [i for i, char in enumerate(text) if char.isdigit()]
    return [text[:i] + digit + text[i + 1 :] for i in spots for digit in "0123456789" if digit != text[i]]


@pytest.mark.parametrize(
    ("check", "right"),
    [
        (luhn, "4539148803436467"),
        (verhoeff, "234123412346"),
        (thai_id, "1101700203450"),
        (iban, "GB82WEST12345698765432"),
        (hkid, "A123456(3)"),
        (hkid, "AB987654(3)"),
    ],
)
def test_a_wrong_digit_fails_every_checksum(check: object, right: str) -> None:
    assert callable(check)
    assert check(right)
    missed = [wrong for wrong in wrong_digits(right) if check(wrong)]
    # The third digit of a Thai number has the weight 11, so the sum modulo 11 does not see it.
    assert len(missed) == (9 if check is thai_id else 0)


BEFORE = st.sampled_from(["", "v", "version ", "numpy==", "section ", "/lib/", "第"])
versions = st.lists(st.integers(0, 99), min_size=2, max_size=6).map(lambda parts: ".".join(map(str, parts)))


@given(versions, BEFORE, st.sampled_from(["hi", "th", "en"]))
def test_version_numbers_are_left(version: str, before: str, code: str) -> None:
    text = f"{before}{version} "
    assert mask(text, code) == (text, {})


@given(
    st.text(alphabet="ab@.+-()0123456789 /=:<>A电话 tel", max_size=60), st.sampled_from(["hi", "th", "ja", "fa", "en"])
)
def test_masking_twice_changes_nothing(text: str, code: str) -> None:
    once, _ = mask(text, code)
    assert mask(once, code) == (once, {})


@given(st.uuids(), st.dates(), st.floats(allow_nan=False), st.integers(0, 10**7 - 1))
def test_identifiers_dates_and_numbers_are_left(uuid: object, date: object, number: float, count: int) -> None:
    text = f"{uuid} {date} {number!r} {count:,} {count}"
    assert mask(text, "en") == (text, {})


@given(st.text(max_size=80))
def test_any_text_can_be_masked(text: str) -> None:
    masked, counts = mask(text, "hi")
    assert (masked == text) == (not counts)
