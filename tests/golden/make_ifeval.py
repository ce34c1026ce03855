"""Verdicts of IFEval's reference on responses of all kinds, for crates/setpoint-eval/tests/it/ifeval.rs. Sentences follow this project's
parameters, not those that NLTK distributes (ifeval_reference.py).

usage: make_ifeval.py

Writes tests/golden/ifeval.json. A response is a handful of `pieces`, drawn by `draw` below, which the test repeats. `checks` holds the instructions
with their arguments, and for each a digit per response: 1 if it is followed strictly, plus 2 if loosely. `languages` holds langdetect's answers.
"""

import json
from pathlib import Path

from ifeval_reference import detect, instructions_registry, verdicts

HERE = Path(__file__).parent
RESPONSES = 120

LANGUAGES = [
    "All human beings are born free and equal in dignity and rights. They should act towards one another in a spirit of brotherhood.",
    "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen begabt.",
    "Tous les êtres humains naissent libres et égaux en dignité et en droits.",
    "Todos los seres humanos nacen libres e iguales en dignidad y derechos, dotados de razón y conciencia.",
    "Todos os seres humanos nascem livres e iguais em dignidade e em direitos.",
    "Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti.",
    "Все люди рождаются свободными и равными в своем достоинстве и правах.",
    "Всички хора се раждат свободни и равни по достойнство и права.",
    "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।",
    "सर्व मानवी व्यक्ती जन्मतःच स्वतंत्र आहेत व त्यांना समान प्रतिष्ठा व समान अधिकार आहेत.",
    "सबै व्यक्तिहरू जन्मजात स्वतन्त्र हुन् ती सबैको समान अधिकार र महत्व छ।",
    "সমস্ত মানুষ স্বাধীনভাবে সমান মর্যাদা এবং অধিকার নিয়ে জন্মগ্রহণ করে।",
    "ਸਾਰਾ ਮਨੁੱਖੀ ਪਰਿਵਾਰ ਆਪਣੀ ਮਹਿਮਾ, ਸ਼ਾਨ ਅਤੇ ਹੱਕਾਂ ਦੇ ਪੱਖੋਂ ਜਨਮ ਤੋਂ ਹੀ ਆਜ਼ਾਦ ਹੈ।",
    "પ્રતિષ્ઠા અને અધિકારોની દૃષ્ટિએ સર્વ માનવો જન્મથી સ્વતંત્ર અને સમાન હોય છે.",
    "ಎಲ್ಲಾ ಮಾನವರೂ ಸ್ವತಂತ್ರರಾಗಿಯೇ ಜನಿಸಿದ್ದಾರೆ. ಹಾಗೂ ಘನತೆ ಮತ್ತು ಹಕ್ಕುಗಳಲ್ಲಿ ಸಮಾನರಾಗಿದ್ದಾರೆ.",
    "ప్రతిపత్తిస్వత్వముల విషయమున మానవులెల్లరును జన్మతః స్వతంత్రులును సమానులును నగుదురు.",
    "மனிதப் பிறிவியினர் சகலரும் சுதந்திரமாகவே பிறக்கின்றனர்; அவர்கள் மதிப்பிலும், உரிமைகளிலும் சமமானவர்கள்.",
    "تمام افراد بشر آزاد به دنیا می‌آیند و از لحاظ حیثیت و حقوق با هم برابرند.",
    "تمام انسان آزاد اور حقوق و عزت کے اعتبار سے برابر پیدا ہوئے ہیں۔",
    "يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق.",
    "คนเราทั้งหลายเกิดมาอย่างอิสระ เสมอภาคกันในเกียรติศักดิ์และสิทธิ",
    "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền.",
    "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",
    "すべての人間は、生れながらにして自由であり、かつ、尊厳と権利とについて平等である。",
    "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心。",
    "人人生而自由，在尊嚴和權利上一律平等。他們賦有理性和良心。",
    "Watu wote wamezaliwa huru, hadhi na haki zao ni sawa.",
    "Kaikki ihmiset syntyvät vapaina ja tasavertaisina arvoltaan ja oikeuksiltaan.",
    "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar.",
    "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw.",
    "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם.",
    "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια.",
    "Toate ființele umane se nasc libere și egale în demnitate și în drepturi.",
]

