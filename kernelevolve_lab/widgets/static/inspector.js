// One candidate in full. The kernel renders the parts as escaped HTML when they are asked for; here they are only placed.

import { bandText, h, setText, tabs, timesText } from "./dom.js";
import { secured } from "./leaderboard.js";
import { panel } from "./store.js";

const TABS = [["source", "Source"], ["diff", "Diff"], ["cases", "Cases"], ["diagnosis", "Diagnosis"], ["evidence", "Metrics"], ["conversation", "Prompt"]];
const SETTLE = 120;

export function inspectorPanel(store) {
  const name = h("div", { class: "kl-inspect-name" });
  const facts = h("div", { class: "kl-inspect-facts" });
  const base = h("select", { class: "kl-select", "aria-label": "Compare with" });
  const compare = h("label", { class: "kl-compare", hidden: true }, "Compare with ", base);
  const body = h("div", { class: "kl-inspect-body", role: "tabpanel", tabindex: "0" });
  let tab = "source";
  const bar = tabs("Parts of the candidate", TABS, (chosen) => {
    tab = chosen;
    load();
  });
  const act = (text, title, run) => h("button", { type: "button", class: "kl-button kl-small", title, onclick: run }, text);
  const pin = act("Pin", "Keep it in sight and prefer it as a parent", () => store.command("pin", { id: shown, pinned: !store.rows.get(shown).pinned }));
  const branch = act("Branch", "Expand this candidate next", () => store.command("branch", { id: shown }));
  const edit = act("Edit a copy", "Open its source in the enqueue box", () => store.tell("edit", shown));
  const reject = act("Reject…", "Reject it with a reason", () => store.tell("reject", shown));
  const appeal = act("Appeal…", "", () => store.tell("appeal", shown));
  const actions = h("div", { class: "kl-actions" }, pin, branch, edit, reject, appeal);
  const { root, head } = panel("inspector", "Candidate", h("div", { class: "kl-inspect-top" }, h("div", {}, name, facts), actions), h("div", { class: "kl-inspect-bar" }, bar.list, compare), body);
  head.hidden = true;
  bar.select(tab, false);

  let shown = null;
  let asked = null;
  let timer = null;

  function previousBest(row) {
    let best = null;
    for (const other of store.rows.values()) {
      if (other.order < row.order && other.verdict === "correct" && !other.banned && (!best || secured(other) > secured(best))) best = other;
    }
    return best;
  }

  function offer(row) {
    const chosen = base.dataset.of === row.id ? base.value : "";
    const groups = [];
    const option = (other, what) => h("option", { value: other.id }, `${what}#${other.order} ${other.title}`.slice(0, 70));
    const near = (row.parents ?? []).map((id) => store.rows.get(id)).filter(Boolean).map((other) => option(other, "parent "));
    const draft = [...store.rows.values()].find((other) => !other.parents && other.title.split(",")[0] === row.title.split(",")[0] && other.id !== row.id);
    if (draft) near.push(option(draft, "draft "));
    const before = previousBest(row);
    if (before) near.push(option(before, "best before it "));
    if (store.status.best && store.status.best !== row.id) near.push(option(store.rows.get(store.status.best), "best "));
    if (near.length) groups.push(h("optgroup", { label: "Related" }, ...near));
    const all = [...store.rows.values()].filter((other) => other.id !== row.id).slice(-200).reverse();
    if (all.length) groups.push(h("optgroup", { label: "Any other" }, ...all.map((other) => option(other, ""))));
    base.replaceChildren(...groups);
    base.dataset.of = row.id;
    if (chosen && store.rows.has(chosen)) base.value = chosen;
  }
  base.addEventListener("change", () => load());

  // The judge's flags; those of a correct candidate may be overruled, which says so beside them and changes no verdict.
  function flags(row) {
    return (row.flags ?? []).map((flag) => {
      const reason = row.overruled?.[flag];
      const button = row.verdict === "correct" && !reason && act("Overrule…", "Say why this flag does not count", () => store.tell("overrule", { id: row.id, flag }));
      return h("span", {}, `${flag}${reason ? `, overruled by a person: ${reason}` : " "}`, button || "");
    });
  }

  function top() {
    const row = store.rows.get(shown);
    actions.hidden = bar.list.hidden = !row;
    if (!row) {
      setText(name, "No candidate is selected");
      facts.replaceChildren();
      return;
    }
    name.replaceChildren(h("span", { class: "kl-symbol", "data-tone": row.tone, "aria-hidden": "true" }, row.symbol), h("b", {}, row.title), h("code", {}, row.id));
    const ratios = Object.entries(row.speedups ?? {}).map(([against, ratio]) => `${timesText(ratio[0])} ${bandText(ratio)} vs ${against}`);
    const told = [`#${row.order} · generation ${row.gen} · ${row.proposer} · ${row.language}`, row.word + (ratios.length ? `: ${ratios.join(", ")} (${row.evidence})` : ""), row.rejected !== undefined ? `rejected: ${row.rejected}` : row.banned ? "banned: an ancestor was rejected" : ""];
    facts.replaceChildren(...told.filter(Boolean).map((text) => h("span", {}, text)), ...flags(row));
    setText(pin, row.pinned ? "Unpin" : "Pin");
    reject.disabled = row.rejected !== undefined;
    appeal.disabled = !row.judged;
    appeal.title = appeal.disabled ? "It has not been judged yet" : "Have it judged again from scratch, with a reason";
    reject.title = reject.disabled ? "It is rejected already" : "Reject it with a reason";
    const over = ["finished", "stopped", "failed"].includes(store.status.status) ? "The run has ended: add to its budget first" : row.banned ? "It or an ancestor was rejected" : "";
    branch.disabled = Boolean(over);
    branch.title = over || "Expand this candidate next";
  }

  async function load() {
    compare.hidden = tab !== "diff";
    const row = store.rows.get(shown);
    if (!row) {
      body.replaceChildren(h("p", { class: "kl-empty" }, "Choose a candidate in the leaderboard, on the roofline or in the lineage."));
      return;
    }
    if (tab === "diff") offer(row);
    const request = { t: "inspect", id: row.id, tab, against: tab === "diff" ? base.value : "" };
    const key = JSON.stringify(request) + (row.judged ?? "") + JSON.stringify(row.overruled ?? "");
    if (asked === key) return;
    const same = asked?.startsWith(JSON.stringify(request));
    asked = key;
    if (!same) body.setAttribute("aria-busy", "true");
    let answer;
    try {
      answer = await store.ask(request);
    } catch {
      return;
    }
    if (asked !== key) return;
    body.removeAttribute("aria-busy");
    if (answer.ok) body.innerHTML = answer.html; // made and escaped by `rendering`; nothing else is ever placed as markup
    else body.replaceChildren(h("p", { class: "kl-empty" }, answer.text));
    if (!same) body.scrollTop = 0;
  }

  function open(id) {
    shown = id;
    top();
    clearTimeout(timer);
    timer = setTimeout(load, SETTLE);
  }

  store.on("selected", open);
  store.on("rows", (rows) => {
    if (!shown || rows.some((row) => row.id === shown) || !store.rows.has(shown)) open(store.rows.has(shown) ? shown : store.selected);
  });
  store.on("status", top);
  store.on("inspect", ({ tab: wanted, focus }) => {
    if (wanted) bar.select(wanted);
    root.scrollIntoView({ block: "nearest" });
    if (focus) body.focus({ preventScroll: true });
  });
  top();
  load();
  return { root, close: () => clearTimeout(timer) };
}
