"""Reads a lake with DuckDB: an engine that shares no code with Larder.

Takes the lake's folder; prints a JSON object of what it found.
"""

import json
import sys

import duckdb


def main() -> None:
    lake = duckdb.connect()
    lake.execute("SET TimeZone = 'UTC'")
    lake.execute(
        f"CREATE VIEW events AS SELECT * FROM read_parquet('{sys.argv[1]}/*/*/*.parquet', hive_partitioning = true)"
    )

    def all_rows(query: str) -> list:
        return [list(row) for row in lake.execute(query).fetchall()]

    def row(query: str) -> list:
        return all_rows(query)[0]

    def value(query: str):
        return row(query)[0]

    found = {
        "rows": value("SELECT count(*) FROM events"),
        "numbers": row("SELECT min(event_number), max(event_number), count(DISTINCT event_number) FROM events"),
        "ids": value("SELECT count(DISTINCT event_id) FROM events"),
        "types": dict(all_rows("SELECT event_type, count(*) FROM events GROUP BY event_type")),
        "played_ms": int(value("SELECT coalesce(sum(played_ms), 0) FROM events")),
        "br": [int(n) for n in row("SELECT coalesce(sum(cmcd_br), 0), count(cmcd_br) FROM events")],
        "bs": value("SELECT count(*) FROM events WHERE cmcd_bs"),
        "pr": value("SELECT max(cmcd_pr) FROM events"),
        "sta": value("SELECT max(cmcd_sta) FROM events"),
        "ec": value("SELECT max(cmcd_ec) FROM events"),
        "ranks": value("SELECT count(row_rank) FROM events"),
        "regions": all_rows("SELECT region, count(*) FROM events WHERE region IS NOT NULL GROUP BY region ORDER BY region"),
        "users": value("SELECT count(DISTINCT user_pseudonym) FROM events"),
        "session": value("SELECT min(session_id) FROM events"),
        "at_ms": row("SELECT min(epoch_ms(happened_at)), max(epoch_ms(happened_at)) FROM events"),
        "received_at_ms": value("SELECT max(epoch_ms(received_at)) FROM events"),
        "partition": [str(part) for part in row("SELECT min(date), min(hour) FROM events")],
    }
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
