"""Normal forms of the titles of one request: time by script, against lower-casing alone.

python -m benchmarks.text
"""

import random
import statistics
import time
import unicodedata
from collections.abc import Callable

import usr_tf  # noqa: F401  (before TensorFlow)

# isort: split
import tensorflow as tf

from usr_tf.tokens import text_form

TITLES, WORDS, RUNS = 500, 8, 200
ALPHABETS = {
    "Greek": "αβγδεζηθικλμνξοπρστυφχψωάέήίόύώ",
    "English": "abcdefghijklmnopqrstuvwxyz",
    "French": "abcdefghijklmnopqrstuvwxyz" * 2 + "éèêàçùô",
    "Vietnamese": "abcdefghijklmnopqrstuvwxyzạảấầẩẫậắằẳẵặẹẻẽếềểễệ",
    "Russian": "абвгдежзийклмнопрстуфхцчшщъыьэюя",
    "Hindi": "कखगघचछजझटठडढतथदधन",
    "Japanese": "あいうえおかがきぎ漢字東京",
    "Korean": "가각간한국어",
}


def titles(alphabet: str, draw: random.Random) -> list[str]:
    """Random titles of eight words in lower case."""
    word = lambda: "".join(draw.choices(alphabet, k=draw.randint(3, 9)))  # noqa: E731
    return [" ".join(word() for _ in range(WORDS)) for _ in range(TITLES)]


def microseconds(function: Callable[[tf.Tensor], tf.Tensor], strings: tf.Tensor) -> float:
    """Fastest tenth of a call's time, since other work may share the machine."""
    times = []
    for _ in range(RUNS + 20):
        start = time.perf_counter()
        function(strings)
        times.append(time.perf_counter() - start)
    return 1e6 * statistics.quantiles(times[20:], n=10)[0]


def main() -> None:
    draw = random.Random(0)
    spec = [tf.TensorSpec([None], tf.string)]
    forms = {
        form: tf.function(lambda texts, form=form: text_form(texts, form), spec) for form in ("none", "nfc", "nfkc")
    }
    print("| titles | `none`, before | `nfc` | `nfkc` |\n| --- | --- | --- | --- |")
    for name, alphabet in ALPHABETS.items():
        plain = titles(alphabet, draw)
        spellings = {"": plain, ", words with a capital": [title.title() for title in plain]}
        spellings[", decomposed"] = [unicodedata.normalize("NFD", title) for title in plain]
        for spelling, strings in spellings.items():
            if spelling and strings == plain:
                continue
            batch = tf.constant(strings)
            print(f"| {name}{spelling} | {' | '.join(f'{microseconds(each, batch):.0f}' for each in forms.values())} |")


if __name__ == "__main__":
    main()
