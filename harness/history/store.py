"""The store behind ``harness.history.trends``: one SQLite file, appended to in transactions.

SQLite with its rollback journal, through ``sqlite-utils``: it is what people open with Datasette or
``sqlite-utils`` itself, needs no server, and SQLite's transactions are what makes a killed writer
leave either its whole run or nothing. (pytest-benchmark's storage is a folder of JSON files of
timings, without transactions and without gates; an ORM would hide four tables.) A run is appended
in one transaction that takes the write lock first and waits for it. Not in write-ahead mode: to
the second of two first writers SQLite refuses the turn to it at once, without waiting, and it does
not work on network shares.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exportgate.errors import ExportGateError
from exportgate.reading import MALFORMED, reason, shaped
from harness.history.rows import Judged, Value, check_schema, environment_of, job_of, unpacked
from harness.metrics import RENAMED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import sqlite_utils

BUSY_TIMEOUT_S = 60.0
"""How long a writer waits for another; an append takes milliseconds."""
_UNWRITABLE = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY)
_VOLATILE = {"load_1min"}
"""What an environment states that does not make it another one."""


class HistoryError(ExportGateError, ValueError):
    """The store is unreadable, or does not hold what was asked for."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run of the gate, without its values.

    Attributes:
        number: In order of appending.
        checkpoint: File name of the checkpoint.
        checkpoint_sha256: Its hash.
        calibration_sha256: Of the manifest that INT8 files were calibrated with.
        target: What was judged for.
        device: Where the files ran.
        environment: Key of the environment, 12 digits.
        verdict: PASS or FAIL.
        finished_utc: When it was appended, ISO 8601.
    """

    number: int
    checkpoint: str
    checkpoint_sha256: str
    calibration_sha256: str
    target: str
    device: str
    environment: str
    verdict: str
    finished_utc: str

    @property
    def label(self) -> str:
        """Checkpoint and number, for tables."""
        return f"{self.checkpoint} (run {self.number})"


def environment_key(environment: Mapping[str, Any]) -> str:
    """Return 12 digits that stand for an environment; its load does not count."""
    lasting = {key: value for key, value in environment.items() if key not in _VOLATILE}
    return hashlib.sha256(json.dumps(lasting, sort_keys=True).encode()).hexdigest()[:12]


# -- the store ----------------------------------------------------------------------------------


@contextmanager
def opened(path: Path, *, only_read: bool = False) -> Iterator[sqlite_utils.Database]:
    """Open a store, making it if it is new.

    Args:
        path: The file.
        only_read: Leave a file without our tables as it is, and refuse it.

    Raises:
        HistoryError: The file is no store of ours, or another process holds it for too long.
    """
    import sqlite_utils  # noqa: PLC0415 - it brings pandas: most of a second, at each start of pytest

    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    except sqlite3.Error as error:
        msg = f"{path}: cannot be opened as a history ({error}); name a file in a folder of yours"
        raise HistoryError(msg) from error
    try:
        # A run is seldom and small: survive a power cut as well as a kill.
        connection.execute("PRAGMA synchronous=FULL")
        # What a schema calls may be anything in the library; ours calls nothing.
        connection.execute("PRAGMA trusted_schema=OFF")
        check_schema(connection)
        database = sqlite_utils.Database(connection)
        if "gates" not in database.table_names():
            if only_read:
                msg = "it has none of the tables of a history"
                raise ValueError(msg)
            with _writing(database):
                _make_tables(database)
        yield database
    except ExportGateError:
        raise
    except (zlib.error, *MALFORMED) as error:
        msg = f"{path}: not a readable history ({reason(error)}); move it away to begin a new one"
        raise HistoryError(msg) from error
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code == sqlite3.SQLITE_BUSY:
            msg = (
                f"{path}: another process has held this history locked for {BUSY_TIMEOUT_S:g} s;"
                " find it (fuser, lsof), and repeat this when it has ended"
            )
            raise HistoryError(msg) from error
        if code in _UNWRITABLE:
            msg = (
                f"{path}: the history cannot be written ({error}); make room, or name another file"
            )
            raise HistoryError(msg) from error
        msg = f"{path}: not a readable history ({error}); move it away to begin a new one"
        raise HistoryError(msg) from error
    finally:
        connection.close()


def check_writable(path: Path) -> None:
    """Open a store, making it if it is new, and take its write lock for a moment.

    Raises:
        HistoryError: It is no store of ours, cannot be written, or is held locked.
    """
    with opened(path) as database, _writing(database):
        pass


@contextmanager
def _writing(database: sqlite_utils.Database) -> Iterator[None]:
    """Take the write lock at once: a reader that turns writer may be refused without waiting."""
    database.conn.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        database.conn.execute("ROLLBACK")
        raise
    database.conn.execute("COMMIT")


def _make_tables(database: sqlite_utils.Database) -> None:
    # Plain statements: each table call of sqlite-utils would commit on its own.
    for statement in (
        "CREATE TABLE IF NOT EXISTS environments (key TEXT PRIMARY KEY, content TEXT NOT NULL)",
        (
            "CREATE TABLE IF NOT EXISTS runs (number INTEGER PRIMARY KEY AUTOINCREMENT,"
            " job TEXT UNIQUE, checkpoint TEXT NOT NULL, checkpoint_sha256 TEXT NOT NULL,"
            " calibration_sha256 TEXT NOT NULL, target TEXT NOT NULL, device TEXT NOT NULL,"
            " environment TEXT NOT NULL REFERENCES environments, verdict TEXT NOT NULL,"
            " finished_utc TEXT NOT NULL, report BLOB NOT NULL)"
        ),
        (
            "CREATE TABLE IF NOT EXISTS measurements (run INTEGER NOT NULL REFERENCES runs,"
            " subject TEXT NOT NULL, metric TEXT NOT NULL, value REAL)"
        ),
        (
            "CREATE TABLE IF NOT EXISTS gates (run INTEGER NOT NULL REFERENCES runs,"
            " subject TEXT NOT NULL, metric TEXT NOT NULL, direction TEXT NOT NULL,"
            ' "limit" REAL NOT NULL, value REAL, status TEXT NOT NULL)'
        ),
    ):
        database.conn.execute(statement)


def append(path: Path, report: Mapping[str, Any], job: str | None = None) -> int:
    """Append a run and return its number.

    Args:
        path: The store.
        report: The content of ``report.json``; its request states ``checkpoint_sha256`` and
            ``calibration_sha256``.
        job: What a sweep calls this run. A job is appended once: of a second append nothing is
            written, and the number of the first is returned.
    """
    row = _row(report, job, datetime.now(UTC).isoformat(timespec="seconds"))
    with opened(path) as database, _writing(database):
        done = _number_of_job(database, job)
        return done if done is not None else _insert(database, row, report)


def merge(path: Path, other: Path) -> int:
    """Append the runs of another store, e.g. of another machine, with their times.

    A run without a job becomes one under the hash of its report, so that merging a store again
    appends nothing.

    Returns:
        How many runs were appended.

    Raises:
        HistoryError: One of them is no store.
    """
    if not other.is_file():
        msg = f"{other}: no such history"
        raise HistoryError(msg)
    with opened(other, only_read=True) as database:
        rows = database.query("SELECT job, finished_utc, report FROM runs ORDER BY number")
        theirs = [(job_of(row), row["finished_utc"], unpacked(row["report"])) for row in rows]
        for _, finished, report in theirs:
            _row(report, None, finished)  # theirs is named if it is malformed, not ours
    appended = 0
    with opened(path) as database, _writing(database):
        for job, finished, report in theirs:
            if _number_of_job(database, job) is None:
                _insert(database, _row(report, job, finished), report)
                appended += 1
    return appended


def _row(report: Mapping[str, Any], job: str | None, finished_utc: str) -> dict[str, Any]:
    request = report["request"]
    return {
        "job": job,
        "checkpoint": Path(request["checkpoint"]).name,
        "checkpoint_sha256": request["checkpoint_sha256"],
        "calibration_sha256": request["calibration_sha256"],
        "target": request["target"],
        "device": request["device"],
        "environment": environment_key(report["environment"]),
        "verdict": report["verdict"],
        "finished_utc": finished_utc,
        "report": zlib.compress(json.dumps(report).encode()),
    }


def _insert(
    database: sqlite_utils.Database, row: Mapping[str, Any], report: Mapping[str, Any]
) -> int:
    connection = database.conn
    connection.execute(
        "INSERT OR IGNORE INTO environments VALUES (?, ?)",
        (row["environment"], json.dumps(report["environment"], sort_keys=True)),
    )
    marks = ", ".join(f":{name}" for name in row)
    statement = f"INSERT INTO runs ({', '.join(row)}) VALUES ({marks})"  # noqa: S608 - our own names
    number = int(connection.execute(statement, dict(row)).lastrowid or 0)
    connection.executemany(
        "INSERT INTO measurements VALUES (?, ?, ?, ?)",
        [(number, m["subject"], m["metric"], float(m["value"])) for m in report["measurements"]],
    )
    connection.executemany(
        "INSERT INTO gates VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (
                number, g["subject"], g["metric"], g["direction"], g["limit"],
                None if g["value"] is None else float(g["value"]), g["status"],
            )
            for g in report["gates"]
            # Nothing was judged, so that nothing broke; the report keeps the row.
            if not g["waived"]
        ],
    )  # fmt: skip
    return number


def _number_of_job(database: sqlite_utils.Database, job: str | None) -> int | None:
    found = next(database.query("SELECT number FROM runs WHERE job = :job", {"job": job}), None)
    return int(found["number"]) if found else None


def number_of_job(path: Path, job: str) -> int | None:
    """Return the number of the run that a sweep's job has become; None if it is not done."""
    with opened(path) as database:
        return _number_of_job(database, job)


