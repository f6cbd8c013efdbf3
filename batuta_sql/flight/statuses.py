"""Our errors as Flight's.

Only Flight's own exceptions are raised to the transport: of any other it sends the traceback too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import pyarrow.flight as fl

from batuta_sql.errors import ConfigError, Error, InternalError, QueryCancelled, Refused
from batuta_sql.flight.admission import Busy
from batuta_sql.secrets import without_passwords

P = ParamSpec("P")
R = TypeVar("R")


def flight_error(error: BaseException) -> fl.FlightError:
    """The error that a client gets: the source's name, its own words and the hint are in it."""
    match error:
        case fl.FlightError():
            return error
        case Busy():
            return fl.FlightUnavailableError(str(error))
        case QueryCancelled():
            return fl.FlightCancelledError(str(error))
        case Refused():
            return fl.FlightUnauthorizedError(str(error))
        case InternalError() | ConfigError():
            return fl.FlightInternalError(str(error))
        case Error():
            return fl.FlightServerError(str(error))
    words = without_passwords(f"unexpected {type(error).__name__}: {error}")
    return fl.FlightInternalError(words)


@contextmanager
def as_flight_errors() -> Generator[None]:
    """What is raised inside is raised as Flight's."""
    try:
        yield
    except (GeneratorExit, StopIteration):
        raise
    except BaseException as error:
        raise flight_error(error) from None


def told_by_flight(function: Callable[P, R]) -> Callable[P, R]:
    """A function whose errors are Flight's."""

    @functools.wraps(function)
    def told(*arguments: P.args, **options: P.kwargs) -> R:
        with as_flight_errors():
            return function(*arguments, **options)

    return told


def streamed_by_flight(items: Iterator[Any]) -> Iterator[Any]:
    """Items whose errors are Flight's."""
    with as_flight_errors():
        yield from items
