"""Prometheus counters of a running service: requests, connections, refusals, append groups."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

GROUP_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000)
SECONDS_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Telemetry:
    """The counters of one process."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        # Finding a counter by its labels takes the library ten times as long as counting.
        self._request_counters: dict[tuple[str, str, int], Counter] = {}
        self._requests = Counter(
            "ledger_requests", "Requests served.", ["method", "route", "status"], registry=registry
        )
        self._refusals = Counter("ledger_refusals", "Events refused, by problem.", ["problem"], registry=registry)
        self.connections = 0
        gauge = Gauge("ledger_connections", "Open client connections.", registry=registry)
        gauge.set_function(lambda: self.connections)
        self._rejected_connections = Counter(
            "ledger_connections_turned_away", "Connections over the limit, rejected with 503.", registry=registry
        )
        self._group_events = Histogram(
            "ledger_group_events", "Events recorded in one transaction.", buckets=GROUP_BUCKETS, registry=registry
        )
        self._groups = Counter(
            "ledger_append_groups", "Groups of appended events, by path.", ["path"], registry=registry
        )
        self._group_counters = {path: self._groups.labels(path) for path in ("optimistic", "locked")}
        self._group_seconds = Histogram(
            "ledger_append_seconds", "Duration of an append transaction.", buckets=SECONDS_BUCKETS, registry=registry
        )

    def count_request(self, method: str, route: str, status: int) -> None:
        """Count a request.

        Args:
            method: the HTTP method.
            route: the path of the route, with placeholders.
            status: the HTTP status of the response.
        """
        key = method, route, status
        counter = self._request_counters.get(key)
        if counter is None:
            counter = self._request_counters[key] = self._requests.labels(*key)
        counter.inc()

    def count_connection(self, change: int) -> None:
        """Count a connection that opens (1) or closes (-1)."""
        self.connections += change

    def count_rejected_connection(self) -> None:
        """Count a connection over the limit."""
        self._rejected_connections.inc()

    def count_refusal(self, problem: str) -> None:
        """Count an event that was refused."""
        self._refusals.labels(problem).inc()

    def observe_group(self, events: int, seconds: float, path: str) -> None:
        """Record an append transaction.

        Args:
            events: the number of its events.
            seconds: its duration.
            path: `optimistic` or `locked`.
        """
        self._group_counters[path].inc()
        self._group_events.observe(events)
        self._group_seconds.observe(seconds)
