"""Logging setup: one line per message, as text or JSON, with the id and the key name of the request."""

import logging
import logging.config
from contextvars import ContextVar
from typing import Any, Literal

import structlog

Format = Literal["text", "json"]

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
    ]
    renderer = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=False, pad_event_to=0)
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer]
    )
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # Alembic logs every migration; the commands print what matters.
    logging.getLogger("alembic").setLevel(logging.WARNING)


def _add_request_context(_logger: Any, _method: str, line: Any) -> Any:
    return (REQUEST_CONTEXT.get() or {}) | line
