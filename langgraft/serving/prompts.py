"""Openings to try a model with, per language: texts to continue, and questions for chat models."""

from collections.abc import Mapping

# language code -> (texts to continue, questions)
PROMPTS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "ar": (("عاصمة مصر هي", "في صباح يوم بارد خرج"), ("ما هي عاصمة المغرب؟", "اكتب قصة قصيرة عن البحر.")),
    "bn": (("বাংলাদেশের রাজধানী", "এক গ্রামে এক"), ("ভারতের রাজধানী কী?", "নদী নিয়ে দুই লাইন লেখো।")),
    "de": (("Die Hauptstadt von Österreich ist", "Es war einmal"), ("Was ist die Hauptstadt der Schweiz?",)),
    "en": (
        ("The capital of France is", "Once upon a time, there was", "To make a cup of tea, first"),
        ("What is the capital of Japan?", "Explain in one sentence why the sky is blue."),
    ),
    "es": (("La capital de Perú es", "Había una vez"), ("¿Cuál es la capital de Chile?",)),
    "fa": (("پایتخت ایران", "یکی بود یکی نبود،", "امروز هوا"), ("پایتخت ژاپن کجاست؟", "دربارهٔ باران یک جمله بنویس.")),
    "fr": (("La capitale du Canada est", "Il était une fois"), ("Quelle est la capitale du Maroc ?",)),
    "he": (("בירת צרפת היא", "היה היה פעם"), ("מהי בירת יפן?",)),
    "hi": (
        ("भारत की राजधानी", "एक समय की बात है,", "आज का मौसम"),
        ("जापान की राजधानी क्या है?", "बारिश पर एक वाक्य लिखो।"),
    ),
    "id": (("Ibu kota Indonesia adalah", "Pada suatu hari,"), ("Apa ibu kota Jepang?",)),
    "ja": (
        ("日本の首都は", "むかしむかし、", "今日の天気は"),
        ("フランスの首都はどこですか。", "雨について一文書いてください。"),
    ),
    "ko": (("대한민국의 수도는", "옛날 옛적에"), ("일본의 수도는 어디입니까?",)),
    "mr": (("महाराष्ट्राची राजधानी", "एके दिवशी"), ("जपानची राजधानी कोणती?",)),
    "pt": (("A capital do Brasil é", "Era uma vez"), ("Qual é a capital de Angola?",)),
    "ru": (("Столица России —", "Жили-были"), ("Какая столица Японии?",)),
    "sw": (("Mji mkuu wa Kenya ni", "Hapo zamani za kale"), ("Mji mkuu wa Japani ni upi?",)),
    "ta": (("இந்தியாவின் தலைநகரம்", "ஒரு காலத்தில்"), ("ஜப்பானின் தலைநகரம் எது?",)),
    "th": (("เมืองหลวงของประเทศไทยคือ", "กาลครั้งหนึ่งนานมาแล้ว", "วันนี้อากาศ"), ("เมืองหลวงของญี่ปุ่นคืออะไร",)),
    "tr": (("Türkiye'nin başkenti", "Bir varmış bir yokmuş,"), ("Japonya'nın başkenti neresidir?",)),
    "uk": (("Столиця України —", "Жили-були"), ("Яка столиця Японії?",)),
    "ur": (("پاکستان کا دارالحکومت", "ایک دفعہ کا ذکر ہے"), ("جاپان کا دارالحکومت کیا ہے؟",)),
    "vi": (("Thủ đô của Việt Nam là", "Ngày xửa ngày xưa,"), ("Thủ đô của Nhật Bản là gì?",)),
    "yue": (("香港嘅夜景", "我今日去街市買咗", "佢話聽日會"), ("日本嘅首都係邊度？", "講一句關於落雨嘅嘢。")),
    "zh": (("中国的首都是", "从前有一个", "今天的天气"), ("日本的首都是哪里？", "写一句关于下雨的话。")),
}
