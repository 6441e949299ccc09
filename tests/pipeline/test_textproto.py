from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcpod.errors import ConfigError
from gcpod.pipeline.edit import quote
from gcpod.textproto import MAX_DEPTH, Message, Scalar, parse, position
from tests.data.making import outcome

LABELS = {"mscoco_label_map.pbtxt": 90, "oid_v4_label_map.pbtxt": 601, "pascal_label_map.pbtxt": 20}


def refusal(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse(text, "f")
    return caught.value


def test_every_real_config_is_read(shared_data: Path) -> None:
    configs = sorted((shared_data / "pipeline-configs").glob("*.config"))
    assert len(configs) == 16
    for path in configs:
        text = path.read_text(encoding="utf-8")
        tree = parse(text, path.name)
        names = {name for name, _, _ in tree.fields}
        assert {"model", "train_config", "train_input_reader", "eval_input_reader"} <= names
        for key, value in tree.walk():
            assert text[value.start : value.end] == value.text, key
        assert str(tree.text("train_config.batch_size")).isdigit()


def test_every_real_label_map_is_read(shared_data: Path) -> None:
    for name, count in LABELS.items():
        items = parse((shared_data / "label-maps" / name).read_text(encoding="utf-8"), name).all("item")
        assert len(items) >= min(count, 80)
        assert all(isinstance(item, Message) and item.find("id") for item in items)


@given(st.text() | st.text("ab1.:{}<>[]\"'\\#\n ,;-/x“"))
def test_any_text_is_a_message_or_an_error(text: str) -> None:
    code = outcome(lambda: parse(text))
    assert code in ("", "C200", "C204")
    if not code:
        assert all(text[value.start : value.end] == value.text for _, value in parse(text).walk())


@given(st.text(st.characters(codec="utf-8")))
def test_a_quoted_value_comes_back(value: str) -> None:
    scalar = parse(f"a {{ b: {quote(value)} }}").find("a.b")
    assert isinstance(scalar, Scalar)
    assert scalar.quoted
    assert scalar.value == value


@given(st.binary(max_size=20))
def test_bytes_written_as_octal_come_back(data: bytes) -> None:
    written = "".join(f"\\{byte:03o}" for byte in data)
    found = parse(f'a: "{written}"').text("a")
    assert found is not None
    assert found.encode("utf-8", "surrogateescape") == data


@pytest.mark.parametrize(("literal", "value"), [
    (r'"\a\b\f\n\r\t\v\?\\\'\""', "\a\b\f\n\r\t\v?\\'\""),
    (r'"\x41\x4a\101\u00e9\U0001F600"', "AJAé😀"),
    ("'it \"is\"'", 'it "is"'),
    ('"one " \'two\' # and\n "three"', "one twothree"),
    ('""', ""),
    ("-inf", "-inf"),
    ("1.5e-3f", "1.5e-3f"),
    ("0x1F", "0x1F"),
    ("RELU_6", "RELU_6"),
])
def test_values_as_the_format_writes_them(literal: str, value: str) -> None:
    assert parse(f"a: {literal}").text("a") == value


def test_messages_lists_and_separators() -> None:
    tree = parse("""
        # a comment
        a { b: 1, c: 2; }, d < e: 3 >; f: [1, 2, 3] g [{h: 4}, <h: 5>] [pkg.ext/name]: 6 [p.q] { r: 7 } s: [] t {}
    """)
    assert [(path, value.value) for path, value in tree.walk()] == [
        ("a.b", "1"), ("a.c", "2"), ("d.e", "3"), ("f", "1"), ("f", "2"), ("f", "3"), ("g.h", "4"), ("g.h", "5"),
        ("[pkg.ext/name]", "6"), ("[p.q].r", "7"),
    ]
    assert tree.find("t.u") is None
    assert tree.find("a.b.c") is None
    assert tree.text("a") is None
    assert len(tree.all("f")) == 3


def test_the_last_value_wins() -> None:
    assert parse("a { b: 1 } a { b: 2 b: 3 }").text("a.b") == "3"


def test_positions_count_from_one() -> None:
    text = 'one: 1\n  two { three: "x" }\n'
    tree = parse(text)
    places = {path: position(text, value.start) for path, value in tree.walk()}
    assert places == {"one": "1:6", "two.three": "2:16"}
    assert [position(text, offset) for _, offset, _ in tree.fields] == ["1:1", "2:3"]


def test_a_byte_order_mark_is_passed_over() -> None:
    assert parse("\ufeffa: 1").text("a") == "1"


@pytest.mark.parametrize(("text", "code", "place"), [
    ("a: 1\nb: “x”\n", "C204", "2:4"),
    ("a: ‘x’", "C204", "1:4"),
    ('a {\n  b: "x\n}', "C200", "2:6"),
    ("a: 'x", "C200", "1:4"),
    ("a: 1\n  @b: 2", "C200", "2:3"),
    ("a 1", "C200", "1:3"),
    ("a:", "C200", "1:3"),
    ("a: }", "C200", "1:4"),
    ("a { b: 1", "C200", "1:9"),
    ("a { b: 1 >", "C200", "1:10"),
    ("a: 1 }", "C200", "1:6"),
    ("a: [1 2]", "C200", "1:7"),
    ("a: [1,", "C200", "1:7"),
    ("[a.b: 1", "C200", "1:1"),
    ("[]: 1", "C200", "1:1"),
    (r'a: "x\q"', "C200", "1:6"),
    (r'a: "\UFFFFFFFF"', "C200", "1:5"),
    ('"a": 1', "C200", "1:1"),
])
def test_what_cannot_be_read_is_named_by_line_and_column(text: str, code: str, place: str) -> None:
    error = refusal(text)
    assert (error.code, error.on) == (code, f"f:{place}")
    assert error.exit_code == 5


def test_curly_quotes_are_shown_with_the_remedy() -> None:
    assert str(refusal("a: “x”")) == 'C204: parsing f:1:4: found the typographic quote “; type a plain " there'


def test_deep_nesting_has_a_limit() -> None:
    assert parse("a {" * MAX_DEPTH + "}" * MAX_DEPTH).fields
    for text in ("a {" * (MAX_DEPTH + 1) + "}" * (MAX_DEPTH + 1), "a <" * 5_000, "a: [{" * 5_000):
        assert f"messages nested deeper than {MAX_DEPTH}" in refusal(text).message
