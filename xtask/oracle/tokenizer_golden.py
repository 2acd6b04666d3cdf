#!/usr/bin/env python3
"""Write what the `tokenizers` library makes of many strings: golden data for tokenizer tests.

  tokenizer_golden.py TOKENIZER.json OUT.bin [--small]

The strings are made here, always the same ones: about 1 MB of mixed-script text, cases aimed at each
part of the tokenizer (NFC, the split pattern, byte-level BPE), and 20,000 random strings. --small
keeps the file under 200 KB. No string contains the text of a special token.

The file is a sequence of records, all integers u32 little endian:

  length of the text in bytes, the text (UTF-8), number of ids, ids
"""

import argparse
import os
import random
import struct
import unicodedata

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from tokenizers import Tokenizer

SMALL_LIMIT = 200_000

# Everything \s could be taken for; the last row only looks like white space.
SPACES = [
    " ", "\t", "\n", "\v", "\f", "\r", "\x1c", "\x1d", "\x1e", "\x1f", "\x85", "\xa0", "\u1680", "\u2000", "\u2001",
    "\u2002", "\u2003", "\u2004", "\u2005", "\u2006", "\u2007", "\u2008", "\u2009", "\u200a", "\u2028", "\u2029",
    "\u202f", "\u205f", "\u3000",
    "\u180e", "\u200b", "\u2060", "\ufeff",
]
DIGITS = "0123456789٠١٢٣٤٥٦٧٨٩۰۱۲۳߀߁०१२३০১২੦੧૦௧౧೧൧๐๑๒໐༠༡၀၁០១᠐᠑０１２９²³¹⁰⁴₁₂¼½¾⅐⅓ⅣⅫⅳ①②⑳❶㊀〇一二三㉑𝟎𝟏𝟗𝟙𐒠𑁦🄀🄁൳༳"
MARKS = (
    "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u030f\u0311\u0313\u0314\u031b\u0323\u0324"
    "\u0325\u0326\u0327\u0328\u032d\u032e\u0330\u0331\u0334\u0338\u0340\u0341\u0342\u0343\u0344\u0345\u034f\u0358"
    "\u0360\u0361\u05b0\u05b4\u05bc\u05c1\u05c2\u0610\u064b\u064e\u0651\u0653\u0654\u0655\u0670\u093c\u094d\u09be"
    "\u09d7\u0b3e\u0b56\u0bbe\u0bd7\u0c56\u0cc2\u0cd5\u0d3e\u0d57\u0dca\u0dcf\u0ddf\u0e38\u0e48\u0f71\u0f72\u0f74"
    "\u0f80\u102e\u1b35\u20d0\u20e3\u302a\u3099\u309a\ufe0e\ufe0f\ufe20\U000110ba\U00011127\U0001133e\U000114b0"
    "\U0001d165\U0001d16d\U0001e8d0\U000e0100"
)
CONTRACTIONS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"]
TEXTS = """The quick brown fox doesn't jump; it's what they're told, and we've said I'm sure they'll do what he'd do.
Don't STOP! IT'S, WE'RE, THEY'VE, I'M, YOU'LL, HE'D; It'S, wE'rE, 'Tis, rock'n'roll, o'clock, James' and Jones's.
A déjà-vu at the café: naïve façade, coöperate, Ångström, señor, Żółć, Čeština, Türkçe, İstanbul, ısırgan, straße STRASSE.
Příliš žluťoučký kůň úpěl ďábelské ódy. Árvíztűrő tükörfúrógép. Zażółć gęślą jaźń. Șțâăî. Þórður ðæt.
Tiếng Việt: Trăm năm trong cõi người ta, chữ tài chữ mệnh khéo là ghét nhau. Đường phố Hà Nội.
Съешь же ещё этих мягких французских булок, да выпей чаю. Їжак, ґанок, ўсё, йод, Ћирилица, Љубав, ѐ ѝ.
Ξεσκεπάζω την ψυχοφθόρα βδελυγμία. Ὦ ἄνδρες Ἀθηναῖοι· ᾧ ᾳ ῆ Ῥόδος ΐ ΰ ς σ Σ µ μ Ω Ω.
نص حكيم له سر قاطع وذو شأن عظيم مكتوب على ثوب أخضر ومغلف بجلد أزرق. الْعَرَبِيَّةُ ﷺ ﻻ لا۔ گچپژ
דג סקרן שט בים מאוכזב ולפתע מצא לו חברה. בְּרֵאשִׁית בָּרָא אֱלֹהִים אֵת הַשָּׁמַיִם וְאֵת הָאָרֶץ׃ שׁ שׂ
ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण का सर्वनाश। क़ ख़ ग़ ज़ ड़ ढ़ फ़ य़ क्षि स्त्री हिन्दी १२३
আমি বাংলায় গান গাই। কো কৌ ড় ঢ় য়। தமிழ் மொழி கொ கோ கௌ. తెలుగు భాష. ಕನ್ನಡ ಕೊ. മലയാളം കൊ. සිංහල ක්‍ෂ කෝ.
เป็นมนุษย์สุดประเสริฐเลิศคุณค่า กว่าบรรดาฝูงสัตว์เดรัจฉาน น้ำ ๑๒๓. ພາສາລາວ. ភាសាខ្មែរ. မြန်မာဘာသာ ဦး. བོད་ཡིག་ཀྵ་གྷ།
天地玄黃,宇宙洪荒。日月盈昃,辰宿列張。汉字简体;漢字繁體:「你好,世界!」豈 更 車 﨑 𠮷野家 𠀀𪜶 㐀
いろはにほへと ちりぬるを わかよたれそ つねならむ。パピプペポ がぎぐげご ヴァイオリン ﾊﾟｿｺﾝ ゔ か゛ は゜
키스의 고유조건은 입술끼리 만나야 하고 특별한 기술은 필요치 않다. 각 간 갂 힣 가나다라 ㄱㄴㄷ ﾡ
한글 자모 (풀어쓴 것): ᄒᆞᆫ글 ᄀᆨ ᄂᆞ ᅟᅡ ꥠᅡ ᄀퟰ 각 각ᆨ ᄀ가ᅡᆨᆨ
ქართული ᲥᲐᲠᲗᲣᲚᲘ Հայերեն և ﬓ አማርኛ ሀሎ Ꭰꭰ ᏣᎳᎩ ᐃᓄᒃᑎᑐᑦ ᚠᚢᚦ ⴰⵎⴰⵣⵉⵖ ꀀꀁ ߒߞߏ ܐܪܡܝܐ 𐌰𐌱 𞤀𞤢 𑀓𑀸 𓀀𓀁 𒀀𒁀
😀 😃😄 👍🏽 👩‍👩‍👧‍👦 👨🏿‍💻 🏳️‍🌈 🏴󠁧󠁢󠁳󠁣󠁴󠁿 🇩🇪🇯🇵🇺 1️⃣ #️⃣ *⃣ ❤️ ❤︎ ☺ ☺️ ✂︎ ©️ ™ 🫠 🪿 🧑‍🧑‍🧒 ♀︎
x² + y³ = ∑ₙ₌₀^∞ aₙ·xⁿ; ∀ε>0 ∃δ: |x−a|<δ ⇒ |f(x)−L|<ε; ℝ ⊂ ℂ, ℵ₀, ≠ ≠ ≮ ≮ ∤ ∦ ⫝̸ 𝔄𝕊𝒞 ½⅔ № ℃ K Å Ω
ﬁ ﬂ ﬀ ﬃ ﬅ ﬆ ŉ ǰ ẖ ß ẞ ſ ſſ İ i̇ ı K k Å å Ǆ ǅ ǆ ª º ʰ ˣ ﹏ ＡＢＣａｂｃ ｜＜＞ ⒜⒝ Ⓐⓐ
“Smart” ‘quotes’ — dashes – hyphens‐ non‑breaking … it’s they’re «guillemets» „low“ ‹x› ¿qué? ¡olé! § ¶ † ‡ ° ± ·
$1,234.56 €99 £5 ¥100 ₹7 ₿0.5 50% 3.14e-10 0xDEADBEEF 0b1010 1_000_000 2024-02-30T12:34:56.789Z +49 (0)30 1234-5678
https://example.org/a/b?c=d&e=f#g user.name+tag@example.org C:\\Users\\me\\file.txt /usr/lib/x86_64 ../.. ~/.config 127.0.0.1:8080 ::1
Question: What is in the picture? Answer briefly.|Describe the image.|How many red boxes are there? 12. Is the cat left of the dog? Yes."""
CODE = r'''def f(x: int, *a, **k) -> str:
    """Docstring, it's here."""
    return f"{x!r:>{10}}" if x >= 0 else None  # TODO: don't
	if (a[i] != b->c && !(d | ~e)) { goto end; } /* comment */
#include <stdio.h>
int main(void) { printf("%d\t%s\n", 1 << 3, "\x00\u00e9"); return 0; }

fn main() -> Result<(), Box<dyn Error>> { let v: Vec<_> = (0..10).map(|x| x * 2).collect::<Vec<_>>(); Ok(()) }
SELECT a.id, COUNT(*) FROM t AS a LEFT JOIN b ON a.id = b.id WHERE a.x LIKE '%foo''s%' GROUP BY 1;
{"key": [1, 2.5e3, true, null, "caf\u00e9"], "nested": {"a": {}}}
<div class="x" data-y='z'>&nbsp;<br/><!-- c --></div>
const f = async ({a, ...b}) => { await g(`${a?.b ?? "c"}`); };   // $%^&*()
| a | b |
|---|:-:|
| `x` | **y** |

		- [ ] item  
  1. one
\begin{align} \frac{\partial f}{\partial x} &= \lim_{h \to 0} \\ \end{align}
<|im_ start|> <|im_start |> <|im_end <image > <im age> <|endoftext| > <||> |> <|
if __name__ == "__main__": sys.exit(main())
'''
# Ranges of code points from which random strings draw.
POOLS = [
    (0x20, 0x7E), (0x20, 0x7E), (0x61, 0x7A), (0x00, 0x7F), (0x80, 0xFF), (0x100, 0x24F), (0x250, 0x2FF), (0x300, 0x36F),
    (0x370, 0x3FF), (0x400, 0x52F), (0x530, 0x5FF), (0x600, 0x6FF), (0x700, 0x8FF), (0x900, 0x97F), (0x980, 0xDFF),
    (0xE00, 0xEFF), (0xF00, 0xFFF), (0x1000, 0x109F), (0x10A0, 0x10FF), (0x1100, 0x11FF), (0x1200, 0x17FF), (0x1800, 0x1CFF),
    (0x1D00, 0x1DFF), (0x1E00, 0x1EFF), (0x1F00, 0x1FFF), (0x2000, 0x206F), (0x2070, 0x218F), (0x2190, 0x23FF),
    (0x2400, 0x27BF), (0x27C0, 0x2BFF), (0x2C00, 0x2DFF), (0x2E80, 0x2FFF), (0x3000, 0x30FF), (0x3100, 0x33FF),
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xA000, 0xABFF), (0xAC00, 0xD7A3), (0xD7B0, 0xD7FB), (0xE000, 0xF8FF),
    (0xF900, 0xFAFF), (0xFB00, 0xFDFF), (0xFE00, 0xFE6F), (0xFE70, 0xFEFF), (0xFF00, 0xFFFF), (0x10000, 0x10FFF),
    (0x11000, 0x11FFF), (0x12000, 0x12FFF), (0x16000, 0x16FFF), (0x1D000, 0x1D7FF), (0x1E000, 0x1EFFF), (0x1F000, 0x1FAFF),
    (0x20000, 0x2FFFF), (0x30000, 0x3FFFF), (0xE0000, 0xE01EF), (0xF0000, 0x10FFFF), (0x00, 0x10FFFF),
]


