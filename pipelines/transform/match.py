"""Match signals: similarities of a request's feature and a candidate's, as TensorFlow ops.

Every function broadcasts: it takes B rows of both sides in the pipeline, and in serving one row of the request and N
of the candidates. The request's side is tokenized once.
"""

import functools
from collections.abc import Callable, Hashable, Iterable
from typing import NamedTuple, TypeVar

import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_transform import tf_utils

from pipelines.transform.history_match import recency
from usr_tf.feature_types import NormalForm
from usr_tf.schema import PAST_QUERIES, PAST_QUERIES_AGE, Feature, Match, MatchKind, Schema
from usr_tf.tokens import Values, fingerprint, text_form

Name = TypeVar("Name", bound=Hashable)
Key = TypeVar("Key", bound=Hashable)

WORDS = 32
"""Words of a value that are compared."""
CHARACTERS = 96
"""Characters of a value whose trigrams are compared."""
_BLANK = ord(" ")
_FORMS: tuple[NormalForm, ...] = ("none", "nfc", "nfkc")
"""Normal forms, each wider than the one before: it makes all equal that the other one does."""
_K1, _B = 1.2, 0.75
"""BM25's parameters, those of Lucene."""


class Documents(NamedTuple):
    """Statistics of a candidate feature's words in the training split."""

    count: tf.Tensor
    """Rows, float32 scalar."""
    length: tf.Tensor
    """Mean number of words, float32 scalar."""
    frequencies: tf.Tensor
    """File of the rows that hold each word."""


class Texts:
    """Tokens of the values of features with one tokenizer: every distinct value of the batch is tokenized once.

    Args:
      values: texts of each feature in one normal form, as many rows of each.
      feature: one of them, for the tokenizer.
    """

    def __init__(self, values: dict[str, tf.Tensor], feature: Feature):
        self._texts, places = tf.unique(tf.concat([*values.values()], axis=0))
        self.rows = dict(zip(values, tf.split(places, len(values)), strict=True))
        """`[B]` of each feature: the rows of its values, among `size` of the properties below."""
        self.size = tf.size(self._texts)
        self._feature = feature

    @functools.cached_property
    def words(self) -> tf.RaggedTensor:
        return words(self._texts, self._feature)

    @functools.cached_property
    def fingerprints(self) -> tf.Tensor:
        """Fingerprints of the words."""
        return fingerprints(self.words)

    @functools.cached_property
    def distinct(self) -> tf.Tensor:
        """The fingerprints, each once."""
        return distinct(self.fingerprints)

    @functools.cached_property
    def trigrams(self) -> tf.Tensor:
        return trigrams(self._texts, self._feature)

    @functools.cached_property
    def trigram_vocabulary(self) -> tf.Tensor:
        around_a_letter = self.trigrams // 2**21 % 2**21 > _BLANK
        return vocabulary(tf.where(around_a_letter, self.trigrams, tf.zeros_like(self.trigrams)))

    def frequencies(self, documents: Documents) -> tf.Tensor:
        """float32 `[size, n]`: in how many rows of training each word stands, in the places of `distinct`."""
        found = tft.apply_vocabulary(self.words.flat_values, documents.frequencies, lookup_fn=_frequency)
        return tf.minimum(tf.cast(_padded(self.words.with_flat_values(found), WORDS), tf.float32), documents.count)


