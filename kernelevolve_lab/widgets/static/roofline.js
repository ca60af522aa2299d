// The roofline: measured ceilings, baselines as hollow diamonds, candidates as dots, and an arrow from the main baseline to the best.
// Where an operator does no arithmetic the horizontal axis is the order of the candidates and only bytes per second count.

import { Chart, diamond, disc, discs, logScale, logTicks, nearest, ring, shortNumber } from "./chart.js";
import { h, scaledText, secondsText, setText, timesText } from "./dom.js";
import { mainDot } from "./leaderboard.js";

const SPREAD = 13; // px that candidates of one intensity are spread sideways, so that they can be told apart

export function roofline(store) {
  const cases = h("select", { class: "kl-select", "aria-label": "Case shown on the roofline" });
  const verdict = h("p", { class: "kl-roof-text" });
  const chart = new Chart(store, "Roofline", { left: 56, right: 14, top: 14, bottom: 34 }, draw, hit);
  const root = h("div", { class: "kl-roof" }, h("div", { class: "kl-chart-tools" }, cases, verdict), chart.root);
  let only = null; // the case shown; -1: all of them; null: none is known
  let chosen = false; // by a person; until then it is the main case
  let spots = [];

  cases.addEventListener("change", () => {
    only = Number(cases.value);
    chosen = true;
    chart.later();
    say();
  });

  function choose() {
    const frame = store.frame;
    const several = new Set(frame.cases.map((one) => one.dtype)).size > 1;
    cases.replaceChildren(h("option", { value: "-1" }, "All cases"), ...frame.cases.map((one, index) => h("option", { value: String(index) }, several ? `${one.label} · ${one.dtype}` : one.label)));
    if (!chosen || only >= frame.cases.length) only = frame.cases.length ? frame.main : null;
    cases.value = String(only);
    cases.hidden = frame.cases.length < 2;
  }

  function say() {
    const best = store.best();
    const dot = best?.dots?.find((one) => one[0] === only) ?? (best && mainDot(store, best));
    if (!dot) {
      setText(verdict, "");
      return;
    }
    if (only < 0 || only === null) {
      setText(verdict, store.status.best_roof?.text ?? "");
      return;
    }
    const memory = store.frame.roofs.some((roof) => roof.kind === "bandwidth" && roof.name === dot[4]);
    const name = { dram: "DRAM", hbm: "HBM" }[dot[4]] ?? dot[4].toUpperCase().replace(/^FLOAT/, "float");
    setText(verdict, memory ? `memory-bound, ${Math.round(dot[3] * 100)} % of ${name} bandwidth (${scaledText(dot[2], "B/s")})` : `compute-bound, ${Math.round(dot[3] * 100)} % of ${dot[4]} peak (${scaledText(dot[1], "FLOP/s")})`);
  }

  const shownCase = (index) => only === null || only < 0 || only === index;

  function draw(g, box, c) {
    const { frame } = store;
    spots = [];
    g.font = `11px ${c.font}`;
    if (!frame.cases.length && !frame.roofs.length) {
      g.fillStyle = c.fg3;
      g.textAlign = "center";
      g.fillText("The roofline appears once the ceilings are measured.", box.x + box.w / 2, box.y + box.h / 2);
      return;
    }
    const arithmetic = frame.cases.some((one) => one.intensity > 0) || !frame.cases.length;
    if (arithmetic) drawRoofline(g, box, c, frame);
    else drawBandwidth(g, box, c, frame);
  }

  function axes(g, box, c, sx, sy, xName, yName, xTicks) {
    g.lineWidth = 1;
    g.textBaseline = "middle";
    for (const value of logTicks(sy.low, sy.high)) {
      const y = Math.round(sy(value)) + 0.5;
      g.strokeStyle = c.grid;
      g.beginPath();
      g.moveTo(box.x, y);
      g.lineTo(box.x + box.w, y);
      g.stroke();
      g.fillStyle = c.fg2;
      g.textAlign = "right";
      g.fillText(shortNumber(value), box.x - 7, y);
    }
    g.textAlign = "center";
    g.textBaseline = "top";
    for (const value of xTicks) {
      const x = Math.round(sx(value)) + 0.5;
      g.strokeStyle = c.grid;
      g.beginPath();
      g.moveTo(x, box.y);
      g.lineTo(x, box.y + box.h);
      g.stroke();
      g.fillStyle = c.fg2;
      g.fillText(shortNumber(value), x, box.y + box.h + 6);
    }
    g.fillStyle = c.fg3;
    g.textAlign = "right";
    g.fillText(xName, box.x + box.w, box.y + box.h + 20);
    g.save();
    g.translate(11, box.y);
    g.rotate(-Math.PI / 2);
    g.textAlign = "right";
    g.fillText(yName, 0, -5);
    g.restore();
  }

  function drawRoofline(g, box, c, frame) {
    const whole = frame.roofs.filter((roof) => roof.threads === 0 || roof.primary);
    const intensities = frame.cases.map((one) => one.intensity).filter((value) => value > 0);
    const seen = [...store.rows.values()].flatMap((row) => (row.dots ?? []).map((dot) => dot[1])).concat(frame.baselines.map((dot) => dot.flops)).filter((value) => value > 0);
    const xs = intensities.concat(frame.ridge ?? []);
    const low = Math.min(...xs) / 4;
    const high = Math.max(...xs) * 6;
    const tops = whole.filter((roof) => roof.kind === "compute").map((roof) => roof.value);
    const top = Math.max(...tops, ...seen, 1) * 1.8;
    const bottom = Math.min(...seen, Math.max(...tops, 1) / 100) / 2.2;
    const sx = logScale(low, high, box.x, box.x + box.w);
    const sy = logScale(bottom, top, box.y + box.h, box.y);
    axes(g, box, c, sx, sy, "FLOP / byte", "FLOP/s", logTicks(low, high));
    g.save();
    g.beginPath();
    g.rect(box.x, box.y, box.w, box.h);
    g.clip();
    const main = frame.roofs.filter((roof) => roof.primary);
    const memory = main.find((roof) => roof.kind === "bandwidth");
    const compute = main.find((roof) => roof.kind === "compute");
    if (memory && compute) {
      g.fillStyle = c.accent;
      g.globalAlpha = 0.05;
      g.beginPath();
      g.moveTo(sx(low), sy(memory.value * low));
      g.lineTo(sx(frame.ridge), sy(compute.value));
      g.lineTo(sx(high), sy(compute.value));
      g.lineTo(sx(high), box.y + box.h);
      g.lineTo(sx(low), box.y + box.h);
      g.fill();
      g.globalAlpha = 1;
    }
    const peak = Math.max(...tops, 0) || top;
    const labels = [];
    for (const roof of whole) {
      const strong = roof.primary;
      g.strokeStyle = strong ? c.accent : c.fg3;
      g.lineWidth = strong ? 2 : 1;
      g.setLineDash(strong ? [] : [4, 3]);
      g.beginPath();
      if (roof.kind === "compute") {
        const from = memory ? Math.max(low, roof.value / Math.max(...whole.filter((r) => r.kind === "bandwidth").map((r) => r.value))) : low;
        g.moveTo(sx(from), sy(roof.value));
        g.lineTo(sx(high), sy(roof.value));
        labels.push({ text: roof.label, x: sx(high) - 4, y: sy(roof.value) - 3, align: "right", strong, angle: 0 });
      } else {
        const end = Math.min(high, peak / roof.value);
        g.moveTo(sx(low), sy(roof.value * low));
        g.lineTo(sx(end), sy(roof.value * end));
        const slope = Math.atan2(sy(roof.value * end) - sy(roof.value * low), sx(end) - sx(low));
        const start = Math.max(low, (bottom * 1.02) / roof.value);
        labels.push({ text: roof.label, x: sx(start) + 5, y: sy(roof.value * start) - 4, align: "left", strong, angle: slope });
      }
      g.stroke();
    }
    g.setLineDash([]);
    for (const label of labels) {
      g.save();
      g.translate(label.x, label.y);
      g.rotate(label.angle);
      g.textAlign = label.align;
      g.textBaseline = "bottom";
      g.font = `${label.strong ? "600 " : ""}10.5px ${c.font}`;
      g.lineWidth = 3;
      g.strokeStyle = c.bg;
      g.strokeText(label.text, 0, 0);
      g.fillStyle = label.strong ? c.accent : c.fg2;
      g.fillText(label.text, 0, 0);
      g.restore();
    }
    if (frame.ridge && compute) {
      const [x, y] = [sx(frame.ridge), sy(compute.value)];
      disc(g, x, y, 3, c.accent);
      g.fillStyle = c.fg2;
      g.font = `10.5px ${c.font}`;
      g.textAlign = "right";
      g.textBaseline = "bottom";
      const right = Math.min(x - 4, box.x + box.w - 16 - g.measureText(compute.label).width * 1.08);
      if (right - g.measureText(frame.ridge_label).width > box.x) g.fillText(frame.ridge_label, right, y - 5);
    }
    g.restore();
    marks(g, c, frame, (dot) => (frame.cases[dot.case].intensity > 0 ? [sx(frame.cases[dot.case].intensity), sy(dot.flops)] : null));
  }

  function drawBandwidth(g, box, c, frame) {
    const roofs = frame.roofs.filter((roof) => roof.kind === "bandwidth" && roof.threads === 0);
    const rows = [...store.rows.values()];
    const seen = rows.flatMap((row) => (row.dots ?? []).map((dot) => dot[2])).concat(frame.baselines.map((dot) => dot.bytes)).filter((value) => value > 0);
    const sy = logScale(Math.min(...seen, ...roofs.map((roof) => roof.value)) / 2, Math.max(...seen, ...roofs.map((roof) => roof.value)) * 1.6, box.y + box.h, box.y);
    const count = Math.max(10, rows.length);
    const sx = (order) => box.x + 24 + ((order - 0.5) / count) * (box.w - 28);
    axes(g, box, c, sx, sy, "candidate", "byte/s", []);
    for (const roof of roofs) {
      const y = sy(roof.value);
      g.strokeStyle = roof.primary ? c.accent : c.fg3;
      g.lineWidth = roof.primary ? 2 : 1;
      g.setLineDash(roof.primary ? [] : [4, 3]);
      g.beginPath();
      g.moveTo(box.x, y);
      g.lineTo(box.x + box.w, y);
      g.stroke();
      g.fillStyle = roof.primary ? c.accent : c.fg2;
      g.textAlign = "right";
      g.textBaseline = "bottom";
      g.fillText(roof.label, box.x + box.w - 4, y - 2);
    }
    g.setLineDash([]);
    marks(g, c, frame, (dot, row) => [row ? sx(row.order) : box.x + 12, sy(dot.bytes)]);
  }

  function marks(g, c, frame, place) {
    const bestId = store.status?.best;
    const put = (dot, row, text) => {
      const at = place(dot, row);
      if (at) spots.push({ x: at[0], y: at[1], id: row?.id ?? null, text });
      return at;
    };
    const plain = [];
    const banned = [];
    for (const row of store.rows.values()) {
      for (const [index, flops, bytes, fraction, bound, seconds] of row.dots ?? []) {
        if (!shownCase(index) || row.id === bestId) continue;
        const at = put({ case: index, flops, bytes }, row, () => lines(row, index, flops, bytes, fraction, bound, seconds));
        if (!at) continue;
        const spot = spots.at(-1);
        if (frame.cases[index].intensity > 0) spot.x += (((row.order * 7919) % 100) / 100 - 0.5) * 2 * SPREAD;
        (row.banned ? banned : plain).push([spot.x, spot.y]);
      }
    }
    discs(g, banned, 3, c.fg3, 0.35);
    discs(g, plain, 3, c.dot, 0.5);
    const best = bestId && store.rows.get(bestId);
    const from = new Map();
    for (const dot of frame.baselines) {
      if (!shownCase(dot.case)) continue;
      const one = frame.cases[dot.case];
      const at = put(dot, null, () => [dot.who, `${one.label} · ${one.dtype}`, `${scaledText(dot.flops, "FLOP/s")} · ${scaledText(dot.bytes, "B/s")}`, `${secondsText(dot.seconds)} · ${Math.round(dot.fraction * 100)} % of ${dot.bound_by}`]);
      if (!at) continue;
      diamond(g, at[0], at[1], 5, c.ghost);
      if ((only !== null && only >= 0) || frame.cases.length === 1) {
        g.fillStyle = c.fg2;
        g.font = `11px ${c.font}`;
        g.textAlign = "left";
        g.textBaseline = "middle";
        g.fillText(dot.who, at[0] + SPREAD + 6, at[1]);
      }
      if (dot.who === best?.main) from.set(dot.case, at);
    }
    for (const [index, flops, bytes, fraction, bound, seconds] of best?.dots ?? []) {
      if (!shownCase(index)) continue;
      const at = put({ case: index, flops, bytes }, best, () => lines(best, index, flops, bytes, fraction, bound, seconds));
      if (!at) continue;
      const start = from.get(index);
      if (start && Math.hypot(at[0] - start[0], at[1] - start[1]) > 22) arrow(g, start, at, c.good);
      disc(g, at[0], at[1], 8, c.good, 0.25);
      disc(g, at[0], at[1], 4.5, c.good);
    }
    for (const id of [store.selected, store.hovered]) {
      for (const spot of spots) if (id && spot.id === id) ring(g, spot.x, spot.y, id === store.hovered ? 8 : 6.5, c.fg, 1.5);
    }
  }

  function lines(row, index, flops, bytes, fraction, bound, seconds) {
    const one = store.frame.cases[index];
    return [
      `#${row.order} ${row.title}`,
      `${timesText(row.fitness)} vs ${row.main}${row.speedups?.[row.main] ? ` [${row.speedups[row.main][1].toFixed(2)}, ${row.speedups[row.main][2].toFixed(2)}]` : ""} · ${row.evidence}`,
      `${one.label} · ${one.dtype}`,
      `${secondsText(seconds)} · ${flops ? `${scaledText(flops, "FLOP/s")} · ` : ""}${scaledText(bytes, "B/s")}`,
      `${Math.round(fraction * 100)} % of the ${bound} roof`,
    ];
  }

  function arrow(g, from, to, colour) {
    const angle = Math.atan2(to[1] - from[1], to[0] - from[0]);
    const [x0, y0] = [from[0] + 7 * Math.cos(angle), from[1] + 7 * Math.sin(angle)];
    const [x1, y1] = [to[0] - 11 * Math.cos(angle), to[1] - 11 * Math.sin(angle)];
    g.strokeStyle = g.fillStyle = colour;
    g.lineWidth = 1.5;
    g.beginPath();
    g.moveTo(x0, y0);
    g.lineTo(x1, y1);
    g.stroke();
    g.beginPath();
    g.moveTo(x1 + 4 * Math.cos(angle), y1 + 4 * Math.sin(angle));
    g.lineTo(x1 - 5 * Math.cos(angle - 0.5), y1 - 5 * Math.sin(angle - 0.5));
    g.lineTo(x1 - 5 * Math.cos(angle + 0.5), y1 - 5 * Math.sin(angle + 0.5));
    g.fill();
  }

  function hit(x, y) {
    return nearest(spots, x, y, 10);
  }

  store.on("frame", () => { choose(); chart.later(); say(); });
  store.on("rows", () => { chart.later(); say(); });
  for (const topic of ["selected", "hovered"]) store.on(topic, () => chart.later());
  return { root, close: () => chart.close() };
}
