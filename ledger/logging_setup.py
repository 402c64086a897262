"""Logging setup: one line per message, as text or JSON, with the id and the key name of the request."""

import logging
import logging.config
import re
from contextvars import ContextVar
from typing import Any, Literal

import structlog

from ledger.control_characters import escape

Format = Literal["text", "json"]

_KEY = re.compile(r"(lgr_[0-9A-Za-z]{1,12})_[0-9A-Za-z]+")

REQUEST_CONTEXT: ContextVar[dict[str, str] | None] = ContextVar("request_context", default=None)
"""Fields of every line logged while a request is served. A single variable, because each request sets it."""


def configure(level: str, form: Format) -> None:
    """Set up the logging of the whole process, including libraries.

    Args:
        level: the name of the lowest level to log.
        form: `text`, or `json` for one JSON object per line with `timestamp`, `level`, `logger`, `event`, and while a
            request is served `request_id` and `key` (the name of the key).
    """
    shared: list[Any] = [
        _add_request_context,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _hide_keys,
    ]
    # The JSON renderer escapes control characters itself.
    renderers: list[Any] = (
        [structlog.processors.JSONRenderer()]
        if form == "json"
        else [_escape_control_characters, structlog.dev.ConsoleRenderer(colors=False, pad_event_to=0)]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers]
    )
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # Alembic logs every migration; the commands print what matters.
    logging.getLogger("alembic").setLevel(logging.WARNING)


def _hide_keys(_logger: Any, _method: str, line: Any) -> Any:
    """Hide the secret of an API key wherever it is: clients also send keys in addresses and ids."""
    return {name: _KEY.sub(r"\1...", value) if isinstance(value, str) else value for name, value in line.items()}


def _escape_control_characters(_logger: Any, _method: str, line: Any) -> Any:
    """Escape control characters, which clients may have sent; only tracebacks have several lines."""
    return {
        name: escape(value, keep="\n" if name == "exception" else "") if isinstance(value, str) else value
        for name, value in line.items()
    }


def _add_request_context(_logger: Any, _method: str, line: Any) -> Any:
    return (REQUEST_CONTEXT.get() or {}) | line
