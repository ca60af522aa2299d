// The leaderboard: a native table of which only the rows in sight exist, patched row by row.

import { DASH, bandText, h, ratioTone, setText, timesText } from "./dom.js";
import { reasonBar } from "./reason.js";
import { panel } from "./store.js";

const ROW = 30;
const SPARE = 6;
const EVIDENCE = ["measured", "emulated", "modelled", "compiled"];

const FILTERS = {
  all: () => true,
  correct: (row) => row.verdict === "correct",
  failed: (row) => row.tone === "bad" || row.tone === "warn",
  pinned: (row) => row.pinned,
};

// What a speedup is at least, which candidates are ranked by.
export const secured = (row) => row.speedups?.[row.main]?.[1] ?? 0;

// Correct ones by evidence and by what their speedup is at least, then those that were rejected, then the rest newest first: the order of `RunState.ranked`.
export function byRank(a, b) {
  const group = (row) => (row.verdict !== "correct" ? 2 : row.banned ? 1 : 0);
  if (group(a) !== group(b)) return group(a) - group(b);
  if (group(a) === 2) return b.order - a.order;
  return EVIDENCE.indexOf(a.evidence) - EVIDENCE.indexOf(b.evidence) || secured(b) - secured(a) || a.order - b.order;
}

// A candidate's place on the roofline in the main case of the run.
export function mainDot(store, row) {
  return row.dots?.find((dot) => dot[0] === store.frame.main);
}

function ratioCell(scale) {
  const number = h("span", { class: "kl-ratio-value" });
  const band = h("span", { class: "kl-band" });
  const bar = h("span", { class: "kl-bar-fill" });
  const one = h("span", { class: "kl-bar-one" });
  const track = h("span", { class: "kl-bar-track", "aria-hidden": "true" }, bar, band, one);
  const cell = h("td", { class: "kl-num kl-ratio" }, number, track);
  return (ratio, struck) => {
    setText(number, ratio ? timesText(ratio[0]) : DASH);
    track.hidden = !ratio;
    cell.title = ratio ? `95 % interval ${bandText(ratio)}` : "";
    if (ratio) {
      const at = (value) => `${(scale.at(value) * 100).toFixed(2)}%`;
      const [from, to] = ratio[0] >= 1 ? [1, ratio[0]] : [ratio[0], 1];
      bar.style.left = at(from);
      bar.style.width = `calc(${at(to)} - ${at(from)})`;
      band.style.left = at(ratio[1]);
      band.style.width = `calc(${at(ratio[2])} - ${at(ratio[1])})`;
      one.style.left = at(1);
      cell.dataset.tone = struck ? "quiet" : ratioTone(ratio);
    } else delete cell.dataset.tone;
    return cell;
  };
}

function makeRow(scale) {
  const rank = h("td", { class: "kl-num kl-rank" });
  const verdict = h("td", { class: "kl-verdict" }, h("span", { class: "kl-symbol", "aria-hidden": "true" }), h("span", {}));
  const main = ratioCell(scale);
  const other = ratioCell(scale);
  const roof = h("td", { class: "kl-num kl-roof-cell" });
  const title = h("td", { class: "kl-name" }, h("div", {}, h("span", { class: "kl-name-text" }), h("span", { class: "kl-marks" })));
  const gen = h("td", { class: "kl-num" });
  const proposer = h("td", { class: "kl-dim" });
  const tr = h("tr", { role: "row", tabindex: "-1" }, rank, verdict, main(null), other(null), roof, title, gen, proposer);
  return { tr, rank, verdict, main, other, roof, title, gen, proposer };
}

