"""A little English: sentences of words with classes, as far as the metrics of descriptions need it.

Every word has a class of one letter ("G" a general noun of a defect, "K" a kind of defect, "n" no, ...). So a sentence
is also a string of letters, and grammar is regular expressions on that string.
"""

import re
import unicodedata
from dataclasses import dataclass, field


def words(text: str, separator: str | None = None) -> list[str]:
    """The words of a table below."""
    return [" ".join(word.split()) for word in text.split(separator)]


# --- Words that speak of defects ---

# Denying one of these denies all defects: "no defect", "free of flaws".
GENERAL = words("defect anomaly flaw fault damage imperfection irregularity abnormality blemish problem issue")
# "No crack" leaves room for another kind. A noun that also names a part of good products is no defect by itself ("a
# nut with a hole"); the compounds have what makes them one.
KINDS = words(
    """
    abrasion blister blowhole break breakage bruise bubble burr contamination corrosion crack crazing crease
    deformation deformity delamination dent discoloration discolouration distortion fracture fray fuzzyball gouge
    inclusion leak misalignment nep patch pit pitting porosity pothole puncture rip rust scar scratch scuff smear
    smudge spalling splinter stain tear void wear wrinkle
    """
)
COMPOUNDS = words(
    """
    cable swap, colored spot, corner and edge breakage, corner or edge breakage, crescent gap, cut lead, cut
    selvage, dirt spot, edge chip, glue spot, glue strip, gray stroke, insulation cut, marine growth area, oil spot,
    open joint, peeled paint area, poke mark, print mark, printing mark, punching hole, rolled in scale, rolled-in
    scale, rough area, same-colored spot, scale mark, silk spot, split teeth area, uneven area, waist fold, warp
    ball, water spot, weft curling area, welding line
    """,
    ",",
)
# Before any noun ("a bent pin") or behind "is" ("the pin is bent").
ADJECTIVES = words(
    """
    abnormal anomalous bent broken burned burnt chipped contaminated corroded cracked damaged defective
    deformed dented discolored discoloured extra faulty flawed flipped foreign frayed manipulated melted
    melted-out misaligned misplaced misshapen missing pitted punctured rusted rusty scratched squeezed stray
    stuck-together torn weird worn wrong
    """
)

# --- Words of count, size and place ---

NUMBERS = {
    word: value for value, word in enumerate(words("one two three four five six seven eight nine ten"), start=1)
}
# At least so many.
MANY = {"several": 2, "multiple": 2, "many": 2, "numerous": 2, "a-few": 2, "a-couple-of": 2, "more-than-one": 2}
SIZES = words("tiny small little medium medium-sized large big extensive huge")
PLACES = words("top upper bottom lower left right center centre central middle corner edge border half side")


def plural(noun: str) -> str:
    """The regular plural."""
    if noun.endswith("y"):
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")


def both_numbers(nouns: list[str]) -> list[str]:
    """The nouns and their plurals."""
    return [*nouns, *(plural(noun) for noun in nouns)]


SINGULARS = {plural(noun): noun for noun in [*GENERAL, *KINDS]}

# --- Classes of words; of two classes, a word has the first ---

_CLASSES = {
    "G": both_numbers(GENERAL),
    "K": both_numbers(KINDS),
    "A": ADJECTIVES,
    "m": both_numbers(words("mark spot line hole knot cut fold area region zone part section place")),
    "n": words("no without zero 0 neither free-of devoid-of absence-of lacks lacking"),
    "t": ["not"],
    "x": words("none nothing nobody nowhere never hardly barely scarcely rarely seldom fails absent"),
    "f": words("defect-free fault-free flaw-free flawless faultless non-defective"),
    "q": words("surface manufacturing packaging single obvious"),
    "s": words(
        "visible apparent present seen found observed detected identified noticeable detectable evident discernible "
        "located shown noted"
    ),
    "j": ["any"],
    "o": words("other others further additional more else"),
    "D": ["a", "an"],
    "d": [*words("some both a-number-of at-least-one"), *NUMBERS, *MANY],
    "k": both_numbers(words("kind type sign trace group pair cluster row network evidence indication")),
    "O": ["of"],
    "E": ["there"],
    "b": ["is", "are"],
    "p": ["was", "were"],
    "e": ["be", "been"],
    "c": ["can"],
    "h": [*both_numbers(words("show contain exhibit display reveal bear")), "has", "have"],
    "v": words("see find notice observe detect spot identify"),
    "r": words("runs run lies lie extends extend covers cover crosses cross spreads spread"),
    "w": ["with"],
    "y": words(
        "mainly here clearly also together each caused due running extending spanning measuring spreading whatsoever "
        "anywhere"
    ),
    "I": words("i we you"),
    "u": words("this it that these those they which"),
    "T": ["to"],
    "P": words(
        "in on at near along across over around by from through under within between toward towards below above "
        "beside inside outside"
    ),
    "C": ["or", "nor"],
    "&": ["and"],
    "B": ["but"],
    "F": words(
        "the its their than as for who what where how why because since while whereas he she like such-as including "
        "about against before after during regarding into onto off do does did will shall must compared consistent "
        "contrast contrasts associated confused checked inspected tested then so"
    ),
    "z": SIZES,
    "l": both_numbers(PLACES),
    "R": words(
        "rest remaining remainder otherwise elsewhere except apart aside besides beyond larger bigger smaller greater "
        "wider deeper longer"
    ),
    ",": [","],
}
_CLASS_OF = {word: letter for letter, members in reversed(_CLASSES.items()) for word in members}
_CONTENT = "."

