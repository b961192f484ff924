"""Jobs that are accepted and have not begun."""

import psycopg


def count(conn: psycopg.Connection, most: int) -> int:
    """How many there are, counted to `most`: a look at no more than so many rows of an index."""
    row = conn.execute(
        """
        SELECT count(*) FROM (
          SELECT FROM dpe.jobs WHERE status IN ('SUBMITTED', 'QUEUED') LIMIT %s) waiting
        """,
        [most],
    ).fetchone()
    return row[0] if row else 0
