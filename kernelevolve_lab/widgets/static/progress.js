// Speedup over the candidates judged: each correct one with its interval, failures as ticks along the foot, best so far as a line.

import { Chart, disc, discs, logScale, logTicks, nearest, ring, strokes } from "./chart.js";
import { bandText, h, timesText } from "./dom.js";

export function progress(store) {
  const chart = new Chart(store, "Speedup over the candidates judged", { left: 42, right: 14, top: 10, bottom: 22 }, draw, hit);
  const root = h("div", { class: "kl-progress-chart" }, chart.root);
  let spots = [];

  function draw(g, box, c) {
    spots = [];
    const judged = [...store.rows.values()].filter((row) => row.judged).sort((a, b) => a.judged - b.judged || a.order - b.order);
    g.font = `11px ${c.font}`;
    if (!judged.length) {
      g.fillStyle = c.fg3;
      g.textAlign = "center";
      g.textBaseline = "middle";
      g.fillText("No candidate is judged yet.", box.x + box.w / 2, box.y + box.h / 2);
      return;
    }
    const ratios = judged.map((row) => row.speedups?.[row.main]).filter(Boolean);
    const low = Math.min(0.9, ...ratios.map((ratio) => ratio[1])) * 0.94;
    const high = Math.max(1.2, ...ratios.map((ratio) => ratio[2])) * 1.08;
    const foot = 9;
    const sy = logScale(low, high, box.y + box.h - foot, box.y);
    const budget = ["running", "paused"].includes(store.status.status) ? Math.min(store.status.budget.candidates ?? 0, judged.length * 1.6) : 0;
    const count = Math.max(judged.length, budget, 8);
    const sx = (index) => box.x + ((index - 0.5) / count) * box.w;
    for (const value of logTicks(low, high)) {
      const y = Math.round(sy(value)) + 0.5;
      g.strokeStyle = Math.abs(value - 1) < 1e-9 ? c.fg3 : c.grid;
      g.lineWidth = 1;
      g.beginPath();
      g.moveTo(box.x, y);
      g.lineTo(box.x + box.w, y);
      g.stroke();
      g.fillStyle = c.fg2;
      g.textAlign = "right";
      g.textBaseline = "middle";
      g.fillText(`${+value.toPrecision(3)}×`, box.x - 6, y);
    }
    let best = null;
    const line = [];
    const marks = { good: [], banned: [], whiskers: [], bad: [], warn: [] };
    judged.forEach((row, at) => {
      const x = sx(at + 1);
      const ratio = row.speedups?.[row.main];
      if (!ratio) {
        marks[row.tone === "bad" ? "bad" : "warn"].push([x, box.y + box.h - 5, x, box.y + box.h]);
        spots.push({ x, y: box.y + box.h - 3, id: row.id, text: () => [`#${row.order} ${row.title}`, row.word, row.reason ?? ""].filter(Boolean) });
      } else {
        const y = sy(ratio[0]);
        marks.whiskers.push([x, sy(ratio[1]), x, sy(ratio[2])]);
        marks[row.banned ? "banned" : "good"].push([x, y]);
        spots.push({ x, y, id: row.id, text: () => [`#${row.order} ${row.title}`, `${timesText(ratio[0])} ${bandText(ratio)} vs ${row.main} · ${row.evidence}`] });
        if (!row.banned && row.evidence === "measured" && (best === null || ratio[0] > best)) best = ratio[0];
      }
      if (best !== null) line.push([x, sy(best)]);
    });
    strokes(g, marks.bad, c.bad, 2, 0.7);
    strokes(g, marks.warn, c.warn, 2, 0.7);
    strokes(g, marks.whiskers, c.dot, 1, 0.35);
    discs(g, marks.banned, 2.5, c.fg3, 0.4);
    discs(g, marks.good, 2.5, c.dot, 0.75);
    if (line.length) {
      g.strokeStyle = c.good;
      g.lineWidth = 2;
      g.lineJoin = "round";
      g.beginPath();
      g.moveTo(...line[0]);
      for (let at = 1; at < line.length; at++) {
        g.lineTo(line[at][0], line[at - 1][1]);
        g.lineTo(...line[at]);
      }
      g.stroke();
      disc(g, ...line.at(-1), 3.5, c.good);
    }
    g.fillStyle = c.fg3;
    g.textBaseline = "top";
    g.textAlign = "left";
    g.fillText("1", sx(1), box.y + box.h + 6);
    g.textAlign = "right";
    g.fillText(`${judged.length} judged · speedup vs ${judged.find((row) => row.main)?.main ?? "the baseline"}`, box.x + box.w, box.y + box.h + 6);
    for (const id of [store.selected, store.hovered]) for (const spot of spots) if (id && spot.id === id) ring(g, spot.x, spot.y, 6, c.fg);
  }

  function hit(x, y) {
    return nearest(spots, x, y, 12);
  }

  for (const topic of ["rows", "selected", "hovered"]) store.on(topic, () => chart.later());
  return { root, close: () => chart.close() };
}
