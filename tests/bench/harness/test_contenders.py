"""A bench that is ended, by a time limit for instance, leaves no contender behind to disturb what is measured next."""

from __future__ import annotations

import signal
import subprocess
import sys

import psutil

# A contender that ignores SIGTERM, with a child, both in a session of their own as every contender.
BENCH = """
import select, sys
import saker.bench.harness.contenders
from saker.bench.harness.contenders import Contender, Topics, running

saker.bench.harness.contenders.STOP_SECONDS = 1
forks = "import os, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.fork(); print(flush=True); signal.pause()"
sleeper = Contender("sleeper", "does nothing", lambda topics, workers: [[sys.executable, "-c", forks]])
with running(sleeper, Topics("", "", "", "", ""), 1) as processes:
    while not (children := processes.roots[0].children()):
        pass
    while len(saker.bench.harness.contenders.LOG.read_bytes()) < 2:
        pass
    print(processes.roots[0].pid, children[0].pid, flush=True)
    while True:  # a signal that comes just before a pause does not end it
        select.select([], [], [], 1)
"""


def test_sigterm_ends_its_contenders_too() -> None:
    bench = subprocess.Popen([sys.executable, "-c", BENCH], stdout=subprocess.PIPE, text=True)
    assert bench.stdout is not None
    with bench.stdout as told:
        contenders = [psutil.Process(int(number)) for number in told.readline().split()]
        assert len(contenders) == 2
        bench.send_signal(signal.SIGTERM)
        assert bench.wait(30) == 128 + signal.SIGTERM
    assert not psutil.wait_procs(contenders, 10)[1]