_GATE_COLUMNS = ("run", "subject", "metric", "direction", '"limit"', "value", "status")
_RUN_COLUMNS = (
    "number, checkpoint, checkpoint_sha256, calibration_sha256, target, device, environment, "
    "verdict, finished_utc"
)


def read_runs(path: Path) -> list[Run]:
    """Return all runs, oldest first."""
    with opened(path, only_read=True) as database:
        sql = f"SELECT {_RUN_COLUMNS} FROM runs ORDER BY number"  # noqa: S608 - a constant
        return [shaped(row, Run) for row in database.query(sql)]


def read_environments(path: Path) -> dict[str, dict[str, Any]]:
    """Return each environment by its key."""
    with opened(path, only_read=True) as database:
        rows = database.query("SELECT key, content FROM environments")
        return {row["key"]: environment_of(row["content"]) for row in rows}


def read_report(path: Path, number: int) -> dict[str, Any]:
    """Return the whole ``report.json`` of a run, with its samples.

    Raises:
        HistoryError: No run has the number.
    """
    with opened(path, only_read=True) as database:
        sql = "SELECT report FROM runs WHERE number = :number"
        found = next(database.query(sql, {"number": number}), None)
        if found is None:
            msg = f"{path}: no run {number}; exportgate history lists those that are there"
            raise HistoryError(msg)
        return unpacked(found["report"])


