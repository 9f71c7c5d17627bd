"""The history of results: what is kept is found again as it was, and nothing that goes wrong loses any of it."""

import contextlib
import csv
import json
import random
import sqlite3
import subprocess
import sys
import warnings
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sqlalchemy
from small_comparisons import comparison, session
from small_models import small_tflite
from small_results import launch, result, shufflenet_profile

from edgeport import cli, history, origin, reports
from edgeport.cli.history import branch_of_ci
from edgeport.errors import HistoryError, ResultFileError, UsageError
from edgeport.history import KINDS, PROFILE, Filter, History, entry_of
from edgeport.records import Commit, OpProfile, Origin, Result
from edgeport.reports import View, as_json, entries, trend, verdicts

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import check_history

DAY = 86400
NOON = datetime(2026, 11, 1, 12).astimezone().timestamp()
MAIN = Commit("ab" * 20, int(NOON) - DAY, "main", dirty=False)
PASSWORD = "tiger#7"  # noqa: S105
ROUNDS = 20


def made(n: int = 0, profile: OpProfile | None = None, **fields: Any) -> Result:
    """A result of n days after noon of the first of November."""
    given = {"origin": Origin(NOON + n * DAY, "0.1.0", MAIN), **fields}
    return result([launch(1 + n, 2, 3), launch(2), launch(5)], profile, **given)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.db"


@pytest.fixture
def filled(path: Path) -> History:
    """Six results, a day apart."""
    kept = History(str(path), create=True)
    kept.add(SIX)
    return kept


SIX = [
    made(0),
    made(1, model="mobilenet_v2"),
    made(2, device="rpi4", precision="fp32"),
    made(3, runtime="onnxruntime"),
    made(4, origin=Origin(NOON + 4 * DAY, "0.1.0", Commit("cd" * 20, int(NOON), "next", dirty=True))),
    made(5, origin=Origin(NOON + 5 * DAY, "0.1.0", None)),
]


# What is kept


def test_a_result_comes_back_as_it_was_raw_samples_and_all(path: Path) -> None:
    kept = [made(), result([launch(1)], shufflenet_profile(), facts={"cpu_model": "ä\0\N{SNOWMAN}", "max_khz": [1.5]})]
    [first, second] = History(str(path), create=True).add(kept)
    assert History(str(path)).results([second, first]) == kept[::-1]


def test_an_entry_tells_what_a_result_is_found_by(filled: History) -> None:
    entry = filled.entries()[4]
    assert (entry.median_ms, entry.low_ms, entry.high_ms) == (3, 2, 5)
    assert (entry.git_commit, entry.git_branch, entry.git_dirty, entry.git_time) == ("cd" * 20, "next", True, int(NOON))
    assert (entry.unix_time, entry.edgeport, entry.kind) == (NOON + 4 * DAY, "0.1.0", "profile")
    assert (entry.sha256, entry.num_threads, entry.emulated) == ("0" * 64, 1, False)
    assert entry == entry_of(SIX[4])


def test_what_is_added_twice_is_there_once_even_after_a_way_through_json(filled: History) -> None:
    through_json = as_json.read(as_json.render(SIX, View()).encode(), "x.json")
    assert filled.add([*through_json, made(9)]) == [entry_of(made(9)).id]
    assert filled.count() == 7


def test_a_comparison_is_found_by_its_candidate_and_its_outcome(path: Path) -> None:
    slower = comparison(session(0.1), session(0.1), after=made(3), origin=Origin(NOON, "0.1.0", None))
    apart = comparison(differences=("inputs: 1x3 (baseline), 1x4 (candidate)",))
    kept = History(str(path), create=True)
    keys = kept.add([slower, made(0), apart])
    assert kept.records(keys) == [slower, made(0), apart]
    assert kept.results(keys) == [made(0)]
    [entry] = [e for e in kept.entries(Filter(kind="comparison")) if e.verdict == "REGRESSED"]
    assert (entry.kind, entry.unix_time, entry.low_ms) == ("comparison", NOON, None)
    assert entry.median_ms == pytest.approx(2.2, rel=1e-3)
    assert (entry.model, entry.runtime, entry.sha256) == (made(3).model, made(3).runtime, made(3).sha256)
    assert [e.verdict for e in kept.with_ids(keys)][2] == "INCONCLUSIVE"
    through_json = as_json.read(verdicts.render([slower, apart], "json", View()).encode(), "x.json")
    assert kept.add(through_json) == []


