"""Lines on which tokenizers tend to disagree: many scripts, code, digits, emoji, spaces, rare code points.

All sentences are written for this file. Sentences with slots are filled in a fixed order, so the lines are
the same on every machine. U+0000 is left out: C strings end there.
"""

from collections.abc import Iterator
from itertools import zip_longest

from langgraft.errors import InputError

# A sentence with slots `{}`, and the fillings: every sentence is used with every filling.
_Templates = tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]

_CANTONESE: _Templates = (
    (
        "我哋{}去{}食飯，你嚟唔嚟呀？",
        "佢話{}會落雨，所以唔去{}喇。",
        "{}嘅{}真係好靚，好多人都鍾意影相㗎。",
        "喺{}等咗成個鐘，{}先至有車嚟，激死我。",
        "「你{}去過{}未呀？」「未呀，得閒先啦！」",
        "搞掂！{}嗰篇稿寫完，聽朝喺{}交畀你啦~",
    ),
    (
        ("今日", "旺角"),
        ("聽日", "西貢碼頭"),
        ("尋晚", "屋企樓下間茶餐廳"),
        ("禮拜六", "IFC 商場"),
        ("3月14號", "長洲"),
        ("下個月", "尖沙咀海旁"),
        ("年初二", "黃大仙廟"),
        ("而家", "公司(18樓)"),
    ),
)
_ENGLISH: _Templates = (
    (
        "The {} arrived {}, and nobody had expected it.",
        "She's sure they'd've kept the {}, hadn't it been {}.",
        "We couldn't find a {}; it's usually there {}!",
        '"Is that your {}?" he asked. "I\'ll bring it {}," she said.',
        "I'M NOT SELLING THE {} -- NOT {}, NOT EVER.",
        "Dr. O'Neill's {} (the old one) was repaired {} for $1,249.50.",
    ),
    (
        ("letter", "at dawn"),
        ("ferry", "on 12 May 1987"),
        ("re-union", "twenty-five minutes late"),
        ("naïve café owner", "in 2nd place"),
        ("GPU cluster", "overnight"),
        ("mother-in-law", "around 6:45pm"),
        ("x-ray", "while it rained"),
        ("co-op's ledger", "last Tuesday"),
    ),
)
_HINDI: _Templates = (
    (
        "{} ने कहा कि {} बहुत सुंदर है।",
        "क्या {} कल {} जाएँगे? मुझे नहीं पता!",
        "{} की किताब {} में रह गई थी, इसलिए वह लौट आया।",
        "हम {} के साथ {} घूमने गए और ख़ूब हँसे।",
        "“{}, ज़रा सुनिए,” उसने {} की ओर देखकर कहा।",
    ),
    (
        ("रमेश", "दिल्ली"),
        ("मेरी माँ", "पुराना बाज़ार"),
        ("विद्यार्थी", "गाँव का मेला"),
        ("डॉक्टर साहब", "२०२४ की प्रदर्शनी"),
        ("श्रीमती वर्मा", "गंगा का किनारा"),
        ("मेरे पड़ोसी", "५ नंबर प्लेटफ़ॉर्म"),
    ),
)
_THAI: _Templates = (
    (
        "เมื่อวาน{}ไปเที่ยวที่{}กับเพื่อนๆ",
        "{}บอกว่า{}สวยมาก แต่คนเยอะไปหน่อย",
        "ถ้า{}ว่าง เราจะไป{}กันนะครับ",
        "ทำไม{}ถึงไม่ชอบ{}ล่ะ? ไม่เข้าใจเลย!",
        "{}ซื้อผลไม้ที่{} ๓ กิโล ราคา 120 บาท",
    ),
    (
        ("คุณแม่", "ตลาดน้ำ"),
        ("น้องสาว", "เชียงใหม่"),
        ("อาจารย์สมชาย", "พิพิธภัณฑ์แห่งใหม่"),
        ("พวกเขา", "ร้านก๋วยเตี๋ยวหน้าปากซอย"),
        ("ฉัน", "สถานีรถไฟ"),
        ("คุณลุง", "เกาะเล็กๆ ทางใต้"),
    ),
)
_ARABIC: _Templates = (
    (
        "ذهب {} إلى {} في الصباح الباكر.",
        "هل زار {} مدينة {} من قبل؟ لا أظن ذلك!",
        "قال {}: «إنَّ {} أجملُ ممّا تخيّلتُ».",
        "كَتَبَ {} رسالةً طويلةً عن {}، ثمّ مزّقها.",
        "اشترى {} ٣ كتب من {} بـ ١٢٫٥٠ ديناراً.",
    ),
    (
        ("أحمد", "السوق القديم"),
        ("والدي", "الإسكندرية"),
        ("المعلّمة", "مكتبة الجامعة"),
        ("الجيران", "شاطئ البحر"),
        ("ابنُ عمّي", "فاس"),
        ("الطبيب", "المستشفى رقم ٧"),
    ),
)
# One ordinary sentence or two in many further languages, so that every common block of Unicode is touched.
_OTHER_LANGUAGES = (
    "明天早上我们一起去图书馆还书，好不好？",
    "這家餐廳的湯很鮮，只是要等四十分鐘。",
    "昨日の夜、駅前のパン屋さんで新しいメロンパンを買いました。",
    "えっ、ほんとう？スマホを電車に忘れちゃったの！？",
    "ﾊﾝｶｸｶﾀｶﾅ と全角ＡＢＣ１２３が混ざった行です。",
    "어제는 비가 와서 산책을 못 했지만, 오늘은 날씨가 참 좋네요.",
    "한글 자모도: ㄱㄴㄷ ㅏㅑㅓ ㅋㅋㅋ ㅠㅠ",
    "Завтра мы поедем на дачу, если погода не испортится.",
    "Її їжак з'їв п'ять яблук — і заснув.",
    "Утре ще купя хляб, сирене и три кила домати.",
    "Το πρωί ήπια έναν καφέ δίπλα στη θάλασσα, ήσυχα.",
    "ΤΑ ΚΕΦΑΛΑΙΑ ΓΡΑΜΜΑΤΑ ΚΑΙ ΤΟ ΤΕΛΙΚΟ ς.",
    "מחר בבוקר נלך לשוק לקנות לחם טרי.",
    "הַיֶּלֶד כָּתַב שִׁיר קָצָר בְּעִפָּרוֹן.",
    "کل شام ہم سب دریا کے کنارے چائے پئیں گے۔",
    "می‌خواهم فردا کتاب‌هایم را به کتابخانه پس بدهم.",
    "আগামীকাল সকালে আমরা নৌকায় করে ওপারে যাব।",
    "நாளை காலையில் நாங்கள் கடற்கரைக்குச் செல்கிறோம்.",
    "రేపు మా ఊరిలో పెద్ద సంత జరుగుతుంది.",
    "ನಾಳೆ ಬೆಳಿಗ್ಗೆ ನಾವು ತೋಟಕ್ಕೆ ಹೋಗುತ್ತೇವೆ.",
    "നാളെ രാവിലെ ഞങ്ങൾ പുഴക്കരയിൽ ഇരിക്കും.",
    "ਕੱਲ੍ਹ ਸਵੇਰੇ ਅਸੀਂ ਖੇਤਾਂ ਵਿੱਚ ਜਾਵਾਂਗੇ।",
    "કાલે સવારે અમે નદી કિનારે ચાલવા જઈશું.",
    "හෙට උදේ අපි පන්සලට යනවා.",
    "ព្រឹកស្អែកយើងនឹងទៅផ្សារទិញត្រីស្រស់។",
    "ມື້ອື່ນເຊົ້າພວກເຮົາຈະໄປຕະຫຼາດ.",
    "မနက်ဖြန် မနက်စောစော ဈေးကို သွားကြမယ်။",
    "སང་ཉིན་ང་ཚོ་ཁྲོམ་ལ་འགྲོ་གི་ཡིན།",
    "ነገ ጠዋት ወደ ገበያ እንሄዳለን።",
    "ხვალ დილით ბაზარში წავალთ და პურს ვიყიდით.",
    "Վաղը առավոտյան մենք կգնանք շուկա։",
    "Маргааш өглөө бид зах руу явна.",
    "ᠮᠣᠩᠭᠣᠯ ᠪᠢᠴᠢᠭ ᠪᠣᠰᠤᠭ᠎ᠠ ᠪᠢᠴᠢᠭᠳᠡᠨ᠎ᠡ",
    "ᏌᎾᎴ ᎠᏂᏃᎮᏍᎬ",
    "ᐃᓄᒃᑎᑐᑦ ᐅᖃᐅᓯᖅ",
    "Ngày mai chúng tôi sẽ ra chợ mua ít rau tươi và cá.",
    "Yarın sabah İstanbul'da ığdır çayı içeceğiz, şöyle ağır ağır.",
    "Kesho asubuhi tutaenda sokoni kununua mboga.",
    "Ẹ jọ̀ọ́, ẹ wá sí ọjà pẹ̀lú wa lọ́la.",
    "Mañana por la mañana iré al mercado; ¿vienes conmigo? ¡Anda!",
    "L’été dernier, j’ai goûté une crème brûlée à Sète, c’était où déjà ?",
    "Amanhã de manhã vamos à feira comprar pão e maçãs.",
    "Übermorgen fährt der Zug nach Gößweinstein um 7:05 Uhr – pünktlich?",
    "Zítra ráno půjdeme na tržiště pro čerstvý chléb.",
    "Jutro rano pójdziemy na targ; źdźbło trawy, żółw i łąka.",
    "Holnap reggel elmegyünk a piacra, és veszünk őszibarackot.",
    "Huomenaamulla lähdemme torille ostamaan tuoretta leipää.",
    "Á morgun förum við á markaðinn, þótt það rigni.",
    "Rytoj ryte važiuosime į turgų šviežių žuvų.",
    "ʻO ka lā ʻapōpō, e hele kākou i ka mākeke.",
)


