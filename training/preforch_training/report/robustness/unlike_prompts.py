"""Prompts unlike training data: does the confidence of an orchestrator tell them from prompts like its
training data?

In:  a seed, held-out prompts (joined to very long ones), words of a tokenizer's vocabulary.
Out: texts of four kinds, made here from parts written for this purpose, always the same for one seed; and the
     AUROC with which a signal separates held-out prompts (high) from each kind (low).
"""

import random
import string
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from preforch_training.statistics.bootstrap import Bootstrap, Interval
from preforch_training.statistics.metrics import weighted_auroc

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


def unlike_prompts(
    held_out_texts: Sequence[str], *, words: Sequence[str], long_characters: int, seed: int, count: int = 100
) -> dict[str, list[str]]:
    """`count` texts of each kind: code, languages, noise, long.
    Long ones join held-out texts to `long_characters`."""
    makers: dict[str, Callable[[random.Random, int], str]] = {
        "code": _code,
        "languages": _sentences,
        "noise": lambda rng, number: _noise(rng, number, words),
        "long": lambda rng, number: _long(rng, held_out_texts, long_characters),
    }
    made = {}
    for kind, make in makers.items():
        # A kind does not change when another one does.
        rng = random.Random(f"{seed} {kind}")
        made[kind] = [make(rng, number) for number in range(count)]
    return made


def _code(rng: random.Random, number: int) -> str:
    a, b, c = rng.sample(_NAMES, 3)
    verb, thing = rng.choice(_VERBS), rng.choice(_NAMES)
    template = _CODE[number % len(_CODE)]
    return template.format(
        f=f"{verb}_{thing}", a=a, b=b, c=c, n=rng.randint(2, 99), op=rng.choice(_OPERATORS)
    )


def _sentences(rng: random.Random, number: int) -> str:
    """Two sentences of one language."""
    openings, things = list(_LANGUAGES.values())[number % len(_LANGUAGES)]
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


def _long(rng: random.Random, held_out_texts: Sequence[str], characters: int) -> str:
    """Whole held-out texts, one after the other, until there is enough."""
    text = rng.choice(held_out_texts)
    while len(text) < characters:
        text += "\n" + rng.choice(held_out_texts)
    return text


def separation(
    inside_N: np.ndarray, outside: Mapping[str, np.ndarray], *, bootstrap: Bootstrap
) -> dict[str, Interval]:
    """AUROC per kind: the chance that a prompt like the training data scores above one unlike it, ties
    counting half.

    Prompts of both sides are drawn anew for the 95% interval, whose `groups` counts them all.
    """
    found = {}
    for kind, outside_M in outside.items():
        rng = np.random.default_rng(bootstrap.seed)
        sizes = (len(inside_N), len(outside_M))
        scores, inside = np.concatenate([inside_N, outside_M]), np.repeat([True, False], sizes)
        drawn = [rng.multinomial(size, np.full(size, 1 / size), size=bootstrap.replicates) for size in sizes]
        low, high = np.quantile(weighted_auroc(scores, inside, np.concatenate(drawn, axis=1)), [0.025, 0.975])
        (value,) = weighted_auroc(scores, inside, np.ones((1, sum(sizes))))
        found[kind] = Interval(value=float(value), low=float(low), high=float(high), groups=sum(sizes))
    return found
