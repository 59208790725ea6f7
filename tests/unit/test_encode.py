"""Values are never altered (I7), whatever the size or spelling of a number, and what can't be kept is refused by its path."""

from __future__ import annotations

import hashlib
import json
from decimal import Decimal

import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from syncd.encode import dumps, parse, task_file
from syncd.errors import TaskError


def exact(text: bytes | str) -> object:
    """The JSON value with every number as its exact decimal, by the standard library alone."""
    return json.loads(text, parse_int=_number, parse_float=_number)


def _number(token: str) -> object:
    try:
        return Decimal(token)
    except ArithmeticError:
        return token  # beyond Decimal: kept digit for digit or not at all


ALTERED_BY_ORJSON = [
    "18446744073709551616",
    "-9223372036854775809",
    "123456789012345678901234567890",
    "0.10000000000000001",
    "1234567890.1234567890",
    "0.1000000000000000055511151231257827021181583404541015625",
    "1e400",
    "-1e400",
    "1e-400",
    "123456789012345678e-5",
    "9007199254740993.0",
    "0.1000000000000000055511151231257827021181583404541015625001",
    "1e99999999999999999999",
    "2.4703282292062327e-324",
    "1.7976931348623159e308",
]
KEPT_BY_ORJSON = ["0", "-0.0", "1", "18446744073709551615", "-9223372036854775808", "10.458911419423693", "5e-324", "1e22", "1E+2", "5e-07", "100.0"]
KEPT_BY_ORJSON += [
    "1.50",
    "0.10000000000000000",
    "0.30000000000000004",
    "1.0e0",
    "-1.5E-3",
]


@pytest.mark.parametrize("token", [*ALTERED_BY_ORJSON, "1" * 5000, "-" + "9" * 4301])
def test_a_number_that_binary64_or_64_bits_would_alter_is_written_digit_for_digit(token: str) -> None:
    for raw in (f'{{"a":[{token}]}}', f'{{ "a" : [\n-1, {token} , "{token}"] }}', token):
        data = dumps(parse(raw.encode()))
        assert token.encode() in data
        assert exact(raw) == exact(data)


@pytest.mark.parametrize("token", KEPT_BY_ORJSON)
def test_any_other_number_takes_one_spelling_whichever_way_its_page_took(token: str) -> None:
    assert isinstance(parse(token.encode()), int | float)
    alone = dumps([parse(token.encode())])
    beside = dumps(parse(f"[{token},1e400]".encode()))
    assert alone == beside.replace(b",1e400", b"")
    assert exact(f"[{token}]") == exact(alone)


