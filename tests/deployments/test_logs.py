"""What stands in logs, and what doesn't: texts of users."""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Iterator

import pytest
from ray.exceptions import RayActorError, RayTaskError

from deployments.logs import EXTRA_FIELDS, OURS, NoTexts, ToServe, set_up, tell, told
from voice_core.errors import RequestError, SynthesisError

SECRET = "the secret of the user"


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """What `set_up` changes is this process's, and other tests look at logs too."""
    yield
    for name in OURS:
        logger = logging.getLogger(name)
        logger.filters = [one for one in logger.filters if not isinstance(one, NoTexts)]
        if any(isinstance(one, ToServe) for one in logger.handlers):
            logger.handlers = [one for one in logger.handlers if not isinstance(one, ToServe)]
            logger.propagate = True
            logger.setLevel(logging.NOTSET)


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """Everything that a logger with the filter writes, as a formatter writes it."""
    written: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(self.format(record))

    logger = logging.getLogger("tests.logs")
    logger.propagate = False
    handler, texts = Keep(), NoTexts()
    logger.addHandler(handler)
    logger.addFilter(texts)
    yield written
    logger.removeHandler(handler)
    logger.removeFilter(texts)


def failing() -> None:
    try:
        raise KeyError(SECRET)
    except KeyError as error:
        raise RequestError("input", f"{SECRET!r} holds nothing that this voice can read") from error


def test_a_traceback_keeps_its_frames_and_not_what_errors_say(lines: list[str]) -> None:
    logger = logging.getLogger("tests.logs")
    try:
        failing()
    except RequestError:
        logger.exception("Request failed.")
    assert SECRET not in lines[0]
    assert "in failing" in lines[0]
    assert "KeyError" in lines[0]
    assert "RequestError" in lines[0]


@pytest.mark.parametrize("error", [ValueError(SECRET), RayTaskError("speak", SECRET, RequestError("input", SECRET))])
def test_an_error_in_a_line_is_told_by_its_kind(lines: list[str], error: Exception) -> None:
    logger = logging.getLogger("tests.logs")
    logger.warning("It failed: %s", error)
    logger.warning(error)
    assert SECRET not in "".join(lines)
    assert type(error).__name__ in lines[0]


def test_errors_that_quote_nobody_keep_their_words() -> None:
    assert "no memory left" in told(SynthesisError("the device has no memory left for it"))
    assert "actor" in told(RayActorError())


def test_the_system_says_why_a_file_failed_and_not_what_it_is_called() -> None:
    assert told(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), f"/voices/{SECRET}")) == (
        f"OSError: {os.strerror(errno.ENOSPC)}"
    )
    assert "Name or service" in told(socket.gaierror(socket.EAI_NONAME, "Name or service not known"))


@pytest.mark.parametrize("error", [OSError(SECRET), OSError(errno.EIO, SECRET), OSError("what", SECRET)])
def test_a_library_may_quote_somebody_in_the_systems_place(error: OSError) -> None:
    assert SECRET not in told(error)


def test_modules_below_a_logger_are_kept_from_quoting_too() -> None:
    written: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(self.format(record))

    serve, ours, module = (logging.getLogger(name) for name in ("ray.serve", "voice_core", "voice_core.synthesizer"))
    before = list(serve.handlers), list(ours.handlers), ours.propagate, ours.level
    serve.handlers = [Keep()]
    try:
        set_up(texts=False)
        try:
            failing()
        except RequestError as error:
            module.exception("It failed: %s", error)
    finally:
        serve.handlers, ours.handlers, ours.propagate, ours.level = before
        for logger in (serve, ours, logging.getLogger("asyncio")):
            logger.filters = [one for one in logger.filters if not isinstance(one, NoTexts)]
    assert len(written) == 1
    assert SECRET not in written[0]
    assert "in failing" in written[0]


def test_the_filter_is_there_unless_texts_are_wanted() -> None:
    logger = logging.getLogger("ray.serve")
    before = list(logger.filters)
    try:
        set_up(texts=True)
        assert list(logger.filters) == before
        for _ in range(2):
            set_up(texts=False)
        assert sum(isinstance(one, NoTexts) for one in logger.filters) == 1
    finally:
        for name in ("ray.serve", "voice_core", "asyncio"):
            for one in [one for one in logging.getLogger(name).filters if isinstance(one, NoTexts)]:
                logging.getLogger(name).removeFilter(one)


def test_a_line_has_fields_of_its_own_and_leaves_out_those_that_are_none(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ray.serve"):
        tell("spoken", request="r", row=None)
    assert getattr(caplog.records[-1], EXTRA_FIELDS) == {"request": "r"}