def test_a_result_without_an_origin_is_dated_by_its_device() -> None:
    assert entry_of(result([launch(1), launch(1, after={"unix_time": 12.5})])).unix_time == 12.5


def test_names_are_data_whatever_they_hold(path: Path) -> None:
    name = "x'); DROP TABLE edgeport_results; --%_\N{SNOWMAN}"
    kept = History(str(path), create=True)
    kept.add([made(model=name, device=name), made(1)])
    assert [entry.model for entry in kept.entries(Filter(model=name, device=name))] == [name]
    assert kept.entries(Filter(model="%")) == []


@pytest.mark.parametrize(
    ("wanted", "days"),
    [
        (Filter(), [0, 1, 2, 3, 4, 5]),
        (Filter(model="mobilenet_v2"), [1]),
        (Filter(device="rpi4"), [2]),
        (Filter(precision="int8", runtime="litert"), [0, 1, 4, 5]),
        (Filter(git_branch="main"), [0, 1, 2, 3]),
        (Filter(since=NOON + 4 * DAY), [4, 5]),
        (Filter(last=2), [4, 5]),
        (Filter(git_branch="main", last=1), [3]),
        (Filter(kind="profile", model="mobilenet_v2", device="rpi4"), []),
    ],
)
def test_entries_are_those_that_fit_the_oldest_first(filled: History, wanted: Filter, days: list[int]) -> None:
    assert [(entry.unix_time - NOON) / DAY for entry in filled.entries(wanted)] == days


def test_an_id_is_found_by_its_first_digits(filled: History) -> None:
    whole = entry_of(SIX[0]).id
    assert filled.find(whole[:8]) == filled.find(whole) == whole
    for wrong, why in (("ffffffffff", "there is no result"), (whole[:3], "at least 4"), ("%%%%", "is no id")):
        with pytest.raises(UsageError, match=why):
            filled.find(wrong)


