"""Runs a command and prints what it took, as JSON: measure.py COMMAND...

A program of its own and not a function, because Linux counts the memory of the process that a command was forked from
as the command's: the less is in here, the lower is what can be measured. `floor` says how low.
"""

import os
import sys
import time

start = time.monotonic()
child = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, 2, 1)])
_, status, used = os.wait4(child, 0)
wall = time.monotonic() - start
with open("/proc/self/status") as lines:
    floor = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
print(
    '{"wall": %.6f, "cpu": %.6f, "memory": %d, "written": %d, "floor": %d}'
    % (wall, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024, used.ru_oublock * 512, floor * 1024)
)
sys.exit(os.waitstatus_to_exitcode(status))
