// For people without an endpoint: the prompt to copy into any chat, a box for what the model answers, and what became of it.

import { bandText, copyText, h, setText, timesText } from "./dom.js";
import { byRank } from "./leaderboard.js";

const KEEP_AFTER = 400;
const OFFERED = 60;

export function handPanel(store) {
  const parent = h("select", { class: "kl-select", "aria-label": "What the prompt asks for" });
  const copy = h("button", { type: "button", class: "kl-button kl-button-main" }, "Copy prompt");
  const size = h("span", { class: "kl-dim kl-hand-size" });
  const prompt = h("pre", { class: "kl-hand-text", tabindex: "0", "aria-label": "Prompt to copy" });
  const behind = h("div", { class: "kl-hand-behind", hidden: true }, h("span", {}, "The run has learned something since this prompt was made. "), h("button", { type: "button", class: "kl-button kl-small", onclick: () => compose(null) }, "Compose anew"));
  const reply = h("textarea", { class: "kl-input kl-source kl-hand-text", spellcheck: "false", "aria-label": "Reply of the model", placeholder: "Paste the whole reply here: a source in a fenced block, or edits of the parent" });
  const submit = h("button", { type: "submit", class: "kl-button kl-button-main" }, "Submit");
  const said = h("span", { class: "kl-hand-said", role: "status" });
  const repair = h("button", { type: "button", class: "kl-button kl-small", hidden: true, title: "Paste it into the chat, and the model's next answer here" }, "Copy what to tell the model");
  const over = h("p", { class: "kl-hand-over", hidden: true });
  const form = h(
    "form",
    { class: "kl-hand-columns" },
    h("div", { class: "kl-hand-column" },
      h("div", { class: "kl-hand-head" }, h("h3", {}, "1  Ask a model"), parent, h("span", { class: "kl-stretch" }), size, copy),
      prompt,
      behind),
    h("div", { class: "kl-hand-column" },
      h("div", { class: "kl-hand-head" }, h("h3", {}, "2  Paste its reply"), h("span", { class: "kl-stretch" }), h("span", { class: "kl-dim" }, "Ctrl+Enter submits"), submit),
      reply,
      h("div", { class: "kl-hand-foot" }, said, repair)),
  );
  const root = h("section", { class: "kl-hand", "aria-label": "Write by hand", hidden: true }, over, form);

  let sheet = {};
  let text = "";
  let kept = ""; // what the kernel knows of the reply
  let timer;
  let busy = false;

  const act = (name, details = {}) => store.ask({ t: "desk", act: name, ...details }).catch(() => null);
  const compose = (about) => act("compose", { parent: about });

  function keep() {
    clearTimeout(timer);
    if (reply.value === kept) return;
    kept = reply.value;
    act("write", { text: kept });
  }

  const labels = new Map([[copy, "Copy prompt"], [repair, "Copy what to tell the model"]]);
  function flash(button, copied) {
    setText(button, copied ? "Copied" : "Select it and press Ctrl+C");
    setTimeout(() => setText(button, labels.get(button)), 2000);
  }
  copy.addEventListener("click", async () => {
    act("begin");
    flash(copy, await copyText(text, root));
  });
  prompt.addEventListener("copy", () => act("begin"));
  repair.addEventListener("click", async () => flash(repair, await copyText(sheet.repair, root)));
  parent.addEventListener("change", () => compose(parent.value));
  reply.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(keep, KEEP_AFTER);
    draw();
  });
  reply.addEventListener("blur", keep);
  root.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    event.stopPropagation();
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (submit.disabled) return;
    clearTimeout(timer);
    const sent = (kept = reply.value);
    busy = true;
    draw();
    const answer = await act("submit", { text: sent });
    busy = false;
    if (answer?.ok && reply.value === sent) reply.value = kept = "";
    draw();
  });

  // What became of the last reply, in words.
  function outcome() {
    if (busy) return ["busy", "Reading the reply…"];
    if (sheet.said) return ["bad", sheet.said];
    if (!sheet.taken) return ["quiet", "Any chat will do. What it answers is read, built, checked and timed like any candidate."];
    const row = store.rows.get(sheet.taken);
    if (!row) return ["busy", `Taken in as ${sheet.taken}; it is judged next.`];
    const ratio = row.speedups?.[row.main];
    const found = ratio ? `${row.word}, ${timesText(ratio[0])} ${bandText(ratio)} vs ${row.main} (${row.evidence})` : [row.word, row.reason].filter(Boolean).join(": ");
    return [row.tone, `Your last reply is #${row.order}: ${found}`];
  }

  function offer() {
    const status = store.status;
    const usable = [...store.rows.values()].filter((row) => row.judged && !row.banned).sort(byRank).slice(0, OFFERED);
    const label = (row) => `the next version of #${row.order}${row.fitness ? ` (${timesText(row.fitness)})` : `, ${row.word}`}, ${row.title}`.slice(0, 80);
    const options = [["", "a first version"], ...usable.map((row) => [row.id, `${row.id === status?.best ? "★ " : ""}${label(row)}`])];
    const key = JSON.stringify(options);
    if (parent.dataset.key !== key) {
      parent.dataset.key = key;
      parent.replaceChildren(...options.map(([value, words]) => h("option", { value }, words)));
    }
    parent.value = sheet.parent ?? "";
  }

  function draw() {
    if (root.hidden) return;
    const state = store.status?.status;
    const ended = ["finished", "stopped", "failed"].includes(state);
    over.hidden = !ended && state !== "interrupted";
    setText(over, ended ? "This run is written by hand and has ended. Add to its budget to go on." : "Nobody drives this run now: Resume takes it up, and judges what was submitted.");
    form.hidden = ended;
    offer();
    setText(prompt, text || sheet.trouble || "Composing the prompt…");
    prompt.dataset.empty = String(!text);
    copy.disabled = !text;
    copy.title = text ? "" : "There is no prompt yet";
    setText(size, text ? `${text.split(/\s+/).length} words` : "");
    behind.hidden = !sheet.behind;
    submit.disabled = busy || !reply.value.trim();
    submit.title = busy ? "" : reply.value.trim() ? "Have the kernel in it judged next" : "Paste a reply first";
    const [tone, words] = outcome();
    said.dataset.tone = tone;
    setText(said, words);
    repair.hidden = busy || !sheet.said || !sheet.repair;
  }

  store.on("desk", (message) => {
    root.hidden = !message.on;
    if (!message.on) return;
    const turned = message.turns !== sheet.turns && sheet.turns !== undefined;
    sheet = message;
    if (message.prompt !== undefined) {
      text = message.prompt;
      prompt.scrollTop = 0;
    }
    if (message.draft !== undefined && reply.value === kept) reply.value = kept = message.draft;
    else if (turned && reply.value === kept) reply.value = kept = "";
    draw();
  });
  store.on("rows", draw);
  store.on("status", draw);
  return { root, close: keep };
}
