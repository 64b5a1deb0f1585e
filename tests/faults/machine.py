"""Machine: what may happen to a run — training, saves, deaths, branches, rivals — as rules that Hypothesis draws."""

from __future__ import annotations

import tempfile

from faults.comparing import HarmError, check, check_restored
from faults.process import digest
from faults.reference import Rules
from faults.world import World
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule
from safetensors.numpy import load_file

from keepbest.errors import ConcurrentWriterError, MissingMetricError, SaveFailedError
from keepbest.storage.run_writer import RunWriter

VALUES = st.sampled_from([0.1, 0.2, 0.2, 0.3, 0.5, 1.0, -1.0, float("nan"), float("inf"), -float("inf")])
METRICS = st.fixed_dictionaries({"val_loss": VALUES, "val_acc": VALUES})
CALLS = st.one_of(st.integers(0, 2), st.integers(0, 25))
"""To the store: so many a process has left to live."""
MOMENTS = st.sampled_from(["before", "during", "after"])


@st.composite
def policies(draw):
    """Draw what a policy can say."""
    monitors = draw(st.sampled_from([(), ("val_loss",), ("val_acc",), ("val_loss", "val_acc")]))
    keep_best, keep_all = draw(st.integers(0, 3)), draw(st.integers(0, 9)) == 9
    at_end, every_epochs = draw(st.sampled_from([(True, 1), (False, 1), (True, 2), (True, None)]))
    on_busy = draw(st.sampled_from(["wait", "wait", "skip", "supersede"]))
    return Rules(
        monitors=monitors,
        keep_best=keep_best,
        keep_last=draw(st.integers(1, 3)),
        keep_every=draw(st.sampled_from([None, 2, 3])),
        keep_all=keep_all,
        every_epochs=every_epochs,
        every_steps=draw(st.sampled_from([None, 2])) if on_busy == "wait" else None,
        on_improvement=draw(st.booleans()),
        at_end=at_end,
        weights_only_best=bool(monitors and keep_best and not keep_all) and draw(st.booleans()),
        patience=draw(st.sampled_from([None, 2])),
        on_busy=on_busy,
    )


