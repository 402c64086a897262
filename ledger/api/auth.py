"""Authentication: the API key of a request (Authorization: Bearer), and the permission of its role."""

from aiohttp import web

from ledger.api.parameters import read_header
from ledger.api.services import Services
from ledger.domain.access import LOCAL, Caller, Permission
from ledger.domain.errors import Forbidden, Unauthenticated

CALLER: web.RequestKey[Caller] = web.RequestKey("caller", Caller)

NEEDS: web.RequestKey[Permission] = web.RequestKey("needs")
"""The permission that the route of the request needs."""


async def authenticate(request: web.Request, services: Services, needs: Permission) -> Caller:
    """Identify the caller and check its permission.

    Args:
        request: the request with the header `Authorization`.
        services: the parts of the running service; without `keys`, everything is allowed.
        needs: the permission that the route needs.

    Returns:
        The caller.

    Raises:
        Unauthenticated: the key is missing, unknown, expired or revoked.
        Forbidden: the key's role does not have the permission.
        Malformed: the header is given twice.
    """
    if services.keys is None:
        return LOCAL
    scheme, _, key = (read_header(request, "Authorization") or "").partition(" ")
    if scheme.lower() != "bearer" or not key:
        raise Unauthenticated("send an API key: `Authorization: Bearer lgr_...`; `ledger keys create` creates one")
    caller = await services.keys.authenticate(key.strip())
    if not caller.may(needs):
        restricted = " that is restricted to certain campaigns" if caller.allowed_campaign_ids is not None else ""
        raise Forbidden(f"a key with role `{caller.role.value}`{restricted} may not use this endpoint")
    return caller
