// The family tree: one column a generation as SVG, and the same tree as a nested list for the keyboard and for screen readers.

import { h, s, timesText } from "./dom.js";

const STEP_X = 74;
const STEP_Y = 20;
const PAD = 16;
const NODES = 400; // nodes drawn: the latest, and the ancestors of the best and of what is selected

export function lineage(store) {
  const drawing = h("div", { class: "kl-tree-scroll", "aria-hidden": "true" });
  const list = h("ul", { class: "kl-tree-list", role: "tree", "aria-label": "Lineage" });
  const twin = h("details", { class: "kl-tree-twin" }, h("summary", {}, "As a list"), list);
  const empty = h("p", { class: "kl-empty" }, "The tree grows from the first candidate.");
  const root = h("div", { class: "kl-lineage" }, empty, drawing, twin);
  let visible = false;
  let dirty = true;
  let waiting = false;
  let centred = null;

  function ancestors(id, into) {
    for (let row = store.rows.get(id); row && !into.has(row.id); row = store.rows.get(row.parents?.[0])) into.add(row.id);
  }

  function chosen() {
    const rows = [...store.rows.values()];
    if (rows.length <= NODES) return rows;
    const keep = new Set(rows.slice(-NODES).map((row) => row.id));
    for (const id of [store.status.best, store.selected]) ancestors(id, keep);
    return rows.filter((row) => keep.has(row.id));
  }

  function tree(rows) {
    const known = new Set(rows.map((row) => row.id));
    const children = new Map();
    const roots = [];
    for (const row of rows) {
      const parent = row.parents?.find((id) => known.has(id));
      if (parent) children.set(parent, [...(children.get(parent) ?? []), row]);
      else roots.push(row);
    }
    return { roots, children };
  }

  function layout({ roots, children }) {
    const places = new Map();
    let line = 0;
    const visit = (row, depth) => {
      const kids = children.get(row.id) ?? [];
      const first = line;
      for (const kid of kids) visit(kid, depth + 1);
      if (!kids.length) line += 1;
      const rows = kids.map((kid) => places.get(kid.id).line);
      places.set(row.id, { depth, line: rows.length ? (rows[0] + rows.at(-1)) / 2 : first });
    };
    for (const row of roots) visit(row, 0);
    return { places, lines: line };
  }

  function draw() {
    waiting = false;
    if (!visible || !dirty) return;
    dirty = false;
    const rows = chosen();
    empty.hidden = rows.length > 0;
    twin.hidden = drawing.hidden = rows.length === 0;
    const grown = tree(rows);
    const { places, lines } = layout(grown);
    const depth = Math.max(0, ...[...places.values()].map((place) => place.depth));
    const best = new Set();
    ancestors(store.status.best, best);
    const at = (id) => ({ x: PAD + places.get(id).depth * STEP_X, y: PAD + places.get(id).line * STEP_Y });
    const svg = s("svg", { width: PAD * 2 + depth * STEP_X + 60, height: PAD * 2 + lines * STEP_Y, class: "kl-tree" });
    for (const row of rows) {
      for (const [index, parent] of (row.parents ?? []).entries()) {
        if (!places.has(parent)) continue;
        const [a, b] = [at(parent), at(row.id)];
        const path = s("path", { d: `M${a.x} ${a.y}C${a.x + STEP_X / 2} ${a.y} ${b.x - STEP_X / 2} ${b.y} ${b.x} ${b.y}`, class: index ? "kl-edge kl-edge-more" : "kl-edge" });
        if (!index && best.has(row.id) && best.has(parent)) path.classList.add("kl-edge-best");
        svg.append(path);
      }
    }
    const top = Math.max(1, ...rows.map((row) => row.fitness ?? 0));
    for (const row of rows) {
      const { x, y } = at(row.id);
      const good = row.verdict === "correct";
      const radius = good ? 3 + 5 * Math.sqrt((row.fitness ?? 0) / top) : 3;
      const node = s("g", { class: "kl-node", transform: `translate(${x} ${y})`, "data-id": row.id, "data-tone": row.banned ? "quiet" : row.tone });
      if (row.id === store.selected) node.classList.add("kl-node-selected");
      if (row.id === store.status.best) node.classList.add("kl-node-best");
      node.append(good ? s("circle", { r: radius }) : s("path", { d: "M-3-3L3 3M3-3L-3 3" }), s("circle", { r: 9, class: "kl-node-hit" }), s("title", {}, `#${row.order} ${row.title}: ${good ? timesText(row.fitness) : row.word}${row.banned ? ", banned" : ""}`));
      if (row.id === store.status.best || row.pinned) node.append(s("text", { x: 12, y: 4 }, good ? timesText(row.fitness) : row.word));
      svg.append(node);
    }
    drawing.replaceChildren(svg);
    const centre = store.selected ?? store.status.best;
    if (centred !== centre && places.has(centre)) {
      centred = centre;
      drawing.scrollTo({ left: at(centre).x - drawing.clientWidth / 2, top: at(centre).y - drawing.clientHeight / 2 });
    }
    if (twin.open) list.replaceChildren(...grown.roots.map((row) => item(row, grown.children, 1)));
  }

  function item(row, children, level) {
    const kids = children.get(row.id) ?? [];
    const label = h("button", { type: "button", class: "kl-link", tabindex: "-1", onclick: () => store.select(row.id) }, `${row.symbol} #${row.order} ${row.title} `, h("span", { class: "kl-dim" }, row.verdict === "correct" ? timesText(row.fitness) : row.word));
    const node = h("li", { role: "treeitem", "aria-level": String(level), "aria-selected": String(row.id === store.selected), tabindex: "-1" }, label);
    if (kids.length) {
      node.setAttribute("aria-expanded", "true");
      node.append(h("ul", { role: "group" }, ...kids.map((kid) => item(kid, children, level + 1))));
    }
    return node;
  }

  list.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    const buttons = [...list.querySelectorAll("button")];
    buttons[Math.min(buttons.length - 1, Math.max(0, buttons.indexOf(document.activeElement) + step))]?.focus();
    event.preventDefault();
  });
  list.addEventListener("focusin", (event) => {
    for (const button of list.querySelectorAll("button")) button.tabIndex = button === event.target ? 0 : -1;
  });
  twin.addEventListener("toggle", () => {
    dirty = true;
    later();
    const first = () => list.querySelector("button")?.setAttribute("tabindex", "0");
    requestAnimationFrame(first);
  });
  drawing.addEventListener("click", (event) => {
    const id = event.target.closest(".kl-node")?.dataset.id;
    if (id) store.select(id);
  });

  function later() {
    if (waiting || !visible) return;
    waiting = true;
    requestAnimationFrame(draw);
  }
  for (const topic of ["rows", "selected"]) {
    store.on(topic, () => {
      dirty = true;
      later();
    });
  }
  return {
    root,
    show(on) {
      visible = on;
      later();
    },
  };
}