def points(first, last):
    """The characters of a range, without surrogates."""
    return [chr(c) for c in range(first, last + 1) if not 0xD800 <= c < 0xE000]


def one(r, first, last):
    while True:
        c = r.randrange(first, last + 1)
        if not 0xD800 <= c < 0xE000:
            return chr(c)


def forms(s):
    """A string as written, composed, decomposed and in the two compatibility forms; each only once."""
    return list(dict.fromkeys([s, *(unicodedata.normalize(f, s) for f in ("NFC", "NFD", "NFKC", "NFKD"))]))


def contractions():
    yield from (w for c in CONTRACTIONS for w in (c, c.upper(), c.title(), c[:2] + c[2:].upper(), c[:-1] + c[-1].upper()))
    for c in CONTRACTIONS:
        for before in ("", "a", "1", " ", "!", "''", "\n", "é"):
            for after in ("", "a", "1", " ", "!", "'", "\n", "\u0301", c):
                yield before + c + after
                yield before + c.upper() + after
    # Letters whose case folding meets ASCII letters, and other apostrophes.
    for s in ("'\u017f", "a'\u017fb", "x'\u017f1", "'\u017f's", "'\u212a", "'ǆ", "'ﬀ", "'ﬅ", "'ﬆ", "'ß", "'ŉ", "'İ", "'ı", "'ᴅ",
              "'ｓ", "'\u0442", "'\u1e9e", "'ĺl", "'l\u0301l", "'s\u0301", "'re\u0301", "'RE\u0301", "'d\u0323", "'Ll", "'lL", "'vE",
              "’s", "a’t", "ʼs", "＇s", "`s", "´s", "'\u200bs", "' s", "'\n s", "'l", "'r", "'v", "'le", "'er", "'ll'll"):
        yield s
        yield "it" + s + " is"


