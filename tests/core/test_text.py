import pytest

from featuretl._core.text import (
    SIZE_UNITS,
    as_utf8,
    parse_json,
    parse_quantity,
    plain_json,
    printable,
    reason_of,
)


def test_quantities_have_a_number_and_a_unit():
    assert parse_quantity("1.5 kb", SIZE_UNITS, "20GB") == 1500
    with pytest.raises(ValueError, match="20GB"):
        parse_quantity("1.5", SIZE_UNITS, "20GB")


def test_text_is_safe_to_print_and_to_write():
    assert printable("a\n\x1b[31mb\u202ec") == r"a\n\x1b[31mb\u202ec"
    assert as_utf8("a\udcff") == r"a\udcff"
    assert reason_of(ValueError("a\nb")) == "a"
    assert reason_of(KeyboardInterrupt()) == "KeyboardInterrupt"


def test_json_holds_no_nan_and_is_not_nested_too_deeply():
    assert plain_json({1: (0.5, float("nan"))}) == {"1": [0.5, None]}
    with pytest.raises(ValueError, match="nested"):
        parse_json("[" * 100_000)
