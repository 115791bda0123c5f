"""Words and letters that one of several close languages uses and the others do not; romanised text.

Adding a language to a script's rules is a row in `WORDS` or `LETTERS`; a romanisation is a row in `ROMANISED`.
"""

import functools
from collections import Counter

import regex

from langgraft.text import Runs

# Characters and words that only written Cantonese uses.
_CANTONESE = regex.compile(
    "[嘅咗喺哋唔冇嗰啲佢㗎嚟嘢乜咩嗌嘥攞揾搵瞓睇喇喎啩㖭咁噉啫嗱嗮晒諗畀餸揸孭攰靚𠮶𨋢𡃉𠺢嘞咋噃唞嬲氹冚啱嚿焗黐𠵱]"
    "|(?<![關关])係(?!數)|俾(?!斯)|而家|琴日|尋日|聽日|邊度|邊個|點解|呢[個啲度]|頭先|得閒|鍾意|返[工學屋嚟嗰]|幾多(?!愁)|好似"
    "|[吖嚹囖𠸏𡃁嗱嗌哂]|(?<!管|伯)仲(?![介裁夏秋春冬尼])|(?<!貓)咪(?![咪高])|點[樣算]|依家|跟住|同埋|屋企|幾時|尋晚|琴晚|聽晚|等陣|(?<!陣)陣間"
    "|呢[句種次樣件位間本張條部套隻班陣]|邊[位隻度]|落[雨車街嚟]|食[飯晏緊]|(?<!天)吓|搞掂|撳|𠝹|走先|先啦|得未|朝早|識得|曱甴"
)
# Words that written Mandarin uses and Cantonese says otherwise; compounds common to both are excepted.
_MANDARIN = regex.compile(
    "[這这們们您她它牠很吗]|(?<![吖啊呀𠺢])嗎|(?<![沉出吞淹埋])[沒没](?![收法落])|(?<![目標的])的(?![士確确哥])"
    "|(?<![為为除罷罢瞭])了(?![解結结斷断不事])|(?<![現现存實实自内內潛潜所好正])在(?![乎意場场座職职行生位野世此於家下線线]|所)"
    "|那|(?<![但於于也還还總总就凡或只正可像若])是(?![但非否次日])|怎[麼么樣样]|[什甚][麼么]|哪[個个裡里兒儿]"
    "|不[是能要會会]|不知道|[給给]我|(?<![小傳传話话公婆學学據据遊游解])[說说](?![明話话法服])|[誰谁]|看[到見见]|把(?=[我你他她這那])"
    "|[吃睡喝穿](?!虧|彩|采|梭|幫)|也(?!許|门|門)|[還还](?=[不有沒没是在會会要能可])|[讓让](?![步位])|跟(?![住進进尾手前])"
    "|[快有]點(?!解|樣|鐘|[零半一二三四五])|[孩兒儿]子|女[兒儿]"
)
# Forms of characters that only Japan uses: neither traditional nor simplified Chinese writes them.
_JAPANESE = regex.compile(
    "[気図対売択従関広変実帰験駅権観歓県圏団囲応桜価歩浜渋済渇乗剰検険剣壱弐遅鉄転伝読弾戦単厳楽薬辺悪圧壊懐覚絵"
    "経継芸撃恵渓駆勲径茎軽鶏歯児釈収縦焼奨証嬢畳譲醸粋酔穂摂専繊銭曽荘捜挿巣総騒増蔵臓続堕滞鋳聴逓転稲闘徳悩脳廃"
    "拝梅発髪抜瓶払仏訳揺様謡頼覧竜両猟緑塁霊齢労込働峠畑辻枠匂噺塀搾]"
    "|(?:明治|大正|昭和|平成|令和)[元一二三四五六七八九十〇0-9]{1,4}年"
)


@functools.lru_cache(maxsize=8)  # asked twice for a text
def chinese_markers(text: str) -> tuple[int, int]:
    """(number of Cantonese markers, number of written-Mandarin markers) in `text`."""
    return len(_CANTONESE.findall(text)), len(_MANDARIN.findall(text))


def japanese_forms(text: str) -> int:
    """Number of characters in a form that only Japanese writes."""
    return len(_JAPANESE.findall(text))