def white_space(r, count):
    yield from SPACES
    for s in SPACES:
        yield from (s * 2, s * 3, "a" + s + "b", "a" + s * 2 + "b", "a" + s * 3 + "1", " " + s + "a", s + " a", s + "\n", "\n" + s,
                    "." + s + "\n" + s + "x", "a " + s + "\r\n" + s + s + "b", "!" + s + "!", s * 2 + "!", s + "\u0301", s * 2 + "é")
    for a in ("\r", "\n", "\r\n", "\n\r", "\r\r\n", "\n\n", " \n", "\n ", "\t\n", "\n\t", " \r\n ", "\r \n", "  \n\n  \r\n\t"):
        for b in ("", "a", " a", "  a", "1", " 1", "!", " !", "!!\n", "\u3000a", "'s"):
            yield from (a + b, "x" + a + b, "." + a + b, "x" + a * 3 + b)
    for _ in range(count):
        yield "".join(r.choice((r.choice(SPACES), " ", "\n", "\r\n", "a", "b1", "!", "Ab")) for _ in range(r.randrange(1, 16)))


def normal_forms(r, count):
    # Everything that decomposes canonically, alone and with a mark after it.
    some = [c for c in points(0xA0, 0x2FFFF)
            if not 0xAC00 <= ord(c) <= 0xD7A3 and unicodedata.decomposition(c) and "<" not in unicodedata.decomposition(c)]
    for i in range(0, len(some), 8):
        group = some[i:i + 8]
        yield " ".join(group)
        yield "x".join(unicodedata.normalize("NFD", c) for c in group)
        yield "".join(c + r.choice(MARKS) + unicodedata.normalize("NFD", c) + r.choice(MARKS) for c in group)
    # Hangul: all pairs of kinds, and syllables near the ends of their blocks.
    kinds = ["\u1100", "\u1112", "\u1113", "\u115f", "\u1160", "\u1161", "\u1175", "\u1176", "\u11a7", "\u11a8", "\u11c2", "\u11c3",
             "\ua960", "\ud7b0", "\ud7cb", "가", "각", "개", "히", "힣", "\u0301", "a"]
    for a in kinds:
        yield from (a + b for b in kinds)
        yield " ".join(a + b + c for b in kinds[4:13] for c in kinds[7:12])
    for _ in range(count):
        yield "".join(r.choice(kinds) for _ in range(r.randrange(2, 9)))
    # Marks in any order, composition blocked or not, runs longer than any buffer.
    bases = ["a", "e", "o", "u", "A", "E", "ı", "ạ", "ê", "ơ", "ự", "α", "ῃ", "ὰ", "и", "К", "ا", "ש", "क", "ন", "க", "か", "ハ", "가", "=", "<", "⊂",
             " ", "1", "\n", "", "\U00011099", "\U00011131", "\U00011347", "\U000114b9", "\U0001d157", "\U00011935"]
    for b in bases:
        for m in MARKS:
            yield b + m
    for _ in range(count * 2):
        yield "".join(r.choice(bases) + "".join(r.choice(MARKS) for _ in range(r.randrange(0, 5))) for _ in range(r.randrange(1, 5)))
    for n in (20, 31, 33, 100, 500):
        yield "a" + "\u0301" * n
        yield "a" + "\u0323\u0301" * n + "\u0327"
        yield "\u0301" * n + "b"