class Pairs:
    """Similarities of one side's texts and the other's, each distinct pair of a batch computed once.

    Args:
      matches: The features of each match, by its name.
    """

    def __init__(self, matches: dict[str, tuple[str, str]], request: Texts, candidate: Texts):
        size = tf.cast(candidate.size, tf.int64)
        numbers = [
            tf.cast(request.rows[first], tf.int64) * size + tf.cast(candidate.rows[second], tf.int64)
            for first, second in matches.values()
        ]
        pairs, places = tf.unique(tf.concat(numbers, axis=0))
        self._rows = dict(zip(matches, tf.split(places, len(numbers)), strict=True))
        self._matches, self._request, self._candidate = matches, request, candidate
        self._of_request, self._of_candidate = pairs // size, pairs % size

    @functools.cached_property
    def _words(self) -> tf.Tensor:
        return tf.gather(self._request.distinct, self._of_request)

    @functools.cached_property
    def _times(self) -> tf.Tensor:
        """Occurrences of each distinct word of the first text in the second."""
        return occurrences(self._words, tf.gather(self._candidate.fingerprints, self._of_candidate))

    @functools.cached_property
    def _found(self) -> tf.Tensor:
        """Distinct words of the first text that stand in the second."""
        return tf.reduce_sum(tf.minimum(self._times, 1.0), axis=1)

    @functools.cached_property
    def _overlap(self) -> tf.Tensor:
        return tf.math.log1p(self._found)

    @functools.cached_property
    def _coverage(self) -> tf.Tensor:
        return tf.math.divide_no_nan(self._found, _count(self._words))

    @functools.cached_property
    def _ngram(self) -> tf.Tensor:
        grams = tf.gather(self._request.trigram_vocabulary, self._of_request)
        found = presence(grams, tf.gather(self._candidate.trigrams, self._of_candidate))
        return tf.math.divide_no_nan(tf.reduce_sum(found, axis=1), _count(grams))

    def similarity(self, name: str, kind: MatchKind) -> tf.Tensor:
        """`[B]` of a match."""
        if kind == "bm25":
            return self._bm25(name)
        figures = {"overlap": lambda: self._overlap, "coverage": lambda: self._coverage, "ngram": lambda: self._ngram}
        return tf.gather(figures[kind](), self._rows[name])

    def _bm25(self, name: str) -> tf.Tensor:
        first, second = self._matches[name]
        request, candidate = self._request, self._candidate
        rows = tf.gather(candidate.words, candidate.rows[second])
        documents = _documents(f"match_{name}_words", rows[:, :WORDS])
        frequencies = tf.gather(request.frequencies(documents), request.rows[first])
        lengths = tf.gather(_count(candidate.fingerprints), candidate.rows[second])
        return bm25(tf.gather(self._times, self._rows[name]), lengths, frequencies, documents)


def match_signals(inputs: dict[str, Values], schema: Schema) -> dict[str, tf.Tensor]:
    """`[B]` of each `match_<name>_<kind>` of the schema. To be called while TensorFlow Transform traces.

    Args:
      inputs: raw columns, strings in their features' normal forms.
    """
    kinds = {name: schema.match_kinds(match) for name, match in schema.match.items()}
    forms = {name: _form_of(match, schema) for name, match in schema.match.items() if kinds[name] != ("cosine",)}
    # By match and side: where its texts are among those of all matches.
    keys = {
        (name, side): (side, _tokenizer(schema.features[feature]), form)
        for name, form in forms.items()
        for side, feature in enumerate(schema.match[name].features)
        if feature != PAST_QUERIES
    }
    texts = {}
    for key, group in _grouped(keys, keys.__getitem__).items():
        names = dict.fromkeys(schema.match[name].features[side] for name, side in group)
        values = _texts_of({name: inputs[name] for name in names}, forms[group[0][0]], schema)
        texts[key] = Texts(values, schema.features[next(iter(names))])
    pairs = {}
    of_texts = [name for name in forms if (name, 0) in keys]
    for sides, group in _grouped(of_texts, lambda name: (keys[name, 0], keys[name, 1])).items():
        matches = {name: schema.match[name].features for name in group}
        pairs |= dict.fromkeys(group, Pairs(matches, *(texts[side] for side in sides)))

    signals = {}
    for name, match in schema.match.items():
        first, second = match.features
        found: dict[MatchKind, tf.Tensor]
        if name in pairs:
            found = {kind: pairs[name].similarity(name, kind) for kind in kinds[name]}
        elif first == PAST_QUERIES:
            candidate, queries = texts[keys[name, 1]], inputs[first]
            if form := _missing_form("query", forms[name], schema):
                queries = queries.with_values(text_form(queries.values, form))
            document = tf.gather(candidate.fingerprints, candidate.rows[second])
            found = past_queries(queries, inputs[PAST_QUERIES_AGE], schema.features["query"], document)
        else:
            found = {"cosine": cosine(inputs[first], inputs[second])}
        signals |= {f"match_{name}_{kind}": found[kind] for kind in kinds[name]}
    return signals


