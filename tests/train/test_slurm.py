"""The batch script and torchrun's meeting of two machines, each machine a process of this one."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from defect_hub.train.checkpoints import checkpoints
from defect_hub.train.signals import INTERRUPTED_EXIT_CODE

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "train/configs/slurm/nodes.sh"
TOY = ROOT / "tests/train/toy_run.py"
# Two tasks with their variables; --wait=S ends the rest S seconds after the first has left; the highest code counts.
SRUN = """#!{python}
import os, subprocess, sys, time
arguments = sys.argv[1:]
wait = 1e9
while arguments[0].startswith("-"):
    option, _, value = arguments.pop(0).partition("=")
    assert option == "--wait", option
    wait = float(value)
tasks = []
for rank in range(2):
    variables = {{"SLURM_PROCID": rank, "SLURM_LOCALID": 0, "SLURM_NODEID": rank}}
    tasks.append(subprocess.Popen(arguments, env=os.environ | {{k: str(v) for k, v in variables.items()}}))
while all(task.poll() is None for task in tasks):
    time.sleep(0.05)
until = time.monotonic() + wait
while any(task.poll() is None for task in tasks):
    if time.monotonic() > until:
        for task in tasks:
            task.kill()
    time.sleep(0.05)
sys.exit(max(task.returncode if task.returncode >= 0 else 128 - task.returncode for task in tasks))
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then echo localhost; echo localhost; else echo "$@" >> "$STUB_CALLS"; fi
"""


@pytest.fixture
def cluster(tmp_path):
    """Runs the batch script as SLURM would, with two machines of one task; returns its end."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in {"srun": SRUN.format(python=sys.executable), "scontrol": SCONTROL}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    variables = {
        "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "STUB_CALLS": str(tmp_path / "calls"),
        "SLURM_JOB_ID": str(os.getpid()),  # the port is made of it
        "SLURM_JOB_NODELIST": "node-[0-1]",
        "SLURM_NNODES": "2",
        "SLURM_NTASKS": "2",
        "SLURM_CPUS_PER_TASK": "1",
        "ACCELERATE_USE_CPU": "true",
        "TMPDIR": str(tmp_path),
    }

    def submit(*arguments, **more):
        return subprocess.run(
            ["bash", str(SCRIPT), *map(str, arguments)],
            env=os.environ | variables | more,
            capture_output=True,
            text=True,
            timeout=200,
        )

    return submit


def test_tasks_find_each_other_and_their_caches(cluster, tmp_path):
    task = tmp_path / "task.py"
    task.write_text(
        "import json, os, sys\n"  # not to standard output, where the lines of two tasks may mix
        "with open(f'{sys.argv[1]}/{os.environ[\"RANK\"]}.json', 'w') as file:\n"
        "    json.dump(dict(os.environ), file)\n"
    )
    done = cluster(task, tmp_path, SHARDED="fsdp2")
    assert done.returncode == 0, done.stderr
    tasks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert [found["RANK"] for found in tasks] == ["0", "1"]
    for found in tasks:
        assert found["WORLD_SIZE"] == "2"
        assert (found["LOCAL_RANK"], found["LOCAL_WORLD_SIZE"]) == ("0", "1")
        assert found["MASTER_ADDR"] == "localhost"
        assert 20000 <= int(found["MASTER_PORT"]) < 30000
        assert found["HF_DATASETS_CACHE"] == f"{tmp_path}/datasets-{os.getpid()}"


@pytest.mark.parametrize(("code", "requeued"), [(0, False), (1, False), (INTERRUPTED_EXIT_CODE, True)])
def test_only_an_interrupted_job_is_queued_again(cluster, tmp_path, code, requeued):
    task = tmp_path / "task.py"
    task.write_text(f"raise SystemExit({code})")
    assert cluster(task).returncode == code
    found = tmp_path / "calls"
    assert (found.read_text() if found.exists() else "") == (f"requeue {os.getpid()}\n" if requeued else "")


@pytest.mark.slow
def test_an_interrupted_job_goes_on_where_it_was(cluster, tmp_path):
    """One of two machines is told to stop; both write a checkpoint, and the second start ends as if there were one."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    arguments = json.dumps({"epochs": 1, "stop_after": 3, "stop_rank": 1})  # 5 steps: the second start does 2
    for folder in (whole, stopped):
        folder.mkdir()
    done = cluster(TOY, whole, json.dumps({"epochs": 1}))
    assert done.returncode == 0, done.stderr
    done = cluster(TOY, stopped, arguments)
    assert done.returncode == INTERRUPTED_EXIT_CODE, done.stderr
    assert (tmp_path / "calls").read_text() == f"requeue {os.getpid()}\n"
    assert [folder.name for folder in checkpoints(stopped)] == ["step-3"]
    done = cluster(TOY, stopped, arguments)
    assert done.returncode == 0, done.stderr
    for rank in (0, 1):
        name = f"final-{rank}-of-2.pt"
        expected, found = torch.load(whole / name), torch.load(stopped / name)
        assert [key for key, value in expected.items() if not torch.equal(found[key], value)] == []


@pytest.mark.slow
def test_a_dead_process_ends_the_job_on_both_machines(tmp_path):
    """Two torchruns meet, as on two machines; one's process is killed. A hang fails by time-out."""
    task = tmp_path / "task.py"
    task.write_text(
        "import os, sys, torch\n"
        "from pathlib import Path\n"
        "torch.distributed.init_process_group('gloo')\n"
        "assert torch.distributed.get_world_size() == 2\n"
        "(Path(sys.argv[1]) / os.environ['RANK']).write_text(str(os.getpid()))\n"
        "while True:\n"
        "    torch.distributed.all_reduce(torch.ones(1))\n"
    )
    meeting = ["--nnodes", "2", "--nproc_per_node", "1", "--rdzv_backend", "c10d", "--rdzv_id", "run"]
    command = [sys.executable, "-m", "torch.distributed.run", *meeting, "--rdzv_endpoint", f"localhost:{free_port()}"]
    machines = [
        subprocess.Popen(
            [*command, str(task), str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for _ in range(2)
    ]
    try:
        until = time.monotonic() + 120
        while len(found := [tmp_path / rank for rank in "01" if (tmp_path / rank).exists()]) < 2:
            assert time.monotonic() < until, "the processes do not find each other"
            time.sleep(0.1)
        os.kill(int(found[1].read_text()), signal.SIGKILL)
        outputs = [machine.communicate(timeout=60)[0] for machine in machines]
    finally:
        for machine in machines:
            machine.kill()
    assert all(machine.returncode != 0 for machine in machines)
    assert any("Signal 9 (SIGKILL) received" in output for output in outputs)


def free_port():
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]
