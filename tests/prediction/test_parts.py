"""The folder of finished batches: one process at a time, one model, one state of the images."""

import subprocess
import sys

import pyarrow as pa
import pytest

from featuretl import predict_to_file, save_model
from featuretl.exceptions import InputError
from featuretl.prediction import parts as parts_module
from featuretl.prediction.parts import Parts

SECOND_PROCESS = """if True:
    import sys
    from featuretl import load_model, predict_to_file
    from featuretl.exceptions import InputError
    try:
        predict_to_file(load_model(sys.argv[1]), sys.argv[3:], sys.argv[2])
    except InputError as error:
        print(error)
"""


def test_another_process_is_kept_out_as_long_as_one_lives(tiny, photos, tmp_path):
    save_model(tiny, tmp_path / "m.featuretl")
    path = tmp_path / "out.csv"
    command = [sys.executable, "-c", SECOND_PROCESS, tmp_path / "m.featuretl", path, *photos]
    with Parts(path, "of a run that will be killed"):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.startswith("Another run is predicting into")
    with pytest.raises(
        InputError, match="predictions of another model"
    ):  # its lock is released, its batches remain
        predict_to_file(tiny, photos, path)


def rows(*values):
    return pa.table({"row": list(values)})


def all_rows(parts):
    return [value for table in parts.tables() for value in table["row"].to_pylist()]


@pytest.fixture
def target(tmp_path):
    return tmp_path / "out.csv"


def test_finished_batches_are_read_in_order_and_kept_by_state(target):
    with Parts(target, "model 1") as parts:
        for number in (0, 1):
            assert not parts.has(number, "a")
            parts.add(rows(10 * number, 10 * number + 1))
        assert all_rows(parts) == [0, 1, 10, 11]
    with Parts(target, "model 1") as parts:  # as after an interruption
        assert parts.has(0, "a")
        assert not parts.has(1, "changed")
        parts.add(rows(12))
        assert all_rows(parts) == [0, 1, 12]


def test_parts_of_another_identity_are_refused_and_released(target):
    with Parts(target, "model 1") as parts:
        parts.has(0, "a")
        parts.add(rows(1))
    with pytest.raises(InputError, match="another model"):
        Parts(target, "model 2").__enter__()
    with Parts(target, "model 1") as parts:
        assert parts.has(0, "a")


def test_one_at_a_time_enters(target):
    with Parts(target, "same"):
        with pytest.raises(InputError, match="Another run"):
            Parts(target, "same").__enter__()
    with Parts(target, "same"):
        pass


def test_a_damaged_batch_is_named(target):
    with Parts(target, "same") as parts:
        parts.has(0, "a")
        parts.add(rows(1))
        (file,) = target.with_name("out.csv.partial").glob("*.parquet")
        file.write_bytes(file.read_bytes()[:-4])
        with pytest.raises(InputError, match=file.name):
            all_rows(parts)


def test_remove_leaves_nothing_and_another_can_begin(target):
    with Parts(target, "model 1") as parts:
        parts.has(0, "a")
        parts.add(rows(1))
        parts.remove()
        assert not list(target.parent.iterdir())
        with Parts(target, "model 2") as others:  # the removed lock holds nobody up
            assert not others.has(0, "a")


def test_a_lock_that_was_removed_while_it_was_taken_is_taken_again(target, monkeypatch):
    lock, taken = target.with_name("out.csv.partial") / "lock", []
    lock_file = parts_module.lock_file

    def remove_first(descriptor, **options):
        lock_file(descriptor, **options)
        taken.append(descriptor)
        if len(taken) == 1:
            lock.unlink()  # as a process that finishes does

    monkeypatch.setattr(parts_module, "lock_file", remove_first)
    with Parts(target, "same"):
        assert len(taken) == 2
        assert lock.exists()
        with pytest.raises(InputError, match="Another run"):
            Parts(target, "same").__enter__()


def test_a_file_system_without_locks_is_no_obstacle(target, monkeypatch):
    def unsupported(*args, **options):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(parts_module, "lock_file", unsupported)
    with Parts(target, "same") as parts:
        parts.has(0, "a")
        parts.add(rows(1))
        assert all_rows(parts) == [1]
