"""Files in buckets: what a job writes is its own until it is committed, and then everybody's."""

import io
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from tests.lakehouse.rows import claimed
from worker import data_store
from worker.data_store import DataStore
from worker.errors import DatasetError
from worker.lakehouse import buckets, connect
from worker.lakehouse.buckets import Bucket
from worker.store import claims, file_moves
from worker.store.claims import Claim


def end(job: Claim) -> None:
    """As the job's end does: what is owed for its files, and the commit."""
    file_moves.note(job.conn, job.execution_id, buckets.owed(job))
    job.conn.commit()


@pytest.fixture(params=["folder", "objects"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> DataStore:
    """A store of this test's own: a folder, or one without folders and renames, as S3 is."""
    url = str(tmp_path / "store") if request.param == "folder" else f"memory://{uuid4()}"
    store = DataStore(url, {})
    monkeypatch.setattr(data_store, "_of_process", lambda _: store)
    return store


@pytest.fixture
def files(job: Claim, store: DataStore) -> Bucket:
    found = connect("data_store/reports")
    assert isinstance(found, Bucket)
    return found


def commit(job: Claim, conn: psycopg.Connection) -> None:
    """What a process does at the end of a job."""
    end(job)
    buckets.land(conn, job)


def there(store: DataStore) -> dict[str, bytes]:
    """All that others see in the store, and that waits there."""
    store.fs.invalidate_cache()
    return {at[len(store.root) + 1 :]: store.fs.cat_file(at) for at in store.fs.find(store.root)}


def again(job: Claim) -> Claim:
    """The next job of this process."""
    claims.running = claimed(job.conn, job.execution_id, job.attempt + 1)
    return claims.running


def test_a_file_lands_with_its_job(
    files: Bucket, store: DataStore, job: Claim, conn: psycopg.Connection
) -> None:
    stat = files.put("2024/a.csv", "id\n1\n")
    assert (stat.name, stat.size) == ("2024/a.csv", 5)
    assert [name for name in there(store) if not name.startswith(".dpe/")] == []
    assert files.get("2024/a.csv") == b"id\n1\n"  # to the job itself it is there
    assert files.list_filename() == ["2024/a.csv"]
    commit(job, conn)
    assert there(store) == {"reports/2024/a.csv": b"id\n1\n"}
    assert conn.execute("SELECT count(*) FROM dpe.file_moves").fetchone() == (0,)
    again(job)
    assert files.get("2024/a.csv") == b"id\n1\n"


def test_nothing_of_a_job_that_fails_is_there(
    files: Bucket, store: DataStore, job: Claim, conn: psycopg.Connection
) -> None:
    files.put("kept", b"old")
    commit(job, conn)
    second = again(job)
    files.put("kept", b"new")
    files.put("more", b"x")
    assert files.delete("more")
    assert files.delete("kept")
    assert files.list_filename() == []
    second.conn.rollback()
    buckets.discard(second)
    assert there(store) == {"reports/kept": b"old"}
    again(second)
    assert files.get("kept") == b"old"


def test_every_method(files: Bucket, tmp_path: Path, job: Claim, conn: psycopg.Connection) -> None:
    local = tmp_path / "local.bin"
    local.write_bytes(b"\0\1")
    files.fput("a/local.bin", local)
    files.put("b.txt", io.BytesIO(b"from a file"))
    files.put("b.txt", "äö")
    files.fcopy_to("b.txt", "archive", "2024/b.txt")
    files.fcopy_to("a/local.bin", Bucket("archive"))
    commit(job, conn)
    again(job)
    assert files.list_filename() == ["a/local.bin", "b.txt"]
    assert [stat.name for stat in files.list("a/")] == ["a/local.bin"]
    stat = files.stat("b.txt")
    assert (stat.size, stat.last_modified is not None) == (4, True)
    copy = files.fget("a/local.bin", tmp_path / "copy.bin")
    assert Path(copy).read_bytes() == b"\0\1"
    archive = connect("data_store/archive")
    assert isinstance(archive, Bucket)
    assert (archive.get("2024/b.txt"), archive.get("a/local.bin")) == ("äö".encode(), b"\0\1")
    whole = connect("data_store")
    assert isinstance(whole, Bucket)
    assert whole.list_filename() == [
        "archive/2024/b.txt", "archive/a/local.bin", "reports/a/local.bin", "reports/b.txt",
    ]  # fmt: skip
    assert whole.get("reports/b.txt") == "äö".encode()
    assert (files.delete("b.txt"), files.delete("b.txt"), files.delete("no")) == (
        True,
        False,
        False,
    )


def test_what_is_not_there_or_no_name_is_said(files: Bucket, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="data_store/reports/nothing: there is no such file"):
        files.get("nothing")
    with pytest.raises(FileNotFoundError):
        files.fput("x", tmp_path / "nothing")
    for name in ("../other/x", "a/../../x", "/etc/passwd", "a\0b"):
        with pytest.raises(DatasetError, match="can't be a file's name"):
            files.put(name, b"")
    with pytest.raises(DatasetError, match="can't be a file's name"):
        Bucket("").get(".dpe/x")
    with pytest.raises(DatasetError, match="names no bucket"):
        Bucket("").put("x", b"")
    assert files.list_filename() == []


def overdue(conn: psycopg.Connection) -> None:
    conn.execute(
        "UPDATE dpe.file_moves SET noted_at = now() - interval '1 minute', failed_at = NULL"
    )


def test_what_a_dead_process_left_is_moved_once(
    files: Bucket, store: DataStore, job: Claim, conn: psycopg.Connection
) -> None:
    files.put("a", b"first")
    end(job)  # and here the process ends
    assert data_store.land_left(conn) == 0  # its own time is not over yet
    overdue(conn)
    assert data_store.sweep(conn) == 0  # it waits to be moved
    assert data_store.land_left(conn) == 1
    assert data_store.land_left(conn) == 0
    assert there(store)["reports/a"] == b"first"


def test_a_move_that_was_done_and_not_noted_is_not_done_again(
    files: Bucket, store: DataStore, job: Claim, conn: psycopg.Connection
) -> None:
    files.put("a", b"first")
    end(job)
    with conn.transaction(force_rollback=True):  # moved, and then the process ends
        buckets.land(conn, job)
    store.fs.pipe_file(store.path("reports/a"), b"newer, of somebody else")
    overdue(conn)
    assert data_store.land_left(conn) == 1
    assert there(store)["reports/a"] == b"newer, of somebody else"


def test_an_older_file_never_comes_after_a_newer_one(
    files: Bucket, store: DataStore, job: Claim, conn: psycopg.Connection
) -> None:
    files.put("a", b"older")
    files.delete("b")
    end(job)  # left behind
    second = again(job)
    files.put("a", b"newer")
    commit(second, conn)
    assert there(store)["reports/a"] == b"newer"
    overdue(conn)
    data_store.land_left(conn)
    assert there(store)["reports/a"] == b"newer"


@pytest.mark.parametrize("store", ["folder"], indirect=True)
def test_a_move_that_fails_stays_owed_and_says_why(
    files: Bucket, store: DataStore, job: Claim, conn: psycopg.Connection
) -> None:
    files.put("a/b", b"x")
    Path(store.root, "reports").mkdir()
    Path(store.root, "reports", "a").write_bytes(b"in the way")
    commit(job, conn)
    (error,) = conn.execute("SELECT error FROM dpe.file_moves").fetchone() or ("",)
    assert "Error" in error
    overdue(conn)
    Path(store.root, "reports", "a").unlink()
    assert data_store.land_left(conn) == 1
    assert there(store)["reports/a/b"] == b"x"


def test_files_of_lost_attempts_are_swept(
    files: Bucket, store: DataStore, job: Claim, conn: psycopg.Connection
) -> None:
    files.put("a", b"x")
    job.conn.rollback()  # its process was killed
    assert len(there(store)) == 1
    assert data_store.sweep(conn) == 1
    assert there(store) == {}
