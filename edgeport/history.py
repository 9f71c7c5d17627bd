"""Every result and comparison, kept in a database: SQLite in a file, or PostgreSQL where a team shares one.

A row is the record, whole, as JSON, beside the columns that it is found and drawn by, which are derived from it.
Rows are added and removed, never changed, and known by a hash of the record: what is added twice is there once.

The schema is changed by the numbered steps of MIGRATIONS, each in one transaction with the new number. Alembic does
more than one table with few changes needs: branches, downgrades and a folder of scripts to ship.
"""

import contextlib
import hashlib
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Connection, Engine, make_url

from edgeport import compare, files, stats
from edgeport.errors import HistoryError, UsageError
from edgeport.records import Comparison, Origin, Result

PATIENCE_S = 30  # for other writers to end, and for a server to answer
PROFILE, COMPARISON = "profile", "comparison"
KINDS: dict[str, type[Result] | type[Comparison]] = {PROFILE: Result, COMPARISON: Comparison}
RESULTS, VERSION = "edgeport_results", "edgeport_version"
SHORTEST_ID, SHOWN_ID = 4, 10  # hex digits
DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
PUBLIC = ("host", "port", "user", "dbname", "sslmode", "application_name", "connect_timeout")  # options of a URL
LATEST = 253_402_000_000  # the end of the year 9999, as dates are no longer known
LOCK = 0x65646765706F7274  # of PostgreSQL, while the schema is changed: "edgeport" in ASCII

# A step is never edited once released: databases that went through it are as it was.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        f"""CREATE TABLE {RESULTS} (
            id VARCHAR(64) PRIMARY KEY, kind VARCHAR(16) NOT NULL, unix_time DOUBLE PRECISION NOT NULL,
            model TEXT NOT NULL, device TEXT NOT NULL, runtime TEXT NOT NULL, runtime_version TEXT NOT NULL,
            precision TEXT NOT NULL, num_threads INTEGER NOT NULL, sha256 VARCHAR(64) NOT NULL,
            emulated BOOLEAN NOT NULL, median_ms DOUBLE PRECISION, low_ms DOUBLE PRECISION,
            high_ms DOUBLE PRECISION, verdict TEXT NOT NULL, edgeport TEXT, git_commit TEXT, git_time BIGINT,
            git_branch TEXT, git_dirty BOOLEAN, record JSON NOT NULL)""",
        f"CREATE INDEX {RESULTS}_time ON {RESULTS} (unix_time)",
        f"CREATE INDEX {RESULTS}_model ON {RESULTS} (model, device, unix_time)",
    ),
)

Record = Result | Comparison

_tables = sa.MetaData()
_results = sa.Table(
    RESULTS,
    _tables,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("kind", sa.String(16)),
    *(sa.Column(name, sa.Double) for name in ("unix_time", "median_ms", "low_ms", "high_ms")),
    *(sa.Column(name, sa.Text) for name in ("model", "device", "runtime", "runtime_version", "precision", "verdict")),
    *(sa.Column(name, sa.Text) for name in ("sha256", "edgeport", "git_commit", "git_branch")),
    sa.Column("num_threads", sa.Integer),
    sa.Column("git_time", sa.BigInteger),
    *(sa.Column(name, sa.Boolean) for name in ("emulated", "git_dirty")),
    sa.Column("record", sa.JSON),
)
_version = sa.Table(VERSION, _tables, sa.Column("version", sa.Integer))


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A row without its record. kind: of the record, "profile" for a Result. unix_time: of the host's clock, if known.

    median_ms and its interval low_ms to high_ms (stats.latency_interval), verdict: what was derived from the record.
    edgeport and git_*: the record's origin, None where it has none. Of a comparison all is its candidate's, without an
    interval: what it tells of is the ratio, and its verdict is the outcome.
    """

    id: str
    kind: str
    unix_time: float
    model: str
    device: str
    runtime: str
    runtime_version: str
    precision: str
    num_threads: int
    sha256: str
    emulated: bool
    median_ms: float | None
    low_ms: float | None
    high_ms: float | None
    verdict: str
    edgeport: str | None
    git_commit: str | None
    git_time: int | None
    git_branch: str | None
    git_dirty: bool | None


class Filter(msgspec.Struct, frozen=True):
    """What entries to find: those that are as said wherever something is said. since: Unix time; last: the newest so
    many, 0 for all.
    """

    kind: str | None = None
    model: str | None = None
    device: str | None = None
    runtime: str | None = None
    precision: str | None = None
    git_branch: str | None = None
    since: float | None = None
    last: int = 0


ALL = Filter()
ORDER = ("unix_time", "model", "device", "runtime", "precision", "id")
EQUAL = ("kind", "model", "device", "runtime", "precision", "git_branch")  # of a Filter: columns that must be as said