def test_shortest_floats_and_plain_pages_never_leave_the_fast_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Label Studio data is full of 17-digit floats; the exact path costs ten times as much."""
    monkeypatch.setattr("syncd.encode._exact", None)
    for raw in (b'{"x":10.458911419423693,"id":123456789012345678}', b'{ "x": 0.30000000000000004, "y": 5e-07, "t": "\\u2028" }', b"[1.0, 100.00]"):
        assert json.loads(raw) == parse(raw)


def test_signs_of_zero_and_every_code_point_survive() -> None:
    text = "\x00\x01\x1f\x7f\u0085\u2028\u2029\u202e\ufeff\uffff\U0001f600 e\u0301 \u05d0"
    raw = json.dumps({"s": text, text: -0.0}).encode()
    assert {"s": text, text: -0.0} == json.loads(dumps(parse(raw)))
    assert b"-0.0" in dumps(parse(raw))
    assert b"-0.0" in dumps(parse(b"[-0.0, 1e400]"))


numbers = st.one_of(
    st.integers().map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.from_regex(r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,4})?", fullmatch=True),
    st.sampled_from(ALTERED_BY_ORJSON + KEPT_BY_ORJSON),
    st.integers(4290, 4310).map(lambda n: "7" * n),
)
texts = st.text(alphabet=st.characters(codec="utf-8"), max_size=8)
strings = st.one_of(texts.map(json.dumps), texts.map(lambda t: json.dumps(t, ensure_ascii=False)), numbers.map(lambda n: f'"a: {n}"'))
space = st.sampled_from(["", " ", "\n  "])


def _containers(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    lists = st.tuples(space, st.lists(inner, max_size=4)).map(lambda p: "[" + f",{p[0]}".join(p[1]) + "]")
    items = st.lists(st.tuples(texts, inner), max_size=4, unique_by=lambda item: item[0])
    objects = st.tuples(space, items).map(lambda p: "{" + ",".join(f"{p[0]}{json.dumps(k)}{p[0]}:{p[0]}{v}" for k, v in p[1]) + "}")
    return lists | objects


documents = st.recursive(numbers | strings | st.sampled_from(["true", "false", "null"]), _containers, max_leaves=12)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(documents, st.booleans())
@example("[1e22,-0.0,5e-324]", False)  # noqa: FBT003 - an example's argument
def test_any_json_text_keeps_its_value(text: str, unique: bool) -> None:
    data = dumps(parse(text.encode(), unique=unique))
    assert exact(text) == exact(data)
    assert dumps(parse(data)) == data, "what was written is read and written again, byte for byte"


@settings(max_examples=150, deadline=None)
@given(documents)
def test_a_value_is_spelled_the_same_whatever_else_its_page_holds(text: str) -> None:
    alone = dumps(parse(text.encode())).rstrip(b"\n")
    assert b"[" + alone + b",1e400]\n" == dumps(parse(f"[{text}, 1e400]".encode()))


def test_a_cut_text_is_refused() -> None:
    text = '{"id":1,"big":12345678901234567890123,"a":[{"x":10.458911419423693,"t":"\\u00e9é"},null,true]}'.encode()
    for cut in range(len(text)):
        with pytest.raises(TaskError, match=r"^not JSON|UTF-8"):
            parse(text[:cut])


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'{"annotations":[{"result":[1,2,{"value":{"x":NaN}}]}]}', "$.annotations[0].result[2].value.x: NaN is no JSON value"),
        (b'[{"a":-Infinity,"b":1e400}]', "$[0].a: -Infinity is no JSON value"),
        (b'{"text":"\\ud83d!"}', "$.text: a lone surrogate, or bytes that are not UTF-8"),
        (b'{"n":1e400,"text":["\\udc00"]}', "$.text[0]: a lone surrogate, or bytes that are not UTF-8"),
        (b'{"a b":"\xff"}', '$["a b"]: a lone surrogate, or bytes that are not UTF-8'),
        (b'{"\\ud83d":1}', "$: a key with a lone surrogate, or bytes that are not UTF-8"),
        (b'{"a":{"b":1,"b":1}}', "$.a.b: the key is repeated"),
        (b'{"a":1e400,"b":{},"a":1e400}', "$.a: the key is repeated"),
        (b'{"a":' + b"[" * 300 + b"]" * 300 + b"}", "nested deeper than 254 levels"),
        (b"[" * 5000 + b"]" * 5000, "$: nested deeper than 254 levels"),
        (b'{"a":1', "not JSON: Expecting ',' delimiter at line 1, column 7"),
        (b"00000000000000000001", "not JSON: Extra data at line 1, column 2"),
        (b"<html>", "not JSON: Expecting value at line 1, column 1"),
        (b"", "not JSON: Expecting value at line 1, column 1"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        ("[1]".encode("utf-16"), "not JSON"),
    ],
)
def test_what_can_not_be_kept_is_refused_by_its_path(raw: bytes, message: str) -> None:
    with pytest.raises(TaskError) as caught:
        parse(raw, unique=True)
    assert message in str(caught.value)
    assert str(caught.value).isprintable()


def test_repeated_keys_are_found_however_they_are_spelled() -> None:
    for raw in (b'{"a":1,"a":1}', b'{"a":1,"\\u0061":1}', b'{"a":1,"a" :2,"\\u0022:":3}', b'[{"a":1},{"a":1,"a":1}]'):
        with pytest.raises(TaskError, match="the key is repeated"):
            parse(raw, unique=True)


def test_the_deepest_value_that_can_be_written_is_kept() -> None:
    raw = b"[" * 254 + b"]" * 254
    assert raw + b"\n" == dumps(parse(raw))
    with pytest.raises(TaskError, match=r"^\$(\[0\])+.*: nested deeper than 254 levels"):
        dumps(parse(b"[" + raw + b"]"))


def test_a_body_that_can_not_be_written_is_refused_by_its_path() -> None:
    with pytest.raises(TaskError, match=r"\$\.a\[1\]: a lone surrogate"):
        dumps({"a": ["x", "\ud800"]})


def test_a_task_file_is_one_line_of_sorted_json_with_its_sha256() -> None:
    made = task_file("1/2.json", {"b": orjson.Fragment("1e400"), "a": "\n"})
    assert made.key == "1/2.json"
    assert made.data == b'{"a":"\\n","b":1e400}\n'
    assert made.digest == hashlib.sha256(made.data).digest()


def test_memoryviews_are_read_too() -> None:
    assert parse(memoryview(b'x{"a":1}')[1:]) == {"a": 1}
