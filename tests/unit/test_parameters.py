"""Parameters: each value is understood, or refused with a message."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containers.common.errors import InvalidParameterError
from containers.common.parameters import Parameter, format_number, parse_parameters
from containers.cyclegan.parameters import PARAMETERS as CYCLEGAN
from containers.nst.parameters import BATCH_COLUMNS
from containers.nst.parameters import PARAMETERS as NST


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        (
            {"max_epochs": "14", "lr": " 0.01 ", "patience": "2"},
            {"max_epochs": 14, "lr": 0.01, "patience": 2},
        ),
        (
            {"max_epochs": "10.0", "content_weight": "1e-5"},
            {"max_epochs": 10, "content_weight": 1e-5},
        ),
        ({"patience": None}, {"patience": None}),
        ({"patience": "null"}, {"patience": None}),
        ({"patience": "", "size": "", "seed": None}, {}),
        ({"preserve_color": "Yes"}, {"preserve_color": True}),
        ({"preserve_color": False}, {"preserve_color": False}),
        ({"style_weights": "2,1"}, {"style_weights": [2.0, 1.0]}),
        ({"style_weights": [0.5, 1]}, {"style_weights": [0.5, 1.0]}),
        ({"size": 16}, {"size": 16}),
        ({"size": 4096}, {"size": 4096}),
    ],
)
def test_values_are_taken_as_meant(given_: dict[str, object], expected: dict[str, object]) -> None:
    parsed = parse_parameters(NST, given_)
    assert parsed == expected
    assert all(type(parsed[name]) is type(value) for name, value in expected.items())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("size", 15),
        ("size", 4097),
        ("size", "large"),
        ("size", 100.5),
        ("size", True),
        ("size", [100]),
        ("strength", 1.01),
        ("strength", -0.01),
        ("strength", float("nan")),
        ("strength", "inf"),
        ("algorithm", "gatys"),
        ("algorithm", 1),
        ("preserve_color", "perhaps"),
        ("time_budget", 0),
        ("patience", -1),
        ("lr", 0),
        ("style_weights", "1,-1"),
        ("style_weights", [0, 0]),
        ("style_weights", "1,,2"),
        ("style_weights", []),
        ("max_epochs", 10**400),
        ("seed", "0x10"),
    ],
)
def test_other_values_are_refused_with_the_name_and_what_is_expected(
    name: str, value: object
) -> None:
    with pytest.raises(InvalidParameterError, match=name) as caught:
        parse_parameters(NST, {name: value})
    assert len(str(caught.value)) < 250


def test_an_unknown_name_is_told_with_the_known_ones() -> None:
    with pytest.raises(InvalidParameterError, match=r"strenght.*strength"):
        parse_parameters(CYCLEGAN, {"strenght": 1})


values: st.SearchStrategy[object] = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.lists(st.floats() | st.text())
)


@given(st.sampled_from([*NST, *CYCLEGAN]), values)
def test_any_value_is_in_its_range_or_refused(parameter: Parameter, value: object) -> None:
    parsed: Any
    try:
        parsed = parameter.parse(value)
    except InvalidParameterError as error:
        parsed = None
        said = str(error)
    else:
        said = parameter.name
    assert parameter.name in said
    if parsed is not None and parameter.kind in (int, float, list):
        for number in parsed if parameter.kind is list else [parsed]:
            assert math.isfinite(number)
            assert parameter.minimum <= number <= parameter.maximum
    assert parsed is None or isinstance(parsed, parameter.kind)


def test_the_batch_columns_of_the_first_version_are_parameters() -> None:
    assert BATCH_COLUMNS == (
        "max_epochs",
        "n_steps_in_epoch",
        "lr",
        "patience",
        "content_weight",
        "style_weight",
    )
    assert set(BATCH_COLUMNS) <= {parameter.name for parameter in NST}


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (16, "16"),
        (0.5, "0.5"),
        (1e-5, "1e-5"),
        (1e6, "1e6"),
        (1e12, "1e12"),
        (2**31 - 1, "2147483647"),
        (1234567.5, "1234567.5"),
    ],
)
def test_a_number_is_written_short_and_exactly(number: float, text: str) -> None:
    assert format_number(number) == text
    assert float(text) == number


def test_a_range_is_written_for_the_tables() -> None:
    ranges = {parameter.name: parameter.range() for parameter in NST}
    assert ranges["size"] == "16..4096"
    assert ranges["patience"] == "0..1000 or null"
    assert ranges["algorithm"] == "multiscale or gatys2015"
    assert ranges["preserve_color"] == "true or false"
