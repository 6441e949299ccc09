from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcpod.errors import ConfigError
from gcpod.pipeline.edit import edit, quote
from gcpod.textproto import Message, parse
from tests.data.making import outcome

TEXT = """\
# A detector.
model {
  ssd {  # single shot
    num_classes: 1  # the cat
    scales: [0.1, 0.2]
  }
}
train_config: { batch_size: 8; optimizer < adam { } > }
"""
NAMES = st.sampled_from(["model", "ssd", "num_classes", "scales", "train_config", "optimizer", "adam", "x", "y"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(".".join)
LITERALS = st.integers().map(str) | st.text(st.characters(codec="utf-8"), max_size=20).map(quote)
BODIES = st.recursive(
    st.sampled_from(["", "# c\n", "x: 1", "x: 1 # c\n", "x: [1, 2];", "y: []", " y: 'a' \"b\" ,", "x: 1\r\n"]),
    lambda inner: st.builds("{0}{1} {{{2}}}{3}".format, inner, NAMES, inner, st.sampled_from(["", ";", " # c\n"])),
    max_leaves=8,
)


def test_nothing_set_changes_nothing(shared_data: Path) -> None:
    for path in (shared_data / "pipeline-configs").glob("*.config"):
        text = path.read_text(encoding="utf-8")
        tree = parse(text)
        # Of a repeated field, the path names the last one.
        leaves = {where: text[leaf.start:leaf.end] for where, leaf in tree.walk() if tree.find(where) is leaf}
        assert len(leaves) > 20
        assert edit(text, leaves) == text


def test_only_the_characters_of_the_value_change() -> None:
    assert edit(TEXT, {"model.ssd.num_classes": "37"}) == TEXT.replace("num_classes: 1 ", "num_classes: 37 ")
    assert edit(TEXT, {"train_config.batch_size": "512"}) == TEXT.replace("batch_size: 8;", "batch_size: 512;")
    assert edit('a: "x" "y" b: 2', {"a": quote("z")}) == 'a: "z" b: 2'


@pytest.mark.parametrize(("text", "path", "expected"), [
    ("", "a", " a: 9 "),
    ("a: 1", "b", "a: 1\nb: 9"),
    ("m {}", "m.a", "m { a: 9 }"),
    ("m {\n}\n", "m.a", "m { a: 9 }\n"),
    ("m {\n  a: 1\n}\n", "m.b", "m {\n  a: 1\n  b: 9\n}\n"),
    ("m {\n  a: 1  # one\n}\n", "m.b", "m {\n  a: 1  # one\n  b: 9\n}\n"),
    ("m {\n  # none yet\n}\n", "m.b", "m {\n  # none yet\nb: 9\n}\n"),
    ("# only this", "b", "# only this\nb: 9"),
    ("m {\n  a: [1, 2]\n}\n", "m.b", "m {\n  a: [1, 2]\n  b: 9\n}\n"),
    ("m { a: [] }", "m.b", "m { a: []\nb: 9 }"),
    ("m { a [{}, <>]; }", "m.b", "m { a [{}, <>];\nb: 9 }"),
    ("a: 1", "m.n.b", "a: 1\nm { n { b: 9 } }"),
    ("m { x { } }", "m.n.b", "m { x { }\nn { b: 9 } }"),
    ("a: [1, 2]", "a", "a: [1, 9]"),
])
def test_what_is_missing_is_made(text: str, path: str, expected: str) -> None:
    assert edit(text, {path: "9"}) == expected


@given(st.sampled_from([TEXT, ""]) | BODIES, PATHS, LITERALS)
def test_the_result_holds_the_value_and_all_that_was_there(text: str, path: str, literal: str) -> None:
    before = list(parse(text).walk())
    if outcome(lambda: edit(text, {path: literal})):
        here = parse(text).find(path)
        assert here is None or isinstance(here, Message)
        return
    after = edit(text, {path: literal})
    tree = parse(after)
    assert tree.text(path) == parse(f"a: {literal}").text("a")
    changed = [value for key, value in before if key == path]
    kept = [(key, value.text) for key, value in before if value is not (changed[-1] if changed else None)]
    found = [(key, value.text) for key, value in tree.walk()]
    new = (path, literal)
    assert sorted(found) == sorted([*kept, new])
    assert edit(after, {path: literal}) == after
    assert after.count("#") - literal.count("#") >= text.count("#") - sum(v.text.count("#") for _, v in before)


def test_several_values_at_once() -> None:
    after = edit(TEXT, {"model.ssd.num_classes": "2", "train_config.num_steps": "100", "train_config.batch_size": "1"})
    tree = parse(after)
    found = [tree.text(path) for path in ("model.ssd.num_classes", "train_config.num_steps", "train_config.batch_size")]
    assert found == ["2", "100", "1"]
    assert [line for line in TEXT.splitlines() if "#" in line][:2] == after.splitlines()[0:3:2]


@pytest.mark.parametrize(("path", "words"), [
    ("model.ssd.num_classes.x", "model.ssd.num_classes holds a plain value in f"),
    ("model.ssd", "it is a message in f"),
])
def test_a_path_that_does_not_fit_is_refused(path: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        edit(TEXT, {path: "1"}, "f")


def test_a_text_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(ConfigError, match="f:1:3"):
        edit("a b", {"a": "1"}, "f")