def runs(sizes):
    for n in sizes:
        for s in ("a", " ", "\n", "\r\n", "\t", "0", "=", "-", "!", "ab", "é", "e\u0301", "中", "😀", "👍🏽", "\u200d", "'s", "'", " a", "  \n", "\xa0",
                  "\u3000", "가", "\u1100\u1161", "א", "ß", "_", "xy1", "\x00", "\U0010ffff"):
            yield s * n


def sweep(step):
    """Every code point that could matter, next to letters, digits and itself."""
    chars = points(0, 0x33FF) + points(0x4DB0, 0x4E0F) + points(0x9FF0, 0xAC0F) + points(0xD790, 0x1FFFF) + points(0x2A6D0, 0x2A70F)
    chars += points(0x2B730, 0x2B74F) + points(0x2B810, 0x2B82F) + points(0x2CEA0, 0x2CEBF) + points(0x2EBD0, 0x2EE6F)
    chars += points(0x2F7F0, 0x2FA2F) + points(0x30000, 0x3001F) + points(0x31340, 0x3135F) + points(0x323A0, 0x3247F)
    chars += points(0x33470, 0x3348F) + points(0xE0000, 0xE01FF) + points(0x10FFF0, 0x10FFFF)
    for i in range(0, len(chars), step):
        yield "".join(f" a{c}b{c}{c}1" for c in chars[i:i + step])


