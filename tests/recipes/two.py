"""Two processes that run a script beside the tests, joined as torchrun would join them."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path


def two(script: str, data: Path, out: Path, mode: str) -> list[int]:
    """Run ``script data out mode`` twice, as ranks 0 and 1 of a world of two; their exit codes, 0 or a kill."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, str(Path(__file__).with_name(script)), str(data), str(out), mode]
    world = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            command, env=world | {"RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in ("0", "1")
    ]  # fmt: skip
    said = [process.communicate(timeout=500)[0] for process in processes]
    codes = [process.returncode for process in processes]
    assert all(code in (0, -signal.SIGKILL) for code in codes), "\n".join(said)
    return codes
