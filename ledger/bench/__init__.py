"""`ledger bench`: benchmarks, each beside a control measured in the same run on a temporary PostgreSQL server."""
