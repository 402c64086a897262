"""How the service logs: one line an event, for people or as JSON for programs; what a request is about comes along."""

import logging
import logging.config
from contextvars import ContextVar
from typing import Any, Literal

import structlog

Format = Literal["text", "json"]

ABOUT: ContextVar[dict[str, str] | None] = ContextVar("about", default=None)
"""What every line says that is written while a request is served. One variable: it is set on the hot path."""


def configure(level: str, form: Format) -> None:
    """Set up the logging of the whole process, libraries included.

    Args:
        form: `json` writes a JSON object a line, with `timestamp`, `level`, `logger`, `event`, and while a request is
            served `request_id` and `key` (its name).
    """
    shared: list[Any] = [
        _add_about,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    last = (
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
        foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last]
    )
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # Alembic tells of every migration; what is worth telling the verbs tell themselves.
    logging.getLogger("alembic").setLevel(logging.WARNING)


def _add_about(_logger: Any, _method: str, line: Any) -> Any:
    return (ABOUT.get() or {}) | line
