"""Lossless casts of Arrow columns to the types of log columns.

A cast of a whole column gives what `rows.convert_row_by_row` gives of its values, or fails.
"""

import dataclasses

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from pipelines.logs.columns import FLOAT, INTEGER, NUMBERS, STRING, STRINGS, Column
from usr_tf.errors import InputError
from usr_tf.log_rows import EXACT, MISSING_TEXT, NUMBER_TEXT
from usr_tf.log_timestamps import ISO_8601, PER_SECOND


def check_type(place: str, found: pa.DataType, column: Column) -> None:
    """Refuses a column whose type can hold no value of ours.

    Raises:
      InputError: it is of such a type.
    """
    if not _castable(_plain_type(found), column):
        raise InputError(place, f"the type {found}", column.description)


def to_plain(values: pa.Array, column: Column) -> tuple[pa.Array, Column]:
    """The same values in plain types, and the column with the unit that its moments have now.

    Dictionaries are decoded; the structs around repeated fields, as `bq extract` and older Parquet writers have them,
    are taken off; moments are milliseconds.
    """
    plain = _plain_type(values.type)
    if column.moment and (kinds.is_timestamp(plain) or (kinds.is_date(plain) and column.dates)):
        return _to_milliseconds(values), dataclasses.replace(column, unit="ms")
    return plain_values(values), column


def cast_column(values: pa.Array, column: Column) -> pa.Array:
    """Values of plain types (`to_plain`) as the column's type.

    Raises:
      pyarrow.ArrowInvalid: a value does not fit or would change, so that each row is to be looked at.
    """
    if column.type in (STRINGS, NUMBERS):
        return _cast_lists(values, column)
    if values.type == column.type and not (column.moment and column.unit != "ms"):
        return values
    if kinds.is_null(values.type):
        return values.cast(column.type)
    if column.type == STRING:
        return _to_strings(values)
    return _to_floats(values) if column.type == FLOAT else _to_integers(values, column)


def _castable(found: pa.DataType, column: Column) -> bool:
    if kinds.is_null(found):
        return True
    is_text = kinds.is_string(found) or kinds.is_binary(found)
    if column.type in (STRINGS, NUMBERS):
        element = _element(column)
        return is_text or (kinds.is_list(found) and _castable(_plain_type(found.value_type), element))
    if column.moment and (kinds.is_timestamp(found) or (kinds.is_date(found) and column.dates)):
        return True
    is_number = kinds.is_integer(found) or kinds.is_floating(found) or kinds.is_decimal(found)
    if column.type == INTEGER:
        return is_text or is_number
    return is_text or is_number or kinds.is_boolean(found) or (column.type == STRING and kinds.is_date(found))


def _plain_type(found: pa.DataType) -> pa.DataType:
    if kinds.is_dictionary(found) or kinds.is_run_end_encoded(found):
        return _plain_type(found.value_type)
    if kinds.is_large_string(found) or kinds.is_string_view(found):
        return STRING
    if kinds.is_large_binary(found) or kinds.is_fixed_size_binary(found) or kinds.is_binary_view(found):
        return pa.binary()
    if _is_list(found):
        return pa.list_(_plain_type(_peel(found.value_type)))
    if kinds.is_struct(found) and found.num_fields == 1 and _is_list(found.field(0).type):
        return _plain_type(found.field(0).type)
    return found


def _element(column: Column) -> Column:
    """A column of the elements of a column of lists."""
    return Column("string" if column.kind == "strings" else "number")


def _is_list(found: pa.DataType) -> bool:
    return (
        kinds.is_list(found)
        or kinds.is_large_list(found)
        or kinds.is_fixed_size_list(found)
        or kinds.is_list_view(found)
        or kinds.is_large_list_view(found)
    )


def _peel(element: pa.DataType) -> pa.DataType:
    """Type inside the struct of one field that wraps each element of a repeated field."""
    return element.field(0).type if kinds.is_struct(element) and element.num_fields == 1 else element


def plain_values(values: pa.Array) -> pa.Array:
    found = values.type
    if kinds.is_dictionary(found):
        return plain_values(values.dictionary_decode())
    if kinds.is_run_end_encoded(found):
        return plain_values(pc.run_end_decode(values))
    if kinds.is_struct(found) and found.num_fields == 1 and _is_list(found.field(0).type):
        return plain_values(values.flatten()[0])  # whose elements are null where the struct is
    if _is_list(found):
        if not kinds.is_list(found):
            values = values.cast(pa.list_(found.value_type))
        elements = values.flatten()
        if kinds.is_struct(elements.type) and elements.type.num_fields == 1:
            elements = elements.flatten()[0]
        return _with_elements(values, plain_values(elements))
    plain = _plain_type(found)
    return values if plain == found else values.cast(plain)


def _to_milliseconds(values: pa.Array) -> pa.Array:
    """Milliseconds UTC of timestamps of any unit and zone, or of dates; finer units are cut off."""
    values = plain_values(values)
    return _floor(values.cast(pa.timestamp("ms")) if kinds.is_date(values.type) else values)


