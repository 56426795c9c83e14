"""The commands: what they print, how they fail, where they look for services and keys."""

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from inkling.cli import main, make_app
from inkling.cli.connection import Addresses, Connection, ConnectionOptions, write_addresses
from tests.client.servers import Store


def run(*arguments: str, environ: dict[str, str] | None = None) -> Result:
    return CliRunner(env=environ).invoke(make_app(), list(arguments))


def test_every_command_explains_itself() -> None:
    groups = {
        "ingest": ["csv"],
        "profile": ["get", "watch"],
        "definitions": ["plan", "apply", "list", "export"],
        "datasets": ["create", "list", "show", "download", "cancel", "delete"],
        "features": ["eval"],
        "collections": ["list", "get"],
        "dead-letters": ["list", "get", "replay", "purge"],
        "project": ["get", "set"],
        "properties": ["declare", "list", "delete", "set", "unset", "import"],
        "rollups": ["declare", "list", "delete"],
        "segments": ["create", "update", "list", "preview", "members", "check", "watch", "delete"],
        "keys": ["create", "list", "revoke", "rotate"],
    }
    assert run("up", "--help").exit_code == 0
    for group, commands in groups.items():
        for command in commands:
            assert run(group, command, "--help").exit_code == 0, f"{group} {command}"


def test_options_go_before_the_environment_and_it_before_the_file(tmp_path: Path) -> None:
    path = write_addresses(tmp_path, Addresses("from-file", "file:1", "file:2"))
    assert path.stat().st_mode & 0o077 == 0
    found = Connection(ConnectionOptions(data_dir=tmp_path)).addresses
    assert found == Addresses("from-file", "file:1", "file:2")
    said = Connection(ConnectionOptions(api_key="said", ingest="said:1", data_dir=tmp_path)).addresses
    assert said == Addresses("said", "said:1", "file:2")
    path.write_text("{}")
    assert Connection(ConnectionOptions(data_dir=tmp_path)).addresses.ingest == "127.0.0.1:7001"


def test_a_profile_is_one_json_object_with_statuses(threaded_address: str) -> None:
    done = run("--features", threaded_address, "profile", "get", "abc", "de", "--service", "shop")
    assert done.exit_code == 0, done.stderr
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert (first["user_id"], first["length"], first["missing"], second["length"]) == ("abc", 3, None, 2)
    assert first["$status"] == {"length": "PRESENT", "missing": "NEVER_SEEN"}
    assert first["$position"] == 7


def test_a_csv_import_shows_refused_lines_and_ends_in_code_1(
    threaded_address: str, store: Store, tmp_path: Path
) -> None:
    path = tmp_path / "sales.csv"
    path.write_text("ID,AT,AMOUNT\n1,2026-01-01,2.5\n2,never,1\n")
    columns = ["--key", "user_id=ID", "--time", "AT", "--event", "com.acme/sale/1-0-0", "--type", "AMOUNT=number"]
    done = run("--ingest", threaded_address, "ingest", "csv", str(path), *columns)
    assert done.exit_code == 1
    assert "1 events accepted, 1 refused" in done.stdout
    assert "line 3, column AT: not a time [BAD_TIME]" in done.stderr
    options = store.csv_options[0]
    assert (options.event_type.vendor, options.event_type.name) == ("com.acme", "sale")
    assert dict(options.key_columns) == {"user_id": "ID"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.csv", "--key", "a=b", "--time", "t", "--event", "e"], "there is no file"),
        (["sales.csv"], "say what the columns are"),
        (["sales.csv", "--key", "user_id", "--time", "t", "--event", "e"], "is not of the form --key user_id=CUSTOMER"),
        (["sales.csv", "--key", "a=b", "--time", "t", "--event", "a/b"], "write name, or vendor/name/version"),
        (
            ["sales.csv", "--key", "a=b", "--time", "t", "--event", "e", "--type", "X=money"],
            "there is no column type money",
        ),
    ],
)
def test_a_wrong_import_is_told_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sales.csv").write_text("A,B\n")
    done = run("ingest", "csv", *arguments)
    assert done.exit_code == 2
    assert message in done.stderr


def test_a_definition_that_is_no_json_is_told_with_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "group.json"
    path.write_text('{\n "name": "web",\n}')
    done = run("definitions", "plan", str(path))
    assert done.exit_code == 2
    assert "line 3, column 1" in done.stderr
    path.write_text("[]")
    assert "not an object" in run("definitions", "apply", str(path)).stderr


def test_a_service_that_is_not_there_is_told_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["inkling", "--ingest", "127.0.0.1:1", "--api-key", "x", "project", "get"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert "inkling up" in capsys.readouterr().err


def test_keys_are_made_listed_rotated_and_revoked(tmp_path: Path) -> None:
    where = ["--database-url", f"sqlite:///{tmp_path / 'auth.db'}"]
    made = run("keys", "create", "--role", "read", "--role", "ingest", "--description", "shop", *where)
    assert made.exit_code == 0, made.stderr
    assert made.stdout.startswith("ink_")
    key_id = made.stderr.split()[1]
    listed = run("keys", "list", *where).stdout
    assert key_id in listed
    assert "ingest, read" in listed
    assert "ink_" not in listed
    rotated = run("keys", "rotate", key_id, "--overlap-seconds", "60", *where)
    assert rotated.stdout.startswith("ink_")
    assert rotated.stdout != made.stdout
    assert run("keys", "revoke", key_id, *where).exit_code == 0
    assert "revoked" in run("keys", "list", *where).stdout
    assert run("keys", "revoke", "nokey", *where).exit_code == 1
    wrong = run("keys", "create", "--role", "admin", *where)
    assert (wrong.exit_code, "it is one of ingest, read" in wrong.stderr) == (2, True)


def test_keys_without_a_database_say_where_it_would_be(tmp_path: Path) -> None:
    done = run("--data-dir", str(tmp_path), "keys", "list")
    assert done.exit_code == 2
    assert "`inkling up` makes it" in done.stderr
