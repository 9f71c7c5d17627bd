"""Words that reach a program as they are, whatever shell is between."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgeport.errors import DeviceError
from edgeport.transport import Local
from edgeport.transport.shell import exit_code, quoted

HOSTILE = (
    *("", " ", "a b", "-rf", "--", "'", '"', "'\"'", "\\", "\\'", "$(id)", "`id`", "$HOME", "!!", "*", "~", "#", ";"),
    *(
        "a\nb",
        "a\tb",
        "\r",
        "ünïcödé 画像",
        "a;b|c&d<e>f",
        "{a,b}",
        "%s",
        "\x01\x7f",
        "=",
        "🦀",
    ),
)
SHELLS = [shell for shell in ("sh", "bash", "dash", "zsh", "mksh", "busybox") if shutil.which(shell)]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_command_gets_its_words_whatever_is_in_them(shell: str) -> None:
    program = "import sys; sys.stdout.buffer.write(b'\\0'.join(map(__import__('os').fsencode, sys.argv[1:])))"
    line = quoted([sys.executable, "-c", program, *HOSTILE])
    command = [shell, "sh", "-c", line] if shell == "busybox" else [shell, "-c", line]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stdout.decode().split("\0") == list(HOSTILE)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(("command", "code"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", -9), ("kill -15 $$", -15)])
def test_a_command_ends_as_it_does_without_a_shell_between(shell: str, command: str, code: int) -> None:
    line = quoted(["sh", "-c", command])
    between = [shell, "sh", "-c", line] if shell == "busybox" else [shell, "-c", line]
    assert exit_code(subprocess.run(between, capture_output=True, check=False).returncode) == code


def test_a_word_that_no_command_can_be_given_is_refused() -> None:
    with pytest.raises(DeviceError, match="NUL"):
        quoted(["echo", "a\0b"])


def test_a_folder_of_this_machine_is_gone_after_its_block() -> None:
    with Local(sys.executable).folder() as folder:
        Path(folder, "file").touch()
    assert not Path(folder).exists()


def test_a_short_command_that_does_not_end_is_an_error() -> None:
    with pytest.raises(DeviceError, match=r"did not end within 0\.2 s"):
        Local(sys.executable).run(["sleep", "30"], timeout=0.2)