def _form_of(match: Match, schema: Schema) -> NormalForm:
    """The wider normal form of a match's features, by which the words of both are compared."""
    names = ("query" if name == PAST_QUERIES else name for name in match.features)
    return max((schema.normal_form(name) for name in names), key=_FORMS.index)


def _missing_form(name: str, form: NormalForm, schema: Schema) -> NormalForm | None:
    """The form that the values of a feature have to be brought to for a match; None for texts that have it."""
    has_it = schema.features[name].kind.text and schema.normal_form(name) == form
    return None if has_it else form


def _texts_of(inputs: dict[str, Values], form: NormalForm, schema: Schema) -> dict[str, tf.Tensor]:
    """Texts `[B]` of features in a normal form, into which every distinct one is brought once; a list is one text."""
    texts = {
        name: _joined(values) if isinstance(values, tf.SparseTensor) else values for name, values in inputs.items()
    }
    others = [name for name in texts if _missing_form(name, form, schema)]
    if others:
        distinct_texts, places = tf.unique(tf.concat([texts[name] for name in others], axis=0))
        formed = tf.gather(text_form(distinct_texts, form), places)
        texts |= zip(others, tf.split(formed, len(others)), strict=True)
    return texts


def past_queries(
    queries: tf.SparseTensor, ages: tf.SparseTensor, query: Feature, document: tf.Tensor
) -> dict[MatchKind, tf.Tensor]:
    """How the user's earlier queries match a candidate, `[B]` each.

    | figure | value |
    | --- | --- |
    | `latest` | share of the newest query's words that stand in the candidate |
    | `best` | the largest such share of all earlier queries |
    | `recency` | recency (`history_match`) of the newest query, times that share; the largest such product |

    Args:
      queries: texts `[R, Q]` in their normal form, newest last.
      ages: ms, `[R, Q]`.
      document: fingerprints of the candidate's words `[B, m]`.
    """
    split = words(queries.values, query)
    lengths = tf.RaggedTensor.from_sparse(queries).row_lengths()
    tokens = tf.RaggedTensor.from_row_lengths(distinct(fingerprints(split)), lengths).to_tensor(0)  # [R, Q, n]
    requests, count, width = tf.unstack(tf.shape(tokens))
    known = vocabulary(tf.pad(tf.reshape(tokens, [requests, count * width]), [[0, 0], [0, 1]]))  # [R, k]
    words_of_query = tf.reduce_any(tf.equal(known[:, :, tf.newaxis, tf.newaxis], tokens[:, tf.newaxis]), axis=3)
    words_of_query = tf.cast(words_of_query, tf.float32)  # [R, k, Q]
    found = presence(known, document)
    shares = tf.cond(
        tf.equal(requests, 1),
        lambda: tf.matmul(found, words_of_query[0]),
        lambda: tf.squeeze(tf.matmul(found[:, tf.newaxis], words_of_query), axis=1),
    )  # [B, Q]
    shares = tf.math.divide_no_nan(shares, tf.reduce_sum(tf.cast(tokens > 0, tf.float32), axis=2))
    recencies = tf.sparse.to_dense(tf.sparse.map_values(recency, ages))
    newest = tf.one_hot(tf.cast(lengths, tf.int32) - 1, count)
    return {
        "latest": tf.reduce_sum(shares * newest, axis=1),
        "best": tf.maximum(tf.reduce_max(shares, axis=1), 0.0),  # the largest of none is the least number
        "recency": tf.maximum(tf.reduce_max(shares * recencies, axis=1), 0.0),
    }