# --- Noun phrases, as patterns of classes ---

_NOUN = "[qsj]*[GK]m?"
# A noun, or a list of nouns; "no defect, a scratch is visible" and "no defect and scratches are ..." are not lists.
NOUNS = rf"{_NOUN}(?:(?:,j?o?{_NOUN})*,?(?:Cj?|&(?=[qsjo]*G))o?{_NOUN})*"
FILLING = r"[.dDqsyzAKGlm]{0,8}?"
# The end of a noun phrase of a defect: followed by more content it is none ("a scratch test").
HEAD = r"(?:[GK]m?|A[.mkqzKGl]{1,3})(?![.mzGKAfqlRk])"

# --- Text to sentences ---

_QUESTION_WORDS = frozenset(words("is are does do did can could has have was were what where which how why who"))
_MARKUP = re.compile(r"<[^>]*>|[*_#>`~\"“”„«»()\[\]{}]|(?<!\w)['‘]|['’](?!\w)|^\s*[-+•]\s", re.MULTILINE)
_JOINED = [
    (re.compile(rf"\b{pattern}"), word)
    for pattern, word in [
        (r"(?:can't|cannot)\b", "can not"),
        (r"(\w+)n't\b", r"\1 not"),
        (r"(there|it|that|here)'s\b", r"\1 is"),
        (r"(free|devoid|absence) (?:of|from)\b", r"\1-of"),
        (rf"({'|'.join([*GENERAL, *KINDS])}) free\b", r"\1-free"),
        (r"not a single\b", "no"),
        (r"not only\b([^.,;:?!\n]{1,80}),? but also\b", r"\1 and"),
        # One mark explained away; not by another defect.
        (
            r"what looks like (an? [\w-]+) is (?:only |just )?an? (?:reflection|shadow|highlight)(?=\s*(?:[.;!\n]|$))",
            r"that is not \1",
        ),
        (r"(?:not|non) (?:defective|faulty|flawed)\b|nondefective\b", "non-defective"),
        (r"(is|are|has|have|shows?) (?:few|little)\b", r"\1 hardly"),
        (r"a (few|number of|couple of)\b", r"a-\1"),
        (r"at least (?:one|an?)\b", "at-least-one"),
        (r"more than one\b", "more-than-one"),
        (r"such as\b", "such-as"),
        # It says something of the contrast.
        (r"hardly differs?\b", "differs-slightly"),
    ]
]
_DASH = re.compile(r"\s+-+\s+|[–—/]")
_SENTENCE = re.compile(r"((?:[^.!?;:\n]|\.(?=\d))+)([.!?;:\n]*)")
_TOKEN = re.compile(r"[\w-]+|,")
_COMPOUND = re.compile(rf"\b(?:{'|'.join(both_numbers(COMPOUNDS))})\b")


@dataclass
class Sentence:
    """Words with one class each; what has been understood is struck out of the classes."""

    words: list[str]
    is_question: bool
    classes: str = field(init=False)

    def __post_init__(self) -> None:
        self.classes = "".join(class_of(word) for word in self.words)

    @property
    def text(self) -> str:
        """The words, single spaces between them."""
        return " ".join(self.words)

    def strike(self, pattern: re.Pattern[str]) -> list[re.Match[str]]:
        """Strike out all matches of a pattern of classes and return them."""
        found = list(pattern.finditer(self.classes))
        self.classes = pattern.sub(lambda match: "_" * len(match[0]), self.classes)
        return found


def class_of(word: str) -> str:
    """The class of a word."""
    if word in _CLASS_OF:
        return _CLASS_OF[word]
    if "_" in word:  # a compound
        return "K"
    if word.isdigit():
        return "d"
    if word.endswith("-free"):
        return "L"
    if word.endswith("ing"):  # "a coating preventing cracks"
        return "F"
    parts = word.split("-")
    return "l" if len(parts) > 1 and all(_CLASS_OF.get(part) == "l" for part in parts) else _CONTENT


def to_sentences(text: str) -> list[Sentence]:
    """Split a text, without markup, into sentences of lower-case words and commas.

    Raises:
        ValueError: the text is no string.
    """
    if not isinstance(text, str):
        raise ValueError(f"a description must be a string, got {text!r}; give an empty one where there is none")
    text = unicodedata.normalize("NFKC", text).lower().replace("’", "'")
    text = _DASH.sub(" , ", _MARKUP.sub("", text))
    for pattern, joined in _JOINED:
        text = pattern.sub(joined, text)
    text = _COMPOUND.sub(lambda match: match[0].replace(" ", "_"), text)
    parts = [(_TOKEN.findall(part), "?" in end) for part, end in _SENTENCE.findall(text)]
    return [Sentence(words, is_question or words[0] in _QUESTION_WORDS) for words, is_question in parts if words]
