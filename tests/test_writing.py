"""Files that are there whole or not at all."""

import stat
import threading

import pytest

from toyscore._writing import replacing
from toyscore.cli.folder import locked


def test_two_threads_write_one_file_and_one_of_them_is_left(tmp_path):
    path, meet = tmp_path / "x", threading.Barrier(2)

    def write(text):
        with replacing(path) as new:
            new.write_text(text)
            meet.wait(10)

    threads = [threading.Thread(target=write, args=(text * 1000,)) for text in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in ("a" * 1000, "b" * 1000)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.posix("modes of files")
def test_a_mode_stays(tmp_path):
    path = tmp_path / "x"
    for mode in (0o600, 0o664):
        path.touch()
        path.chmod(mode)
        with replacing(path) as new:
            new.write_text("more")
        assert stat.S_IMODE(path.stat().st_mode) == mode
        assert path.read_text() == "more"


@pytest.mark.posix("way to remove a file that is open")
def test_the_true_cause_is_told_though_the_folder_has_gone(tmp_path):
    def work():
        with locked(tmp_path / "run"):
            (tmp_path / "run" / ".lock").unlink()
            (tmp_path / "run").rmdir()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
