"""TOML with places: the line of a key, wherever it stands, and one sentence for what is no TOML."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ces.config import toml
from ces.config.toml import Document, TomlError, read_document

TEXT = """top = 1
[principals.a]
kinds = ["x"]
tokens = [
  "one",
  "two",
]
[principals."b c"] # a comment
kinds = ["x"]
'quoted' . dotted = 2
  [  keys . k  ]
  x = 1
[[many]]
x = 2
"""


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        (("top",), "", 1),
        (("principals", "a"), "", 2),
        (("principals", "a", "kinds"), "", 3),
        (("principals", "a", "tokens"), "two", 6),
        (("principals", "a", "kinds"), "two", 3),
        (("principals", "b c", "kinds"), "", 9),
        (("principals", "b c", "quoted", "dotted"), "", 10),
        (("keys", "k", "x"), "", 12),
        (("many", "x"), "", 14),
        (("keys",), "", 11),
        (("kinds",), "", None),
        (("principals", "c"), "", None),
    ],
)
def test_the_line_of_a_key(path: tuple[str, ...], value: str, line: int | None) -> None:
    document = Document(TEXT, "f.toml")
    assert document.line(path, value) == line
    assert document.place(path, value) == ("f.toml" if line is None else f"f.toml, line {line}")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a = [1\nb", "f, line 2: "),
        ("a = ", "f, line 1: invalid value at the end of the file"),
        ("[a]\n[a]", "f, line 2: cannot declare ('a',) twice at column 3"),
        ("a = " + "[" * 5000, "f: values are nested too deeply"),
        ("a = " + "9" * 5000, "f: a number has too many digits"),
    ],
)
def test_what_is_no_toml_gets_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(TomlError) as caught:
        Document(text, "f")
    assert str(caught.value).startswith(sentence)


def test_a_file_that_cannot_be_used_gets_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TomlError, match="cannot be read: No such file or directory"):
        read_document(str(tmp_path / "none"))
    with pytest.raises(TomlError, match="cannot be read: Is a directory"):
        read_document(str(tmp_path))
    with pytest.raises(TomlError, match="cannot be read: "):
        read_document("\0")
    (tmp_path / "large").write_text("a = 1\n")
    monkeypatch.setattr(toml, "FILE_BYTES", 5)
    with pytest.raises(TomlError, match="has more than 5 bytes"):
        read_document(str(tmp_path / "large"))


@given(st.text(alphabet="[]ab.\"'= \n1é\\"), st.lists(st.sampled_from(["a", "b"])))
def test_no_text_gives_anything_but_a_document_or_a_sentence(text: str, path: list[str]) -> None:
    try:
        document = Document(text, "f")
    except TomlError as error:
        assert str(error).startswith("f")
    else:
        document.place(tuple(path), "1")