def entry_of(record: Record) -> Entry:
    """What a record is found by."""
    result = record if isinstance(record, Result) else record.candidates[0]
    kind, median_ms, interval, verdict = _derived(record)
    commit = record.origin.commit if record.origin else None
    return Entry(
        id=hashlib.sha256(_canonical(record)).hexdigest(),
        kind=kind,
        unix_time=_time(record.origin, result),
        model=result.model,
        device=result.device,
        runtime=result.runtime,
        runtime_version=result.runtime_version,
        precision=result.precision,
        num_threads=result.num_threads,
        sha256=result.sha256,
        emulated=result.is_emulated,
        median_ms=median_ms,
        low_ms=interval.low if interval else None,
        high_ms=interval.high if interval else None,
        verdict=verdict,
        edgeport=record.origin.edgeport if record.origin else None,
        git_commit=commit.id if commit else None,
        git_time=commit.unix_time if commit else None,
        git_branch=commit.branch if commit else None,
        git_dirty=commit.dirty if commit else None,
    )


def _derived(record: Record) -> tuple[str, float | None, stats.Interval | None, str]:
    """kind, median_ms, its interval and verdict."""
    if isinstance(record, Comparison):
        candidate_ns = compare.checks(record)[0].after
        return COMPARISON, candidate_ns and candidate_ns / 1e6, None, compare.outcome(record)
    interval = stats.latency_interval(record.launches)
    return PROFILE, stats.latency(record.launches).median, interval, stats.verdict(record)


def _time(origin: Origin | None, result: Result) -> float:
    """Without an origin the device's, which may be wrong, or else now."""
    told = (origin.unix_time if origin else None, result.launches[-1].after.get("unix_time"))
    return next((t for t in told if isinstance(t, int | float) and 0 < t < LATEST), time.time())