def _floor(values: pa.Array) -> pa.Array:
    """Whole milliseconds of timestamps."""
    unit, numbers = values.type.unit, values.cast(INTEGER)
    if unit == "s":
        return pc.multiply_checked(numbers, 1_000)
    return numbers if unit == "ms" else pc.divide(numbers, PER_SECOND[unit] // 1_000)


def _to_strings(values: pa.Array) -> pa.Array:
    if kinds.is_floating(values.type):
        values = values.cast(FLOAT)
        if pc.any(pc.greater_equal(pc.abs(values), float(EXACT))).as_py():
            raise pa.ArrowInvalid("floats that may not be whole")
        values = values.cast(INTEGER)
    elif kinds.is_decimal(values.type):
        values = values.cast(pa.decimal256(76, 0))
    elif kinds.is_date(values.type):
        values = values.cast(pa.date32())
    elif kinds.is_timestamp(values.type):
        raise pa.ArrowInvalid("moments")
    return values.cast(STRING)


def _to_floats(values: pa.Array) -> pa.Array:
    if kinds.is_string(values.type) or kinds.is_binary(values.type):
        values = _numbers_of(values.cast(STRING))
    elif kinds.is_boolean(values.type):
        values = values.cast(pa.int8())
    return values.cast(FLOAT)


def _to_integers(values: pa.Array, column: Column) -> pa.Array:
    if kinds.is_string(values.type) or kinds.is_binary(values.type):
        texts = values.cast(STRING)
        if column.moment and pc.any(pc.match_substring(texts, "-")).as_py():
            return _moments_of(texts, column)
        values = _numbers_of(texts)
    elif not (kinds.is_integer(values.type) or kinds.is_floating(values.type) or kinds.is_decimal(values.type)):
        raise pa.ArrowInvalid(f"{values.type}")
    if column.moment and column.unit == "s" and kinds.is_floating(values.type):
        return pc.round(pc.multiply(values.cast(FLOAT), 1_000.0), round_mode="half_to_even").cast(INTEGER)
    if column.moment and column.unit in ("us", "ns") and kinds.is_floating(values.type):
        values = pc.trunc(values)
    values = values.cast(INTEGER)
    if not column.moment or column.unit == "ms":
        return values
    if column.unit == "s":
        return pc.multiply_checked(values, 1_000)
    if pc.any(pc.less(values, 0)).as_py():
        raise pa.ArrowInvalid("moments before 1970")
    return pc.divide(values, PER_SECOND[column.unit] // 1_000)


def _numbers_of(texts: pa.Array) -> pa.Array:
    """Numbers that texts spell, null where they spell a missing one; integers where all are."""
    missing = pc.match_substring_regex(texts, f"^(?:{MISSING_TEXT})$")
    if not pc.all(pc.or_(missing, pc.match_substring_regex(texts, f"^(?:{NUMBER_TEXT})$")), min_count=0).as_py():
        raise pa.ArrowInvalid("texts that are no numbers")
    texts = pc.if_else(missing, None, pc.replace_substring_regex(texts, r"^\+", ""))
    try:
        return texts.cast(INTEGER)
    except pa.ArrowInvalid:
        numbers = texts.cast(FLOAT)
        if pc.any(pc.invert(pc.is_finite(numbers))).as_py():  # beyond the range of floats
            raise
        return numbers


def _moments_of(texts: pa.Array, column: Column) -> pa.Array:
    """Milliseconds of ISO 8601 texts that all name a zone, or none of which does."""
    if not pc.all(pc.match_substring_regex(texts, f"^(?:{ISO_8601})$"), min_count=0).as_py():
        raise pa.ArrowInvalid("texts that are no moments")
    if not column.dates and not pc.all(pc.match_substring(texts, ":"), min_count=0).as_py():
        raise pa.ArrowInvalid("dates without a time")
    texts = pc.replace_substring_regex(texts, " ?(?:UTC|Z)$", "Z")
    zoned = pc.match_substring_regex(texts, r"(?:Z|[+-]\d{2}:?\d{2})$")
    if pc.all(zoned, min_count=0).as_py() and pc.any(zoned, min_count=0).as_py():
        return _floor(texts.cast(pa.timestamp("us", "UTC")))
    return _floor(texts.cast(pa.timestamp("us")))


def _cast_lists(values: pa.Array, column: Column) -> pa.Array:
    if kinds.is_null(values.type):
        return values.cast(column.type)
    if kinds.is_string(values.type) and column.separator:
        if pc.any(pc.starts_with(values, "[")).as_py():
            raise pa.ArrowInvalid("lists in JSON")
        values = pc.split_pattern(pc.if_else(pc.equal(values, ""), None, values), column.separator)
    if not kinds.is_list(values.type):
        raise pa.ArrowInvalid(f"{values.type} for a list")
    if values.type == column.type:
        return values
    elements = cast_column(plain_values(values.flatten()), _element(column))
    return _with_elements(values, elements)


def _with_elements(lists: pa.ListArray, elements: pa.Array) -> pa.ListArray:
    """The same lists of other elements, which stand for `lists.flatten()`."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0)
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), pc.cumulative_sum(lengths).cast(pa.int32())])
    return pa.ListArray.from_arrays(offsets, elements, mask=lists.is_null())
