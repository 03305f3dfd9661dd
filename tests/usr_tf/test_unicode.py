"""Normal forms against `unicodedata` and `str.lower`: all that changes, random strings of many scripts, bytes."""

import unicodedata

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from usr_tf.schema import parse_schema
from usr_tf.tokens import counter_keys
from usr_tf.unicode.normalization import normalize, normalize_text
from usr_tf.unicode.strings import counter_key_string, normalize_string, normalize_text_string
from usr_tf.unicode.tables import BLANKS, INVISIBLE, tables

FORMS = ("nfc", "nfkc")
KEY_SCHEMAS = [
    parse_schema(f"""
scenarios: [search]
tasks: [{{name: ctr, action: click}}]
features:
  item_id: {{group: item, type: categorical}}
  brand: {{group: item, type: categorical, normalize: {form}}}
  query: {{group: query, type: text, normalize: {form}}}
""")
    for form in (*FORMS, "none")
]
SCRIPTS = {
    "latin": "aeiouAEIOUÀÉÎöüçÇñşİıßẞǰŒﬁÅ\u0300\u0301\u0302\u0307\u0308\u030a\u0327\u0331",
    "vietnamese": "aăâeêoôơuưyđĐẠấỆỹ\u0300\u0301\u0302\u0303\u0306\u0309\u031b\u0323",
    "greek": "αωιηυρΑΩΣσςᾂᾼΐ\u0300\u0301\u0308\u0313\u0314\u0342\u0345",
    "hangul": "\u1100\u1112\u1161\u1175\u11a7\u11a8\u11c2가각힣한\uffa1\uffc2",
    "devanagari": "कखगडढनयरळक़\u093c\u094d\u0901\u0951",
    "bengali": "\u09c7\u09be\u09d7ড়ক\u09bc",
    "hebrew": "אבשוּשׁ\u05b0\u05b4\u05bc\u05c1\u05c2\u05bf",
    "arabic": "اويآأ\u0653\u0654\u0655\u064e\u0651",
    "japanese": "かがハパ\u3099\u309aｶﾞﾊﾟ㌔㈱漢",
    "width": "ＡＢａｂ０１！ ①²½ℌ𝐀𝛴",
    "blanks": "".join(map(chr, (*BLANKS, *INVISIBLE, 0x200C, 0x200D, 0))),
    "supplementary": "𑂚𝅗𝅥\U0001d157\U0001d165丽😀\U0001e922",
}
STRINGS = st.lists(
    st.one_of(*(st.text(letters, max_size=6) for letters in SCRIPTS.values()), st.text(max_size=4)), max_size=4
).map("".join)


def expected_text(string: str, form: str) -> str:
    kept = "".join(" " if ord(letter) in BLANKS else letter for letter in string if ord(letter) not in INVISIBLE)
    kept = unicodedata.normalize("NFKC", kept) if form == "nfkc" else kept
    return unicodedata.normalize("NFC", kept.lower())


def check(strings: list[str]) -> None:
    """Holds both functions, on one batch, to Python's."""
    batch = tf.constant([string.encode() for string in strings])
    for form in FORMS:
        found = [string.decode() for string in normalize(batch, form).numpy()]
        assert found == [unicodedata.normalize(form.upper(), string) for string in strings]
        found = [string.decode() for string in normalize_text(batch, form).numpy()]
        assert found == [expected_text(string, form) for string in strings]


def test_every_code_point_that_changes_or_changes_others():
    letters = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) not in ("Cn", "Co", "Cs")]
    changed = [each for each in letters if unicodedata.decomposition(each) or unicodedata.combining(each)]
    changed += [each for each in letters if each.lower() != each or unicodedata.category(each) in ("Cf", "Lm", "Sk")]
    changed += map(chr, (*range(0x200), *range(0x1100, 0x1200), *range(0x2000, 0x2070), *range(0xAC00, 0xAC40)))
    check(changed)
    check([f"a\u0323{letter}\u0301Σ" for letter in changed])


