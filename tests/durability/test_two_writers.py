"""Programs that write the same blob at the same moment."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from facts import faults_in, files_of, service_on

from castore import B3Digest

PROGRAM = """
import sys
from pathlib import Path
from castore_objectstore.local import LocalObjectStore
from castore_objectstore.service import ObjectStoreBlobService

folder, blob, durability = Path(sys.argv[1]), Path(sys.argv[2]).read_bytes(), sys.argv[3]
print("ready", flush=True)
for line in sys.stdin:
    store = LocalObjectStore(folder / line.strip(), instance="files", durability=durability)
    with ObjectStoreBlobService(store, avg_chunk_size=1024) as service:
        print(service.write(blob), flush=True)
"""


@pytest.mark.parametrize("durability", ["process", "full"])
def test_two_processes_write_one_blob(tmp_path: Path, durability: str) -> None:
    """Both succeed, round after round; one copy is left, it is right, and no temporary file beside it."""
    data = random.Random(4).randbytes(300_000)
    (tmp_path / "blob").write_bytes(data)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(tmp_path / "blob"), durability]
    writers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n", "it did not start"
    for number in range(20):
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write(f"{number}\n")
            writer.stdin.flush()
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == f"{B3Digest.of(data)}\n"
        folder = tmp_path / str(number)
        assert service_on(folder).read(B3Digest.of(data)) == data
        assert faults_in(files_of(folder)) == []
        assert not [name for name in files_of(folder) if "#" in name]
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
