#!/usr/bin/env python3
"""Write runtime-min/src/tokenizer/tables.rs: what the tokenizer knows about Unicode.

The tables have to agree with the Hugging Face `tokenizers` package, whose parts follow different Unicode versions (the
regex engine a recent one, the normalizer an old one). So nothing is taken from a Unicode data file: every code point is
put through the package, and the tables record what it did. Needs `pip install tokenizers==0.23.3`.

    unicode_tables.py > runtime-min/src/tokenizer/tables.rs
"""

import sys
import unicodedata

from tokenizers import Regex, __version__, normalizers, pre_tokenizers

CHARS = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
OTHER, LETTER, NUMBER, SPACE = range(4)
STIRRING = 255


def classes():
    """Class of every code point, by how small patterns split it."""
    found = {}
    for name, value in ((r"\p{L}", LETTER), (r"\p{N}", NUMBER), (r"\s", SPACE)):
        split = pre_tokenizers.Split(Regex(name), "removed")
        for c in CHARS:
            if not split.pre_tokenize_str(c):
                assert c not in found, hex(ord(c))
                found[c] = value
    return found


def runs(values, default):
    """Starts of runs of equal values over all code points: [(first, value)]; surrogates join the run before them."""
    out = [(0, default)]
    for c in CHARS:
        value = values.get(c, default)
        if value != out[-1][1]:
            out.append((ord(c), value))
    return out


def combining_classes(nfd):
    """Canonical combining classes, read off the order that the normalizer gives to pairs of marks."""
    def swaps(a, b):
        return a != b and nfd(a + b) == b + a

    # One mark per class. The old database comes first: its marks are known to normalizers of every version.
    marks = {}
    for source in (unicodedata.ucd_3_2_0, unicodedata):
        for c in CHARS:
            if source.combining(c) and nfd(c) == c:
                marks.setdefault(source.combining(c), c)
    low, high = marks[min(marks)], marks[max(marks)]
    marks = {k: m for k, m in marks.items() if m in (low, high) or (swaps(m, low) and swaps(high, m))}
    order = sorted(marks)
    assert all(swaps(marks[b], marks[a]) for i, a in enumerate(order) for b in order[i + 1:])

    found = {m: k for k, m in marks.items()}
    for c in CHARS:
        if c in found or nfd(c) != c or not (swaps(c, low) or swaps(high, c)):
            continue
        equal = [k for k, m in marks.items() if not swaps(c, m) and not swaps(m, c)]
        assert len(equal) == 1, (hex(ord(c)), equal)
        found[c] = equal[0]
    return found


def decompositions(nfd, nfc):
    """Singletons [(c, to)] and pairs [(c, first, second, composes)], one step at a time, Hangul syllables excepted."""
    full = {c: nfd(c) for c in CHARS if nfd(c) != c and not "\uac00" <= c <= "\ud7a3"}
    whole = {}
    for c, parts in full.items():
        if len(parts) > 1 and (parts not in whole or nfc(parts) == c):
            whole[parts] = c
    singles, pairs = [], []
    for c, parts in full.items():
        if len(parts) == 1:
            singles.append((c, parts))
        elif whole[parts] != c:
            singles.append((c, whole[parts]))
        else:
            first = parts[:-1] if len(parts) == 2 else whole[parts[:-1]]
            pairs.append((c, first, parts[-1], nfc(parts) == c))
    return singles, pairs


def print_list(name, kind, doc, items):
    print()
    for line in doc:
        print(f"/// {line}")
    print("#[rustfmt::skip]")
    print(f"pub(super) static {name}: [{kind}; {len(items)}] = [")
    line = "   "
    for item in items:
        if len(line) + len(item) + 2 > 118:
            print(line)
            line = "   "
        line += f" {item},"
    print(line)
    print("];")


def main():
    nfd, nfc = normalizers.NFD().normalize_str, normalizers.NFC().normalize_str
    singles, pairs = decompositions(nfd, nfc)
    single_runs = []
    for c, to in singles:
        if not single_runs or single_runs[-1][0] + single_runs[-1][2] != ord(c):
            single_runs.append([ord(c), sum(r[2] for r in single_runs), 0])
        single_runs[-1][2] += 1
    # Starters that are no bystanders: they change alone, or they compose with what stands before them.
    marks = combining_classes(nfd)
    seconds = {p[2] for p in pairs if p[3]} | {chr(c) for c in (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))}
    marks.update((c, STIRRING) for c in CHARS if c not in marks and (nfc(c) != c or c in seconds))
    composing = [i for i, p in enumerate(pairs) if p[3]]
    composing.sort(key=lambda i: pairs[i][1:3])
    assert len({pairs[i][1:3] for i in composing}) == len(composing)

    print("//! What the tokenizer knows about Unicode. Written by `xtask/oracle/unicode_tables.py`; do not edit.")
    print("//!")
    print(f"//! Recorded from the behavior of `tokenizers` {__version__} on every code point, so that both always agree. Its regex")
    print("//! engine and its normalizer follow different versions of Unicode; no single data file has these values.")
    print("//! One file however long: it is data, recorded and written whole by one run, and nobody reads or edits a part of it.")
    print_list("CLASSES", "u32", [
        "Runs of code points of one class, ascending: `first << 2 | class`, where class is 0 other, 1 letter (`\\p{L}`),",
        "2 number (`\\p{N}`), 3 space (`\\s`).",
    ], [hex(c << 2 | v) for c, v in runs(classes(), OTHER)])
    print_list("COMBINING", "u32", [
        "Runs of code points of one canonical combining class, ascending: `first << 8 | class`. Two values stand for class",
        "zero: 0 where NFC leaves the code point alone whatever stands before it, 255 where it may not.",
    ], [hex(c << 8 | v) for c, v in runs(marks, 0)])
    print_list("SINGLES", "(u32, u16, u16)", [
        "Runs of code points that each stand for one other: (first, index in `SINGLE_TARGETS`, count).",
    ], ["(%s, %d, %d)" % (hex(c), at, n) for c, at, n in single_runs])
    print_list("SINGLE_TARGETS", "u32", [
        "What the code points of `SINGLES` stand for.",
    ], [hex(ord(to)) for _, to in singles])
    print_list("PAIRS", "(u32, u32, u32)", [
        "Canonical decompositions in two, ascending: (whole, first, second). The first may decompose further.",
    ], ["(%s, %s, %s)" % tuple(hex(ord(c)) for c in p[:3]) for p in pairs])
    print_list("COMPOSING", "u16", [
        "Indices of the `PAIRS` that compose again, ordered by (first, second).",
    ], [str(i) for i in composing])
    print(f"{len(singles)} singles, {len(pairs)} pairs, {len(composing)} composing", file=sys.stderr)


if __name__ == "__main__":
    main()
