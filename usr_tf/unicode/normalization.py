"""Unicode normalization of strings as core TensorFlow ops: NFC and NFKC, of ids and of lower-cased texts.

The result depends on the bytes of a string alone: not on the batch, and not on the locale or the Unicode version of the
machine that runs the graph, since its tables are constants. Strings that a form leaves as they are, which a regular
expression tells, cost no more than that.
"""

import functools
from typing import NamedTuple

import tensorflow as tf

from usr_tf.unicode.tables import (
    FINAL_SIGMA,
    L_COUNT,
    L_FIRST,
    PAGE,
    S_COUNT,
    S_FIRST,
    SIGMA,
    T_BEFORE,
    T_COUNT,
    V_COUNT,
    V_FIRST,
    Form,
    Tables,
    tables,
)


def normalize(strings: tf.Tensor, form: Form) -> tf.Tensor:
    """The strings `[B]` in a normal form, as `unicodedata.normalize` has it. Bytes that are no UTF-8 become U+FFFD."""
    return _normalizer(form, text=False)(strings)


def normalize_text(strings: tf.Tensor, form: Form) -> tf.Tensor:
    """Texts `[B]` in a normal form and lower case, U+0020 for every blank, without invisible characters.

    As `unicodedata.normalize` and `str.lower` have it: NFC of the lower-cased text, or of its lower-cased NFKC.
    `usr_tf.unicode.tables` lists blanks and invisible characters.
    """
    return _normalizer(form, text=True)(strings)


@functools.cache
def _normalizer(form: Form, *, text: bool) -> tf.types.experimental.PolymorphicFunction:
    """Function of strings `[B]`, of which a graph that calls it often holds one copy."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def normalized(strings: tf.Tensor) -> tf.Tensor:
        if text:
            strings = tf.strings.lower(strings)  # ASCII letters; others by table
        changed = tf.logical_not(tf.strings.regex_full_match(strings, tables(form, text=text).unchanged))

        def update() -> tf.Tensor:
            places = tf.where(changed)
            distinct, of_place = tf.unique(tf.gather_nd(strings, places))
            rewritten = _lower_or_rewrite(distinct, form) if text else _rewrite(distinct, form, text)
            return tf.tensor_scatter_nd_update(strings, places, tf.gather(rewritten, of_place))

        return tf.cond(tf.reduce_any(changed), update, lambda: strings)

    return normalized


def _lower_or_rewrite(texts: tf.Tensor, form: Form) -> tf.Tensor:
    """Texts in the normal form: those that differ from it in capital letters alone by TensorFlow's lower-casing."""
    rest = tf.logical_not(tf.strings.regex_full_match(texts, tables(form, text=True).capitals))
    lowered = tf.strings.lower(texts, encoding="utf-8")

    def update() -> tf.Tensor:
        return tf.tensor_scatter_nd_update(
            lowered, tf.where(rest), _rewrite(tf.boolean_mask(texts, rest), form, text=True)
        )

    return tf.cond(tf.reduce_any(rest), update, lambda: lowered)


def _rewrite(strings: tf.Tensor, form: Form, text: bool) -> tf.Tensor:
    """Distinct strings of any kind in the normal form."""
    table = tables(form, text=text)
    decoded = tf.strings.unicode_decode(strings, "UTF-8", errors="replace")
    codes = Codes(decoded.flat_values, decoded.row_splits)
    codes = _decompose(codes, table)
    if text:
        codes = _lower(codes, table)
    codes = _compose(_reorder(codes, table), table)
    return tf.strings.unicode_encode(tf.RaggedTensor.from_row_splits(*codes, validate=False), "UTF-8")


class Codes(NamedTuple):
    """Code points of several strings, one after the other."""

    values: tf.Tensor
    """int32 `[n]`."""
    splits: tf.Tensor
    """int64 `[strings + 1]`: where each string starts, and `n`."""

    @property
    def first_of_row(self) -> tf.Tensor:
        """bool `[n]`: whether each is the first of its string."""
        total = tf.size(self.values, tf.int64)
        starts = tf.boolean_mask(self.splits, self.splits < total)[:, tf.newaxis]
        return tf.tensor_scatter_nd_update(tf.fill([total], False), starts, tf.fill([tf.size(starts)], True))