@given(st.lists(STRINGS, min_size=1, max_size=9))
def test_random_strings(strings):
    check(strings)
    check([unicodedata.normalize("NFD", string) for string in strings])


def test_all_decompositions_with_marks_of_every_class():
    draw = np.random.default_rng(0)
    marks = [chr(code) for code in range(0x20000) if unicodedata.combining(chr(code))]
    decomposed = [unicodedata.normalize("NFD", chr(code)) for code in range(0x30000)]
    decomposed = [parts for parts in decomposed if len(parts) > 1]
    check([parts + "".join(draw.choice(marks, draw.integers(5))) + "Σ" for parts in decomposed for _ in range(2)])


@pytest.mark.parametrize("mark", ["\u0301", "\u0323", "\u1161"])
def test_a_thousand_marks_take_no_longer_than_their_number(mark):
    check([f"a{1_000 * mark}\u0302", f"\u1100{1_000 * mark}"])


def test_broken_utf8_is_replaced_and_the_rest_of_the_string_is_normalized():
    broken = [b"caf\xff e\xcc\x81", b"\xe3\x80", b"\xed\xa0\x80", b"", b"plain"]
    for function in (normalize, normalize_text):
        first, *others, empty, plain = function(tf.constant(broken), "nfc").numpy()
        assert first.decode() == "caf\ufffd é"
        assert all(set(other.decode()) == {"\ufffd"} for other in others)
        assert (empty, plain) == (b"", b"plain")


@pytest.mark.parametrize("form", FORMS)
def test_a_string_has_one_form_whatever_stands_beside_it(form):
    strings = tf.constant([b"Plain Text", "Cafe\u0301".encode(), b"a\xffb", "Éa".encode(), "がΣ".encode()])
    for function in (normalize, normalize_text):
        together = function(strings, form).numpy().tolist()
        assert together == [function(strings[place : place + 1], form).numpy()[0] for place in range(5)]
        assert function(tf.constant(together), form).numpy().tolist() == together
        assert function(strings[:0], form).shape == [0]


def test_composed_and_plain_texts_are_not_rewritten():
    unchanged = tables("nfc", text=True).unchanged
    texts = ["Red Shoes", "écran plat ạấệ", "красные", "हिन्दी", "日本語がカ", "한국어", "ภาษาไทย", "שלום", "😀"]
    assert tf.strings.regex_full_match(texts, unchanged).numpy().all()
    changed = ["e\u0301", "É", "a\u00a0b", "a\u200bb", "\u1100\u1161", "क\u093c", "a\u0323\u0301"]
    assert not tf.strings.regex_full_match(changed, unchanged).numpy().any()


def test_a_saved_graph_gives_the_same(tmp_path):
    module = tf.Module()
    module.text = tf.function(lambda strings: normalize_text(strings, "nfkc"), [tf.TensorSpec([None], tf.string)])
    tf.saved_model.save(module, str(tmp_path))
    strings = tf.constant(["CAFE\u0301", "Ｔｅａ\u3000ﾊﾟﾝ", "ΟΔΟΣ \u1112\u1161\u11ab", "İ"])
    found = tf.saved_model.load(str(tmp_path)).text(strings).numpy().tolist()
    assert [text.decode() for text in found] == ["café", "tea パン", "οδος 한", "i̇"]
    assert found == module.text(strings).numpy().tolist() == normalize_text(strings, "nfkc").numpy().tolist()


@given(STRINGS)
def test_python_strings_have_the_form_that_the_graph_gives(string):
    for form in FORMS:
        assert normalize_text_string(string, form) == expected_text(string, form)
        assert normalize_string(string, form) == unicodedata.normalize(form.upper(), string)
    batch = tf.constant([string.encode()])
    for schema in KEY_SCHEMAS:
        for name in ("query", "item_id", "brand"):
            [in_graph] = counter_keys(batch, name, schema).numpy()
            if schema.normal_form("query") != "none" or name != "query":  # by `none`, TensorFlow's own lower case
                assert counter_key_string(string, name, schema) == in_graph.decode()
