import pytest

from usr_tf.errors import InputError


def test_message_names_place_found_and_expected():
    assert str(InputError("logs/items.jsonl: price", "'dear'", "a number")) == (
        "logs/items.jsonl: price: found 'dear', expected a number"
    )


def test_message_is_one_line_whatever_it_quotes():
    assert str(InputError("a\nb", "c\nd", "e\nf")) == "a b: found c d, expected e f"


def test_is_a_value_error():
    with pytest.raises(ValueError, match="found x"):
        raise InputError("place", "x", "y")


def test_inside_returns_the_error_itself():
    error = InputError("place", "x", "y")
    assert InputError.inside(error) is error


@pytest.mark.parametrize(
    "text",
    [
        "Traceback (most recent call last):\n  File\nusr_tf.errors.InputError: place: found x, expected y",
        "usr_tf.errors.InputError: place: found x, expected y [while running 'Read[items]']",
        "usr_tf.errors.InputError: place: found x, expected y [while running 'Read']\n\nTraceback: the worker's\n",
    ],
)
def test_inside_reads_a_workers_traceback(text):
    found = InputError.inside(RuntimeError(text))
    assert isinstance(found, InputError)
    assert str(found) == "place: found x, expected y"


@pytest.mark.parametrize("error", [RuntimeError("InputError: of another kind"), KeyError("x"), ValueError("")])
def test_inside_another_error_there_is_none(error):
    assert InputError.inside(error) is None
