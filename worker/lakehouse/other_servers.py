"""Datasets elsewhere (`DPE_DATASET_<NAME>_URL`, `DPE_DATASETS_URL`), exactly once there as here.

A job writes to one server.  Where that is another one, its rows are committed there first, with a
row in the ledger, while the job's own row is locked here; then the job ends.  The attempt after one
that was lost in between finds the ledger's row and ends the job with the result that is kept there.
"""

from collections.abc import Sequence

import psycopg

from worker.errors import ClaimLost, DatasetError
from worker.lakehouse.transaction import running_job, turn
from worker.settings import current_settings
from worker.store import file_moves
from worker.store import ledger as store
from worker.store.claims import Claim

MAIN = "*"  # stands for all datasets without an address of their own
UNDECIDED_PAUSE_S = 2.0  # until the attempt that looks again

# This process' connections to other servers, by address; kept from job to job.
_open: dict[str, psycopg.Connection] = {}


class Undecided(DatasetError):
    """Whether rows were committed on another server can't be told yet, and it must be."""


def connection(dataset: str) -> psycopg.Connection:
    """The connection on which the running job works in a dataset; raises DatasetError."""
    job, url = running_job(), current_settings().dataset_url(dataset)
    if url is None:
        return job.conn
    with turn:
        if dataset not in job.elsewhere:
            job.elsewhere[dataset] = _begun(job, dataset, url)
        return job.elsewhere[dataset]


def main_connection() -> psycopg.Connection:
    """The connection to where datasets are that have no server of their own."""
    job, url = running_job(), current_settings().datasets_url
    if url is None:
        return job.conn
    with turn:
        if MAIN not in job.elsewhere:
            job.elsewhere[MAIN] = _begun(job, MAIN, url)
        return job.elsewhere[MAIN]


def datasets_elsewhere() -> list[str]:
    """Names of the datasets that have a server of their own."""
    return sorted(current_settings().dataset_urls)


def committed_before(record: psycopg.Connection, job: Claim) -> store.Entry | None:
    """What an earlier attempt of the job has committed elsewhere: then only its end is missing.

    Raises Undecided where the server does not answer.
    """
    noted = store.noted(record, job.execution_id) if job.attempt > 1 else None
    if noted is None:
        return None
    dataset, moves = noted
    try:
        conn = main_connection() if dataset == MAIN else connection(dataset)
        found = store.entry(conn, job.execution_id)
    except (DatasetError, psycopg.Error) as error:
        raise Undecided(f"what attempt {job.attempt - 1} did is not known: {error}") from error
    if found is not None:
        store.forget(job.conn, job.execution_id)
        file_moves.note(job.conn, job.execution_id, moves)
    return found


def commit(
    record: psycopg.Connection, job: Claim, result: bytes | None, moves: Sequence[file_moves.Owed]
) -> None:
    """Commit what the job wrote on another server, if it did, and keep the claim until its end.

    `moves` are owed for the files that it wrote; they are noted in the transaction of its end.
    Raises DatasetError where it wrote to more than one server, ClaimLost, and Undecided.
    """
    wrote = [dataset for dataset, conn in job.elsewhere.items() if store.has_written(conn)]
    if not wrote:
        file_moves.note(job.conn, job.execution_id, moves)
        return
    wrote.sort(reverse=True)  # a dataset's name rather than what stands for all
    servers = {id(job.elsewhere[dataset]) for dataset in wrote}
    if len(servers) > 1 or store.has_written(job.conn):
        raise DatasetError(
            f"the job wrote to {', '.join(wrote)}, on a server of its own, and to another one as"
            " well: two servers have no commit in common, so nothing was written",
            "divide it into two actions, the steps of a workflow; to read from both is fine",
        )
    conn = job.elsewhere[wrote[0]]
    text = None if result is None else result.decode()
    store.note(record, job.execution_id, wrote[0], moves)
    store.enter(conn, job.execution_id, job.attempt, text, job.stats)
    if not store.hold_claim(job.conn, job.execution_id, job.attempt):
        job.conn.rollback()
        raise ClaimLost(f"attempt {job.attempt} of {job.execution_id} is no longer the owner")
    try:
        conn.commit()
    except psycopg.OperationalError as error:
        job.committed_elsewhere = True  # as far as anybody knows
        raise Undecided(f"the commit in {wrote[0]} was not answered: {error}") from error
    job.committed_elsewhere = True
    file_moves.note(job.conn, job.execution_id, moves)


def lost_server(job: Claim) -> bool:
    """Whether a server of the job's went away under it."""
    return any(conn.closed for conn in job.elsewhere.values())


def release(job: Claim) -> None:
    """Roll back what the job has open elsewhere, whatever became of it; never raises."""
    for conn in set(job.elsewhere.values()):
        try:
            conn.rollback()
        except psycopg.Error:
            conn.close()
    job.elsewhere.clear()


def _begun(job: Claim, dataset: str, url: str) -> psycopg.Connection:
    conn = _open.get(url)
    if conn is not None and not conn.closed and conn in job.elsewhere.values():
        return conn  # two datasets of one server share the job's transaction there
    try:
        if conn is None or conn.closed:
            conn = _open[url] = store.open_server(url, "dpe-job")
            conn.execute("SET client_connection_check_interval = '500ms'")
            conn.autocommit = False
        store.begin(conn, job.execution_id, job.attempt)
    except psycopg.OperationalError as error:
        job.met_outage = True  # tried again later
        raise DatasetError(
            f"dataset {dataset}: its server does not answer: {type(error).__name__}",
            f"look at {_variable(dataset)}, and whether the server is up",
        ) from error
    return conn


def _variable(dataset: str) -> str:
    own = dataset.lower() in current_settings().dataset_urls
    return f"DPE_DATASET_{dataset.upper()}_URL" if own else "DPE_DATASETS_URL"
