"""Who is asking: the key of a request, and what it may do."""

from aiohttp import web

from ledger.api.services import Services
from ledger.domain.access import LOCAL, Caller, Permission
from ledger.domain.errors import Forbidden, Unauthenticated

CALLER: web.RequestKey[Caller] = web.RequestKey("caller", Caller)


async def authenticate(request: web.Request, services: Services, needs: Permission) -> Caller:
    """Find out who is asking.

    Raises:
        Unauthenticated: without a good key.
        Forbidden: the key's role does not allow it.
    """
    if services.keys is None:
        return LOCAL
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key:
        raise Unauthenticated("send a key: Authorization: Bearer lgr_... (`ledger keys create` makes one)")
    caller = await services.keys.authenticate(key.strip())
    if not caller.may(needs):
        confined = " and is confined to campaigns" if caller.allowed_campaign_ids is not None else ""
        raise Forbidden(f"this key is of the role {caller.role.value}{confined}: it may not do this")
    return caller