def prose(r, size):
    """Lines of mixed-script text from TEXTS and CODE, words shuffled, about `size` bytes."""
    lines = TEXTS.split("\n")
    words = [line.split(" ") for line in lines]
    flat = [w for line in words for w in line]
    done = 0
    while done < size:
        kind = r.randrange(6)
        if kind == 0:
            s = r.choice(lines)
        elif kind == 1:
            s = " ".join(r.choice(flat) for _ in range(r.randrange(4, 60)))
        elif kind == 2:
            source = r.choice(words)
            s = " ".join(r.choice(source) for _ in range(r.randrange(4, 60)))
        elif kind == 3:
            code = CODE.split("\n")
            first = r.randrange(len(code))
            s = "\n".join(("    " * r.randrange(4) + line) for line in code[first:first + r.randrange(1, 8)])
        elif kind == 4:
            s = "".join(r.choice(flat) + r.choice((" ", " ", "  ", "\n", ", ", ". ", r.choice(SPACES), "")) for _ in range(r.randrange(4, 40)))
        else:
            s = " ".join("".join(r.choice(DIGITS) for _ in range(r.randrange(1, 9))) + r.choice(flat) for _ in range(r.randrange(2, 20)))
        s = r.choice((s, s, s, unicodedata.normalize("NFD", s), unicodedata.normalize("NFC", s), s.upper(), s.lower(), s.title()))
        s += r.choice(("", "", "\n", "\r\n", " ", "\n\n"))
        done += len(s.encode())
        yield s