ENGLISH = [
    "The quick brown fox jumps over the lazy dog.",
    "Dr. Smith and Mrs. Jones met at 3 p.m. on Jan. 5 in Washington, D.C. They talked for 2.5 hours!",
    "Is it true? Yes... it is!! \"Of course,\" she said. 'Really?' he asked.",
    "J. S. Bach wrote it. See p. 12 and pp. 14-15. No. 5 is the best. Vol. 2 is not.",
    "I can't, won't and shouldn't; they're gonna leave. CANNOT WANNA 'TIS GIMME!",
    "MY RESPONSE IS IN CAPITALS AND IT IS LONG ENOUGH TO BE ENGLISH.",
    "this answer is in small letters and has no capital at all",
    "NASA and the U.S. sent a PhD. to the U.K. (See e.g. Fig. 3.) THE END.",
    "He earns $3,000.50 (about 2.800,00 €) a year; that's 5% more than in '98.",
    "My answer is yes.",
    "My answer is maybe. ",
    "Any other questions?",
    "Is there anything else I can help with?",
    "Sure, here is the answer:",
    "P.S. I love you",
    "p. s. not me",
    "P.P.S. again. P. P. S: and again",
    "hello hello Hello HELLO hellos",
    "Kategorie: straße STRASSE ǅungla ΟΔΟΣ İstanbul ılık ſtop Kelvin ﬁnal",
    "A.B.C. x.y.z a.b end.) \"quoted.\" (bracketed!) «guillemets.» “curly.” ‘single?’ next",
    "One sentence . . . . and another -- with dashes — and – more. ... Then",
    "1. First 2. Second 3. Third. 4) Fourth",
    "etc. And so on. vs. That. Inc. is a company. Mr. is not. M. Night. i.e. this",
    "a,b,c ,d , e",
    "word's words' 'word' ''two'' ``ticks`` `code` rock'n'roll o'clock y'all d'ye more'n",
    "write to me@example.org or see https://example.org/a?b=c#d, ok",
]

MARKUP = [
    "* one",
    "* two\n* three",
    "- four\n  - five",
    "** not a bullet",
    "*highlighted* and **very** much",
    "****",
    "* *",
    "***",
    " *** ",
    "******",
    "*" * 7,
    "<<a title>>",
    "<< >>",
    "<<<nested>>> text >>",
    "<<broken\ntitle>>",
    "[address] [name]",
    "[] [a [b] c]",
    "[broken\nplace]",
    "Section 1",
    "SECTION 2\n",
    "Section3 Section 4",
    "```json\n{\"a\": [1, 2.5e3, null, \"\\u00e9\"]}\n```",
    "{\"a\": 1}",
    "```\n[1, 2",
    "]\n```",
    "{'a': 1}",
    "NaN",
    "\"all of it\"",
    "\"",
    "\"\"",
    "# Title\n\nText",
    "> quoted\n> again",
    "| a | b |\n|---|---|\n| 1 | 2 |",
    "```python\nprint('hi', 3)  # comment\n```",
    "1. a\n2. b\n3. c",
]

ODD = [
    "",
    " ",
    "\n",
    "\n\n",
    "\t\r\n",
    "\x1c\x1d\x1e\x1f",
    "\x85",
    "\xa0",
    "\u2028\u2029",
    "\u200b\ufeff",
    "\x00",
    "e\u0301 n\u0303 o\u0302\u0323 a\u0300 u\u0309",
    "\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467 \u263a\ufe0f",
    "١٢٣ ४५६ ½ ² Ⅷ 〇 ①",
    "\U0001d49c\U0001d4b7\U0001d4b8",
    "ＡＢＣ ａｂｃ １２３",
    "ªº ͅ ᾈ ǲ ʰ",
    "。！？ 、，",
    "…  ‥ ․",
    "\u0645\u0631\u062d\u0628\u0627, \u061f",
    "a\u0000b\x7fc",
    "Ⓐ ⓐ",
]

PIECES = LANGUAGES + ENGLISH + MARKUP + ODD
JOINS = ["", " ", "\n", "\n\n", "\n\n\n", ", ", "\r\n", "\n***\n", "\n******\n", "\t"]
MASK = (1 << 64) - 1


def draw(seed):
    """A response: pieces of one group or of all, and what joins them."""
    state = seed

    def below(n):
        nonlocal state
        state = (state * 6364136223846793005 + 1442695040888963407) & MASK
        return (state >> 33) % n

    groups = [(0, len(PIECES)), (0, len(LANGUAGES)), (len(LANGUAGES), len(ENGLISH)), (len(LANGUAGES) + len(ENGLISH), len(MARKUP))]
    begin, length = groups[below(len(groups))]
    join = JOINS[below(len(JOINS))]
    parts = [PIECES[begin + below(length)] for _ in range(below(9))]
    if below(4) == 0 and parts:
        parts = [parts[0]] * len(parts)
    text = join.join(parts)
    wrap = below(8)
    return f'"{text}"' if wrap == 0 else f" {text}\n" if wrap == 1 else text


def relations(name, key, numbers, relation="relation"):
    return [(name, {key: n, relation: r}) for n, r in numbers]


