"""Formulas: results, refusals, and that only arithmetic is accepted."""

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.client.formula import MAX_DEPTH, MAX_LENGTH, Formula
from usr_tf.errors import InputError

VALUES = {"ctr": np.array([0.25, 0.5], np.float32), "ctcvr": np.array([0.125, 0.0], np.float32), "price": [4, 100]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ctr", [0.25, 0.5]),
        ("ctr + 5 * ctcvr", [0.875, 0.5]),
        ("(ctr + 5) * ctcvr", [0.65625, 0]),
        ("ctr ** 0.5 * ctcvr", [0.0625, 0]),
        ("-ctr ** 2", [-0.0625, -0.25]),
        ("+price - 2", [2, 98]),
        ("ctcvr * price / 2", [0.25, 0]),
        ("min(price, 50)", [4, 50]),
        ("max(price, 50, ctr)", [50, 100]),
        ("log(price)", np.log([4, 100])),
        ("exp(-ctr)", np.exp([-0.25, -0.5])),
        ("sqrt(price)", [2, 10]),
        ("  ctr\n", [0.25, 0.5]),
        ("1e3 * ctr", [250, 500]),
        # What has no value is no error.
        ("price / ctcvr", [32, np.inf]),
        ("log(ctcvr - ctcvr)", [-np.inf, -np.inf]),
        ("sqrt(-ctr)", [np.nan, np.nan]),
        ("(-ctr) ** 0.5", [np.nan, np.nan]),
        ("exp(price * 1000)", [np.inf, np.inf]),
        # In floats at once: as integers these would not end, or fail.
        ("ctr * 9 ** 9 ** 9", [np.inf, np.inf]),
        (f"ctr * 1{'0' * 400}", [np.inf, np.inf]),
        ("ctr / 0", [np.inf, np.inf]),
    ],
)
def test_a_formula_is_computed_item_by_item(text, expected):
    scores = Formula(text)(VALUES)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ctr + ctvr", "by 'ctr + ctvr', column 7: found the name 'ctvr', expected one of ctr, ctcvr, price"),
        ("", "by '', column 1: found no formula"),
        ("ctr +", "by 'ctr +', column 6: found no formula"),
        ("ctr ctcvr", "by 'ctr ctcvr', column "),
        ("ctr, ctcvr", "by 'ctr, ctcvr', column 1: found 'ctr, ctcvr', expected numbers, names, + - * / **, "),
        ("5", "by '5': found no name, expected a formula over what the model gives"),
        ("ctr + True", "by 'ctr + True', column 7: found 'True', expected numbers"),
        ("ctr + 'x'", "by \"ctr + 'x'\", column 7: found \"'x'\", expected"),
        ("ctr + 1j", "by 'ctr + 1j', column 7: found '1j', expected"),
        ("ctr % 2", "by 'ctr % 2', column 1: found 'ctr % 2', expected"),
        ("ctr // 2", "by 'ctr // 2', column 1: found 'ctr // 2', expected"),
        ("ctr > 0", "by 'ctr > 0', column 1: found 'ctr > 0', expected"),
        ("not ctr", "by 'not ctr', column 1: found 'not ctr', expected"),
        ("1 if ctr else 2", "by '1 if ctr else 2', column 1: found '1 if ctr else 2', expected"),
        ("ctr.real", "by 'ctr.real', column 1: found 'ctr.real', expected"),
        ("ctr[0]", "by 'ctr[0]', column 1: found 'ctr[0]', expected"),
        ("[ctr][0]", "by '[ctr][0]', column 1: found '[ctr][0]', expected"),
        ("ctr + min(ctr)", "by 'ctr + min(ctr)', column 7: found 'min(ctr)', expected"),
        ("log(ctr, 2)", "by 'log(ctr, 2)', column 1: found 'log(ctr, 2)', expected"),
        ("max(*ctr)", "by 'max(*ctr)', column 1: found 'max(*ctr)', expected"),
        ("log(x=ctr)", "by 'log(x=ctr)', column 1: found 'log(x=ctr)', expected"),
        ("abs(ctr)", "by 'abs(ctr)', column 1: found 'abs(ctr)', expected"),
        ("(lambda: ctr)()", "by '(lambda: ctr)()', column 1: found '(lambda: ctr)()', expected"),
        ("(x := ctr)", "by '(x := ctr)', column 2: found 'x := ctr', expected"),
        ("ctr + é + ß.x", "by 'ctr + é + ß.x', column 11: found 'ß.x', expected"),
        ("__import__('os').system('true') + ctr", "by \"__import__('os').system('true') + ctr\", column 1: found"),
        ("().__class__.__base__", "by '().__class__.__base__', column 1: found"),
        ("ctr\0", "by 'ctr\\x00'"),
        ("\ud800", "by '\\ud800': found no formula"),
        ("ctr" + "+ 1" * MAX_LENGTH, f"found {3 + 3 * MAX_LENGTH} characters, expected at most {MAX_LENGTH}"),
        ("-" * 600 + "ctr", f"found more than {MAX_DEPTH} levels, expected a formula that nests less"),
        ("(" * 400 + "ctr" + ")" * 400, "found no formula"),
    ],
)
def test_what_is_no_arithmetic_is_named(text, message):
    with pytest.raises(InputError) as caught:
        Formula(text)(VALUES)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_formula_may_nest_as_deep_as_it_says():
    assert Formula("-" * (MAX_DEPTH - 1) + "ctr")({"ctr": [1.0]}).tolist() == [-1.0]


@given(st.text(max_size=60) | st.text("ctrxp0159.+-*/()[]{}, =:_'\"%<>@!~\\\n", max_size=60))
def test_any_text_is_a_formula_or_an_input_error(text):
    with contextlib.suppress(InputError):
        scores = Formula(text)({"ctr": np.array([0.5, 0.25])})
        assert scores.shape == (2,)
        assert scores.dtype == np.float64


_NUMBER = st.floats(0, 1e6).map(repr)
_TEXTS = st.recursive(
    st.sampled_from(["ctr", "ctcvr"]) | _NUMBER,
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from("+-*"), inner),
        st.builds("-{}".format, inner),
        st.builds("{}({}, {})".format, st.sampled_from(["min", "max"]), inner, inner),
    ),
    max_leaves=12,
)


@given(_TEXTS, st.floats(0, 1), st.floats(0, 1))
def test_arithmetic_is_pythons(text, ctr, ctcvr):
    text = f"ctr * 0 + {text}"
    expected = eval(text, {"__builtins__": {}, "min": min, "max": max}, {"ctr": ctr, "ctcvr": ctcvr})
    assert Formula(text)({"ctr": [ctr], "ctcvr": [ctcvr]}).tolist() == [expected]
