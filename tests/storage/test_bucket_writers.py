"""Two trainings that write to one run in a bucket at the same time: each commit is one's alone, and both stay whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from contracts import stores

import keepbest

TURNS = 6

WRITER = """
import json, sys
import numpy as np
from keepbest import Checkpointer, CheckpointPolicy
from keepbest.errors import SaveFailedError

url, options, who, turns = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])

def say(what):
    print(what, flush=True)

for turn in range(turns):
    model = {"weight": np.zeros(400_000, np.float32), "step": np.zeros(3, np.int64)}
    policy = CheckpointPolicy(keep_all=True, at_end=False, on_sigterm=False)
    training = Checkpointer(url, policy, storage_options=options, mode="sync", model=model)
    training.resume()
    model["weight"][:] = 1000 * who + turn
    model["step"][:] = 1000 * who + turn
    say("ready")
    sys.stdin.readline()
    try:
        training.log(loss=float(1000 * who + turn))
        say("won")
    except SaveFailedError as error:
        say(type(error.__cause__).__name__)
    training.close(save=False)
"""


@pytest.mark.parametrize("client", stores.CLIENTS)
def test_of_two_trainings_exactly_one_wins_each_commit(request, client):
    """Two processes commit at the same moment, again and again: one wins, the other is told, and nothing is torn."""
    with stores.behind_proxy(request, client, deadline=30) as store:
        command = [sys.executable, "-c", WRITER, store.url, json.dumps(store.options)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": os.environ}
        writers = [subprocess.Popen([*command, str(who), str(TURNS)], **pipes) for who in (1, 2)]
        won = []
        for turn in range(TURNS):
            assert [writer.stdout.readline() for writer in writers] == ["ready\n"] * 2
            for writer in writers:
                writer.stdin.write("go\n")
                writer.stdin.flush()
            said = [writer.stdout.readline().strip() for writer in writers]
            assert sorted(said) == ["ConcurrentWriterError", "won"], turn
            won.append(1000 * (1 + said.index("won")) + turn)
        for writer in writers:
            assert writer.wait(timeout=30) == 0
            writer.stdin.close()
            writer.stdout.close()
        run = keepbest.open_run(store.url, storage_options=store.options)
        assert [checkpoint.metrics["loss"] for checkpoint in run.checkpoints()] == won
        for checkpoint, value in zip(run.checkpoints(), won, strict=True):
            loaded = checkpoint.load("model")
            assert np.array_equal(loaded["weight"], np.full(400_000, value, np.float32))
            assert np.array_equal(loaded["step"], np.full(3, value))
        assert run.verify().ok
        assert run.gc(grace=0).removed == ()
        assert store.uploads() == []
