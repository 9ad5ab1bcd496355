import multiprocessing
import os

import pytest

from defect_hub.train.claim import claim_folder


def hold(folder, claimed, done):
    claim_folder(folder)
    claimed.set()
    done.wait(30)
    os._exit(0)


def test_a_folder_belongs_to_one_process_until_it_ends(tmp_path):
    context = multiprocessing.get_context("fork")
    claimed, done = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path / "run", claimed, done))
    other.start()
    assert claimed.wait(30)
    with pytest.raises(ValueError, match="run: another run is using this folder"):
        claim_folder(tmp_path / "run")
    other.kill()
    other.join()
    claim_folder(tmp_path / "run")


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"file/run: cannot be written \(Not a directory\)\. Choose another folder"):
        claim_folder(tmp_path / "file/run")