def _records(codes: tf.Tensor, table: Tables) -> tf.Tensor:
    """int32 `[n]`: the record of each code point."""
    return tf.gather(table.records, tf.gather(table.pages, codes // PAGE) + codes % PAGE)


def _decompose(codes: Codes, table: Tables) -> Codes:
    """Every code point's full decomposition in its place."""
    records = _records(codes.values, table)
    sizes = tf.gather(table.sizes, records)
    itself = len(table.decompositions) + tf.range(tf.size(records))
    starts = tf.where(sizes < 0, itself, tf.gather(table.starts, records))
    sizes = tf.where(sizes < 0, 1, sizes)
    places = tf.raw_ops.RaggedRange(starts=starts, limits=starts + sizes, deltas=1).rt_dense_values
    ends = tf.concat([[0], tf.cumsum(tf.cast(sizes, tf.int64))], axis=0)
    values = tf.gather(tf.concat([table.decompositions, codes.values], axis=0), places)
    return Codes(values, tf.gather(ends, codes.splits))


def _lower(codes: Codes, table: Tables) -> Codes:
    """Lower-case letters; a sigma that ends a word, as `str.lower` tells one, has a form of its own."""
    records = _records(codes.values, table)
    lowered = codes.values + tf.gather(table.lower, records)
    sigmas = tf.equal(codes.values, SIGMA)

    def with_final_sigmas() -> tf.Tensor:
        places = tf.where(sigmas)
        seen = tf.logical_not(tf.gather(table.case_ignorable, records))
        row_of = tf.cumsum(tf.cast(codes.first_of_row, tf.int32))
        letters = tf.concat([[False], tf.boolean_mask(tf.gather(table.cased, records), seen), [False]], axis=0)
        rows = tf.concat([[0], tf.boolean_mask(row_of, seen), [0]], axis=0)
        own = tf.gather_nd(tf.cumsum(tf.cast(seen, tf.int32)), places)  # places among the letters
        before, after = (
            tf.gather(letters, there) & tf.equal(tf.gather(rows, there), tf.gather(rows, own))
            for there in (own - 1, own + 1)
        )
        ends = tf.boolean_mask(places, before & tf.logical_not(after))
        return tf.tensor_scatter_nd_update(lowered, ends, tf.fill(tf.shape(ends)[:1], FINAL_SIGMA))

    return codes._replace(values=tf.cond(tf.reduce_any(sigmas), with_final_sigmas, lambda: lowered))


def _reorder(codes: Codes, table: Tables) -> Codes:
    """Canonical order: the marks of a letter by their combining class."""
    classes = tf.gather(table.classes, _records(codes.values, table))
    letters = tf.equal(classes, 0) | codes.first_of_row
    keys = tf.cumsum(tf.cast(letters, tf.int64)) * 256 + tf.cast(classes, tf.int64)
    in_order = tf.reduce_all(keys[1:] >= keys[:-1])
    values = tf.cond(in_order, lambda: codes.values, lambda: tf.gather(codes.values, tf.argsort(keys, stable=True)))
    return codes._replace(values=values)


class _Composing(NamedTuple):
    """State of composition, `[n]` each, without the code points that have become part of another."""

    codes: tf.Tensor
    splits: tf.Tensor
    """As those of `Codes`."""
    classes: tf.Tensor
    chunks: tf.Tensor
    """int32, rising. Nothing composes with a code point of another chunk: a chunk starts where nothing before it may
    compose with what follows."""
    waiting: tf.Tensor
    """bool: whether it may still compose with a code point before it."""


class _Pairs(NamedTuple):
    """Code points that compose, at most two of each chunk, `[p]` each."""

    first: tf.Tensor
    """int64: their places."""
    second: tf.Tensor
    composites: tf.Tensor
    """int32: what they compose to."""


def _compose(codes: Codes, table: Tables) -> Codes:
    """Canonical composition. A round composes the first pair of every chunk, of which few have more than three."""
    records = _records(codes.values, table)
    classes, composes = tf.gather(table.classes, records), tf.gather(table.composes, records)
    begins = codes.first_of_row | (tf.equal(classes, 0) & tf.logical_not(composes))
    chunks = tf.cumsum(tf.cast(begins, tf.int32)) - 1
    state = _Composing(codes.values, codes.splits, classes, chunks, composes)

    def compose_next(state: _Composing, pairs: _Pairs) -> tuple[_Composing, _Pairs]:
        state = _composed(state, pairs)
        return state, _next_pairs(state, table)

    state, _ = tf.while_loop(
        lambda _, pairs: tf.size(pairs.second) > 0,
        compose_next,
        (state, _next_pairs(state, table)),
        shape_invariants=tuple(each(*[tf.TensorShape([None])] * len(each._fields)) for each in (_Composing, _Pairs)),
    )
    return Codes(state.codes, state.splits)


def _next_pairs(state: _Composing, table: Tables) -> _Pairs:
    """The first pair of every chunk."""
    is_starter = tf.equal(state.classes, 0)
    starters = tf.where(is_starter)[:, 0]
    before = tf.cumsum(tf.cast(is_starter, tf.int32), exclusive=True) - 1
    second = tf.where(state.waiting & (before >= 0))[:, 0]
    first = tf.gather(starters, tf.gather(before, second))
    composites = _composite(tf.gather(state.codes, first), tf.gather(state.codes, second), table)
    # Blocked by what stands between: a starter, or a mark of the same class.
    adjacent = tf.equal(first, second - 1)
    free = adjacent | (tf.gather(state.classes, second - 1) < tf.gather(state.classes, second))
    chunks = tf.gather(state.chunks, second)
    found = (composites > 0) & free & tf.equal(tf.gather(state.chunks, first), chunks)
    first, second, composites, chunks = (tf.boolean_mask(each, found) for each in (first, second, composites, chunks))
    kept = tf.concat([tf.ones_like(chunks[:1], tf.bool), tf.not_equal(chunks[1:], chunks[:-1])], axis=0)
    return _Pairs(*(tf.boolean_mask(each, kept) for each in (first, second, composites)))


def _composed(state: _Composing, pairs: _Pairs) -> _Composing:
    """The state with the pairs' composites, whose chunks go on after them."""
    total = tf.size(state.codes, tf.int64)
    first, second = pairs.first[:, tf.newaxis], pairs.second[:, tf.newaxis]
    chunks = tf.gather(state.chunks, second)
    until = tf.tensor_scatter_nd_update(tf.fill([total], tf.constant(-1, tf.int64)), chunks, pairs.second)
    alive = tf.tensor_scatter_nd_update(tf.fill([total], True), second, tf.zeros_like(pairs.second, tf.bool))
    waiting = state.waiting & (tf.range(total) > tf.gather(until, state.chunks))
    codes = tf.tensor_scatter_nd_update(state.codes, first, pairs.composites)
    ends = tf.concat([[0], tf.cumsum(tf.cast(alive, tf.int64))], axis=0)
    values = (tf.boolean_mask(each, alive) for each in (codes, state.classes, state.chunks, waiting))
    codes, classes, chunks, waiting = values
    return _Composing(codes, tf.gather(ends, state.splits), classes, chunks, waiting)


def _composite(first: tf.Tensor, second: tf.Tensor, table: Tables) -> tf.Tensor:
    """int32 `[n]`: what each pair composes to, 0 where it does not."""
    keys = tf.cast(first, tf.int64) * 2**21 + tf.cast(second, tf.int64)
    places = tf.minimum(tf.searchsorted(table.pairs, keys), len(table.pairs) - 1)
    composites = tf.where(tf.equal(tf.gather(table.pairs, places), keys), tf.gather(table.composites, places), 0)
    leading, vowel, trailing = first - L_FIRST, second - V_FIRST, second - T_BEFORE
    syllable = first - S_FIRST
    is_open = (syllable >= 0) & (syllable < S_COUNT) & tf.equal(syllable % T_COUNT, 0)
    with_vowel = (leading >= 0) & (leading < L_COUNT) & (vowel >= 0) & (vowel < V_COUNT)
    with_trailing = is_open & (trailing > 0) & (trailing < T_COUNT)
    composites = tf.where(with_vowel, S_FIRST + (leading * V_COUNT + vowel) * T_COUNT, composites)
    return tf.where(with_trailing, first + trailing, composites)