class RunMachine(World):
    """Does to one run what Hypothesis draws. Each rule first asks the reference what must come of it."""

    @initialize(rules=policies(), size=st.sampled_from(["small", "large"]))
    def begin(self, rules, size):
        """There is nothing yet."""
        self.rules, self.size = rules, size

    # ── training ──────────────────────────────────────────────────────────────────────────────────────────────────

    @rule(epochs=st.lists(METRICS, min_size=1, max_size=4))
    def train(self, epochs):
        """Train, and log the metrics of one epoch after the other."""
        for metrics in epochs:
            live = self._up()
            if live is None:
                return
            live.step()
            self._log(live, metrics)

    @rule(metrics=st.sampled_from([{}, {"loss": 0.5}, {"loss": float("nan")}]))
    def train_step(self, metrics):
        """Train a step of an epoch."""
        live = self._up()
        if live is None:
            return
        live.step()
        if self.rules.on_busy == "supersede" and not self._settle():
            return
        live.knows.log_step(metrics)
        if live.knows.due("step") or live.knows.superseded:
            self._expect(live.knows.save(live.state, self.listed))
        with self._doing():
            live.ckpt.log_step(metrics)

    @rule()
    def forget_a_metric(self):
        """Log an epoch without what is monitored: an error, and nothing has happened."""
        live = self._up()
        if live is None or not self.rules.monitors:
            return
        live.knows.begin()
        with self._doing():
            try:
                live.ckpt.log(val_los=1.0)
            except MissingMetricError:
                return
            check(live.dead, "broken", "a missing metric was taken")

    @rule()
    def save(self):
        """Save for no reason."""
        live = self._up()
        if live is None:
            return
        live.knows.begin()
        self._expect(live.knows.save(live.state, self.listed))
        with self._doing():
            live.ckpt.save()

    @rule()
    def wait(self):
        """Wait until it is saved."""
        self._settle()

    # ── going back ────────────────────────────────────────────────────────────────────────────────────────────────

    @rule(pick=st.integers(0, 9))
    def rewind(self, pick):
        """Go back to some checkpoint, to train on from there."""
        live = self._up()
        if live is None or not self._settle() or not self.listed:
            return
        number = sorted(self.listed)[pick % len(self.listed)]
        commit = self.listed[number]
        if live.knows.trained and live.knows.due("end"):
            self._expect(live.knows.save(live.state, self.listed))
        with self._doing():
            live.ckpt.restore(number)
        if self.live is None:
            return
        live.knows.restored(number, commit)
        check_restored(live, commit)

    @rule()
    def fall_back(self):
        """Go back to the latest, whatever was trained since."""
        live = self._up()
        if live is not None and self._settle():
            self._resume(live)

    # ── ends of processes ─────────────────────────────────────────────────────────────────────────────────────────

    @rule(calls=CALLS, moment=MOMENTS, metrics=METRICS, opening=st.booleans())
    def be_doomed(self, calls, moment, metrics, opening):
        """The process dies at one of its next calls: in training and saving, or already while it opens the run."""
        if opening and self.live is not None:
            self._close()
        if (opening or self._up()) and self._settle():
            self.doom = calls, moment
            if self.live is not None:
                self.live.doom(*self.doom)
            self.train([metrics])

    @rule(kill=st.booleans(), pick=st.one_of(st.none(), st.integers(0, 9)))
    def restart(self, kill, pick):
        """End the process, one way or the other, and begin a new one: with the latest, or some other checkpoint."""
        if self.live is not None and kill:
            self._died()
        elif self.live is not None:
            self._close()
        whole = sorted(number for number, commit in self.listed.items() if commit.complete)
        self._open(whole[pick % len(whole)] if whole and pick is not None else None)

    @rule(metrics=METRICS)
    def rival(self, metrics):
        """A second training opens the run while the first goes on; the first hears of it at its next save."""
        old = self._up()
        if old is None or not self._settle() or old.doomed or self.mirrored:
            return
        self.live = None
        self._open(None)
        self.live.step()
        self._log(self.live, metrics)
        self.save()
        self._settle()
        try:
            old.ckpt.save()
            old.ckpt.wait()
        except SaveFailedError as error:
            named = isinstance(error.__cause__, ConcurrentWriterError)
            check(named, "broken", f"beside a rival a save ends with {error!r}")
        else:
            raise HarmError("lost", "two trainings have written to one run, and neither was told")
        self.counts["rivals"] += 1
        old.bury()

    # ── what others do with a run ─────────────────────────────────────────────────────────────────────────────────

    @rule()
    def collect_garbage(self):
        """Let gc take all that nothing names."""
        if self._settle():
            self._tidy_up()

    @rule(pick=st.integers(0, 9))
    def delete(self, pick):
        """Delete a checkpoint by hand, but not the newest, while nobody trains."""
        if self.live is not None:
            self._close()
        older = sorted(self.listed)[:-1]
        if older and not self.mirrored:
            number = older[pick % len(older)]
            RunWriter(self.run.backend).retire([number])
            del self.listed[number]

    @rule(pick=st.integers(0, 9), name=st.sampled_from("ab"))
    def copy_out(self, pick, name):
        """Export a checkpoint's weights, and publish them at a path where others may be."""
        if not self._settle() or not self.listed:
            return
        number = sorted(self.listed, reverse=True)[pick % len(self.listed)]
        checkpoint, model = self.run.get(number), self.listed[number].state.model
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            checkpoint.export(f"{folder}/model.safetensors")
            check(digest(load_file(f"{folder}/model.safetensors")) == model, "torn", "an export has other weights")
        target = f"{self.place}/published/{name}.safetensors"
        self.run.publish(checkpoint, "model.safetensors", target)
        self.published[target] = model

    @invariant()
    def look(self):
        """Read the run as somebody else: what is listed, the best, the latest, the history; at times all of it."""
        self.steps += 1
        self.counts["steps"] += 1
        if self.steps % 8 == 0:
            self._look_closely()
        else:
            self._look()