def words(texts: tf.Tensor, feature: Feature) -> tf.RaggedTensor:
    """Words of texts `[B]` in their normal form, `[B, (n)]`; characters of a feature whose tokenizer is `character`."""
    if feature.tokenizer == "character":
        split = tf.strings.unicode_split(texts, "UTF-8", errors="replace")
        return tf.ragged.boolean_mask(split, tf.not_equal(split, " "))
    return tf.strings.split(texts)


def trigrams(texts: tf.Tensor, feature: Feature) -> tf.Tensor:
    """int64 `[B, n]` trigrams around each character of texts, those around blanks and padding included.

    A trigram is its three code points, of 21 bits each, all blanks being the same. A word of one character, as those of
    a feature whose tokenizer is `character`, has blanks at both sides.
    """
    codes = _padded(tf.strings.unicode_decode(texts, "UTF-8", errors="replace"), CHARACTERS + 1)
    codes = tf.cast(tf.maximum(codes, _BLANK), tf.int64)
    codes = tf.pad(codes, [[0, 0], [1, 2]], constant_values=_BLANK)
    before, letter, after = codes[:, :-2], codes[:, 1:-1], codes[:, 2:]
    if feature.tokenizer == "character":
        before = after = tf.constant(_BLANK, tf.int64)
    return (before * 2**21 + letter) * 2**21 + after


def vocabulary(tokens: tf.Tensor) -> tf.Tensor:
    """The tokens `[B, n]`, sorted and each once, numbers below 0 in place of padding and of further occurrences."""
    tokens = tf.sort(tokens, axis=1)
    is_first = tf.concat([tokens[:, :1] > 0, tokens[:, 1:] > tokens[:, :-1]], axis=1)
    return tf.sort(tf.where(is_first, tokens, -2 * tf.range(1, tf.shape(tokens, tf.int64)[1] + 1)), axis=1)


def presence(known: tf.Tensor, tokens: tf.Tensor) -> tf.Tensor:
    """float32 `[B, n]`: 1 for each entry of a `vocabulary` that is among a row's tokens.

    Args:
      known: int64 `[R, n]`. R is B, or 1 for all rows.
      tokens: int64 `[B, m]`, none of them below 0.
    """
    requests, size = tf.unstack(tf.shape(known))
    # Each entry v as [v, v + 1]: of these numbers, an odd count is not above a token if and only if it is an entry.
    bounds = tf.reshape(tf.stack([known, known + 1], axis=2), [requests, 2 * size])
    places = tf.searchsorted(bounds, tf.reshape(tokens, [requests, -1]), side="right")
    counts = tf.raw_ops.DenseBincount(
        input=tf.reshape(places, tf.shape(tokens)), size=2 * size + 1, weights=tf.zeros([0]), binary_output=True
    )
    return counts[:, 1::2]


def fingerprints(strings: tf.RaggedTensor) -> tf.Tensor:
    """int64 `[B, n]` fingerprints of strings; 0 pads."""
    return _padded(strings.with_flat_values(fingerprint(strings.flat_values)), WORDS)


def distinct(tokens: tf.Tensor) -> tf.Tensor:
    """The tokens `[B, n]`, 0 in place of each one's second and further occurrences."""
    same = tf.equal(tokens[:, :, tf.newaxis], tokens[:, tf.newaxis, :])
    before = tf.linalg.band_part(tf.cast(same, tf.float32), -1, 0)
    return tf.where(tf.reduce_sum(before, axis=2) > 1.0, tf.zeros_like(tokens), tokens)


def occurrences(query: tf.Tensor, document: tf.Tensor) -> tf.Tensor:
    """float32 `[B, n]`: how often each token of the query `[B, n]` stands in the document `[B, m]`; 0 for padding."""
    same = tf.equal(query[:, :, tf.newaxis], document[:, tf.newaxis, :]) & (query[:, :, tf.newaxis] > 0)
    return tf.reduce_sum(tf.cast(same, tf.float32), axis=2)


