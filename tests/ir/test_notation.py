"""The notation parses, prints back, and says where it went wrong."""

import pytest
from hypothesis import given, settings

from sparsec.errors import LayoutError
from sparsec.ir.layout import Digit
from sparsec.ir.levels import Bucketed, Compressed
from sparsec.ir.notation import parse_layout
from sparsec.ir.orders import Balance
from tests.ir.layout_strategies import choosy_layouts, layouts


@settings(max_examples=300, deadline=None)
@given(layouts() | choosy_layouts())
def test_parsing_inverts_printing(layout):
    assert parse_layout(str(layout)) == layout


@pytest.mark.parametrize(
    "text",
    [
        "(i, k) -> (i : dense, k : compressed)",
        "(i, k) -> (k floordiv 96 : dense, i : bucketed, k mod 96 : compressed)",
        "(i, k) -> (i floordiv 4 : dense, k : compressed, i mod 4 : dense)",
        "(i, k) -> (i floordiv 12 : dense, k : compressed, i floordiv 4 mod 3 : dense, i mod 4 : dense)",
        "(i : balance[8, 4], k) -> (i : compressed(nonunique), k : singleton)",
        "(i, k) -> (i floordiv 4 : bucketed, k : compressed[4], i mod 4 : dense)",
        "(o, c, r, s) -> (o : dense, r : dense, s : dense, c : compressed)",
    ],
)
def test_normal_form_prints_as_it_was_written(text):
    assert str(parse_layout(text)) == text


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("(i,k)->(i:dense,k:compressed)", "(i, k) -> (i : dense, k : compressed)"),
        ("  ( i )\n->\t( i : dense ) ", "(i) -> (i : dense)"),
        ("(i) -> (i : compressed[1])", "(i) -> (i : compressed)"),
        ("(i : balance[8, 1]) -> (i : dense)", "(i : balance[8]) -> (i : dense)"),
        (
            "(k) -> (k floordiv 4 : dense, k mod 4 : structured[2])",
            "(k) -> (k floordiv 4 : dense, k mod 4 : structured[2, 4])",
        ),
        (
            "(i) -> (i floordiv 3 floordiv 4 : dense, i mod 12 floordiv 4 : dense, i mod 8 mod 4 : dense)",
            "(i) -> (i floordiv 12 : dense, i floordiv 4 mod 3 : dense, i mod 4 : dense)",
        ),
    ],
)
def test_other_spellings_print_in_normal_form(text, normal):
    assert str(parse_layout(text)) == normal