def read_values(path: Path) -> dict[int, dict[tuple[str, str], float | None]]:
    """Return by run each measured value, by artifact and metric as it is called today."""
    found: dict[int, dict[tuple[str, str], float | None]] = {}
    with opened(path, only_read=True) as database:
        for plain in database.query("SELECT run, subject, metric, value FROM measurements"):
            row = shaped(plain, Value)
            metric = RENAMED.get(row.metric, row.metric)
            found.setdefault(row.run, {})[row.subject, metric] = row.value
    return found


def find_run(runs: Sequence[Run], name: str) -> Run:
    """Return the latest run with this number, checkpoint name or prefix of its hash.

    Raises:
        HistoryError: There is none.
    """
    for run in reversed(runs):
        names = (str(run.number), run.checkpoint, Path(run.checkpoint).stem)
        if name in names or (len(name) >= 6 and run.checkpoint_sha256.startswith(name)):
            return run
    known = ", ".join(run.label for run in runs[-10:]) or "none"
    msg = f"no run {name!r} in the history; the latest: {known}"
    raise HistoryError(msg)


def read_gates(path: Path) -> list[dict[str, Any]]:
    """Return each judged gate: run, artifact, metric, direction, limit, value and status."""
    with opened(path, only_read=True) as database:
        sql = f"SELECT {', '.join(_GATE_COLUMNS)} FROM gates ORDER BY rowid"  # noqa: S608 - constants
        rows = [row for row in database.query(sql) if shaped(row, Judged)]
    return [row | {"metric": RENAMED.get(row["metric"], row["metric"])} for row in rows]
