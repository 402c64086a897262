"""A pooled connection that one task keeps between uses, until it is idle or an error occurs."""

from contextlib import AbstractAsyncContextManager

from ledger.database import Connection, Database


class ConnectionLease:
    """One connection of a pool, borrowed at its first use."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._borrowing: AbstractAsyncContextManager[Connection] | None = None
        self._connection: Connection | None = None

    async def get(self) -> Connection:
        """Return the connection; borrow one if there is none, or if it was closed.

        Raises:
            TimeoutError: the pool has no free connection.
            SQLAlchemyError: no connection can be opened.
        """
        if self._connection is not None and self._connection.is_closed():
            await self.close()
        if self._connection is None:
            borrowing = self._database.connection()
            self._connection = await borrowing.__aenter__()
            self._borrowing = borrowing
        return self._connection

    async def give_back(self) -> None:
        """Return the connection to the pool."""
        borrowing, self._borrowing, self._connection = self._borrowing, None, None
        if borrowing is not None:
            await borrowing.__aexit__(None, None, None)

    async def close(self, error: BaseException | None = None) -> None:
        """Close the connection, because its state is unknown after this error."""
        borrowing, self._borrowing, self._connection = self._borrowing, None, None
        if borrowing is not None:
            reason = error or RuntimeError("the state of the connection is unknown")
            await borrowing.__aexit__(type(reason), reason, None)
