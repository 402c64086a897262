"""`ledger bench`: figures of speed, each beside a control of the same run, on a temporary PostgreSQL."""
