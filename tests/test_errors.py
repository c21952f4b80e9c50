"""docs/errors.md: every bad input that the tests know, with the line that it produces.

``python -m tests.test_errors`` writes it again.
"""

from pathlib import Path

from tests import test_bad_input, test_cli

PAGE = Path(__file__).parents[1] / "docs" / "errors.md"
INTRODUCTION = """\
# What goes wrong, and the line that says so
Bad input ends with exit status 2 and one line after `plmscope: error: `; nothing is half-written. `{data}`, `{model}`,
`{study}`, `{out}` and `{folder}` stand for your paths, `{url}` for the address of a service, `...` for the words of a
library. Each row is a test.

| what is wrong | what plmscope says |
|---|---|
"""


def page() -> str:
    """The page as it has to be."""
    cases = [*test_cli.CASES, *test_bad_input.CASES]
    rows = [f"| {case.what} | `{case.message.replace('|', chr(92) + '|')}` |\n" for case in cases]
    return INTRODUCTION + "".join(rows)


def test_cases_tell_mistakes_apart() -> None:
    cases = [*test_cli.CASES, *test_bad_input.CASES]
    assert len({case.what for case in cases}) == len(cases)


def test_the_page_of_errors_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "run: python -m tests.test_errors"


if __name__ == "__main__":
    PAGE.write_text(page())