def _filled(group: _Templates) -> Iterator[str]:
    sentences, fillings = group
    for filling in fillings:
        for sentence in sentences:
            yield sentence.format(*filling)


def _python() -> Iterator[str]:
    for name, field, number in (
        ("area", "width", 2),
        ("total_cost", "items", 10),
        ("parseHTTPHeader", "raw_bytes", 404),
        ("__init__", "_cache", 0x7F),
    ):
        yield f"def {name}({field}):\n    return {field} * {number}\n"
        yield f"class Box:\n\tdef {name}(self, {field}=None):\n\t\tif {field}:\n\t\t\treturn {number}\n"
        yield f"for i in range({number}):\n    if i % 2:\n        print(f'{{i:>4}}', {field}[i:-1])\n\n\n"
        yield f"    try:\n        {name}({field}, **kwargs)\n    except KeyError:  # noqa\n        pass"
        yield f"{field} = [x**2 for x in data if x != {number}]\r\n{name} = lambda a, *b: a@b\r\n"
        yield f'"""{name}: see `{field}`.\n\n    >>> {name}({number})\n    {number * 2}\n"""'


def _c_and_others() -> Iterator[str]:
    for name, kind, number in (
        ("buffer", "uint8_t", 256),
        ("next_node", "struct node *", 1),
        ("kMaxRetries", "const int", 3),
        ("matrix", "double", 16),
    ):
        yield f"#include <stdio.h>\n\nint main(void)\n{{\n\t{kind} {name}[{number}];\n\treturn 0;\n}}\n"
        yield f"    for (int i = 0; i < {number}; ++i) {{\n        {name}[i] <<= 1;   /* double it */\n    }}"
        yield f"#define {name.upper()}_SIZE ({number}u * sizeof({kind}))\\\n    /* line two */"
        yield f"if(!{name}||{name}->len>={number}){{goto fail;}}//no space"
        yield f'{{"{name}": {{"type": "{kind}", "size": {number}, "tags": ["a"], "ok": true, "no": null}}}}'
        yield f'{{\n  "{name}": [\n    {number},\n    -{number}.5e-3,\n    "\\u00e9\\n"\n  ]\n}}'
        yield f"SELECT {name}, COUNT(*) FROM t WHERE n >= {number} GROUP BY 1 ORDER BY 2 DESC;"
        yield f"<div class=\"{name}\" style='width:{number}px'>\n  <p>R&amp;D &#x2014; {kind}</p>\n</div>"
        yield f"$ find . -name '*.{name}' | xargs -n{number} grep -nE '^\\s+{name}\\(' > out.txt 2>&1"
        yield f"const {name} = async ({{ a, ...rest }}) => `${{a}}-{number}` ?? await rest?.[{number}];"
        yield f"fn {name}<'a>(x: &'a [u8; {number}]) -> Option<&'a u8> {{ x.iter().max() }}"
        yield f"{name}:\n  - id: {number}\n    kind: '{kind}'\n  - <<: *base\n"