class History:
    """An open history. A change is one transaction; HistoryError is raised where the database does not do what it is
    asked for.
    """

    def __init__(self, database: str, create: bool = False) -> None:
        """database: a file's path or the URL of a database. create: make the file where there is none.

        Raises UsageError for a URL that means nothing and a file that is not there, HistoryError for a database that
        does not answer, is damaged, is another program's or was made by a newer edgeport: it is left as it is.
        """
        url = parse(database)
        self.name = shown(url)
        self._secrets = _secrets(url)
        if url.get_backend_name() == "sqlite":
            _check_file(Path(url.database or ""), create)
        self._engine = _engine(url)
        with self._told("open"):
            _migrate(self._engine)

    def add(self, records: Sequence[Record]) -> list[str]:
        """Keeps all of them or none. The ids of those that were not there already."""
        insert = postgresql.insert if self._engine.dialect.name == "postgresql" else sqlite.insert
        new = insert(_results).on_conflict_do_nothing(index_elements=["id"]).returning(_results.c.id)
        rows = [{**msgspec.to_builtins(entry_of(record)), "record": msgspec.to_builtins(record)} for record in records]
        with self._told("write to"), _writing(self._engine) as connection:
            added = (connection.execute(new, row).scalar() for row in rows)
            return [key for key in added if key is not None]

    def entries(self, wanted: Filter = ALL) -> list[Entry]:
        """The oldest first."""
        query = sa.select(*_columns()).where(*_conditions(wanted))
        query = query.order_by(*(_results.c[name].desc() for name in ORDER)).limit(wanted.last or None)
        return self._entries(query)[::-1]

    def with_ids(self, ids: Sequence[str]) -> list[Entry]:
        """The entries of these ids, in this order."""
        found = {entry.id: entry for entry in self._entries(sa.select(*_columns()).where(_results.c.id.in_(ids)))}
        return [found[key] for key in ids if key in found]

    def count(self, wanted: Filter = ALL) -> int:
        """Of all that the filter lets through, whatever its `last` says."""
        [row] = self._read(sa.select(sa.func.count().label("n")).select_from(_results).where(*_conditions(wanted)))
        return int(row["n"])

    def values(self, column: str) -> list[str]:
        """What there is to filter by."""
        known = _results.c[column]
        return [
            row[column] for row in self._read(sa.select(known).where(known.is_not(None)).distinct().order_by(known))
        ]

    def find(self, prefix: str) -> str:
        """The whole id that begins so. Raises UsageError where none does, or several do."""
        if len(prefix) < SHORTEST_ID or set(prefix) - set("0123456789abcdef"):
            raise UsageError(f"{prefix!r} is no id: give at least {SHORTEST_ID} of its digits (edgeport history list)")
        query = sa.select(_results.c.id).where(_results.c.id.startswith(prefix, autoescape=True)).limit(3)
        found = [str(row["id"]) for row in self._read(query)]
        if len(found) != 1:
            there = ", ".join(f"{key[: len(prefix) + SHORTEST_ID]}..." for key in found)
            raise UsageError(f"there is no result {prefix} in {self.name}" if not found else f"{prefix} may be {there}")
        return found[0]

    def records(self, ids: Sequence[str]) -> list[Record]:
        """Those of these ids, in this order."""
        return [self._record(key) for key in ids]

    def results(self, ids: Sequence[str]) -> list[Result]:
        """The records of these ids, in this order, without those that are no results."""
        return [record for record in self.records(ids) if isinstance(record, Result)]

    def remove(self, ids: Sequence[str]) -> int:
        """How many were there."""
        with self._told("write to"), _writing(self._engine) as connection:
            return sum(connection.execute(sa.delete(_results).where(_results.c.id == key)).rowcount for key in ids)

    def _record(self, key: str) -> Record:
        columns = _results.c.kind, sa.cast(_results.c.record, sa.Text).label("record")
        rows = self._read(sa.select(*columns).where(_results.c.id == key))
        if not rows:
            raise UsageError(f"there is no result {key[:SHOWN_ID]} in {self.name}")
        try:
            return msgspec.json.decode(rows[0]["record"], type=KINDS[rows[0]["kind"]])
        except (msgspec.MsgspecError, KeyError) as e:
            raise HistoryError(f"the result {key[:SHOWN_ID]} in {self.name} is damaged: {e}") from e

    def _entries(self, query: sa.Select[Any]) -> list[Entry]:
        return [Entry(**dict(row)) for row in self._read(query)]

    def _read(self, query: sa.Select[Any]) -> Sequence[sa.RowMapping]:
        with self._told("read"), self._engine.begin() as connection:
            return connection.execute(query).mappings().all()

    @contextlib.contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Turns what the database complains of into a HistoryError, without what nobody else is to read."""
        try:
            yield
        except (exc.SQLAlchemyError, UnicodeError, OverflowError) as e:  # the last two: no value of the database's
            cause = e.orig if isinstance(e, exc.DBAPIError) and e.orig is not None else e
            text = str(cause).strip().partition("\n\n")[0]
            for secret in self._secrets:
                text = text.replace(secret, "***")
            raise HistoryError(f"cannot {what} the history {self.name}: {text}{_advice(cause)}") from None


def parse(database: str) -> URL:
    """A file's path, or the URL of a database. Raises UsageError, which repeats nothing that may be a password."""
    if "://" not in database:
        return _file(Path(database).expanduser())
    scheme = database.partition("://")[0]
    if scheme not in DRIVERS:
        known = "a file, sqlite:///FILE or postgresql://USER@HOST/NAME"
        raise UsageError(f"--database: {scheme}:// is not known; give {known}")
    try:
        url = make_url(database).set(drivername=DRIVERS[scheme])
        url.get_dialect().import_dbapi()
    except ImportError:
        raise UsageError("--database: PostgreSQL needs psycopg; run pip install 'edgeport[postgresql]'") from None
    except (exc.ArgumentError, ValueError):
        url = None
    if url is None or "@" in (url.host or "") or (scheme == "sqlite" and (url.host or url.query or not url.database)):
        advice = "sqlite:///FILE is all there is" if scheme == "sqlite" else "passwords have percent codes for @ : / ?"
        raise UsageError(f"--database: this {scheme}:// URL cannot be read; {advice}")
    return _file(Path(url.database or "")) if scheme == "sqlite" else url


def _file(path: Path) -> URL:
    """Absolute: some other names, such as :memory:, are no files to SQLite."""
    return URL.create("sqlite", database=str(path.absolute()))


def shown(url: URL) -> str:
    """Where a history is, without user and password."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    return URL.create("postgresql", host=url.host, port=url.port, database=url.database).render_as_string()


def _secrets(url: URL) -> list[str]:
    """What is not to be repeated: passwords, and options that may be the rest of one that was not quoted."""
    options = [text for key, value in url.normalized_query.items() if key not in PUBLIC for text in (key, *value)]
    return [text for text in (url.password, *options) if text]


def _canonical(record: Record) -> bytes:
    """The same bytes for the same record, before it is written and after it is read. Optional fields, at any depth,
    count where they are given, so that one that a later version adds changes nothing.
    """
    typed = msgspec.convert(msgspec.to_builtins(record), type(record))  # 400 becomes 400.0 where a float is meant
    return msgspec.json.encode(_given(msgspec.to_builtins(typed)), order="deterministic")


def _given(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _given(v) for name, v in value.items() if v is not None}
    return [_given(v) for v in value] if isinstance(value, list | tuple) else value


def _columns() -> list[sa.Column[Any]]:
    return [_results.c[name] for name in Entry.__struct_fields__]


def _conditions(wanted: Filter) -> list[sa.ColumnElement[bool]]:
    said = [_results.c[name] == getattr(wanted, name) for name in EQUAL if getattr(wanted, name) is not None]
    return said if wanted.since is None else [*said, _results.c.unix_time >= wanted.since]


# Databases


def _check_file(path: Path, create: bool) -> None:
    if path.is_dir():
        raise UsageError(f"the history {path} is a folder; name a file")
    if path.is_file() and path.stat().st_size == 1:  # which SQLite takes for an empty file, and overwrites
        raise HistoryError(f"cannot open the history {path}: file is not a database{ELSE}")
    if path.parent == files.data_folder() and (create or path.exists()):
        files.private_folder(path.parent)
    if create:
        files.writable_folder(path.parent)
        _make_private(path)
    elif not path.exists():
        raise UsageError(f"there is no history {path} yet; edgeport profile keeps its results there")


def _make_private(path: Path) -> None:
    """Makes an empty file where there is none, for the user alone; SQLite's files beside it are as it is."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return
    except OSError as e:
        raise HistoryError(f"cannot make the history {path}: {files.reason(e)}; give another --database") from e