def test_what_is_parsed():
    layout = parse_layout("(i : balance[2], k) -> (k floordiv 8 : dense, i : bucketed, k mod 8 : compressed)")
    assert layout.dims == ("i", "k")
    assert layout.orders == (("i", Balance(2)),)
    assert layout.levels[1:] == ((Digit("i"), Bucketed()), (Digit("k", 1, 8), Compressed()))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"Cannot read the layout '' at column 1: expected '\(', found the end\."),
        ("i, k -> (i : dense)", r"at column 1: expected '\(', found 'i'\."),
        ("(i, k) (i : dense)", r"at column 8: expected '->', found '\('\."),
        ("(i, ) -> (i : dense)", r"at column 5: expected the name of a dimension, found '\)'\."),
        ("(i k) -> (i : dense)", r"at column 4: expected ',' or '\)', found 'k'\."),
        ("(mod) -> (mod : dense)", r"at column 2: expected the name of a dimension, found 'mod'\."),
        ("(i) -> (i dense)", r"at column 11: expected ':', found 'dense'\."),
        ("(i) -> (i : )", r"at column 13: expected a level \(dense, .*\), found '\)'\."),
        ("(i) -> (i : sparse)", r"at column 13: expected a level \(dense, compressed, .*\), found 'sparse'\."),
        ("(i : shuffle) -> (i : dense)", r"at column 6: expected an order \(balance, .*\), found 'shuffle'\."),
        ("(i : balance) -> (i : dense)", r"6: expected balance with 1 to 2 positive numbers in brackets, found \[\]"),
        ("(i : balance[0]) -> (i : dense)", r"at column 6: expected balance with 1 to 2 positive .*, found \[0\]\."),
        ("(i) -> (i : dense[4])", r"at column 13: expected dense with 0 positive numbers in brackets, found \[4\]\."),
        ("(i) -> (i : dense(unique))", r"column 18: expected a flag of dense \(it has none\), found \['unique'\]\."),
        ("(i) -> (i : compressed(once))", r"expected a flag of compressed \(nonunique\), found \['once'\]\."),
        ("(i) -> (i floordiv : dense)", r"at column 20: expected a divisor, found ':'\."),
        ("(i) -> (i mod 1 : dense)", r"at column 15: expected a number above 1 after mod, found 1\."),
        ("(i) -> (i floordiv 0 : dense)", r"at column 20: expected a number above 1 after floordiv, found 0\."),
        ("(i) -> (i mod 10 floordiv 4 : dense)", r"column 27: expected a number that divides 10, found 4\."),
        ("(i) -> (i mod 10 mod 4 : dense)", r"at column 22: expected a number that divides 10, found 4\."),
        ("(i) -> (i : dense) x", r"at column 20: expected the end of the layout, found 'x'\."),
        ("(i) -> (i : dense", r"at column 18: expected ',' or '\)', found the end\."),
        ("(i) -> (i ! dense)", r"at column 11: expected ':', found '!'\."),
        ("(i, k) -> (i : dense, k : slots)", r"level 1 \(k : slots\) must be followed by a dense level"),
        (
            "(i, k) -> (k floordiv 4 : slots, i : dense, k mod 4 : compressed)",
            r"level 2 .* is below slots, under which there can only be dense and singleton levels",
        ),
        ("(i, k) -> (i : dense, k : singleton)", r"level 1 \(k : singleton\) must follow compressed\(nonunique\) or"),
        ("(i, k) -> (i : dense, k : bucketed)", r"level 1 \(k : bucketed\) must be followed by a compressed level"),
        ("(i) -> (i : compressed(nonunique))", r"level 0 .* must be followed by a singleton level"),
        ("(i, k) -> (i : dense, k : structured[2, 4])", r"chooses from 4 coordinates, but its digit has no bound"),
        ("(k) -> (k floordiv 4 : dense, k mod 4 : structured[2, 8])", r"from 8 coordinates, but its digit has 4\."),
        ("(k) -> (k floordiv 4 : dense, k mod 4 : structured[5])", r"structured\[5, 4\]\) cannot hold 5 of 4 coord"),
        ("(i, k) -> (i : dense, k : pattern[4, 8])", r"must be followed by a level of taps, which holds its shapes"),
        ("(i, k) -> (i : dense, k : taps)", r"must follow a pattern level, whose shapes it holds"),
        ("(i, k) -> (i : compressed, k : diagonal)", r"must follow a dense level, the rows of its blocks"),
        (
            "(i, k) -> (i floordiv 3 : dense, k floordiv 2 : dense, i mod 3 : dense, k mod 2 : diagonal)",
            r"\(k mod 2 : diagonal\) must be as large as the dense level above, but has 2 coordinates for its 3",
        ),
        (
            "(i, k) -> (i floordiv 6 : dense, k floordiv 8 : dense, i mod 6 : dense, k mod 8 : vnm[2, 4, 4])",
            r"shares its columns among 4 positions of the level above, which do not divide its 6",
        ),
        (
            "(i, k) -> (i floordiv 4 : dense, k floordiv 2 : dense, i mod 4 : dense, k mod 2 : vnm[2, 4, 4])",
            r"cannot choose 4 of 2 coordinates",
        ),
        ("(i, k) -> (i : dense, k : vnm[3, 2, 4])", r"cannot hold 3 of 2 columns"),
        ("(i) -> (i : compressed[0])", r"expected compressed with 0 to 1 positive numbers in brackets, found \[0\]\."),
        ("(i, k) -> (i : compressed[2], k : compressed)", r"level 0 .* must be the last one that is not dense, so"),
        ("(i, k) -> (i : compressed[4](nonunique), k : singleton)", r"must have runs of at least 1, and none of repea"),
        ("(i) -> (i mod 4 : dense)", r"must hold every coordinate of i exactly once"),
    ],
)
def test_bad_notation_is_located(text, message):
    with pytest.raises(LayoutError, match=message) as error:
        parse_layout(text)
    assert "\n" not in str(error.value)