def _numbers_and_urls() -> Iterator[str]:
    for number in (0, 7, 42, 100, 1234, 65536, 1000000, 31415926, 20260228, 9007199254740993):
        yield f"{number} {number:,} -{number} +{number}.{number} {number}% #{number} {number}th x{number}y"
        yield f"at {number}:{number % 60:02d}, pages {number}–{number + 9}, {number}km/h, №{number}"
    for text in (
        "١٢٣٤٥٦",
        "०१२३४५",
        "๐๑๒๓",
        "１２３４",
        "一二三〇",
        "ⅠⅡⅣⅧ",
        "①②③⑩",
        "½ ⅓ ¾ ⅞",
        "²³¹ H₂O x⁻¹",
        "𝟘𝟙𝟚 𝟎𝟏",
    ):
        yield f"{text} = {text}, {text}5 a{text}"
    for host in (
        "example.org",
        "sub.domain.example.co.uk:8080",
        "xn--fiq228c.example",
        "例え.example",
        "[2001:db8::1]",
    ):
        yield f"https://{host}/path/to/page_{len(host)}.html?q=a%20b&lang=zh-HK#section-2"
        yield f"See http://www.{host}/~user/,ftp://{host}/a.tar.gz and first.last+tag@{host}!"
        yield f"C:\\Users\\me\\{host}\\file (1).txt or /var/log/{host}/app.log.1"


