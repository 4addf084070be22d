"""Texts of another kind than the prompts that people write to a model in English: program code, other
languages, noise.

In:  a seed, words of a tokenizer's vocabulary. Out: texts made here from parts written for this purpose,
     always the same for one seed. They come in two halves that share no template of code and no language
     (noise is drawn anew in the same way): the confidence is fitted to one (`familiarity`), and the report
     measures it on the other.
"""

import random
import string
from collections.abc import Callable, Sequence
from typing import Any, Literal

DRAWN_TOKENS = 5000
"""Tokens of a vocabulary among which words are looked for; some vocabularies have a quarter of a million."""

_CODE = (
    "def {f}({a}, {b}):\n    {c} = {a} {op} {n}\n    for i in range({b}):\n        {c} += i\n    return {c}",
    "import {a}\n\nclass {b}:\n    def __init__(self, {c}={n}):\n        self._{c} = {c}\n\n    def "
    "{f}(self):\n        return self._{c} {op} {n}",
    "function {f}({a}, {b}) "
    "{{\n  const {c} = {a}.map((x) => x {op} {n});\n  return {c}.filter((x) => x !== {b});\n}}",
    "static int {f}(const int *{a}, size_t {b}) "
    "{{\n    int {c} = {n};\n    for (size_t i = 0; i < {b}; i++)\n        {c} = {c} {op} {a}[i];\n"
    "    return {c};\n}}",
    "public final class {b} {{\n    private int {c} = {n};\n\n    public int {f}(int {a}) {{\n"
    "        return this.{c} {op} {a};\n    }}\n}}",
    "func {f}({a} []int, {b} int) (int, error) "
    "{{\n\t{c} := {n}\n\tfor _, v := range {a} {{\n\t\t{c} = v {op} {b}\n\t}}\n\treturn {c}, nil\n}}",
    "fn {f}({a}: &[u64], {b}: u64) -> Option<u64> {{\n    let {c} = {a}.iter().map(|x| x {op} {n}).max()?;\n"
    "    if {c} > {b} {{ Some({c}) }} else {{ None }}\n}}",
    "SELECT {a}.id, COUNT({b}.{c}) AS {f}\nFROM {a}\nLEFT JOIN {b} ON {b}.{a}_id = {a}.id\n"
    "WHERE {b}.{c} {op} {n} > 0\nGROUP BY {a}.id;",
    '{f}() {{\n  local {a}="$1"\n  for {b} in "${a}"/*.{c}; do\n    echo "$(( {n} {op} 2 )) ${b}"\n'
    "  done\n}}",
)
_NAMES = (
    "total",
    "queue",
    "buffer",
    "node",
    "offset",
    "table",
    "cursor",
    "items",
    "state",
    "index",
    "packet",
    "rate",
)
_VERBS = ("merge", "scan", "resolve", "fold", "update", "parse", "collect", "shift")
_OPERATORS = ("+", "-", "*", "%")