CHECKS = [
    *[("keywords:existence", {"keywords": k}) for k in (["hello"], ["fox", "dog"], ["i"], ["straße"], ["İ"], ["s"], ["a.b"], ["हर"], ["(?:one|two)"], ["{x}", "a"])],
    *[("keywords:forbidden_words", {"forbidden_words": k}) for k in (["hello"], ["the", "a"], ["is"], ["ह"], ["one"], ["c"], ["s"], ["U.S"], ["я"])],
    *[("keywords:frequency", {"keyword": k, "frequency": n, "relation": r}) for k in ("hello", " a ", "i", ".", "\\w+", "\\s") for n in (1, 3, 10) for r in ("less than", "at least")],
    *[("keywords:letter_frequency", {"letter": k, "let_frequency": n, "let_relation": r}) for k in "aisZ" for n in (1, 4, 12) for r in ("less than", "at least")],
    *[("language:response_language", {"language": k}) for k in "en de hi fa vi ja".split()],
    *relations("length_constraints:number_sentences", "num_sentences", [(1, "at least"), (2, "less than"), (3, "at least"), (5, "less than"), (9, "at least")]),
    *relations("length_constraints:number_words", "num_words", [(1, "less than"), (4, "at least"), (10, "less than"), (20, "at least"), (60, "less than")]),
    *relations("change_case:capital_word_frequency", "capital_frequency", [(1, "at least"), (2, "less than"), (4, "at least"), (9, "less than"), (15, "at least")], "capital_relation"),
    *[("length_constraints:number_paragraphs", {"num_paragraphs": n}) for n in range(1, 8)],
    *[("length_constraints:nth_paragraph_first_word", {"num_paragraphs": n, "nth_paragraph": k, "first_word": w}) for n, k, w in [(1, 1, "the"), (2, 1, "The"), (2, 2, "my"), (3, 2, "this"), (4, 4, "p"), (3, 1, "all"), (1, 1, "hello"), (5, 3, "one"), (1, 1, "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心"), (2, 2, "section")]],
    *[("detectable_content:number_placeholders", {"num_placeholders": n}) for n in (1, 2, 3, 6)],
    *[("detectable_content:postscript", {"postscript_marker": m}) for m in ("P.S.", "P.P.S", "P.S", " NOTE ", "p")],
    *[("detectable_format:number_bullet_lists", {"num_bullets": n}) for n in (1, 2, 3, 4, 6)],
    ("detectable_format:constrained_response", {}),
    *[("detectable_format:number_highlighted_sections", {"num_highlights": n}) for n in (1, 2, 3, 5)],
    *[("detectable_format:multiple_sections", {"section_spliter": s, "num_sections": n}) for s in ("Section", "SECTION", " Section ", "\\d") for n in (1, 2, 4)],
    ("detectable_format:json_format", {}),
    ("detectable_format:title", {}),
    ("combination:two_responses", {}),
    *[("combination:repeat_prompt", {"prompt_to_repeat": p}) for p in ("My answer", "the quick brown fox", "*", "\nsure", "Alle Menschen")],
    *[("startend:end_checker", {"end_phrase": p}) for p in ("Any other questions?", "Is there anything else I can help with?", " YES. ", "s", "\"")],
    ("startend:quotation", {}),
    ("change_case:english_capital", {}),
    ("change_case:english_lowercase", {}),
    ("punctuation:no_comma", {}),
]

assert {name for name, _ in CHECKS} == set(instructions_registry.INSTRUCTION_DICT)
responses = [draw(seed) for seed in range(RESPONSES)]
# Every piece alone, too.
responses += PIECES
checks = []
for name, kwargs in CHECKS:
    digits = "".join(str(strict + 2 * loose) for strict, loose in (verdicts(name, kwargs, r) for r in responses))
    checks.append({"instruction": name, "kwargs": kwargs, "verdicts": digits})


def language(text):
    try:
        return detect(text)
    except Exception:  # LangDetectException, if no part of the text tells
        return None


beginnings = [text[:length] for text in LANGUAGES for length in (6, 12, 24, 48)]
golden = {
    "pieces": PIECES,
    "groups": [len(LANGUAGES), len(ENGLISH), len(MARKUP)],
    "joins": JOINS,
    "drawn": RESPONSES,
    "checks": checks,
    "languages": [language(text) for text in responses + beginnings],
}
(HERE / "ifeval.json").write_text(json.dumps(golden, ensure_ascii=False, indent=0) + "\n", "utf-8")
print(len(responses), len(checks), len(responses) * len(checks), {c["instruction"]: (c["verdicts"].count("0"), c["verdicts"].count("3"), c["verdicts"].count("2"), c["verdicts"].count("1")) for c in checks})
