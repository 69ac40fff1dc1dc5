"""The chain that every log line passes, the agent's and those of libraries: redact, render, write to stdout and a sink (docs/logs.md).

There is no global state, except what `capture_libraries` sets and its result restores.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable
from datetime import datetime
from typing import Any, TextIO, cast

import structlog

from relay_agent.core.clock import Clock, iso
from relay_agent.telemetry.log_rendering import Event, console_format, frames, render
from relay_agent.telemetry.logger import WITHHELD, EventSink, LineSink, Logger
from relay_agent.telemetry.redaction import Redactor, describe
from relay_agent.telemetry.stdout_writer import Output, output

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

_Processor = Callable[[object, str, Event], Any]


class Logs:
    """The agent's log. Any thread may log; logging never raises.

    `logger` writes to the stream and the sink. `local` leaves out the sink: for failures of the sink's shipper, which would
    otherwise cause more lines to ship. `receiver` gets the lines of both.
    """

    def __init__(
        self,
        level: str,
        redactor: Redactor,
        sink: LineSink | None = None,
        stream: TextIO | None = None,
        clock: Clock | None = None,
        console: bool | None = None,
        receiver: EventSink | None = None,
    ) -> None:
        """Make both loggers. `console` selects columns in place of JSON; None selects them if the stream is a terminal."""
        stream = sys.stdout if stream is None else stream
        self._clock = clock or Clock()
        self._redactor = redactor
        self._receiver = receiver
        self._debug = level == "debug"
        self.output: Output = output(stream, self._clock.monotonic)
        self._console = console_format() if (bool(stream and stream.isatty()) if console is None else console) else None
        self._wrapper = _bound_logger(LEVELS[level])
        self.local: Logger = self._chain(None)
        self.logger: Logger = self._chain(sink)

    def capture_libraries(self) -> Callable[[], None]:
        """Send the log records of libraries from level warning up, and Python's warnings, through the chain; return the undo function."""
        # Never below warning: botocore and urllib3 log headers and bodies at debug.
        handler = LibraryHandler(self.logger, self._clock.monotonic)
        root = logging.getLogger()
        handlers, level = root.handlers[:], root.level
        root.handlers[:] = [handler]
        root.setLevel(logging.WARNING)
        show_warning = warnings.showwarning
        logging.captureWarnings(True)

        def restore() -> None:
            logging.captureWarnings(False)
            warnings.showwarning = show_warning
            root.removeHandler(handler)
            for other in handlers:
                root.addHandler(other)
            root.setLevel(level)

        return restore

    def _chain(self, sink: LineSink | None) -> Logger:
        chain = _Chain([self._exception, self._redactor, _Renderer(self._clock.now, self.output, self._console, sink, self._receiver)])
        # The chain itself writes. Without an object here, structlog would make a logger for stdout, which may be closed.
        logger = structlog.wrap_logger(object(), processors=[chain], wrapper_class=self._wrapper, context_class=dict)
        return cast(Logger, logger.bind())

    def _exception(self, logger: object, method: str, event: Event) -> Event:
        error = _exception_of(event.pop("exc_info", None))
        if error is not None:
            event["exception"] = describe(error, self._redactor.text)
            if self._debug:
                event["traceback"] = frames(error, self._redactor.text)
        return event


def _bound_logger(least: int) -> type[structlog.BoundLoggerBase]:
    """Return a class of structlog loggers that ignores levels below `least`."""

    # structlog's own loggers call several functions per line, which take half of a line's time; these call the chain directly.
    def logging_method(method: str) -> Callable[..., None]:
        def log(self: Any, event: str, **fields: Any) -> None:
            self._processors[0](self._logger, method, {**self._context, "event": event, **fields})

        return log

    def ignore(self: Any, event: str, **fields: Any) -> None:
        pass

    methods = {method: logging_method(method) if level >= least else ignore for method, level in LEVELS.items()}
    return type("BoundLogger", (structlog.BoundLoggerBase,), methods)


class _Chain:
    """Calls the processors one after the other. If one raises, the line is lost; the caller never gets the exception."""

    def __init__(self, processors: list[_Processor]) -> None:
        self._processors = processors
        self.lost = 0

    def __call__(self, logger: object, method: str, event: Event) -> Event:
        try:
            for process in self._processors:
                event = process(logger, method, event)
        except Exception:  # noqa: BLE001 - the top of every log call, which must not fail its caller
            self.lost += 1
        return event


class _Renderer:
    """The last processor: renders the line, writes it, and gives it to the sink without the fields that WITHHELD names."""

    def __init__(
        self,
        now: Callable[[], datetime],
        output: Output,
        console: Callable[[Event], str] | None,
        sink: LineSink | None,
        receiver: EventSink | None,
    ) -> None:
        self._now = now
        self._output = output
        self._console = console
        self._sink = sink
        self._receiver = receiver

    def __call__(self, logger: object, method: str, event: Event) -> Event:
        now = self._now()
        stamp = iso(now)
        withheld = str(event.pop(WITHHELD, "")).split(".")
        event = {"event": event.pop("event", ""), "timestamp": stamp, "level": method, **event}
        line = render(event)
        self._output.write(line if self._console is None else self._console(event))
        if self._receiver is not None:
            self._receiver.accept(str(event["event"]), method, stamp, line)
        if self._sink is not None:
            if withheld != [""]:
                line = render({name: value for name, value in event.items() if name not in withheld})
            self._sink.accept(int(now.timestamp() * 1000), line)
        return event


class LibraryHandler(logging.Handler):
    """Logs records of the standard library's logging, each kind at most once a minute."""

    repeat_seconds = 60.0
    _max_kinds = 256

    def __init__(self, log: Logger, monotonic: Callable[[], float]) -> None:
        super().__init__(logging.WARNING)
        self._log = log
        self._monotonic = monotonic
        self._kinds: dict[tuple[str, str], tuple[float, int]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Log the record as event `library`; repetitions within a minute are only counted."""
        suppressed = self._suppressed(record)
        if suppressed is None:
            return
        fields: dict[str, Any] = {"logger": record.name, "message": record.getMessage(), "exc_info": record.exc_info}
        if suppressed:
            fields["suppressed"] = suppressed
        if record.levelno >= logging.ERROR:
            self._log.error("library", **fields)
        else:
            self._log.warning("library", **fields)

    def handle(self, record: logging.LogRecord) -> bool:
        """Emit the record, and never raise: a library's format string may be wrong."""
        try:
            return bool(super().handle(record))
        except Exception:  # noqa: BLE001 - and must not print the record's arguments, as logging.raiseExceptions does
            return False

    def _suppressed(self, record: logging.LogRecord) -> int | None:
        """Return how many records of this kind were left out since the last line; returns None if this one is to be left out."""
        kind, now = (record.name, str(record.msg)[:200]), self._monotonic()
        since, count = self._kinds.get(kind, (float("-inf"), 0))
        if 0 <= now - since < self.repeat_seconds:
            self._kinds[kind] = (since, count + 1)
            return None
        if len(self._kinds) >= self._max_kinds:
            self._kinds.clear()
        self._kinds[kind] = (now, 0)
        return count


def _exception_of(value: object) -> BaseException | None:
    if isinstance(value, BaseException):
        return value
    if isinstance(value, tuple):
        return value[1] if len(value) == 3 and isinstance(value[1], BaseException) else None
    return sys.exc_info()[1] if value else None