_LANGUAGES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # Each sentence is an opening with one of the things put into it.
    "German": (
        (
            "Wie pflegt man {}?",
            "Erzähl mir bitte etwas über {}.",
            "Ich suche ein Buch über {}, hast du einen Tipp?",
        ),
        ("alte Apfelbäume", "einen Kachelofen", "die Geschichte der Hanse", "das Fahrradgetriebe"),
    ),
    "French": (
        ("Comment expliquer {} à un enfant ?", "Que penses-tu de {} ?", "Je voudrais en savoir plus sur {}."),
        ("la marée haute", "le pain au levain", "la musique baroque", "les vieux moulins"),
    ),
    "Turkish": (
        ("{} hakkında kısa bir yazı yazar mısın?", "Bana {} konusunu anlat.", "{} neden bu kadar önemli?"),
        ("ipek yolu", "zeytin ağaçları", "balıkçı tekneleri", "yaz yağmurları"),
    ),
    "Russian": (
        ("Расскажи, пожалуйста, про {}.", "Что лучше прочитать про {}?", "Напиши короткое письмо про {}."),
        ("зимний лес", "старые часы", "домашний хлеб", "северное море"),
    ),
    "Greek": (
        ("Τι γνωρίζεις για {};", "Γράψε μου δύο προτάσεις για {}.", "Θα ήθελα μια συμβουλή για {}."),
        ("το ελαιόλαδο", "τα νησιά", "την κεραμική", "το παλιό λιμάνι"),
    ),
    "Arabic": (
        ("ماذا تعرف عن {}؟", "اكتب لي فقرة قصيرة عن {}.", "أريد نصيحة عن {} من فضلك."),
        ("زراعة النخيل", "السفر في الصحراء", "الخط العربي", "طبخ العدس"),
    ),
    "Hindi": (
        ("मुझे {} के बारे में बताओ।", "{} के बारे में एक कविता लिखो।", "क्या {} के बारे में कोई किताब है?"),
        ("आम के पेड़", "पुरानी रेलगाड़ी", "बारिश के मौसम", "मिट्टी के बर्तन"),
    ),
    "Chinese": (
        ("请介绍一下{}。", "怎样学习{}?", "写一段关于{}的短文。"),
        ("古代桥梁", "家常豆腐", "山水画", "高速铁路"),
    ),
    "Japanese": (
        ("{}について教えてください。", "{}の歴史を短くまとめて。", "{}を始めるには何が必要ですか。"),
        ("茶道", "木工", "山歩き", "味噌作り"),
    ),
    "Korean": (
        ("{}에 대해 설명해 주세요.", "{}에 관한 짧은 글을 써 줘.", "{}을 배우려면 어떻게 해야 하나요?"),
        ("전통 음악", "김장", "한옥 건축", "등산"),
    ),
}


Half = Literal["fitted", "measured"]


def foreign_texts(*, half: Half, words: Sequence[str], seed: int, count: int) -> dict[str, list[str]]:
    """`count` texts of each kind: code, languages, noise."""
    start = 0 if half == "fitted" else 1
    code, languages = _CODE[start::2], list(_LANGUAGES.values())[start::2]
    makers: dict[str, Callable[[random.Random, int], str]] = {
        "code": lambda rng, number: _code(rng, code[number % len(code)]),
        "languages": lambda rng, number: _sentences(rng, *languages[number % len(languages)]),
        "noise": lambda rng, number: _noise(rng, number, words),
    }
    made = {}
    for kind, make in makers.items():
        # A kind does not change when another one does.
        rng = random.Random(f"{seed} {half} {kind}")
        made[kind] = [make(rng, number) for number in range(count)]
    return made


def vocabulary_words(tokenizer: Any, *, seed: int) -> list[str]:
    """Entries of the vocabulary that are words or single letters, of any script."""
    size = len(tokenizer)
    ids = list(range(size)) if size <= DRAWN_TOKENS else random.Random(seed).sample(range(size), DRAWN_TOKENS)
    # Decoded, because a vocabulary may write words with signs or as bytes.
    texts = (text.strip() for text in tokenizer.batch_decode([[number] for number in ids]))
    return [text for text in texts if text.isalpha()]


def _code(rng: random.Random, template: str) -> str:
    a, b, c = rng.sample(_NAMES, 3)
    verb, thing = rng.choice(_VERBS), rng.choice(_NAMES)
    return template.format(
        f=f"{verb}_{thing}", a=a, b=b, c=c, n=rng.randint(2, 99), op=rng.choice(_OPERATORS)
    )


def _sentences(rng: random.Random, openings: Sequence[str], things: Sequence[str]) -> str:
    """Two sentences of one language."""
    chosen = zip(rng.sample(openings, 2), rng.sample(things, 2), strict=True)
    return " ".join(opening.format(thing) for opening, thing in chosen)


def _noise(rng: random.Random, number: int, words: Sequence[str]) -> str:
    """Random characters and random words, in turn."""
    length = rng.randint(5, 40)
    if number % 2:
        return " ".join(rng.choices(words, k=length))
    return "".join(
        rng.choices(string.ascii_letters + string.digits + string.punctuation + "  ", k=4 * length)
    )