def test_digits_that_several_ids_begin_with_are_refused(filled: History, path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE edgeport_results SET id = 'abcd' || substr(id, 5)")
    with pytest.raises(UsageError, match=r"abcd may be abcd\w{4}\.\.\., abcd"):
        filled.find("abcd")


def test_what_is_removed_is_gone_and_nothing_else(filled: History) -> None:
    gone = [entry.id for entry in filled.entries()][1:3]
    assert (filled.remove(gone), filled.remove(gone)) == (2, 0)
    assert filled.results([entry.id for entry in filled.entries()]) == [SIX[0], *SIX[3:]]
    with pytest.raises(UsageError, match="there is no result"):
        filled.results(gone)


def mutated(document: Any, rng: random.Random) -> Any:
    """With one value, somewhere, gone or replaced."""
    parts: list[tuple[Any, Any]] = []

    def collect(node: Any) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, value in items:
            parts.append((node, key))
            collect(value)

    collect(document)
    node, key = rng.choice(parts)
    if rng.random() < 0.3:
        del node[key]
    else:
        node[key] = rng.choice([None, -1, 0, 1e300, "x", "\0", [], [0], {}, {"x": 1}, True, 10**30, ""])
    return document


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_file_of_others_holds_is_an_error_or_can_be_listed_and_shown(path: Path, kind: str) -> None:
    """Whatever somebody's file holds, adding it never spoils the history."""
    told = verdicts.render([comparison(session(0.1), session(0.1), before=made(), after=made(1))], "json", View())
    text = as_json.render([made(profile=shufflenet_profile())], View()) if kind == PROFILE else told
    rng, kept = random.Random(0), 0
    opened = History(str(path), create=True)
    for _ in range(250):
        data = json.dumps(mutated(json.loads(text), rng)).encode()
        with contextlib.suppress(ResultFileError, HistoryError):
            [read] = as_json.read(data, "x.json")
            kept += len(opened.add([read]))
            if isinstance(read, Result):
                for format in ("table", "csv"):
                    reports.render([read], format, View())
    assert opened.count() == kept > 50
    for format in entries.FORMATS:
        entries.render(opened.entries(), format, View())
    if kind == PROFILE:
        trend.render(opened.entries(Filter(model="shufflenet_v2", device="local")), "svg")


# Files that are not as they should be


def whole(path: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in path.parent.iterdir()}


@pytest.mark.parametrize(
    "content", [b"x", b"no database", bytes(range(256)) * 40, b"SQLite format 3\0" + b"x" * 5000], ids=len
)
def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    for create in (False, True):
        with pytest.raises(HistoryError, match=r"history\.db: file is not a database; it was left as it is"):
            History(str(path), create)
    assert whole(path) == {path.name: content}


def test_another_programs_database_is_refused_and_left_as_it_is(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
    before = whole(path)
    with pytest.raises(HistoryError, match=r"another program \(it has 'bookmarks'\); it was left as it is"):
        History(str(path), create=True)
    assert whole(path) == before


def test_the_database_of_a_newer_edgeport_is_refused_and_left_as_it_is(filled: History, path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE edgeport_version SET version = 99")
    before = whole(path)
    with pytest.raises(HistoryError, match=r"newer edgeport \(schema 99; this one knows 1\); upgrade edgeport"):
        History(str(path), create=True)
    assert whole(path) == before


def test_a_damaged_database_is_told_and_left_as_it_is(path: Path) -> None:
    History(str(path), create=True).add([made(n) for n in range(40)])
    damaged = bytearray(path.read_bytes())
    damaged[8192:] = random.Random(0).randbytes(len(damaged) - 8192)
    path.write_bytes(damaged)
    with pytest.raises(HistoryError, match=r"database disk image is malformed; copy it, then try 'sqlite3"):
        History(str(path)).entries()
    assert path.read_bytes() == damaged


def test_a_damaged_record_is_told_and_the_others_are_read(filled: History, path: Path) -> None:
    ids = [entry.id for entry in filled.entries()]
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE edgeport_results SET record = substr(record, 1, 99) WHERE id = ?", (ids[0],))
    with pytest.raises(HistoryError, match=f"the result {ids[0][:10]} in .* is damaged"):
        filled.results(ids[:1])
    assert filled.results(ids[1:]) == SIX[1:]


def test_a_history_that_is_not_there_is_made_by_writers_alone(path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no history .* yet"):
        History(str(path))
    assert not path.exists()
    History(str(path.parent / "new" / "folder" / "x.db"), create=True)
    with pytest.raises(UsageError, match="is a folder"):
        History(str(path.parent), create=True)


def test_an_empty_file_becomes_a_history(path: Path) -> None:
    path.touch()
    assert History(str(path), create=True).count() == 0


# The schema


def step(*statements: str) -> tuple[tuple[str, ...], ...]:
    return (*history.MIGRATIONS, statements)


def test_an_older_database_is_brought_up_to_date_with_all_that_is_in_it(
    filled: History, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "MIGRATIONS", step("ALTER TABLE edgeport_results ADD COLUMN governor TEXT"))
    newer = History(str(path))
    assert newer.results([entry.id for entry in newer.entries()]) == SIX
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT version FROM edgeport_version").fetchall() == [(2,)]
        assert connection.execute("SELECT DISTINCT governor FROM edgeport_results").fetchall() == [(None,)]


def test_a_step_that_fails_leaves_the_older_database(
    filled: History, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(history, "MIGRATIONS", step("DROP TABLE edgeport_results", "ALTER TABLE nowhere ADD COLUMN x"))
        with pytest.raises(HistoryError, match="no such table: nowhere"):
            History(str(path))
    assert History(str(path)).count() == 6


def test_the_columns_are_those_that_the_steps_have_made(filled: History, path: Path) -> None:
    inspector = sqlalchemy.inspect(sqlalchemy.create_engine(f"sqlite:///{path}"))
    found = {column["name"] for column in inspector.get_columns(history.RESULTS)}
    assert found == {column.name for column in history._results.columns} == {*history.Entry.__struct_fields__, "record"}


# Several at once


def test_a_reader_goes_on_while_another_program_writes(filled: History, path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as writer:
        assert writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("DELETE FROM edgeport_results")
        assert History(str(path)).count() == 6


def test_a_writer_that_waits_too_long_says_for_what(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "PATIENCE_S", 0.1)
    kept = History(str(path), create=True)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        with pytest.raises(HistoryError, match=r"cannot write to .*locked; another program has been writing"):
            kept.add([made()])
    assert len(kept.add([made()])) == 1


def test_eight_writers_that_open_a_new_history_at_once_lose_nothing(path: Path) -> None:
    assert check_history.together(8, 12, str(path)) == 0


def test_writers_that_are_killed_leave_whole_results_and_lose_none_acknowledged(tmp_path: Path) -> None:
    counts = Counter[str]()
    for seed in range(ROUNDS):  # on a busy machine all of one round may be killed before they have begun
        (tmp_path / str(seed)).mkdir()
        place = check_history.places(str(tmp_path / str(seed)), None)
        counts += check_history.kill(15, place, random.Random(seed))
        if counts[check_history.WRITING] and counts["rows"]:
            break
    assert counts[check_history.WRITING] > 0
    assert counts["rows"] > 0
    assert [counts[bad] for bad in ("lost", "torn", "changed", "damaged")] == [0, 0, 0, 0]


def test_the_check_of_killed_writers_sees_what_is_lost_torn_and_changed(path: Path) -> None:
    kept = History(str(path), create=True)
    first, second = check_history.three(0, 0), check_history.three(0, 1)
    [changed, *_] = kept.add([*first[:1], *second[:2]])
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE edgeport_results SET median_ms = 1 WHERE id = ?", (changed,))
    counts = Counter[str]()
    check_history.check(str(path), ["open", "add 0", "added 0", "add 1"], 0, counts)
    assert {name: counts[name] for name in ("lost", "torn", "changed")} == {"lost": 2, "torn": 1, "changed": 1}


# Databases by name


@pytest.mark.parametrize(
    ("database", "shown"),
    [
        ("/some/history.db", "/some/history.db"),
        (":memory:", str(Path.cwd() / ":memory:")),
        ("sqlite:////some/history.db", "/some/history.db"),
        (f"postgresql://scott:{PASSWORD}@host:5433/team", "postgresql://host:5433/team"),
        (f"postgres://host/team?user=scott&password={PASSWORD}", "postgresql://host/team"),
    ],
)
def test_a_database_is_named_without_user_and_password(database: str, shown: str) -> None:
    assert history.shown(history.parse(database)) == shown


@pytest.mark.parametrize(
    "database",
    [
        f"postgresql://scott:{PASSWORD}",
        f"postgresql://scott:ti@{PASSWORD}@host/team",
        f"postgresql://scott:{PASSWORD}@host:{PASSWORD}/team",
        f"postgresql://scott:{PASSWORD}@127.0.0.1:1/team",
        f"postgresql://127.0.0.1:1/team?password={PASSWORD}",
        f"postgresql://scott:{PASSWORD}@/team?host=/nowhere",
        f"postgresql://scott@127.0.0.1:1/team?{PASSWORD}=1",
        f"mysql://scott:{PASSWORD}@host/team",
        f"postgresql+asyncpg://scott:{PASSWORD}@host/team",
        f"://{PASSWORD}",
        "sqlite://",
        "sqlite:///x.db?timeout=abc",
        f"sqlite://scott:{PASSWORD}@host/x.db",
    ],
)
def test_no_error_tells_a_password(database: str, run: "Run", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "PATIENCE_S", 2)
    given = run("list", "--database", database, code=(2, 3))
    monkeypatch.setenv("EDGEPORT_DATABASE", database)
    from_environment = run("list", code=(2, 3))
    help_ = run("list", "--help")
    for done in (given, from_environment, help_):
        assert PASSWORD not in done.out + done.err
    assert given.err == from_environment.err
    assert given.err.startswith("edgeport: ")
    assert "EDGEPORT_DATABASE" in help_.out


def test_postgresql_without_its_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UsageError, match=r"edgeport\[postgresql\]"):
        history.parse("postgresql://host/team")


# Where a result was made


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "trunk")
    (folder / "model.py").write_text("1\n")
    git(folder, "add", ".")
    return folder


def test_the_commit_branch_and_state_of_the_working_directory_are_told(repository: Path) -> None:
    assert origin.here(repository).commit is None  # nothing is committed yet
    git(repository, "commit", "-q", "-m", "first")
    (repository / "untracked").write_text("")
    head, seconds = git(repository, "show", "-s", "--format=%H %ct").split()
    assert origin.here(repository, branch="of CI").commit == Commit(head, int(seconds), "trunk", dirty=False)
    (repository / "model.py").write_text("2\n")
    assert origin.here(repository).commit == Commit(head, int(seconds), "trunk", dirty=True)


def test_a_commit_without_a_branch_takes_the_one_that_is_being_built(repository: Path) -> None:
    git(repository, "commit", "-q", "-m", "first")
    git(repository, "checkout", "-q", "--detach")
    commits = [origin.here(repository, branch).commit for branch in (None, "feature")]
    assert [commit.branch for commit in commits if commit] == [None, "feature"]


@pytest.mark.parametrize("why", ["no repository", "no git"])
def test_without_git_no_commit_is_told(why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if why == "no git":
        monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    found = origin.here(tmp_path)
    assert found.commit is None
    assert found.unix_time > NOON


@pytest.mark.parametrize(
    ("environment", "branch"),
    [
        ({}, None),
        ({"GITHUB_HEAD_REF": "", "GITHUB_REF_NAME": "main"}, "main"),
        ({"GITHUB_HEAD_REF": "feature", "GITHUB_REF_NAME": "12/merge"}, "feature"),
        ({"CI_COMMIT_REF_NAME": "main"}, "main"),
    ],
)
def test_ci_tells_its_branch(environment: dict[str, str], branch: str | None) -> None:
    assert branch_of_ci(environment) == branch


# The command line


class Ended(NamedTuple):
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """edgeport history ARGUMENTS (or any command, with command=), in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("EDGEPORT_DATABASE", raising=False)

    def go(*arguments: object, code: int | tuple[int, ...] = 0, command: str = "history") -> Ended:
        capfd.readouterr()
        found = cli.run([command, *map(str, arguments)])
        done = Ended(*capfd.readouterr())
        assert found in (code if isinstance(code, tuple) else (code,)), done.err
        return done

    return go


@pytest.fixture
def profiled(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """edgeport profile of a small model, as quick as can be."""
    model = small_tflite(tmp_path / "small.tflite")
    monkeypatch.setenv("EDGEPORT_CACHE", str(tmp_path / "cache"))
    quick = ("--launches=2", "--num-runs=2", "--warmup-runs=0", "--no-ops", "--quiet")
    return lambda *arguments: run(model, *quick, *arguments, command="profile")


def listed(done: Ended) -> Any:
    return json.loads(done.out)


def test_what_is_profiled_is_in_the_history(profiled: Run, run: Run, tmp_path: Path) -> None:
    profiled("--format=json", "-o", tmp_path / "a.json")
    profiled("--no-history")
    [entry] = listed(run("list", "--format=json"))
    assert (entry["model"], entry["runtime"], entry["kind"]) == ("small", "litert", "profile")
    assert entry["median_ms"] == json.loads((tmp_path / "a.json").read_text())["latency_ms"]["median"]
    assert (tmp_path / "data" / "edgeport" / "history.db").is_file()
    assert "added 0 results" in run("add", tmp_path / "a.json").out


def test_another_database_is_used_if_given(profiled: Run, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    profiled("--database", "given.db")
    monkeypatch.setenv("EDGEPORT_DATABASE", "environment.db")
    profiled()
    profiled()
    assert [len(listed(run("list", "--format=json", "--database", f"{n}.db"))) for n in ("given", "environment")] == [
        1,
        2,
    ]
    assert not Path("data").exists()


@pytest.mark.parametrize("reserve", [True, False])
def test_a_history_that_cannot_be_written_loses_no_result(
    reserve: bool, profiled: Run, run: Run, tmp_path: Path
) -> None:
    """Where not even the data folder can be written to, they go to the working directory."""
    (tmp_path / "no.db").write_text("no database")
    if not reserve:
        (tmp_path / "data").write_text("no folder")
    done = profiled("--database", tmp_path / "no.db")
    assert "litert" in done.out  # the table
    assert "warning: not kept in the history: cannot open the history" in done.err
    command = done.err.strip().splitlines()[-1].partition("edgeport history ")[2].split()
    assert Path(command[-1]).parent == (tmp_path / "data" / "edgeport" if reserve else tmp_path)
    assert "added 1 results" in run(*command, "--database", "other.db").out
    assert (tmp_path / "no.db").read_text() == "no database"


def test_a_database_that_means_nothing_is_told_before_anything_is_measured(run: Run, tmp_path: Path) -> None:
    done = run(small_tflite(tmp_path / "a.tflite"), "--database=mysql://host/x", command="profile", code=2)
    assert "mysql:// is not known" in done.err
    assert done.out == ""


def test_results_are_shown_even_where_they_cannot_be_written(profiled: Run, run: Run, tmp_path: Path) -> None:
    """And kept, where the report cannot be made at all."""
    with pytest.raises(AssertionError, match="--no-ops"):
        profiled("--format=svg")
    assert len(listed(run("list", "--format=json"))) == 1


@pytest.fixture
def pooled(run: Run, tmp_path: Path) -> Path:
    """A file of the six results, in the history too."""
    path = tmp_path / "six.json"
    path.write_text(as_json.render(SIX, View()))
    assert "added 6 results" in run("add", path).out
    return path


def test_a_table_has_a_row_a_result_and_fits(pooled: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeport.display.width", lambda stream: 80)
    out = run("list").out
    assert out.startswith("6 of 6 results in")
    lines = out.splitlines()
    ids = [entry_of(r).id[:10] for r in SIX]
    assert [line.split()[0] for line in lines if line.strip().startswith(tuple(ids))] == ids
    assert max(map(len, lines)) <= 80


def test_csv_and_json_list_the_same(pooled: Path, run: Run) -> None:
    as_csv = list(csv.DictReader(StringIO(run("list", "--format=csv").out)))
    for row, entry in zip(as_csv, listed(run("list", "--format=json")), strict=True):
        assert {k: "" if v is None else str(v) for k, v in entry.items()} == row


@pytest.mark.parametrize(
    ("flags", "count"),
    [
        (("--model", "mobilenet_v2"), 1),
        (("--device", "rpi4"), 1),
        (("--runtime", "litert", "--precision", "int8"), 4),
        (("--branch", "next"), 1),
        (("--since", "2026-11-05"), 2),
        (("--since", "2026-11-02T12:00:00"), 5),
        (("--since", "999999d"), 6),
        (("--last", "3"), 3),
    ],
)
def test_flags_filter(pooled: Path, run: Run, flags: tuple[str, ...], count: int) -> None:
    assert len(listed(run("list", "--format=json", *flags))) == count


def test_a_time_that_is_none_is_a_usage_error(run: Run) -> None:
    for wrong in ("yesterday", "7", "7m", "2026-13-01", "0001-01-01"):
        assert f"--since {wrong}: write 2026-11-01" in run("list", "--since", wrong, code=2).err


def test_filters_that_no_database_can_hold_are_no_tracebacks(pooled: Path, run: Run) -> None:
    assert "surrogates not allowed" in run("list", "--model", "\udcff", code=3).err
    assert "too large" in run("list", "--last", 10**30, code=3).err


def test_where_nothing_fits_it_says_what_there_is(pooled: Path, run: Run) -> None:
    done = run("list", "--model", "mobilnet_v2")
    assert "nothing in" in done.err
    assert "--model mobilnet_v2; there is mobilenet_v2, shufflenet_v2; did you mean mobilenet_v2" in done.err
    assert done.out == ""
    assert "--branch mian; there is main, next; did you mean main?" in run("plot", "--branch=mian", code=2).err
    assert "leave out some" in run("export", "--model=mobilenet_v2", "--device=rpi4", code=2).err
    assert run("list", "--model", "x", "--format=json").out == "[]\n"


def test_an_export_added_elsewhere_is_the_same_history(pooled: Path, run: Run, tmp_path: Path) -> None:
    run("export", "-o", "all.json")
    assert "added 6 results" in run("add", "all.json", "--database=other.db").out
    assert as_json.read(Path("all.json").read_bytes(), "all.json") == SIX
    other, own = (run("list", "--format=json", "--database", at).out for at in ("other.db", "data/edgeport/history.db"))
    assert other == own


def test_csv_of_an_export_has_a_row_a_result(pooled: Path, run: Run) -> None:
    found = list(csv.DictReader(StringIO(run("export", "--format=csv", "--device=local").out)))
    assert [row["model"] for row in found] == [r.model for r in SIX if r.device == "local"]


def test_files_are_added_together_or_not_at_all(pooled: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "new.json").write_text(as_json.render([made(9)], View()))
    (tmp_path / "half.json").write_text(pooled.read_text()[:-100])
    assert "half.json holds no results" in run("add", "new.json", "half.json", code=3).err
    assert "missing.json: no such file" in run("add", "new.json", "missing.json", code=3).err
    assert "added 1 results" in run("add", "new.json", pooled).out


def test_a_result_is_shown_as_profile_shows_it(pooled: Path, run: Run) -> None:
    newest, first = entry_of(SIX[5]).id[:10], entry_of(SIX[0]).id[:10]
    assert newest in run("show").out
    both = run("show", first, newest).out
    assert both.index(first) < both.index(newest) < both.index("median ms", both.index(newest))
    assert json.loads(run("show", first, "--format=json").out) == json.loads(as_json.render(SIX[:1], View()))
    assert "there is no result ffffff" in run("show", "ffffff", code=2).err


def test_comparisons_are_listed_shown_and_added_as_compare_told_them(pooled: Path, run: Run) -> None:
    found = comparison(session(0.1), session(0.1), origin=Origin(NOON + 9 * DAY, "0.1.0", None))
    Path("gate.json").write_text(verdicts.render([found], "json", View()))
    assert "added 1 results" in run("add", "gate.json").out
    [entry] = listed(run("list", "--kind=comparison", "--format=json"))
    assert entry["verdict"] == "REGRESSED"
    assert len(listed(run("list", "--kind=profile", "--format=json"))) == 6
    assert "--kind both: choose from" in run("list", "--kind=both", code=2).err
    table = run("show", entry["id"], entry_of(SIX[0]).id).out
    assert "+10.0%" in table
    assert "median ms" in table
    assert run("show", entry["id"], "--format=json").out == Path("gate.json").read_text()
    assert "choose from table, json, markdown" in run("show", entry["id"], "--format=csv", code=2).err
    assert "differ in their form" in run("show", entry["id"], entry_of(SIX[0]).id, "--format=json", code=2).err


def test_results_are_removed_only_with_yes(pooled: Path, run: Run) -> None:
    keys = [entry_of(r).id[:12] for r in SIX[:2]]
    assert "--yes" in run("remove", *keys).out
    assert len(listed(run("list", "--format=json"))) == 6
    assert all(key[:10] in run("remove", key, "--yes").out for key in keys)
    assert [e["id"] for e in listed(run("list", "--format=json"))] == [entry_of(r).id for r in SIX[2:]]


def test_an_empty_history_says_how_to_fill_it(run: Run) -> None:
    assert "edgeport profile keeps its results there" in run("list", code=2).err
    History("empty.db", create=True)
    for command in ("show", "plot", "export"):
        assert "edgeport profile keeps its results there" in run(command, "--database=empty.db", code=2).err


# Plots


def test_a_plot_is_an_svg_or_a_png(pooled: Path, run: Run) -> None:
    pytest.importorskip("matplotlib")
    assert run("plot", "--branch=main").out == "history.svg\n"
    drawn = Path("history.svg").read_text()
    assert ET.fromstring(drawn).tag.endswith("svg")  # noqa: S314  our own file
    run("plot", "--branch=main", "-o", "again.svg")
    assert Path("again.svg").read_text() == drawn
    run("plot", "-o", "history.png")
    assert Path("history.png").read_bytes().startswith(b"\x89PNG")
    assert "name a .svg or .png file" in run("plot", "-o", "history.gif", code=2).err


def test_a_plot_without_matplotlib_says_what_to_install(
    pooled: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "edgeport[plot]" in run("plot", code=2).err
    assert not Path("history.svg").exists()


def test_commits_stand_in_the_order_in_which_they_were_made_whenever_they_were_measured() -> None:
    def at(commit: str, made_on: int, dirty: bool, measured_on: int) -> history.Entry:
        there = Commit(commit * 20, made_on, "main", dirty)
        return entry_of(made(origin=Origin(measured_on, "0.1.0", there)))

    measured = [at("cc", 30, False, 100), at("bb", 20, True, 101), at("aa", 10, False, 102), at("bb", 20, False, 103)]
    assert trend._commits(measured) == ["a" * 9, "b" * 9, "b" * 9 + "+", "c" * 9]


@pytest.mark.parametrize("days", [0, 0.2, 2.9, 4, 89, 4000])
def test_dates_suit_any_span(days: float) -> None:
    pytest.importorskip("matplotlib")
    with warnings.catch_warnings(action="error"):
        trend.render([entry_of(made(origin=Origin(NOON + n * days * DAY, "0.1.0"))) for n in (0, 1)], "svg")


def test_what_no_figure_holds_is_said() -> None:
    with pytest.raises(UsageError, match="knows its commit; try --over time"):
        trend.render([entry_of(SIX[5])], "svg", "commit")
    with pytest.raises(UsageError, match="31 pairs of model and device"):
        trend.render([entry_of(made(device=f"board{n}")) for n in range(31)], "svg")


def test_a_plot_names_models_devices_versions_and_what_is_emulated() -> None:
    pytest.importorskip("matplotlib")
    results = [made(n, runtime_version=f"2.{n}") for n in range(2)]
    results += [made(2, device="qemu", facts={"emulated": True}), made(3, num_threads=4, runtime="onnxruntime")]
    drawn = trend.render([entry_of(r) for r in results], "svg").decode()  # each text is a comment beside its outlines
    for text in ("shufflenet_v2 on local", "shufflenet_v2 on qemu, EMULATED", "2.0, then 2.1", "4 threads"):
        assert text in drawn


# Alone, and in a narrow terminal

KEPT = ("id", "model", "device", "precision", "threads", "median", "interval")


def test_history_alone_lists(filled: History, run: Run) -> None:
    assert "6 of 6 results in" in run("--database", filled.name).out
    assert "write it behind 'list'" in run("--database", filled.name, "list", code=2).err


@pytest.mark.parametrize("width", [80, 100])
def test_what_tells_results_apart_is_shown_in_every_width_and_what_is_left_out_is_told(
    width: int, filled: History
) -> None:
    text = entries.render(filled.entries(Filter()), "table", View(width=width), "title")
    header = text.splitlines()[2]
    told = text.splitlines()[-1]
    assert all(name in header for name in KEPT), header
    assert "branch" not in header
    assert told.startswith("left out for want of width: ")
    assert "branch" in told


def test_where_all_columns_fit_nothing_is_left_out(filled: History) -> None:
    assert "left out" not in entries.render(filled.entries(Filter()), "table", View(width=300), "title")
