"""Lines in languages of other scripts, and what the tokenizer tests share."""

from pathlib import Path

from pico import CANTONESE

from langgraft.text import language
from langgraft.tokenizer.extend import Extension, extend

HINDI = [
    "यह मेरी किताब है और वह तुम्हारी कलम है।",
    "आज मौसम बहुत अच्छा है, हम बाहर घूमने चलेंगे।",
    "हिन्दी भारत की एक प्रमुख भाषा है।",
    "क्या आप मुझे रास्ता बता सकते हैं?",
]
THAI = [
    "วันนี้อากาศดีมาก เราไปเที่ยวกันไหม",
    "ฉันชอบกินข้าวผัดกับไข่ดาว",
    "ภาษาไทยไม่มีช่องว่างระหว่างคำ",
    "เขาทำงานอยู่ที่กรุงเทพมหานคร",
]
LINES = {"yue": CANTONESE, "hi": HINDI, "th": THAI}


def extended(base: Path, out: Path, code: str = "yue", *, new_tokens: int = 60, **options: int | bool) -> Extension:
    """Extend with the lines of a language, each seen ten times."""
    texts = LINES[code] * 10
    return extend(base, texts, out, language=language(code), new_tokens=new_tokens, min_frequency=2, **options)  # type: ignore[arg-type]
