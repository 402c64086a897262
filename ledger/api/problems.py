"""Problem documents (RFC 9457): the HTTP status of each error, and responses to errors."""

from typing import Any

import msgspec
from aiohttp import web

from ledger.api.content_codings import CODINGS, UnsupportedContentCodingError
from ledger.domain.errors import LedgerError, RateLimited, Unauthenticated, Unavailable
from ledger.log.json_faults import shortened
from ledger.log.request_body import BODY_TOO_LARGE

CONTENT_TYPE = "application/problem+json"

INTERNAL_ERROR = "the service failed on this request; see its log"

STATUS = {
    "malformed": 400,
    "unauthenticated": 401,
    "budget-exceeded": 402,
    "forbidden": 403,
    "not-found": 404,
    "method-not-allowed": 405,
    "version-conflict": 409,
    "event-id-conflict": 409,
    "name-taken": 409,
    "illegal-transition": 409,
    "nothing-to-erase": 409,
    "too-large": 413,
    "unsupported-media-type": 415,
    "expectation-failed": 417,
    "invalid-event": 422,
    "unknown-reference": 422,
    "reference-mismatch": 422,
    "currency-mismatch": 422,
    "unpriced": 422,
    "read-too-large": 422,
    "rate-limited": 429,
    "internal-error": 500,
    "overloaded": 503,
    "projection-behind": 503,
    "database-unavailable": 503,
}


SLUGS = {404: "not-found", 405: "method-not-allowed", 413: "too-large", 417: "expectation-failed"}
"""The slugs of errors that aiohttp raises; the others are `malformed`."""


class Problem(msgspec.Struct, omit_defaults=True):
    """A problem document (RFC 9457); further members depend on its type."""

    type: str
    title: str
    status: int
    detail: str
    index: int | None = None


def document(error: LedgerError, index: int | None = None) -> dict[str, Any]:
    """Return the problem document of an error; `index` is that of the event in a batch."""
    problem = {
        "type": f"/problems/{error.slug}",
        "title": error.title,
        "status": STATUS[error.slug],
        "detail": shortened(error.detail),
        **error.members,
    }
    if index is not None:
        problem["index"] = index
    return problem


def response(error: LedgerError, index: int | None = None) -> web.Response:
    """Return the response to an error; `index` is that of the event in a batch."""
    headers = {}
    if isinstance(error, Unavailable | RateLimited):
        headers["Retry-After"] = str(error.retry_after_seconds)
    if isinstance(error, RateLimited):
        headers |= error.headers
    if isinstance(error, UnsupportedContentCodingError):
        headers["Accept-Encoding"] = ", ".join(CODINGS)
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    return problem_response(document(error, index), headers)


def problem_response(problem: dict[str, Any], headers: dict[str, str] | None = None) -> web.Response:
    """Return the response with a problem document."""
    return web.Response(
        body=msgspec.json.encode(problem), status=problem["status"], content_type=CONTENT_TYPE, headers=headers
    )


def http_exception_response(error: web.HTTPException) -> web.Response:
    """Return the response to an error that aiohttp raised: no such path, method not allowed, body too large."""
    slug = SLUGS.get(error.status, "malformed")
    details = {
        404: "this path does not exist; see /openapi.json",
        405: "this path does not support the method; see the `Allow` header and /openapi.json",
        413: BODY_TOO_LARGE,
        417: "the only expectation that is supported is `Expect: 100-continue`",
    }
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
    detail = details.get(error.status, error.reason)
    problem = {"type": f"/problems/{slug}", "title": error.reason, "status": STATUS[slug], "detail": detail}
    return problem_response(problem, headers)
