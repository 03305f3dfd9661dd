import pickle

import pytest

from usr_tf.errors import InputError, InputErrors, raise_all


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


def test_several_are_raised_as_one_with_a_line_each():
    first, second = InputError("a", "x", "y"), InputError("b", "x", "y")
    raise_all([])
    with pytest.raises(InputError) as caught:
        raise_all([first])
    assert caught.value is first
    with pytest.raises(InputErrors) as caught:
        raise_all([InputErrors([first, second]), first, InputError("c", "x\ny", "z")])
    assert str(caught.value) == "a: found x, expected y\nb: found x, expected y\nc: found x y, expected z"
    assert caught.value.each[:2] == (first, second)


def test_errors_reach_another_process():
    error = InputErrors([InputError("a", "x", "y"), InputError("b", "x", "y")])
    for sent in (*error.each, error):
        received = pickle.loads(pickle.dumps(sent))
        assert type(received) is type(sent)
        assert str(received) == str(sent)
    assert list(map(str, received.each)) == list(map(str, error.each))
