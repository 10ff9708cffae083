"""A data folder: who holds it, what is remembered of its start."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from scripts.local import start
from scripts.local.installation import ROOT, House, Stage, known

HOLD = """
import sys, time
from pathlib import Path
from scripts.local.installation import House
house = House(Path(sys.argv[1]), 1, 1)
lock = house.lock()
print("held" if lock else "refused", flush=True)
sys.stdin.readline()
"""
HAMMER = """
import select, sys
from pathlib import Path
from scripts.local.installation import House
house = House(Path(sys.argv[1]), 1, 1)
print("looking", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    house.holder()
"""


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    for name in ("MONGODB_URL", "REDIS_URL", "MONGODB_DATABASE", "BLOBS_MIN_FREE_BYTES"):
        monkeypatch.delenv(name, raising=False)
    made = House(tmp_path, 5000, 2)
    made.prepare()
    return made


def another_process(program: str, house: House) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", program, str(house.data)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_the_holder_of_a_folder_is_known_by_its_pid_until_it_ends(house: House) -> None:
    assert house.holder() is None
    with another_process(HOLD, house) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert house.holder() == other.pid
        assert house.lock() is None
        other.kill()
    assert house.holder() is None


def test_who_only_asks_never_gets_in_the_way_of_a_start(house: House) -> None:
    (house.run / "lock").touch()
    with another_process(HAMMER, house) as other:
        assert other.stdout is not None
        other.stdout.readline()
        for _ in range(20_000):
            lock = house.lock()
            assert lock is not None
            lock.close()
        assert other.poll() is None


def test_a_start_waits_for_a_process_that_holds_the_folder_for_a_moment(house: House) -> None:
    with another_process(HOLD, house) as other:
        assert other.stdout is not None
        other.stdout.readline()
        timer = threading.Timer(0.3, other.kill)
        timer.start()
        lock = house.lock(patience_s=10)
        timer.join()
    assert lock is not None
    lock.close()


def test_servers_of_ones_own_are_remembered_for_their_owner_only(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONGODB_URL", "mongodb://user:secret@db.example/?replicaSet=x")
    monkeypatch.setenv("REDIS_URL", "redis://:secret@cache.example/1")
    monkeypatch.setenv("BLOBS_MIN_FREE_BYTES", "12345")
    (house.run / "house.json").write_text("{}")
    (house.run / "house.json").chmod(0o644)
    House(house.data, 5000, 2).remember()
    for name in ("MONGODB_URL", "REDIS_URL", "BLOBS_MIN_FREE_BYTES"):
        monkeypatch.delenv(name)
    found = known(house.data)
    assert found is not None
    assert (found.own_mongo, found.own_redis) == (False, False)
    assert found.given["MONGODB_URL"] == "mongodb://user:secret@db.example/?replicaSet=x"
    assert found.given["BLOBS_MIN_FREE_BYTES"] == "12345"
    assert (house.run / "house.json").stat().st_mode & 0o777 == 0o600


def test_the_shell_that_asks_does_not_change_what_is_remembered(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.remember()
    monkeypatch.setenv("MONGODB_URL", "mongodb://elsewhere/")
    found = known(house.data)
    assert found is not None
    assert (found.own_mongo, found.given) == (True, {})


def test_a_house_of_an_older_version_is_read(house: House) -> None:
    (house.run / "house.json").write_text(json.dumps({"port": 5001, "workers": 3}))
    found = known(house.data)
    assert found is not None
    assert (found.port, found.workers, found.own_mongo, found.own_redis) == (5001, 3, True, True)


def test_a_stage_says_how_long_one_process_has_been_waited_for(house: House) -> None:
    assert house.told() is None
    house.tell(Stage("waiting", time.monotonic() - 100))
    told = house.told()
    assert told is not None
    assert told.text == "waiting"
    assert 100 <= told.waited_s < 160
    house.tell(Stage("other"))
    assert house.told() == Stage("other")
    assert Stage("other").waited_s == 0
    house.tell(None)
    assert house.told() is None


def test_a_folder_that_holds_data_is_started_below_the_watermark_with_a_warning(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    start._check_disk(house, 10**18, used=True)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "BLOBS_MIN_FREE_BYTES" in said


@pytest.mark.parametrize(("workers", "said", "turns"), [(1, None, None), (2, None, "true"), (3, None, "true"), (2, "false", None)])
def test_workers_that_have_one_core_each_or_less_take_turns_with_their_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, said: str | None, turns: str | None
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.delenv("VISION_IN_TURN", raising=False)
    if said is not None:
        monkeypatch.setenv("VISION_IN_TURN", said)  # which is passed on as it is
    assert House(tmp_path, 5000, workers).environment({"mongod": 1, "redis": 2}).get("VISION_IN_TURN") == turns