def cosine(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """Cosine of vectors `[B, w]`; 0 where one of them is all zeros or holds NaN or infinity."""
    first, second = _largest_is_one(finite(first)), _largest_is_one(finite(second))
    norms = tf.norm(first, axis=1) * tf.norm(second, axis=1)
    return tf.math.divide_no_nan(tf.reduce_sum(first * second, axis=1), norms)


def finite(vectors: tf.Tensor) -> tf.Tensor:
    """The vectors `[B, w]`, zeros in place of those with NaN or infinity."""
    whole = tf.reduce_all(tf.math.is_finite(vectors), axis=1, keepdims=True)
    return tf.where(whole, vectors, tf.zeros_like(vectors))


def _largest_is_one(vectors: tf.Tensor) -> tf.Tensor:
    """The vectors `[B, w]` with a largest component of 1 or -1, whose squares no float32 is too small for; or zeros."""
    return tf.math.divide_no_nan(vectors, tf.reduce_max(tf.abs(vectors), axis=1, keepdims=True))


def bm25(times: tf.Tensor, lengths: tf.Tensor, frequency: tf.Tensor, documents: Documents) -> tf.Tensor:
    """`log(1 + BM25)` `[B]` of a query's distinct words in a document (Robertson and Zaragoza, 2009).

    Args:
      times: occurrences of each word of the query, float32 `[B, n]`.
      lengths: words of the candidates, float32 `[B]`.
      frequency: rows of training that hold each word of the query, float32 `[B, n]`.
    """
    rarity = tf.math.log1p((documents.count - frequency + 0.5) / (frequency + 0.5))
    norm = _K1 * (1 - _B + _B * tf.math.divide_no_nan(lengths, documents.length))
    return tf.math.log1p(tf.reduce_sum(rarity * (_K1 + 1) * times / (times + norm[:, tf.newaxis]), axis=1))


def _documents(name: str, candidate: tf.RaggedTensor) -> Documents:
    lengths = tf.cast(candidate.row_lengths(), tf.float32)
    vocabulary = tft.vocabulary(candidate.to_sparse(), store_frequency=True, vocab_filename=name, name=name)
    return Documents(tft.sum(tf.ones_like(lengths)), tft.mean(lengths), vocabulary)


def _frequency(strings: tf.Tensor, file: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """How often each string stands in a vocabulary's file of `frequency word` lines, and the table's size."""

    def table(path: tf.Tensor) -> tf.lookup.StaticHashTable:
        initializer = tf.lookup.TextFileInitializer(path, tf.string, 1, tf.int64, 0, delimiter=" ")
        return tf.lookup.StaticHashTable(initializer, 0)

    return tf_utils.construct_and_lookup_table(table, file, strings)


def _count(tokens: tf.Tensor) -> tf.Tensor:
    """float32 `[B]`: tokens that are no padding."""
    return tf.reduce_sum(tf.cast(tokens > 0, tf.float32), axis=1)


def _padded(values: tf.RaggedTensor, width: int) -> tf.Tensor:
    """`[B, n]` first values of each row, at most `width`; 0 pads."""
    width = tf.minimum(values.bounding_shape(axis=1), width)
    return values.to_tensor(0, shape=tf.stack([tf.constant(-1, tf.int64), width]))


def _joined(values: tf.SparseTensor) -> tf.Tensor:
    return tf.strings.reduce_join(tf.RaggedTensor.from_sparse(values), axis=-1, separator=" ")


def _tokenizer(feature: Feature) -> str:
    return "character" if feature.tokenizer == "character" else "words"


def _grouped(names: Iterable[Name], key: Callable[[Name], Key]) -> dict[Key, list[Name]]:
    groups: dict[Key, list[Name]] = {}
    for name in names:
        groups.setdefault(key(name), []).append(name)
    return groups
