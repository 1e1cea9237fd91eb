"""What a job has freed comes back to the system."""

import json
import platform
import subprocess
import sys

import pytest

from tests.fakes.servers import ROOT

# Blocks of 20 kB, of which one of each hundred stays, and of 40 MB; in a thread, as in a server.
JOB = """
import json, threading
from containers.common import memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 // 1_000_000

def job():
    blocks = [b"a" * 20_000 for _ in range(10_000)]
    large = [b"a" * 40_000_000 for _ in range(5)]
    kept.extend(blocks[::100])
    del blocks, large
    megabytes.append(resident())
    memory.give_back()
    megabytes.append(resident())

kept, megabytes = [], [resident()]
memory.keep_freed()
for _ in range(2):
    thread = threading.Thread(target=job)
    thread.start()
    thread.join()
print(json.dumps(megabytes))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is asked to")
def test_memory_is_kept_during_a_job_and_given_back_after_it() -> None:
    done = subprocess.run([sys.executable, "-c", JOB], cwd=ROOT, stdout=subprocess.PIPE)
    start, *jobs = json.loads(done.stdout)
    for during, after in (jobs[:2], jobs[2:]):
        assert during - start > 350
        assert after - start < 30


@pytest.mark.parametrize("libc", [object(), None])
def test_other_systems_are_left_alone(libc: object, monkeypatch: pytest.MonkeyPatch) -> None:
    from containers.common import memory

    monkeypatch.setattr(memory, "c_library", lambda: libc)
    memory.keep_freed()
    memory.give_back()