def _engine(url: URL) -> Engine:
    """Connections last as long as a transaction: between them nothing is held open, and a fork inherits nothing."""
    is_file = url.get_backend_name() == "sqlite"
    engine = sa.create_engine(
        url,
        poolclass=sa.NullPool,
        hide_parameters=True,
        json_serializer=lambda value: msgspec.json.encode(value).decode(),
        connect_args={"timeout": PATIENCE_S} if is_file else {"connect_timeout": PATIENCE_S},
    )
    if is_file:
        sa.event.listen(engine, "connect", _connected)
        sa.event.listen(engine, "begin", _begun)
    return engine


def _connected(connection: sqlite3.Connection, _: object) -> None:
    """Python's module is not to begin transactions by itself. An answer means that the disk has it (FULL)."""
    connection.isolation_level = None
    connection.execute("PRAGMA synchronous = FULL")


def _begun(connection: Connection) -> None:
    """A writer takes its turn at once: one that began by reading could not wait for another."""
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")


@contextlib.contextmanager
def _writing(engine: Engine) -> Iterator[Connection]:
    with engine.execution_options(writes=True).begin() as connection:
        yield connection


def _migrate(engine: Engine) -> None:
    """Brings the schema up to date, whoever else does the same at the moment."""
    with engine.begin() as connection:
        if _known_version(connection) == len(MIGRATIONS):
            return
    if engine.dialect.name == "sqlite":
        _use_wal(engine)
    with _writing(engine) as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
        _upgrade(connection)


def _upgrade(connection: Connection) -> None:
    version = _known_version(connection)  # once more: by now it is nobody else's turn
    if version == 0:
        connection.exec_driver_sql(f"CREATE TABLE {VERSION} (version INTEGER NOT NULL)")
        connection.execute(_version.insert().values(version=0))
    for step in MIGRATIONS[version:]:
        for statement in step:
            connection.exec_driver_sql(statement)
    connection.execute(_version.update().values(version=len(MIGRATIONS)))


def _known_version(connection: Connection) -> int:
    """0 for an empty database. Raises HistoryError for one that is not to be touched."""
    tables = sa.inspect(connection)
    if not tables.has_table(VERSION):
        others = tables.get_table_names() if connection.dialect.name == "sqlite" else []
        if others:
            raise HistoryError(f"{_place(connection)} is the database of another program (it has {others[0]!r}){ELSE}")
        return 0
    version = connection.execute(sa.select(_version.c.version)).scalar_one()
    if version > len(MIGRATIONS):
        raise HistoryError(
            f"{_place(connection)} was made by a newer edgeport (schema {version}; this one knows {len(MIGRATIONS)}); "
            f"upgrade edgeport, or give another --database"
        )
    return int(version)


def _place(connection: Connection) -> str:
    return f"the history {shown(connection.engine.url)}"


def _use_wal(engine: Engine) -> None:
    """Readers and a writer then go on side by side. SQLite does not wait for others here by itself."""
    connection = engine.raw_connection()
    try:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                connection.cursor().execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as e:
                if e.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise exc.OperationalError(None, None, e) from e
                time.sleep(0.01)
            else:
                return
    finally:
        connection.close()


ELSE = "; it was left as it is: give another --database"
ADVICE = {
    sqlite3.SQLITE_NOTADB: ELSE,
    sqlite3.SQLITE_CORRUPT: "; copy it, then try 'sqlite3 FILE .recover' on the copy, or give another --database",
    sqlite3.SQLITE_BUSY: f"; another program has been writing for {PATIENCE_S} s",
    sqlite3.SQLITE_CANTOPEN: "; it must be a file, and its folder must be writable",
    sqlite3.SQLITE_READONLY: "; the file and its folder must be writable",
}


def _advice(cause: BaseException) -> str:
    return ADVICE.get(getattr(cause, "sqlite_errorcode", 0) & 0xFF, "")
