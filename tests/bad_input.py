"""What the property tests of bad input share. ``pytest --hypothesis-profile=thorough tests/test_bad_input*`` tries
thousands of cases a test, ``--hypothesis-show-statistics`` counts them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from mtbert.errors import InputError, explain

REFUSED = object()


def attempt(call: Callable[[], Any]) -> Any:
    """What ``call`` gives, or REFUSED where one line says what is wrong; any other error is a failure.

    An OSError is what a file system has to say about a name, in one line too.
    """
    try:
        return call()
    except (InputError, OSError) as error:
        line, _ = explain(error)
        assert line and len(line.splitlines()) == 1, repr(line)
        return REFUSED


def one_in(number: int) -> settings:
    """Fewer cases, for a test whose cases cost more."""
    return settings(max_examples=max(5, settings.default.max_examples // number))


NUMBERS = st.sampled_from([0, -1, 1, 2, 3, 10**6, 10**30, 0.5, -0.0, 1e-320, 1e308]) | st.integers() | st.floats()
SCALARS = st.none() | st.booleans() | NUMBERS | st.text(max_size=6) | st.sampled_from(["", "NaN", "..", "/", "a\nb"])
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """``content`` with a few bytes replaced, taken out, put in or repeated, or without its end."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(content)) | st.integers(0, min(len(content), 200)))
        stop = min(len(content), start + draw(st.integers(0, 20)))
        signs = st.sampled_from([b"\0", b"\n", b"\xff", b'"', b"\t"])
        middle = draw(st.binary(max_size=8) | st.just(content[start:stop] * 2) | signs)
        content = content[:start] + (b"" if draw(st.integers(0, 5)) == 0 else middle + content[stop:])
    return content


@st.composite
def changed(draw: st.DrawFn, content: Any) -> Any:
    """A JSON value with one part of it replaced, removed or added."""
    if isinstance(content, dict) and content and draw(st.integers(0, 9)):
        key = draw(st.sampled_from(sorted(content)))
        rest = {name: value for name, value in content.items() if name != key}
        match draw(st.sampled_from(["in", "in", "out", "more"])):
            case "in":
                return {name: draw(changed(content[key])) if name == key else value for name, value in content.items()}
            case "out":
                return rest
        return content | {draw(st.text(max_size=4)): draw(JSON)}
    if isinstance(content, list) and content and draw(st.integers(0, 9)):
        place = draw(st.integers(0, len(content) - 1))
        return [*content[:place], draw(changed(content[place])), *content[place + 1 :]]
    return draw(JSON)
