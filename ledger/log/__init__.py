"""The append-only event log in PostgreSQL: append, read, notify, expire, erase."""
