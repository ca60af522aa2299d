// What a person can say to the search: a hint, a source of their own, and what became of each command.

import { h, setText, tabs } from "./dom.js";
import { panel } from "./store.js";

const VERBS = { reject: "Rejected", pin: "Pin", hint: "Hint", enqueue: "Source", branch: "Branch", pause: "Pause", resume: "Resume", stop: "Stop", extend: "Budget", appeal: "Appeal", overrule: "Overruled" };

export function steeringPanel(store) {
  const hint = h("textarea", { class: "kl-input", rows: "2", maxlength: "2000", placeholder: "Tell the proposer something, such as: keep the row in registers", "aria-label": "Hint for the proposer" });
  const sendHint = h("button", { type: "submit", class: "kl-button" }, "Send hint");
  const hintForm = h("form", { class: "kl-steer-form" }, hint, h("div", { class: "kl-form-foot" }, h("span", { class: "kl-dim" }, "Ctrl+Enter sends"), sendHint));

  const source = h("textarea", { class: "kl-input kl-source", rows: "5", spellcheck: "false", placeholder: "Paste a kernel of your own; it is judged before all others", "aria-label": "Source to enqueue" });
  const title = h("input", { class: "kl-input", type: "text", maxlength: "80", placeholder: "Title", "aria-label": "Title of the source" });
  const language = h("select", { class: "kl-select", "aria-label": "Language of the source" });
  const sendSource = h("button", { type: "submit", class: "kl-button" }, "Enqueue");
  let parents = [];
  const sourceForm = h("form", { class: "kl-steer-form", hidden: true }, source, h("div", { class: "kl-form-foot" }, title, language, sendSource));

  const requests = h("ol", { class: "kl-requests", "aria-label": "Commands and what became of them" });
  const bar = tabs("Steering", [["hint", "Hint"], ["source", "Your source"]], (name) => {
    hintForm.hidden = name !== "hint";
    sourceForm.hidden = name !== "source";
  });
  bar.select("hint", false);
  const { root, head } = panel("steering", "Steering", hintForm, sourceForm, requests);
  head.append(bar.list);

  hintForm.addEventListener("submit", async (event) => {
    event.preventDefault();
    const text = hint.value.trim();
    if (text && (await store.command("hint", { text }))) hint.value = "";
    check();
  });
  sourceForm.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!source.value.trim()) return;
    if (await store.command("enqueue", { source: source.value, language: language.value, title: title.value.trim(), parents })) {
      source.value = title.value = "";
      parents = [];
    }
    check();
  });
  for (const form of [hintForm, sourceForm]) {
    form.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
      event.stopPropagation();
    });
    form.addEventListener("input", check);
  }

  store.on("edit", async (id) => {
    const answer = await store.ask({ t: "source", id });
    if (!answer.ok) return;
    bar.select("source");
    source.value = answer.source;
    const row = store.rows.get(id);
    title.value = `edit of #${row?.order ?? ""}`;
    language.value = answer.language;
    parents = [id];
    check();
    source.focus();
  });

  function check() {
    const state = store.status?.status ?? "empty";
    const over = state === "empty" ? "There is no run yet" : ["finished", "stopped", "failed"].includes(state) ? "The run has ended: add to its budget first" : "";
    sendHint.disabled = Boolean(over) || !hint.value.trim();
    sendHint.title = over || (hint.value.trim() ? "" : "Write a hint first");
    sendSource.disabled = Boolean(over) || !source.value.trim();
    sendSource.title = over || (source.value.trim() ? "" : "Paste a source first");
  }

  let offered = "";
  function languages() {
    const own = store.status?.language;
    const names = [...new Set([own, ...(store.languages ?? [])])].filter(Boolean);
    if (names.join() === offered) return;
    offered = names.join();
    language.replaceChildren(...names.map((name) => h("option", { value: name }, name)));
    language.value = own;
  }

  store.on("status", () => {
    languages();
    check();
    const items = store.status.requests.toReversed().map((request) => {
      const about = store.rows.get(request.candidate);
      const what = `${VERBS[request.verb] ?? request.verb}${about ? ` #${about.order}` : ""}`;
      const state = request.applied ? "applied" : "accepted";
      return h("li", { "data-state": state }, h("span", { class: "kl-request-state", "aria-hidden": "true" }, request.applied ? "✓" : "◔"), h("b", {}, what), h("span", { class: "kl-request-detail" }, request.detail), h("span", { class: "kl-dim" }, request.note || state));
    });
    requests.replaceChildren(...items);
    requests.hidden = !items.length;
  });
  check();
  setText(sendHint, "Send hint");
  return { root };
}
