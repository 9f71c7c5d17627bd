"""A team's history in PostgreSQL: the same as in a file, with many writers on many machines."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from edgeport import history
from edgeport.errors import HistoryError, UsageError
from edgeport.history import Filter, History, entry_of
from edgeport.records import Commit, Launch, Origin, Result
from edgeport.reports import View, as_json

from .conftest import PASSWORD, Server

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import check_history

NOON = 1_793_534_400
ROUNDS = 20


PLAIN: dict[str, Any] = {
    "runtime_version": "0",
    "file": "model.onnx",
    "sha256": "0" * 64,
    **dict.fromkeys(("num_threads", "warmup_runs", "size_bytes"), 1),
    **dict.fromkeys(("cores", "inputs"), ()),
    "model": "shufflenet_v2",
    "device": "rpi4",
    "runtime": "onnxruntime",
    "precision": "int8",
}


def made(n: int, **fields: Any) -> Result:
    origin = Origin(NOON + n, "0.1.0", Commit("ab" * 20, NOON, "main", dirty=False))
    given = {"facts": {"cpu_model": 'Größe "\\', "emulated": False}, "origin": origin, **fields}
    launches = tuple(Launch(1, 2, (10**6 + n, 2 * 10**6), None, {}, {"celsius": [41.5]}) for _ in range(6))
    return Result(launches=launches, **{**PLAIN, **given})


def name_of(url: str) -> str:
    return url.partition("@/")[2].partition("?")[0]


@pytest.fixture
def kept(database: str) -> History:
    return History(database)


def test_results_come_back_as_they_were(kept: History) -> None:
    results = [made(0), made(1), made(2, facts={"cpu_model": "\0"})]
    ids = kept.add(results)
    assert kept.results(ids) == results
    assert kept.entries() == [entry_of(r) for r in results]
    assert (kept.add(results), kept.count()) == ([], 3)


def test_entries_are_filtered_as_in_a_file(kept: History) -> None:
    name = "x'); DROP TABLE edgeport_results; --%_"
    kept.add([made(0), made(1, model=name), made(2, runtime="litert"), made(3, origin=None)])
    assert [e.model for e in kept.entries(Filter(model=name))] == [name]
    assert [e.runtime for e in kept.entries(Filter(git_branch="main", since=NOON + 1, last=1))] == ["litert"]
    assert kept.values("runtime") == ["litert", "onnxruntime"]
    assert kept.find(entry_of(made(0)).id[:8]) == entry_of(made(0)).id
    assert (kept.remove([entry_of(made(0)).id]), kept.count()) == (1, 3)


def test_a_name_that_the_database_cannot_hold_adds_nothing(kept: History) -> None:
    with pytest.raises(HistoryError, match=r"cannot write to the history postgresql:///test_.*NUL"):
        kept.add([made(0), made(1, model="a\0b")])
    assert kept.count() == 0


def test_eight_writers_that_open_a_new_history_at_once_lose_nothing(database: str) -> None:
    assert check_history.together(8, 12, database) == 0


def test_writers_that_are_killed_leave_whole_results_and_lose_none_acknowledged(database: str) -> None:
    for seed in range(ROUNDS):  # on a busy machine all of one round may be killed before they have begun
        counts = check_history.kill(15, check_history.places("", database), random.Random(seed))
        if counts["rows"]:
            break
    assert counts["rows"] > 0
    assert [counts[bad] for bad in ("lost", "torn", "changed", "damaged")] == [0, 0, 0, 0]


def test_the_columns_are_those_that_the_steps_have_made(kept: History, database: str) -> None:
    inspector = sqlalchemy.inspect(sqlalchemy.create_engine(history.parse(database)))
    found = {column["name"] for column in inspector.get_columns(history.RESULTS)}
    assert found == {*history.Entry.__struct_fields__, "record"}


def test_an_older_database_is_brought_up_to_date_and_a_failed_step_undone(
    kept: History, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.add([made(0)])
    add, wrong = f"ALTER TABLE {history.RESULTS} ADD COLUMN governor TEXT", "ALTER TABLE nowhere ADD COLUMN x TEXT"
    with monkeypatch.context() as patch:
        patch.setattr(history, "MIGRATIONS", (*history.MIGRATIONS, (add, wrong)))
        with pytest.raises(HistoryError, match="nowhere"):
            History(database)
    monkeypatch.setattr(history, "MIGRATIONS", (*history.MIGRATIONS, (add,)))
    assert History(database).results([entry_of(made(0)).id]) == [made(0)]


def test_a_newer_database_is_refused_and_other_tables_are_left_alone(server: Server, database: str) -> None:
    name = name_of(database)
    server.sql("CREATE TABLE bookmarks (url TEXT); INSERT INTO bookmarks VALUES ('x')", name)
    History(database).add([made(0)])
    server.sql("UPDATE edgeport_version SET version = 99", name)
    with pytest.raises(HistoryError, match=r"newer edgeport \(schema 99"):
        History(database)
    assert server.sql("SELECT url FROM bookmarks", name) == "x"


def test_records_can_be_asked_for_in_sql(kept: History, server: Server, database: str) -> None:
    kept.add([made(7)])
    name = name_of(database)
    query = "SELECT record->'facts'->>'emulated', record->'launches'->0->'samples_ns'->>0 FROM edgeport_results"
    assert server.sql(query, name) == "false|1000007"


@pytest.mark.parametrize("wrong", ["password", "database", "host"])
def test_a_database_that_cannot_be_opened_is_told_without_the_password(wrong: str, server: Server) -> None:
    url = {
        "password": server.url("postgres", PASSWORD + "!"),
        "database": server.url("nowhere"),
        "host": server.url("postgres").replace(str(server.folder), "/nowhere"),
    }[wrong]
    with pytest.raises(HistoryError, match=r"cannot open the history postgresql:///(postgres|nowhere): ") as error:
        History(url)
    assert PASSWORD not in str(error.value)


def test_a_password_without_percent_codes_is_not_repeated(server: Server) -> None:
    plain = server.url("postgres").replace(
        server.url("postgres").partition("edgeport:")[2].partition("@/")[0], PASSWORD
    )
    assert PASSWORD in plain
    with pytest.raises((UsageError, HistoryError)) as error:
        History(plain)
    assert not any(part in str(error.value) for part in ("w/rd", "rd?#7", "ss:w"))


def test_the_command_line_keeps_and_lists_results_there(database: str, tmp_path: Path) -> None:
    """The URL comes from the environment, as in CI, where a command line would be shown."""
    (tmp_path / "x.json").write_text(as_json.render([made(n) for n in range(4)], View()))
    environment = {**os.environ, "EDGEPORT_DATABASE": database}

    def edgeport(*arguments: object) -> str:
        command = [sys.executable, "-m", "edgeport.cli", "history", *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert PASSWORD not in done.stdout + done.stderr
        return done.stdout

    assert "added 4 results to postgresql:///test_" in edgeport("add", tmp_path / "x.json")
    assert len(json.loads(edgeport("list", "--format=json"))) == 4
    assert as_json.read(edgeport("export", "--last=1").encode(), "x") == [made(3)]
    assert "shufflenet_v2" in edgeport("show")


def test_a_server_that_goes_away_is_an_error_and_not_a_lost_acknowledgement(
    kept: History, server: Server, database: str
) -> None:
    name = name_of(database)
    server.sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    with pytest.raises(HistoryError, match="not currently accepting connections"):
        kept.add([made(0)])
    server.sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    assert (len(kept.add([made(0)])), kept.count()) == (1, 1)