def fuzz(r, count):
    ascii_words = [w for w in TEXTS.split() if w.isascii()]
    for i in range(count):
        kind = i % 5
        n = min(int(r.expovariate(1 / 14)), 120)
        if kind == 0:  # one script
            pool = r.choice(POOLS)
            s = "".join(one(r, *pool) for _ in range(n))
        elif kind == 1:  # a few scripts
            pools = r.choices(POOLS, k=3)
            s = "".join(one(r, *r.choice(pools)) for _ in range(n))
        elif kind == 2:  # text with accidents
            s = "".join(r.choice((r.choice(ascii_words), r.choice(SPACES), " ", r.choice(MARKS), r.choice(DIGITS), r.choice(CONTRACTIONS),
                                  one(r, *r.choice(POOLS)))) for _ in range(n))
        elif kind == 3:  # few distinct characters, so that splits and merges interact
            some = [r.choice((" ", "\n", "a", "s", "'", "e", "t", "1", ".", "\r", one(r, *r.choice(POOLS)), r.choice(SPACES)))
                    for _ in range(r.randrange(1, 6))]
            s = "".join(r.choice(some) for _ in range(n))
        else:  # letters with marks and their decompositions
            s = "".join(r.choice((one(r, 0xC0, 0x24F), one(r, 0x1E00, 0x1FFF), one(r, 0xAC00, 0xD7A3), r.choice(MARKS), "a", "o", " "))
                        for _ in range(n))
            s = r.choice((s, unicodedata.normalize("NFD", s), unicodedata.normalize("NFKD", s)))
        yield s


def strings(small):
    r = random.Random(20240229)
    yield ""
    yield from points(0, 0x7F)
    for line in TEXTS.split("\n"):
        yield from (forms(line) if not small else [line, unicodedata.normalize("NFD", line)][: 1 + ("é" in line or "각" in line)])
    yield CODE
    if small:
        def pick(strings, n):
            strings = list(strings)
            return r.sample(strings, min(n, len(strings)))

        yield from pick(contractions(), 140)
        yield from pick(white_space(r, 60), 200)
        yield from pick(normal_forms(r, 60), 260)
        yield from pick(runs((3, 17)), 20)
        yield from ("a" * 300, " " * 120, "\n" * 65, "7" * 64, "e\u0301" * 40)
        yield from pick(sweep(2), 60)
        yield from prose(r, 3_000)
        yield from fuzz(r, 420)
        return
    yield from contractions()
    yield from white_space(r, 3000)
    yield from normal_forms(r, 2000)
    yield from runs((2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257, 1000))
    yield from ("a" * 50_000, "ab1 " * 10_000, " " * 20_000, "the" * 7_000, "\n" * 10_001, "中文" * 5_000, "🏽" * 3_000, "e\u0301" * 9_000)
    yield from sweep(24)
    lines = list(prose(r, 1_000_000))
    yield from lines
    yield "".join(lines[:400])  # a long text in one piece
    yield from fuzz(r, 20_000)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("tokenizer", help="tokenizer.json")
    ap.add_argument("out")
    ap.add_argument("--small", action="store_true", help="a file for the repository")
    a = ap.parse_args()
    tok = Tokenizer.from_file(a.tokenizer)
    specials = [t.content for t in tok.get_added_tokens_decoder().values()]
    special_ids = set(tok.get_added_tokens_decoder())

    count = text = ids = 0
    with open(a.out, "wb") as f:
        for s in strings(a.small):
            assert not any(t in s for t in specials), s
            data, got = s.encode(), tok.encode(s, add_special_tokens=False).ids
            assert special_ids.isdisjoint(got), s
            f.write(struct.pack("<I", len(data)) + data + struct.pack(f"<{1 + len(got)}I", len(got), *got))
            count, text, ids = count + 1, text + len(data), ids + len(got)
        size = f.tell()
    assert not a.small or size <= SMALL_LIMIT, size
    print(f"{a.out}: {count} strings, {text} bytes of text, {ids} ids, {size} bytes")


if __name__ == "__main__":
    main()