_EMOJI = (
    *("👩‍👩‍👧‍👦", "🧑🏽‍💻", "🏳️‍🌈", "🇭🇰🇹🇭🇮🇳", "❤️‍🔥", "👍🏿👍🏻", "🤷🏾‍♀️", "1️⃣2️⃣#️⃣", "🏴󠁧󠁢󠁳󠁣󠁴󠁿", "☺☺️", "🫠🫨🪿", "⏰⌚️"),
    *("🧗🏼‍♂️", "👨‍❤️‍💋‍👨", "🐻‍❄️", "🇺", "‍", "️"),
)
_SPACES = (
    *(
        " ",
        "  ",
        "   ",
        "    ",
        "\t",
        "\t\t",
        " \t ",
        "\n",
        "\n\n",
        "\n\n\n",
        "\r\n",
        "\r",
        "\n \n",
        " \n",
        "\n ",
        "\x0b",
        "\x0c",
    ),
    *(
        "\u00a0",
        "\u2003",
        "\u3000",
        "\u2009",
        "\u200b",
        "\u200c",
        "\u200d",
        "\u2060",
        "\ufeff",
        "\u2028",
        "\u2029",
        "\x85",
    ),
    *(
        "\u1680",
        "\u202f",
        "\u205f",
        " \u00a0",
        "\u3000 ",
        "\n\t",
        "\t\n",
        "        ",
        " " * 17,
        "\n" * 9,
        "\t" * 5,
    ),
)
_RARE = (
    *(
        "\x01\x02\x1b[0m",
        "\x7f",
        "\u0080\u009f",
        "ﬁﬂﬃ",
        "Ω≈ç√∫˜µ≤≥÷",
        "ﷺ﷽",
        "e\u0301e\u0301\u0323 é",
        "A\u030a Å Å",
    ),
    *(
        "क\u093c क़ ड\u093c ड़",
        "\u0301\u0302",
        "ก็่้",
        "\u202eabc\u202c",
        "\ufffd\ufffc",
        "\ue000\uf8ff",
        "\U000f0000",
        "\U0010fffd",
    ),
    *(
        "𠮷野家 𡃁仔 𨋢 㗎 𠻹",
        "𝒜𝓁𝑔𝑒𝒷𝓇𝒶 𝔉𝔯𝔞𝔨",
        "𐍈𐌰𐌹",
        "𒀀𒁀",
        "𓀀𓂀",
        "🂡🀄",
        "⠃⠗⠇",
        "┌─┬─┐│█▓▒░",
        "→⇒↔⟶",
        "‽⁂※‱",
        "“„‚‘’”«»‹›",
    ),
    *(
        "…—–‐‑−",
        "ʼnʼ'`´",
        "ſtrange ẞ ß",
        "ĳ Ĳ ǆ ǅ",
        "ಠ_ಠ (╯°□°)╯︵ ┻━┻",
        "ⓐⓑ ㍿ ㎏ ㊙",
        "〜～〰・･、。「」『』",
        "㐀㐁 龘 鿿 豈",
        "ꙮ ꜳ ꬰ",
    ),
    *(
        "\u0e33 \u0e4d\u0e32",
        "ญี่ปุ่น",
        "ง่าย",
        "ක්‍ෂ",
        "র‍্যাব",
        "ക്‍",
        "نستعلیق‌ها",
        "ـــتطويلـــ",
        "ܫܠܡܐ",
        "ߒߞߏ",
        "ⵜⴰⵎⴰⵣⵉⵖⵜ",
        "ꦗꦮ",
        "ᮞᮥᮔ᮪ᮓ",
    ),
    *(
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "!!!???...---===",
        "((((()))))[[]]{}",
        "''s 't 'LL 'Re 've'd 'm",
        "'S'T don'T I'Ve",
    ),
    *(
        "a'b'c''",
        "_under_score__x",
        "camelCaseXMLHttp2",
        "a1b2c3 4d5e6f",
        "@user #tag $VAR %d &c",
        "~/.bashrc;:,.",
        "\\n\\t\\\\",
        "<|nothing|>",
    ),
)


