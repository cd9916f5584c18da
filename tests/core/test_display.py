"""Results print as lines and as an HTML table; hostile text stays harmless in both."""

import pytest

from featuretl._core.display import Display


class Result(Display):
    def __init__(self, **facts):
        self.facts = facts

    def _facts(self):
        return self.facts


def test_facts_are_lines_below_the_name_of_the_class():
    assert repr(Result(images=3, name="a b")) == "Result\n  images: 3\n  name: a b"
    assert repr(Result()) == "Result\n"


def test_facts_are_escaped_for_the_terminal_and_for_html():
    result = Result(path="<b>\x1b[31m\n&'")
    assert repr(result) == "Result\n  path: <b>\\x1b[31m\\n&'"
    assert "&lt;b&gt;\\x1b[31m\\n&amp;&#x27;</td>" in result._repr_html_()
    assert "<th style='text-align: left'>&lt;i&gt;</th>" in Result(**{"<i>": 1})._repr_html_()


def test_a_class_without_facts_is_incomplete():
    with pytest.raises(NotImplementedError):
        repr(Display())
