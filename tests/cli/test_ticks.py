"""The numbers beside an axis: round, few, all different, and never a single one."""

import pytest

from keepbest.cli.ticks import logarithmic_ticks, ticks, whole_ticks


@pytest.mark.parametrize(
    ("low", "high", "most", "labels"),
    [
        (0.4, 2.0, 4, ["0.5", "1.0", "1.5", "2.0"]),
        (0.11, 0.19, 2, ["0.12", "0.14", "0.16", "0.18"]),
        (0.0, 1.0, 2, ["0.0", "0.5", "1.0"]),
        (-3e-9, 4e-9, 4, ["-2e-9", "0e0", "2e-9", "4e-9"]),
        (1e16, 1e16 + 2, 4, ["1.00000000000000000e16", "1.00000000000000020e16"]),
        (266.3713817694696, 266.37138176946974, 3, [f"2.66371381769469{end}e2" for end in ("62", "68", "74")]),
    ],
)
def test_numbers_are_round_and_differ(low, high, most, labels):
    """They are 1, 2 or 5 times a power of ten apart, with as many digits as tell them apart."""
    assert [label for _, label in ticks(low, high, most)] == labels


def test_epochs_are_whole_however_few_there_are():
    """Between the first and the second epoch there is none."""
    assert whole_ticks(1.0, 2.0, 8) == [(1.0, "1"), (2.0, "2")]


@pytest.mark.parametrize(
    ("low", "high", "most", "labels"),
    [
        (-5.0, 0.0, 4, ["1e-4", "1e-2", "1e0"]),
        (-1.2, 1.3, 2, ["1e-1", "1e1"]),
        (0.3, 0.9, 2, ["2", "4", "6"]),
    ],
)
def test_powers_of_ten_are_thinned_evenly(low, high, most, labels):
    """Of many powers every second or third has a number; where there is none or one, other numbers stand between."""
    assert [label for _, label in logarithmic_ticks(low, high, most)] == labels