# Script -> language -> frequent words of that language which the others of the script do not have. Words that
# two of them share (Hindi and Nepali को, Arabic and Persian من) help nobody and are in neither list.
WORDS: dict[str, dict[str, str]] = {
    "Devanagari": {
        "hi": (
            "है हैं हूँ हूं था थे थी थीं और नहीं में मैं यह वह ये वे इस उस इसे उसे इसके उसके "
            "उसकी उसका लिए गया गयी गई गए रहा रही रहे करना करने करता करती करते दिया दिये दी जो "
            "तुम तुम्हारे तुम्हारी तुम्हारा तुम्हें मुझे क्या कोई कुछ अपने अपनी अपना भी हुआ "
            "हुई हुए मेरा मेरी मेरे होगा होगी होंगे किया जाता जाती जाते सकता सकते सकती से पर "
            "वाले वाली वाला तक कि तो ने"
        ),
        "mr": (
            "आहे आहेत आणि नाही मी ते काय मला तुला त्याला त्याने त्यांनी त्यांच्या त्या करून "
            "केले केली केला पण म्हणून म्हणाला असे असा असून होतं झाला झाले झाली येथे तसेच "
            "किंवा व आपण आपल्या मध्ये यांनी यांच्या होते होता"
        ),
        "ne": (
            "छ छन् छैन भयो भएको भएका गर्न गर्ने गरेको गर्नु गर्दै र पनि त्यो मेरो तपाईं हुन्छ "
            "थियो थिए लाई बाट सँग भने अनि हामी गरी हुने यस"
        ),
        "bho": "बा बाटे बानी बाड़े हवे भइल रहल गइल कइल ओकर रउआ हमनी खातिर",
        "mai": "अछि छथि छल सभ हुनक ओकर अहाँ रहैत छलाह छैक",
        "sa": "अस्ति सन्ति भवति इति एव अपि तस्य अहम् आसीत् तत् सः किम् च",
    },
    "Arabic": {
        "fa": (
            "است این که را از با برای بود شد آن خود ها های یک نیست کرد شده باشد می نمی هم تا "
            "چون چه آنها دارد دارند کند کنند شود هر بر"
        ),
        "ar": "التی الذی هذا هذه کانت ذلک لیس وقد الی هو فی انه علیه یکون الذین ثم وهو",
        "ur": "ہے ہیں کے میں سے اور نے کا کو یہ وہ نہیں پر تھا تھی کیا بھی ہو لیے گیا",
        "ps": "چې په او د سره یې هغه کې وي شي",
        "sd": "آهي ۾ جي جو کي تي آهن هن ۽",
        "ckb": "لە بۆ کە ئەو ئەم بە لەگەڵ هەر یان نییە",
        "ug": "بىلەن بىر ۋە ئۇ بۇ ئۈچۈن دەپ",
    },
}
# Letters of one of the languages alone.
LETTERS: dict[str, dict[str, str]] = {
    "Devanagari": {"mr": "ळ"},
    "Arabic": {"ur": "ٹڈڑںےہھۂ", "ps": "ټډړښږځڅۍېڼ", "sd": "ٻڀٺڄڃڇڏڊڙڳڱڻ", "ckb": "ڵێۆڕ", "ug": "ۇۈۋڭ"},
}
# Endings that say the same: Marathi possessives, Nepali postpositions (written apart in Hindi).
_ENDINGS = {"mr": ("च्या", "मध्ये", "साठी", "ांना", "ाला", "ातील"), "ne": ("लाई", "हरू", "हरु", "हरूको", "बाट", "सँग")}
_ENDING = {
    "mr": regex.compile(rf"\p{{L}}[\p{{L}}\p{{M}}]*(?:{'|'.join(_ENDINGS['mr'])})\b"),
    "ne": regex.compile(rf"\p{{L}}[\p{{L}}\p{{M}}]+(?:{'|'.join(_ENDINGS['ne'])})\b"),
}
_WORD = Runs(r"[\p{L}\p{M}]")
# Arabic and Persian write yeh and kaf with different code points, and normalisation may have changed them.
_FOLD = str.maketrans({"ي": "ی", "ى": "ی", "ك": "ک", "أ": "ا", "إ": "ا"})
# Script -> word -> the languages it speaks for.
_SPEAKS: dict[str, dict[str, list[str]]] = {script: {} for script in WORDS}
for _script, _rows in WORDS.items():
    for _code, _words in _rows.items():
        for _word in dict.fromkeys(_words.translate(_FOLD).split()):
            _SPEAKS[_script].setdefault(_word, []).append(_code)
