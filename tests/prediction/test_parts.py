"""The folder of finished batches: one process at a time, one model, one state of the images."""

import subprocess
import sys

import pytest

from featuretl import predict_to_file, save_model
from featuretl.exceptions import InputError
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