def _emoji() -> Iterator[str]:
    for item in _EMOJI:
        yield f"{item}"
        yield f"ok {item}{item} text{item}123 {item}\n"


def _spaces() -> Iterator[str]:
    for space in _SPACES:
        yield f"a{space}b"
        yield f"{space}lead and trail.{space}"
        yield f"word {space}9{space}{space}!"


def _rare() -> Iterator[str]:
    for item in _RARE:
        yield item
        yield f"x {item} {item}, y"


def _all_lines() -> list[str]:
    """Every line once, the groups taking turns, so that any beginning of the list covers all of them.

    Spaces and rare characters take three turns each: they find differences soonest.
    """
    spaces, rare = list(_spaces()), list(_rare())
    groups = (
        _filled(_CANTONESE),
        _filled(_ENGLISH),
        _filled(_HINDI),
        _filled(_THAI),
        _filled(_ARABIC),
        iter(_OTHER_LANGUAGES),
        _python(),
        _c_and_others(),
        _numbers_and_urls(),
        _emoji(),
        *(iter(group[start::3]) for group in (spaces, rare) for start in range(3)),
    )
    turns = (line for turn in zip_longest(*groups) for line in turn if line)
    return list(dict.fromkeys(turns))


def parity_lines(n: int = 500) -> list[str]:
    """The first `n` distinct lines of the built-in set; the same on every machine.

    Raises:
        InputError: there are fewer.
    """
    lines = _all_lines()
    if not 1 <= n <= len(lines):
        raise InputError(f"the built-in parity text has {len(lines)} lines, {n} were asked for")
    return lines[:n]
