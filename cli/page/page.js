// The page's script: draws the charts (uPlot does the curves, this the marks), sorts tables, switches light and dark.
// Whatever came from a run is written by textContent, or drawn on a canvas, and never read as HTML.
"use strict";
(() => {
  const { runs, charts } = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const alone = runs.length === 1;
  const DASHES = [[], [7, 4], [2, 3]];
  const WHOLE = [];
  for (let ten = 1; ten < 1e15; ten *= 10) WHOLE.push(ten, 2 * ten, 5 * ten);
  const FEW = 30; // points that are drawn one by one
  const MOST_TOLD = 12; // curves that a readout names
  const MOST_MARKED = 4; // runs whose saves are marked side by side

  // ── theme ─────────────────────────────────────────────────────────────────────────────────────────────────────
  const toggle = document.getElementById("theme");
  const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");
  const look = {};

  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : prefersDark.matches);

  function repaint() {
    const style = getComputedStyle(root);
    for (const name of ["ink", "dim", "grid", "good", "bad", "shade", "paper"]) {
      look[name] = style.getPropertyValue(`--${name}`).trim();
    }
    look.colours = Array.from({ length: 8 }, (_, at) => style.getPropertyValue(`--colour-${at}`).trim());
    toggle.setAttribute("aria-pressed", String(isDark()));
    for (const view of views) if (view.plot) view.plot.redraw();
  }

  toggle.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    repaint();
  });
  prefersDark.addEventListener("change", repaint);

  // ── words ─────────────────────────────────────────────────────────────────────────────────────────────────────
  const number = (value) => String(Number(value.toPrecision(6)));
  const whole = (value) => value.toLocaleString("en", { maximumFractionDigits: 1 });

  // The values that stand nearest to a place: a curve of fewer points has none of its own there.
  function nearest(values, at) {
    for (let away = 0; away < values.length; away += 1) {
      if (at - away >= 0 && values[at - away] != null) return at - away;
      if (at + away < values.length && values[at + away] != null) return at + away;
    }
    return null;
  }

  // ── charts ────────────────────────────────────────────────────────────────────────────────────────────────────
  class View {
    constructor(element) {
      this.element = element;
      this.chart = charts[Number(element.dataset.chart)];
      this.readout = element.parentNode.querySelector(".readout");
      this.hidden = new Set(); // of its series
      this.plot = null;
      this.at = null; // the place of the cursor in the data
      element.addEventListener("keydown", (event) => this.press(event));
      element.addEventListener("mouseleave", () => this.say(null));
      element.addEventListener("blur", () => this.say(null));
    }

    get height() {
      return this.chart.gap ? 180 : 260;
    }

    get width() {
      return Math.max(this.element.clientWidth, 120);
    }

    draw() {
      if (this.plot) return this.plot;
      const { series, axis } = this.chart;
      const data = series.length ? uPlot.join(series.map((one) => [one.x, one.y])) : [[]];
      this.plot = new uPlot(
        {
          width: this.width,
          height: this.height,
          legend: { show: false },
          padding: [14, 14, 0, 0],
          cursor: {
            y: false,
            drag: { x: true, y: false },
            dataIdx: (plot, at, closest) => (at === 0 ? closest : nearest(plot.data[at], closest) ?? closest),
          },
          scales: { x: { time: false, range: (_, low, high) => around(low, high) }, y: { auto: true } },
          axes: [
            {
              label: axis,
              labelSize: 20,
              size: 34,
              incrs: WHOLE,
              stroke: () => look.dim,
              grid: { stroke: () => look.grid, width: 1 },
              ticks: { stroke: () => look.grid, width: 1 },
              values: (_, places) => places.map((x) => (Number.isInteger(x) ? whole(x) : "")),
            },
            {
              size: (_, values) => 16 + 7 * Math.max(4, ...(values || []).map((text) => text.length)),
              stroke: () => look.dim,
              grid: { stroke: () => look.grid, width: 1 },
              ticks: { stroke: () => look.grid, width: 1 },
              values: (_, places) => places.map(number),
            },
          ],
          series: [
            {},
            ...series.map((one, at) => ({
              label: one.name,
              show: this.shows(at),
              stroke: () => look.colours[one.colour],
              width: one.dash === 1 ? 1.5 : 2,
              dash: DASHES[one.dash],
              points: { size: 5, fill: () => look.paper, show: (_, __, from, to) => to - from < FEW },
            })),
          ],
          hooks: {
            drawAxes: [(plot) => this.drawBelow(plot)],
            draw: [(plot) => this.drawMarks(plot)],
            setCursor: [(plot) => this.follow(plot)],
          },
        },
        data,
        this.element,
      );
      return this.plot;
    }

    shows(at) {
      return !this.hidden.has(at) && !hiddenRuns.has(this.chart.series[at].run);
    }

    refresh() {
      if (!this.plot) return;
      this.chart.series.forEach((_, at) => {
        if (this.plot.series[at + 1].show !== this.shows(at)) this.plot.setSeries(at + 1, { show: this.shows(at) });
      });
      this.plot.redraw();
    }

    follow(plot) {
      const at = plot.cursor.idx;
      if (at != null && plot.cursor.left >= 0) this.say(at);
    }

    say(at) {
      this.at = at ?? this.at;
      this.readout.textContent = at == null ? "" : this.told(at);
    }

    // Whether anything of a run is on this chart: what happened to the others is told where they are.
    draws(run) {
      return !hiddenRuns.has(run) && this.chart.series.some((one) => one.run === run);
    }

    // What stands at a place, in words.
    told(at) {
      const { data } = this.plot;
      const { axis, series } = this.chart;
      const x = data[0][at];
      const parts = [];
      series.forEach((one, place) => {
        const own = this.shows(place) ? nearest(data[place + 1], at) : null;
        if (own === null) return;
        const where = own === at ? "" : ` (at ${whole(data[0][own])})`;
        parts.push(`${one.name} ${number(data[place + 1][own])}${where}`);
      });
      const more = parts.length > MOST_TOLD ? `; and ${parts.length - MOST_TOLD} more` : "";
      const happened = this.happened(at).map((text) => `; ${text}`);
      const title = axis === "epoch" ? "Epoch" : "Step";
      return `${title} ${whole(x)}: ${parts.slice(0, MOST_TOLD).join("; ")}${more}${happened.join("")}`;
    }

    // What lies nearer to this place than to its neighbours.
    happened(at) {
      const xs = this.plot.data[0];
      const from = at > 0 ? (xs[at - 1] + xs[at]) / 2 : -Infinity;
      const to = at + 1 < xs.length ? (xs[at] + xs[at + 1]) / 2 : Infinity;
      const here = (x) => x > from && x <= to;
      const found = [];
      runs.forEach((run, which) => {
        if (!this.draws(which)) return;
        const marks = run.events[this.chart.axis];
        const who = alone ? "" : `${run.name} `;
        if (this.chart.best.some(([of, x]) => of === which && here(x))) found.push(`${who}best checkpoint`);
        if (marks.saved.some(here)) found.push(`${who}saved`);
        if (marks.retired.some(here)) found.push(`${who}saved, deleted since`);
        if (marks.failed.some(here)) found.push(`${who}save failed`);
        for (const [x, text] of marks.lines) if (here(x)) found.push(`${who}${text}`);
        const shaded = ([of, low, high]) => of === which && xs[at] > low && xs[at] <= high;
        if (this.chart.shade.some(shaded)) found.push(`${who}overfitting`);
      });
      return found;
    }

    press(event) {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const plot = this.draw();
      const count = plot.data[0].length;
      if (!count) return;
      const leap = Math.max(1, Math.round(count / 10));
      const moves = { ArrowLeft: -1, ArrowRight: 1, PageDown: -leap, PageUp: leap, Home: -count, End: count };
      if (event.key in moves) {
        const from = this.at ?? (moves[event.key] > 0 ? -1 : count);
        this.moveTo(Math.min(Math.max(from + moves[event.key], 0), count - 1));
      } else if (event.key === "+" || event.key === "=") {
        this.zoom(0.5);
      } else if (event.key === "-") {
        this.zoom(2);
      } else if (event.key === "0") {
        this.zoom(Infinity);
      } else {
        return;
      }
      event.preventDefault();
    }

    moveTo(at) {
      const { plot } = this;
      const x = plot.data[0][at];
      const { min, max } = plot.scales.x;
      if (x < min || x > max) {
        const half = (max - min) / 2;
        plot.setScale("x", { min: x - half, max: x + half });
      }
      this.at = at;
      // The scale is set before the next frame, and the cursor needs it.
      queueMicrotask(() => {
        plot.setCursor({ left: plot.valToPos(x, "x"), top: plot.over.clientHeight / 2 }, false);
        this.say(at);
      });
    }

    zoom(by) {
      const { plot } = this;
      const xs = plot.data[0];
      const [low, high] = around(xs[0], xs[xs.length - 1]);
      const { min, max } = plot.scales.x;
      const middle = this.at === null ? (min + max) / 2 : xs[this.at];
      const half = Math.min(((max - min) / 2) * by, high - low);
      const from = Math.max(low, middle - half);
      const to = Math.min(high, middle + half);
      if (to - from > 0) plot.setScale("x", { min: from, max: to });
    }

    // ── marks ───────────────────────────────────────────────────────────────────────────────────────────────────

    drawBelow(plot) {
      const { ctx, bbox } = plot;
      const ratio = devicePixelRatio;
      const place = (x) => plot.valToPos(x, "x", true);
      clipped(plot, () => {
        for (const [run, low, high] of this.chart.shade) {
          if (hiddenRuns.has(run)) continue;
          const [from, to] = [place(low), place(high)];
          ctx.fillStyle = alone ? look.shade : look.colours[run % 8];
          if (alone) ctx.fillRect(from, bbox.top, to - from, bbox.height);
          else ctx.fillRect(from, bbox.top + 5 * ratio * (run % 8), to - from, 3 * ratio);
        }
        if (this.chart.gap) {
          const y = plot.valToPos(0, "y", true);
          line(ctx, [bbox.left, y], [bbox.left + bbox.width, y], look.dim, ratio);
        }
      });
    }

    drawMarks(plot) {
      const { ctx, bbox } = plot;
      const ratio = devicePixelRatio;
      const place = (x) => plot.valToPos(x, "x", true);
      const bottom = bbox.top + bbox.height;
      clipped(plot, () => {
        ctx.font = `${11 * ratio}px system-ui, sans-serif`;
        runs.forEach((run, which) => {
          if (!this.draws(which)) return;
          const marks = run.events[this.chart.axis];
          const own = alone ? look.ink : look.colours[which % 8];
          const taken = [-Infinity, -Infinity, -Infinity]; // up to where each line of words is
          for (const [x, text] of marks.lines) {
            const at = place(x);
            line(ctx, [at, bbox.top], [at, bottom], own, ratio, [4 * ratio, 4 * ratio]);
            const width = ctx.measureText(text).width;
            const right = at + width + 6 * ratio > bbox.left + bbox.width;
            const from = right ? at - width - 4 * ratio : at;
            const row = taken.findIndex((end) => end <= from);
            if (row < 0) continue;
            taken[row] = from + width + 12 * ratio;
            ctx.fillStyle = own;
            ctx.textAlign = right ? "right" : "left";
            const down = 12 + 12 * row + (alone ? 0 : 12 * (which % 8));
            ctx.fillText(text, at + (right ? -4 : 4) * ratio, bbox.top + down * ratio);
          }
          if (which >= MOST_MARKED && runs.length > MOST_MARKED) return;
          const foot = bottom - (2 + 8 * (alone ? 0 : which)) * ratio;
          for (const x of marks.retired) triangle(ctx, place(x), foot, 3.5 * ratio, own, false, ratio);
          for (const x of marks.saved) triangle(ctx, place(x), foot, 3.5 * ratio, own, true, ratio);
          for (const x of marks.failed) cross(ctx, place(x), foot - 4 * ratio, 4 * ratio, look.bad, ratio);
        });
        for (const [run, x, y] of this.chart.best) {
          if (hiddenRuns.has(run)) continue;
          star(ctx, place(x), plot.valToPos(y, "y", true), 8 * ratio, look.good, look.paper, ratio);
        }
      });
    }
  }

  // A little air around what is shown, and something to show where there is but one place.
  function around(low, high) {
    if (low == null || high == null) return [0, 1];
    if (low === high) return [low - 1, high + 1];
    return [low, high];
  }

  function clipped(plot, paint) {
    const { ctx, bbox } = plot;
    const air = 9 * devicePixelRatio;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left - air, bbox.top - air, bbox.width + 2 * air, bbox.height + 2 * air);
    ctx.clip();
    ctx.setLineDash([]);
    paint();
    ctx.restore();
  }

  function line(ctx, from, to, colour, ratio, dash = []) {
    ctx.strokeStyle = colour;
    ctx.lineWidth = ratio;
    ctx.setLineDash(dash);
    ctx.beginPath();
    ctx.moveTo(...from);
    ctx.lineTo(...to);
    ctx.stroke();
    ctx.setLineDash([]);
  }

  function triangle(ctx, x, foot, size, colour, filled, ratio) {
    ctx.beginPath();
    ctx.moveTo(x, foot - 1.8 * size);
    ctx.lineTo(x + size, foot);
    ctx.lineTo(x - size, foot);
    ctx.closePath();
    ctx.strokeStyle = ctx.fillStyle = colour;
    ctx.lineWidth = ratio;
    if (filled) ctx.fill();
    ctx.stroke();
  }

  function cross(ctx, x, y, size, colour, ratio) {
    line(ctx, [x - size, y - size], [x + size, y + size], colour, 2 * ratio);
    line(ctx, [x - size, y + size], [x + size, y - size], colour, 2 * ratio);
  }

  function star(ctx, x, y, size, colour, edge, ratio) {
    ctx.beginPath();
    for (let point = 0; point < 10; point += 1) {
      const angle = (point * Math.PI) / 5 - Math.PI / 2;
      const reach = point % 2 ? size * 0.45 : size;
      ctx.lineTo(x + reach * Math.cos(angle), y + reach * Math.sin(angle));
    }
    ctx.closePath();
    ctx.fillStyle = colour;
    ctx.strokeStyle = edge;
    ctx.lineWidth = 1.5 * ratio;
    ctx.fill();
    ctx.stroke();
  }

  // ── which curves are shown ────────────────────────────────────────────────────────────────────────────────────
  const hiddenRuns = new Set();
  const views = [...document.querySelectorAll(".chart")].map((element) => new View(element));

  function flip(button, hidden, what) {
    const shown = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(shown));
    if (shown) hidden.delete(what);
    else hidden.add(what);
  }

  for (const button of document.querySelectorAll("[data-run]")) {
    button.addEventListener("click", () => {
      flip(button, hiddenRuns, Number(button.dataset.run));
      for (const view of views) view.refresh();
    });
  }
  for (const view of views) {
    for (const button of view.element.parentNode.querySelectorAll("[data-series]")) {
      button.addEventListener("click", () => {
        flip(button, view.hidden, Number(button.dataset.series));
        view.refresh();
      });
    }
  }

  // ── drawing what is looked at, and all for paper ──────────────────────────────────────────────────────────────
  const seen = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (entry.isIntersecting) views[Number(entry.target.dataset.chart)].draw();
      }
    },
    { rootMargin: "400px" },
  );
  const resized = new ResizeObserver((entries) => {
    for (const entry of entries) {
      const view = views[Number(entry.target.dataset.chart)];
      if (view.plot && view.plot.width !== view.width) view.plot.setSize({ width: view.width, height: view.height });
    }
  });

  const PAPER = 660; // CSS pixels that fit on A4 and on Letter
  let before = null; // the theme on screen, while it prints
  window.addEventListener("beforeprint", () => {
    before = root.dataset.theme ?? "";
    root.dataset.theme = "light";
    for (const view of views) view.draw().setSize({ width: PAPER, height: view.height });
    repaint();
  });
  window.addEventListener("afterprint", () => {
    if (before) root.dataset.theme = before;
    else delete root.dataset.theme;
    for (const view of views) view.plot.setSize({ width: view.width, height: view.height });
    repaint();
  });

  repaint();
  for (const view of views) {
    seen.observe(view.element);
    resized.observe(view.element);
  }

  // ── tables ────────────────────────────────────────────────────────────────────────────────────────────────────
  const collator = new Intl.Collator("en", { numeric: true });

  // What a row is sorted by; null where it has nothing there, which comes last either way.
  function sortKey(cell, isNumber) {
    if (!isNumber) return cell.textContent || null;
    return "value" in cell.dataset ? Number(cell.dataset.value) : null;
  }

  function sort(heading) {
    const column = heading.cellIndex;
    const isNumber = heading.classList.contains("number");
    const falls = heading.getAttribute("aria-sort") === "ascending";
    for (const other of heading.parentNode.cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", falls ? "descending" : "ascending");
    const body = heading.closest("table").tBodies[0];
    const rows = [...body.rows].map((row) => [sortKey(row.cells[column], isNumber), row]);
    rows.sort(([one], [other]) => {
      if (one === null || other === null) return (one === null) - (other === null);
      const order = isNumber ? one - other : collator.compare(one, other);
      return falls ? -order : order;
    });
    body.append(...rows.map(([, row]) => row));
  }

  for (const button of document.querySelectorAll("table.sortable th button")) {
    button.addEventListener("click", () => sort(button.closest("th")));
  }
})();