# A language leads when it has this many times the hits of the next, and at least so many.
MIN_HITS, LEAD = 2, 2.0


def relative_hits(text: str, script: str) -> Counter[str]:
    """Number of words, letters and endings in `text` that speak for each language of `script` with rules."""
    hits: Counter[str] = Counter()
    known = _SPEAKS.get(script, {})
    for word in _WORD.findall(text.translate(_FOLD) if script == "Arabic" else text):
        for code in known.get(word, ()):
            hits[code] += 1
    for code, letters in LETTERS.get(script, {}).items():
        hits[code] += sum(map(text.count, letters))
    if script == "Devanagari":
        for code, endings in _ENDINGS.items():
            if any(ending in text for ending in endings):
                hits[code] += len(_ENDING[code].findall(text))
    return +hits


def leading(hits: Counter[str]) -> str:
    """The language that clearly leads in `relative_hits`, or "" for none."""
    (best, n), (_, other) = ([*hits.most_common(2), ("", 0), ("", 0)])[:2]
    return best if n >= MIN_HITS and n >= LEAD * other else ""


# Frequent words of languages as people type them in Latin letters.
ROMANISED = {
    "hi-Latn": (
        "hai hain nahi nahin nahee kya aur mein ke ki ka ko se yeh ye woh wo kar raha rahi "
        "rahe bhi tha thi hum tum mera meri mere aap aapka aapko apne apna liye kuch koi "
        "bahut kaise kyun kyon agar lekin abhi gaya gayi karna karne karte karta hota hoti "
        "hote mujhe tumhe unka uski uska iska jab phir sab baat accha acha hoga hogi wala "
        "wale main"
    ),
    "fa-Latn": (
        "salam shoma ast hast nist mikonam mikoni mikone mikonim mishe nemishe mikham khoobam "
        "khubam chetori chera baraye ke az dar ba ra va ham kheili kheyli digeh dige hala "
        "alan bashe baleh doostam dost dostet daram dari darim bood bude shod mishavad "
        "nemikonam nemidunam midunam mikhaham khosh khob chi man inja unja emrooz farda"
    ),
    "ja-Latn": (
        "desu masu watashi anata arimasu shimasu deshita mashita kudasai arigatou nai wa ga "
        "wo ni kara made mo ja imasu gozaimasu boku kimi nihon nihongo"
    ),
}
_ROMANISED = {code: frozenset(words.split()) for code, words in ROMANISED.items()}
_JYUTPING = regex.compile(r"(?:ng|gw|kw|[bpmfdtnlgkhwzcsj])?(?:aa?|eo?|oe?|yu|i|u|m|ng)(?:ng|[iumnptk])?[1-6]")
# Syllables that pinyin with tone numbers does not have.
_NOT_PINYIN = regex.compile(r"(?:aa|oe|eo|[ptkm])[1-6]|6|^(?:gw|kw)|^j(?!i|u)")
_LATIN_WORD = regex.compile(r"[\p{Latin}']+[1-6]?")
ROMANISED_SHARE, ROMANISED_LONG = 0.3, 2


def romanised(text: str) -> str:
    """ "hi-Latn", "fa-Latn", "yue-Latn" or "ja-Latn" for text of that language typed in Latin letters, else "".

    Needs at least three words known in that language, of which two different ones are of three letters or
    more, to be 30% of all words: single "hai" and "main" occur in many languages. Romanised Urdu is taken for
    Hindi.
    """
    words = _LATIN_WORD.findall(text.lower())
    if len(words) < ROMANISED_LONG:
        return ""
    syllables = [word for word in words if _JYUTPING.fullmatch(word)]
    if 2 * len(syllables) > len(words):
        return "yue-Latn" if any(map(_NOT_PINYIN.search, syllables)) else ""
    best, share = "", 0.0
    for code, known in _ROMANISED.items():
        found = [word for word in words if word in known]
        long = {word for word in found if len(word) > 2}
        if len(found) > 2 and len(long) >= ROMANISED_LONG and len(found) / len(words) > share:
            best, share = code, len(found) / len(words)
    return best if share >= ROMANISED_SHARE else ""
