// The live view of a run: lays the panels out and owns their life.

import { h, tabs } from "./dom.js";
import { handPanel } from "./hand.js";
import { header } from "./header.js";
import { inspectorPanel } from "./inspector.js";
import { launcher } from "./launcher.js";
import { leaderboard } from "./leaderboard.js";
import { lineage } from "./lineage.js";
import { logPanel } from "./log.js";
import { progress } from "./progress.js";
import { roofline } from "./roofline.js";
import { steeringPanel } from "./steering.js";
import { RunStore, panel } from "./store.js";

const NOTICE_FOR = 6000;

function charts(store) {
  const roof = roofline(store);
  const tree = lineage(store);
  const course = progress(store);
  const { root, head } = panel("charts", "Roofline", roof.root, tree.root, course.root);
  const bar = tabs("Charts", [["roofline", "Roofline"], ["lineage", "Lineage"]], (name) => {
    roof.root.hidden = name !== "roofline";
    tree.root.hidden = name !== "lineage";
    tree.show(name === "lineage");
  });
  head.replaceChildren(bar.list);
  bar.select("roofline");
  return {
    root,
    close() {
      roof.close();
      course.close();
    },
  };
}

function notices(store) {
  const line = h("div", { class: "kl-notice", role: "status", hidden: true });
  let timer;
  store.on("notice", ({ tone, text }) => {
    line.textContent = text;
    line.dataset.tone = tone;
    line.hidden = false;
    clearTimeout(timer);
    if (tone !== "bad") timer = setTimeout(() => { line.hidden = true; }, NOTICE_FOR);
  });
  line.addEventListener("click", () => { line.hidden = true; });
  return { root: h("div", { class: "kl-notices" }, line), close: () => clearTimeout(timer) };
}

const PANELS = { launcher, header, hand: handPanel, leaderboard, charts, inspector: inspectorPanel, steering: steeringPanel, log: logPanel };

export function mount(model, el) {
  const store = new RunStore(model);
  const wanted = model.get("panels");
  const parts = Object.keys(PANELS).filter((name) => wanted.includes(name)).map((name) => [name, PANELS[name](store, model)]);
  const grid = h("div", { class: "kl-grid" });
  const note = notices(store);
  const root = h("div", { class: "kel kl-view", "data-view": model.get("name"), "data-lm-suppress-shortcuts": "true", role: "region", "aria-label": "Kernel search" }, grid, note.root);
  const aside = h("div", { class: "kl-aside" });
  for (const [name, part] of parts) {
    if (["launcher", "header", "hand"].includes(name)) root.insertBefore(part.root, grid);
    else if (name === "steering" || name === "log") aside.append(part.root);
    else grid.append(part.root);
  }
  if (aside.childElementCount) grid.append(aside);
  grid.dataset.panels = String(grid.querySelectorAll(".kl-panel").length);
  store.on("status", () => {
    root.dataset.status = store.status.status;
  });
  const patience = setTimeout(() => {
    if (!store.status) store.tell("notice", { tone: "warn", text: "Waiting for the kernel: it is busy, or was restarted. kel.open(run) shows a stored run again." });
  }, 3000);
  el.append(root);
  return () => {
    clearTimeout(patience);
    for (const [, part] of parts) part.close?.();
    note.close();
    store.close();
    root.remove();
  };
}

export default { render: ({ model, el }) => mount(model, el) };