export function leaderboard(store) {
  const scale = {
    low: Math.log(0.5),
    high: Math.log(2),
    at(value) {
      return Math.min(1, Math.max(0, (Math.log(value) - this.low) / (this.high - this.low)));
    },
  };
  const columns = [
    ["rank", "#", "kl-num"],
    ["verdict", "Verdict", ""],
    ["main", "vs baseline", "kl-num"],
    ["other", "vs eager", "kl-num"],
    ["roof", "Roof", "kl-num"],
    ["title", "Candidate", ""],
    ["gen", "Gen", "kl-num"],
    ["proposer", "By", ""],
  ];
  const headers = new Map();
  const headRow = h("tr", { role: "row" });
  let sort = { name: "rank", down: false };
  for (const [name, text, kind] of columns) {
    const button = h("button", { type: "button", class: "kl-sort", onclick: () => sortBy(name) }, text);
    const th = h("th", { scope: "col", class: `${kind} kl-col-${name}`, role: "columnheader" }, button);
    headers.set(name, { th, button });
    headRow.append(th);
  }
  headers.get("rank").button.title = "By what the speedup is at least: the lower end of its 95 % interval";
  const above = h("tr", { class: "kl-space", "aria-hidden": "true" }, h("td", {}));
  const below = h("tr", { class: "kl-space", "aria-hidden": "true" }, h("td", {}));
  const body = h("tbody", {}, above, below);
  const table = h("table", { class: "kl-board", role: "grid", "aria-label": "Candidates" }, h("caption", { class: "kl-hidden" }, "Candidates; speedups are paired ratios with 95 % intervals. Arrows move, Enter inspects, D shows the difference, P pins, X rejects, B branches."), h("thead", {}, headRow), body);
  const scroller = h("div", { class: "kl-scroll" }, table);
  const empty = h("p", { class: "kl-empty" }, "No candidate yet. The first ones come once the baselines are measured.");
  const reason = reasonBar(store, () => focusRow(store.selected));
  const { root, head } = panel("leaderboard", "Leaderboard", scroller, empty, reason.root);

  const filters = h("div", { class: "kl-segments", role: "group", "aria-label": "Show" });
  let filter = "all";
  const filterButtons = Object.keys(FILTERS).map((name) => {
    const button = h("button", { type: "button", class: "kl-segment", "aria-pressed": String(name === filter), onclick: () => setFilter(name) }, name);
    filters.append(button);
    return [name, button];
  });
  const find = h("input", { class: "kl-input kl-find", type: "search", placeholder: "Find", "aria-label": "Find candidates by title, id or proposer" });
  find.addEventListener("input", () => { dirty = true; later(); });
  const keys = h("span", { class: "kl-keys", "aria-hidden": "true" });
  for (const [key, what] of [["↵", "inspect"], ["D", "diff"], ["P", "pin"], ["X", "reject"], ["B", "branch"]]) keys.append(h("kbd", {}, key), ` ${what} `);
  head.append(filters, find, keys);

  const made = new Map(); // id -> the elements of a row in sight
  let order = [];
  let ranks = new Map();
  let dirty = true;
  let waiting = false;
  let names = ["", ""];
  let start = 0;

  function setFilter(name) {
    filter = name;
    for (const [other, button] of filterButtons) button.setAttribute("aria-pressed", String(other === name));
    dirty = true;
    later();
  }

  function sortBy(name) {
    sort = { name, down: sort.name === name ? !sort.down : ["main", "other", "roof"].includes(name) };
    dirty = true;
    later();
  }

  const keysOf = {
    verdict: (row) => row.word,
    main: (row) => row.speedups?.[names[0]]?.[0],
    other: (row) => row.speedups?.[names[1]]?.[0],
    roof: (row) => mainDot(store, row)?.[3],
    title: (row) => row.title.toLowerCase(),
    gen: (row) => row.gen,
    proposer: (row) => row.proposer,
  };

  function arrange() {
    const ranked = [...store.rows.values()].sort(byRank);
    ranks = new Map();
    let place = 0;
    for (const row of ranked) if (row.verdict === "correct" && !row.banned) ranks.set(row.id, ++place);
    let rows = ranked.filter(FILTERS[filter]);
    const wanted = find.value.trim().toLowerCase();
    if (wanted) rows = rows.filter((row) => `${row.title} ${row.id} ${row.proposer} ${row.word} #${row.order}`.toLowerCase().includes(wanted));
    if (sort.name === "rank") {
      if (sort.down) rows.reverse();
    } else {
      const key = keysOf[sort.name];
      const sign = sort.down ? -1 : 1;
      rows.sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
        return (x < y ? -1 : x > y ? 1 : 0) * sign;
      });
    }
    order = rows;
    for (const [name, { th }] of headers) {
      if (name === sort.name) th.setAttribute("aria-sort", sort.down ? "descending" : "ascending");
      else th.removeAttribute("aria-sort");
    }
    table.setAttribute("aria-rowcount", String(rows.length + 1));
    rescale();
  }

  // What all titles begin with says nothing; whole parts of it (up to a comma) are left out of the rows.
  function sharedStart() {
    const titles = [...store.rows.values()].map((row) => row.title);
    if (titles.length < 4) return 0;
    let shared = titles[0];
    for (const title of titles) while (!title.startsWith(shared)) shared = shared.slice(0, -1);
    return shared.lastIndexOf(", ") < 0 ? 0 : shared.lastIndexOf(", ") + 2;
  }

  function rescale() {
    start = sharedStart();
    const seen = new Set();
    let low = 0.8;
    let high = 1.25;
    names = ["", ""];
    for (const row of store.rows.values()) {
      for (const [name, ratio] of Object.entries(row.speedups ?? {})) {
        seen.add(name);
        low = Math.min(low, ratio[1]);
        high = Math.max(high, ratio[2]);
      }
      if (row.main) names[0] = row.main;
    }
    names[1] = [...seen].find((name) => name !== names[0]) ?? "";
    [scale.low, scale.high] = [Math.log(Math.max(low, 0.05)), Math.log(high)];
    setText(headers.get("main").button, names[0] ? `vs ${names[0]}` : "vs baseline");
    setText(headers.get("other").button, names[1] ? `vs ${names[1]}` : "vs eager");
    made.forEach((parts) => { parts.shown = null; });
  }

  function patch(parts, row, index) {
    parts.tr.setAttribute("aria-rowindex", String(index + 2));
    const selected = row.id === store.selected;
    parts.tr.setAttribute("aria-selected", String(selected));
    parts.tr.tabIndex = selected || (index === 0 && !store.selected) ? 0 : -1;
    parts.tr.classList.toggle("kl-hovered", row.id === store.hovered);
    const rank = ranks.get(row.id);
    setText(parts.rank, rank ? String(rank) : "");
    if (parts.shown === row) return;
    parts.shown = row;
    parts.tr.dataset.id = row.id;
    parts.tr.dataset.tone = row.tone;
    parts.tr.classList.toggle("kl-banned", Boolean(row.banned));
    parts.tr.classList.toggle("kl-best", row.id === store.status?.best);
    setText(parts.verdict.firstChild, row.symbol);
    setText(parts.verdict.lastChild, row.word);
    parts.verdict.title = row.reason ?? "";
    parts.main(row.speedups?.[names[0]], row.banned);
    parts.other(row.speedups?.[names[1]], row.banned);
    const dot = mainDot(store, row);
    setText(parts.roof, dot ? `${Math.round(dot[3] * 100)} %` : DASH);
    parts.roof.title = dot ? `of the ${dot[4]} roof, ${store.frame.cases[dot[0]]?.label}` : "";
    const [name, marked] = parts.title.firstChild.children;
    setText(name, row.title.slice(start));
    parts.title.title = `${row.title} · ${row.id}${row.reason ? ` · ${row.reason}` : ""}`;
    const marks = [];
    if (row.pinned) marks.push(h("span", { class: "kl-mark kl-mark-pin" }, "pinned"));
    if (row.rejected !== undefined) marks.push(h("span", { class: "kl-mark kl-mark-bad", title: row.rejected }, "rejected"));
    else if (row.banned) marks.push(h("span", { class: "kl-mark", title: "An ancestor was rejected" }, "banned"));
    if (row.final) marks.push(h("span", { class: "kl-mark", title: "A finalist: measured again" }, "final"));
    for (const flag of row.flags ?? []) {
      const overruled = row.overruled?.[flag];
      marks.push(overruled ? h("span", { class: "kl-mark", title: `${flag}, overruled by a person: ${overruled}` }, `${flag}, overruled`) : h("span", { class: "kl-mark kl-mark-warn" }, flag));
    }
    if (row.evidence && row.evidence !== "measured") marks.push(h("span", { class: "kl-mark kl-mark-warn" }, row.evidence));
    marks.push(h("span", { class: "kl-id" }, `#${row.order}`));
    marked.replaceChildren(...marks);
    setText(parts.gen, String(row.gen));
    setText(parts.proposer, row.proposer);
  }

  function draw() {
    waiting = false;
    if (dirty) {
      arrange();
      dirty = false;
    }
    empty.hidden = order.length > 0;
    setText(empty, store.rows.size ? "No candidate matches." : "No candidate yet. The first ones come while the baselines are measured.");
    scroller.hidden = store.rows.size === 0;
    const first = Math.max(0, Math.floor(scroller.scrollTop / ROW) - SPARE);
    const last = Math.min(order.length, first + Math.ceil((scroller.clientHeight || 400) / ROW) + 2 * SPARE);
    const wanted = order.slice(first, last);
    const ids = new Set(wanted.map((row) => row.id));
    for (const [id, parts] of made) {
      if (!ids.has(id) && !parts.tr.contains(document.activeElement)) {
        parts.tr.remove();
        made.delete(id);
      }
    }
    above.firstChild.style.height = `${first * ROW}px`;
    below.firstChild.style.height = `${(order.length - last) * ROW}px`;
    let before = above;
    wanted.forEach((row, offset) => {
      if (!made.has(row.id)) made.set(row.id, makeRow(scale));
      const parts = made.get(row.id);
      patch(parts, row, first + offset);
      if (before.nextSibling !== parts.tr) before.after(parts.tr);
      before = parts.tr;
    });
    for (const [id, parts] of made) if (!ids.has(id)) before.after(parts.tr);
  }

  function later() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(draw);
  }

  function focusRow(id) {
    const index = order.findIndex((row) => row.id === id);
    if (index < 0) return;
    const top = index * ROW;
    const space = scroller.clientHeight - ROW * 2;
    if (top < scroller.scrollTop) scroller.scrollTop = top;
    else if (top > scroller.scrollTop + space) scroller.scrollTop = top - space;
    draw();
    made.get(id)?.tr.focus({ preventScroll: true });
  }

  function move(step) {
    const index = order.findIndex((row) => row.id === store.selected);
    const next = order[Math.min(order.length - 1, Math.max(0, index + step))];
    if (!next) return;
    store.select(next.id);
    focusRow(next.id);
  }

  const actions = {
    ArrowDown: () => move(1),
    ArrowUp: () => move(-1),
    PageDown: () => move(10),
    PageUp: () => move(-10),
    Home: () => move(-order.length),
    End: () => move(order.length),
    Enter: (id) => store.tell("inspect", { id, focus: true }),
    d: (id) => store.tell("inspect", { id, tab: "diff", focus: true }),
    p: (id) => store.command("pin", { id, pinned: !store.rows.get(id).pinned }),
    x: (id) => reason.open("reject", id),
    b: (id) => store.command("branch", { id }),
  };
  body.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const act = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act || !store.selected) return;
    event.preventDefault();
    act(store.selected);
  });
  body.addEventListener("click", (event) => {
    const id = event.target.closest("tr")?.dataset.id;
    if (id) {
      store.select(id);
      focusRow(id);
    }
  });
  body.addEventListener("dblclick", () => store.selected && store.tell("inspect", { id: store.selected, focus: true }));
  body.addEventListener("mouseover", (event) => store.hover(event.target.closest("tr")?.dataset.id ?? null));
  body.addEventListener("mouseleave", () => store.hover(null));
  scroller.addEventListener("scroll", later, { passive: true });
  const resized = new ResizeObserver(later);
  resized.observe(scroller);
  store.on("rows", () => { dirty = true; later(); });
  store.on("selected", later);
  store.on("hovered", later);
  store.on("frame", () => { dirty = true; later(); });
  for (const decision of ["reject", "appeal"]) store.on(decision, (id) => reason.open(decision, id));
  store.on("overrule", ({ id, flag }) => reason.open("overrule", id, { flag }));
  return { root, close: () => resized.disconnect() };
}
