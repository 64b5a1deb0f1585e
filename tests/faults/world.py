"""World: a run, the process that trains in it, what the reference says of both, and what a death leaves of them."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
import uuid
from collections import Counter
from pathlib import Path
from typing import ClassVar

import torch
from contracts.faults import Crash
from faults.comparing import (
    check,
    check_content,
    check_facts,
    check_knowledge,
    check_no_orphans,
    check_pointers,
    check_restored,
    rows_of,
)
from faults.process import Process, digest
from faults.reference import keeps, latest
from hypothesis.stateful import RuleBasedStateMachine
from safetensors.numpy import load_file

from keepbest.errors import KeepbestError
from keepbest.storage.backend import open_backend
from keepbest.storage.run import Run


class World(RuleBasedStateMachine):
    """What the rules of `machine.py` need. `begin` sets `rules` and `size`."""

    folder = None
    """Where runs lie on the disk; None: in memory."""
    mode = "sync"
    mirrored = False
    counts: ClassVar = Counter()
    """Of all machines of a class: "steps", "deaths", "saves", "rivals"."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.place = Path(tempfile.mkdtemp(dir=self.folder)) if self.folder else f"memory://model-{uuid.uuid4().hex}"
        self.urls = [f"{self.place}/run", f"{self.place}/mirror"][: 1 + self.mirrored]
        self.run = Run(open_backend(self.urls[0]))
        self.steps = 0
        self.listed, self.ever, self.rows = {}, {}, ()
        self.published = {}
        """Place of a file outside the run → digest."""
        self.live = None
        self.doom = None

    def teardown(self):
        """Close, look at all of it, and leave nothing."""
        try:
            if sys.exc_info()[0] is None:  # else that is what has to be told
                if self.live is not None:
                    self._close()
                self._tidy_up()
                self._look_closely()
        finally:
            if self.live is not None:
                self.live.bury()
                self.live = None
            if self.folder:
                shutil.rmtree(self.place)
            else:
                backend = open_backend(self.place)
                backend.delete([entry.key for entry in backend.list("")])

    # ── a process ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _up(self):
        """Return the process that trains, a new one if there is none; None if it died at once."""
        if self.live is None:
            self._open(None)
        return self.live

    def _open(self, number):
        """Begin a process: with a checkpoint, or the latest."""
        live = self.live = Process(self.rules, self.listed, size=self.size)
        with self._doing():
            live.open(self.urls, mode=self.mode, doom=self.doom)
        if self.live is None:
            return
        if number is None:
            self._resume(live)
            return
        with self._doing():
            live.ckpt.restore(number)
        if self.live is not None:
            live.knows.restored(number, self.listed[number])
            check_restored(live, self.listed[number])

    def _resume(self, live):
        number = latest(self.listed)
        if number is not None and self.listed[number].complete:
            live.knows.restored(number, self.listed[number])
            live.knows.go_back()
        else:
            number = None
            if not live.knows.continues:
                live.knows.continues = live.knows.trained = True
        with self._doing():
            live.ckpt.resume()
        if self.live is not None and number is not None:
            check_restored(live, self.listed[number])
            check_knowledge(live)

    def _close(self):
        live = self.live
        if live.knows.trained and live.knows.due("end"):
            self._expect(live.knows.save(live.state, self.listed))
        live.knows.flush()
        with self._doing():
            live.ckpt.close()
        if self.live is not None:
            self.live = None
            if self.mirrored and live.knows.continues and self.listed:  # else nothing was begun there
                self._check_mirror()

    @contextlib.contextmanager
    def _doing(self):
        """Do what the process may die of. What it leads to, the reference has said before."""
        live = self.live
        try:
            yield
            if live.doomed and live.ckpt is not None:
                live.ckpt.wait()
        except (Crash, KeepbestError):
            if not live.dead:
                raise
        if live.dead:
            self._died()
            return
        if live.doomed:
            live.save = None
        if live.knows.written:
            self.rows = live.knows.written[-1]
            live.knows.written.clear()

    def _died(self):
        """Look at what a process left that died, and go on with that."""
        live, self.live, self.doom = self.live, None, None
        live.bury()
        self.counts["deaths"] += 1
        found = {checkpoint.sequence for checkpoint in self.run.checkpoints()}
        self._check_listed(found, live.save)
        self.listed = {number: self.ever[number] for number in sorted(found)}
        rows = rows_of(self.run.history())
        known = (self.rows, *live.knows.written)
        check(rows in known, "lost", f"after a death the history is {rows}, not {self.rows}")
        self.rows = rows
        self._look_closely()

    # ── saves ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _log(self, live, metrics):
        knows = live.knows
        improved, stop = knows.log(metrics)
        due = knows.due("epoch", improved=improved)
        busy = self.mode == "async" and self.rules.on_busy != "wait" and not live.doomed
        expected = due or (knows.superseded and not busy)
        without, before, listed = knows.copy(), live.save, self.listed
        if expected:
            self._expect(knows.save(live.state, self.listed))
        with self._doing():
            decision = live.ckpt.log(metrics)
        if self.live is None:
            return
        if due and not decision.saved:
            check(busy and not improved, "lost", f"a save was due and not made: {decision.reason}")
            live.knows, live.save, self.listed = without, before, listed
            live.knows.superseded = self.rules.on_busy == "supersede"
        elif decision.saved and not expected:
            check(busy and knows.superseded, "broken", f"no save was due: {decision.reason}")
            self._expect(knows.save(live.state, self.listed))
        check(decision.stop == stop, "broken", f"training should end: {stop}, but {decision.reason}")
        check_knowledge(live)

    def _expect(self, save):
        """A save begins; the one before has ended."""
        self.live.save, self.listed = save, save.after
        self.ever |= save.added
        self.counts["saves"] += 1

    def _settle(self):
        """Wait for the save under way; returns whether nobody died of it."""
        if self.live is not None:
            with self._doing():
                self.live.ckpt.wait()
            if self.live is None:
                return False
            self.live.save = None
        return True

    def _tidy_up(self):
        for run in self._runs()[: 1 if self.live else 2]:  # something may be on its way to the mirror
            run.gc(grace=0)
            check_no_orphans(run)

    # ── looking ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _runs(self):
        return [Run(open_backend(url)) for url in self.urls]

    def _look(self):
        held = self.run.checkpoints()
        found = {checkpoint.sequence for checkpoint in held}
        save = self.live.save if self.live is not None else None
        self._check_listed(found, save)
        for checkpoint in held:
            check_facts(checkpoint, self.ever[checkpoint.sequence])
        rows = rows_of(self.run.history())
        check(rows == self.rows, "lost", f"the history is {rows}, not {self.rows}")
        if save is None:
            self._adopt(found)
            check_pointers(self.run, self.listed, self.rules.monitors)

    def _look_closely(self):
        if not self._settle():
            return
        self._look()
        check_content(self.run, self.ever)
        for target, model in self.published.items():
            check(self._published(target) == model, "torn", f"{target} has other weights than were published")

    def _published(self, target):
        folder, _, name = target.rpartition("/")
        with tempfile.NamedTemporaryFile(dir=self.folder) as copy:
            Path(copy.name).write_bytes(open_backend(folder).read(name))
            return digest(load_file(copy.name))

    def _check_listed(self, found, save):
        """Compare the sequences that are listed, while a save is under way or after one."""
        if not self.mirrored:
            right = save.allows(found) if save else found == set(self.listed)
        else:  # what is being uploaded is retired later, and what only the mirror has may come back
            ways = (save.before, save.after) if save else (self.listed,)
            right = found <= set(self.ever) and any(keeps(way, self.rules) <= found for way in ways)
        expected = (
            f"before a save {sorted(save.before)}, after it {sorted(save.after)}" if save else sorted(self.listed)
        )
        check(right, "lost", f"{sorted(found)} are listed; it should be {expected}")

    def _adopt(self, found):
        """Take what is listed for what is there, where a mirror has a say in it."""
        if self.mirrored:
            self.listed = {number: self.ever[number] for number in sorted(found)}
            if self.live is not None:
                self.live.knows.view = dict(self.listed)

    def _check_mirror(self):
        """When the process has closed, the mirror has what the policy keeps of both."""
        mirror = self._runs()[1]
        found = {checkpoint.sequence for checkpoint in mirror.checkpoints()}
        wanted = keeps(self.listed | {number: self.ever[number] for number in found}, self.rules)
        check(wanted <= found, "lost", f"the mirror lists {sorted(found)}, and should have {sorted(wanted)}")
        check_content(mirror, self.ever)
        rows = rows_of(mirror.history())
        check(rows == self.rows, "lost", f"the mirror's history is {rows}, not {self.rows}")
