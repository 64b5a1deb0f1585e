"""How sizes, times and values are written for people."""

import pytest

from keepbest.cli import words


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (12_345_678, "12.3 MB"),
        (999_900, "1 MB"),
        (5 * 10**18, "5e+03 PB"),
    ],
)
def test_sizes(nbytes, text):
    """A size reads in the largest unit, with three digits."""
    assert words.size(nbytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.9, "59 s"), (60, "1 min"), (7300, "2 h"), (86400 * 400, "400 d")]
)
def test_spans(seconds, text):
    """A span of time reads in its largest unit, rounded down."""
    assert words.span(seconds) == text


def test_a_moment_in_the_future_is_shown_as_it_is():
    """Where clocks disagree, no negative age is shown."""
    assert words.age(1_760_000_000.0, 1_750_000_000.0).startswith("2025-10-09 ")
    assert words.age(10.0, 70.0) == "1 min ago"


@pytest.mark.parametrize("time", [1e300, float("inf"), float("nan")])
def test_an_impossible_moment_is_no_error(time):
    """A stranger's manifest may hold any number for a time."""
    assert words.moment(time) == f"{time} s after 1970"


@pytest.mark.parametrize(("value", "text"), [(1 / 3, "0.333333"), (1e-9, "1e-09"), (float("nan"), "nan"), (2.0, "2")])
def test_values(value, text):
    """A metric reads with six significant digits."""
    assert words.number(value) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("épée 模型", "épée 模型"),
        ("\x1b[31m", "\\x1b[31m"),
        ("a\nb", "a\\nb"),
        ("\u202e", "\\u202e"),
        ("\ud800", "\\ud800"),
    ],
)
def test_printable(text, shown):
    """Letters of all scripts stay; what could steer a terminal is written out."""
    assert words.printable(text) == shown
