"""Shell completion by click: a script, and candidate words, without heavy imports."""

import os
import shutil
import subprocess
import sys

import pytest

MAIN = "from featuretl_cli.main import main; main()"
LIGHT = """if True:
    import atexit, sys
    heavy = {"torch", "timm", "sklearn", "pyarrow"}
    atexit.register(lambda: print("heavy" if heavy & set(sys.modules) else "", file=sys.stderr))
    sys.argv[0] = "featuretl"
"""


def complete(instruction, **words):
    environment = {**os.environ, "_FEATURETL_COMPLETE": instruction, **words}
    command = [sys.executable, "-c", LIGHT + MAIN]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.stderr.strip() == ""
    return done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_is_printed(shell):
    if shell == "bash":  # click asks bash for its version
        if shutil.which("bash") is None:
            pytest.skip("needs bash")
    assert "_FEATURETL_COMPLETE" in complete(f"{shell}_source")


def test_commands_and_options_are_completed():
    words = complete("zsh_complete", COMP_WORDS="featuretl train --rand", COMP_CWORD="2")
    assert "--random-state" in words
    words = complete("zsh_complete", COMP_WORDS="featuretl tr", COMP_CWORD="1")
    assert "train" in words
