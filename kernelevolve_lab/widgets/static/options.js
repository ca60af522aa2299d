// What a proposer that asks a model lets people set: model, endpoint, key and money in sight, the rest folded away.

import { h, setText } from "./dom.js";

const LOOK_AFTER = 300;
const LABELS = { model: "Model", base_url: "Base URL", concurrency: "At once", prices: "Price file", price_input: "USD per M in", price_output: "USD per M out", tunable: "Tunable constants" };
const NO_KEY = "type it here: it stays in this kernel's memory and is stored nowhere. Or set OPENAI_API_KEY before JupyterLab starts.";

function plain(name) {
  const words = name.replaceAll("_", " ");
  return LABELS[name] ?? words[0].toUpperCase() + words.slice(1);
}

// One chooser; `value()` is undefined where it says what holds anyway.
function chooser(option) {
  const { name, kind } = option;
  const common = { name: `option-${name}`, title: option.help, autocomplete: "off" };
  if (kind === "flag") {
    const control = h("input", { ...common, type: "checkbox" });
    control.checked = Boolean(option.default);
    return { control, value: () => (control.checked === Boolean(option.default) ? undefined : control.checked) };
  }
  if (kind === "choice") {
    const control = h("select", { ...common, class: "kl-select" }, ...option.choices.map((choice) => h("option", { value: choice }, choice)));
    control.value = option.default;
    return { control, value: () => (control.value === option.default ? undefined : control.value) };
  }
  if (kind === "text") {
    const control = h("input", { ...common, class: "kl-input", type: "text", spellcheck: "false", value: option.default || null });
    return { control, value: () => (control.value.trim() === (option.default ?? "") ? undefined : control.value.trim()) };
  }
  const control = h("input", { ...common, class: "kl-input kl-number", type: "number", min: option.least ?? undefined, max: option.most ?? undefined, step: kind === "whole" ? "1" : "any", placeholder: "default" });
  if (option.default !== null) control.value = option.default;
  return { control, value: () => (control.value === "" || control.valueAsNumber === option.default ? undefined : control.valueAsNumber) };
}

function optionField(label, control, title) {
  return h("label", { class: control.type === "checkbox" ? "kl-field kl-check" : "kl-field", title }, h("span", {}, label), control);
}

export function modelOptions(store, changed) {
  const fields = h("div", { class: "kl-fields" });
  const cost = h("input", { class: "kl-input kl-number", type: "number", name: "cost", min: "0", step: "any", placeholder: "no cap", autocomplete: "off" });
  const key = h("input", { class: "kl-input kl-key", type: "password", autocomplete: "new-password", spellcheck: "false", placeholder: "not stored" });
  const use = h("button", { type: "button", class: "kl-button" }, "Use");
  const about = h("span", { class: "kl-key-about", role: "status" });
  const more = h("div", { class: "kl-fields" });
  const folded = h("details", { class: "kl-more" }, h("summary", {}, "More options"), more);
  const keyField = h("div", { class: "kl-field" }, h("span", {}, "Key"), h("span", { class: "kl-key-line" }, key, use));
  key.setAttribute("aria-label", "Key of the endpoint");
  const root = h("div", { class: "kl-options", hidden: true }, fields, h("p", { class: "kl-key-state" }, about), folded);

  let offers = {};
  let shown = "";
  let choosers = new Map();
  let endpoint = null;
  let timer;
  let round = 0;

  function show(proposer) {
    const options = offers[proposer] ?? [];
    const known = JSON.stringify([proposer, options]);
    if (known === shown) return;
    shown = known;
    const before = new Map([...choosers].map(([name, { value }]) => [name, value()]));
    choosers = new Map(options.map((option) => [option.name, chooser(option)]));
    for (const [name, value] of before) {
      const control = choosers.get(name)?.control;
      if (control && value !== undefined) control[control.type === "checkbox" ? "checked" : "value"] = value;
    }
    const made = (first) => options.filter((option) => option.first === first).map((option) => optionField(plain(option.name), choosers.get(option.name).control, option.help));
    fields.replaceChildren(...made(true), optionField("Max USD", cost, "A hard cap: a request starts only while its worst case still fits under it"), keyField);
    more.replaceChildren(...made(false));
    root.hidden = !options.length;
    endpoint = null;
    choosers.get("model")?.control.setAttribute("placeholder", offers.otherwise?.model || "name of the model");
    choosers.get("base_url")?.control.setAttribute("placeholder", offers.otherwise?.base_url ?? "");
    if (!root.hidden) look();
  }

  function values() {
    return Object.fromEntries([...choosers].map(([name, { value }]) => [name, value()]).filter(([, value]) => value !== undefined));
  }
  const cap = () => (cost.value === "" ? null : cost.valueAsNumber);

  // Ask the kernel whether a model could be asked so: it knows keys, prices and what a proposer refuses.
  async function look() {
    clearTimeout(timer);
    const mine = ++round;
    const answer = await store.ask({ t: "endpoint", proposer: proposer(), options: values(), cost: cap() }).catch(() => null);
    if (!answer || mine !== round) return;
    endpoint = answer.ok ? answer : { key: "", problem: answer.text };
    const said = { entered: "the key that was entered here is used.", environment: "the key in OPENAI_API_KEY is used.", "not needed": "a server on this machine, which mostly wants no key.", none: `no key is known; ${NO_KEY}` }[endpoint.key];
    about.dataset.tone = endpoint.key === "none" ? "warn" : "quiet";
    setText(about, said ? `${endpoint.host}: ${said}` : "");
    changed();
  }
  const proposer = () => JSON.parse(shown)[0];

  async function enter() {
    const typed = key.value;
    if (!typed) return true;
    key.value = "";
    const answer = await store.ask({ t: "key", key: typed, base_url: values().base_url ?? "" }).catch(() => null);
    if (answer && !answer.ok) store.tell("notice", { tone: "bad", text: answer.text });
    await look();
    return Boolean(answer?.ok);
  }
  use.addEventListener("click", enter);
  key.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    enter();
  });
  root.addEventListener("input", (event) => {
    if (event.target === key) return;
    clearTimeout(timer);
    timer = setTimeout(look, LOOK_AFTER);
  });

  return {
    root,
    offer(message) {
      offers = { ...message.options, otherwise: message.otherwise };
    },
    show,
    values,
    cap,
    enter,
    fold() {
      folded.open = false;
    },
    // The first thing that keeps a model from being asked, in words; empty when nothing does.
    obstacle() {
      if (root.hidden) return "";
      if (!values().model && !offers.otherwise?.model) return "Name the model to ask.";
      if (cap() !== null && !(cap() > 0)) return "Max USD must be more than 0, or empty for no cap.";
      if (!endpoint) return "Looking at the endpoint.";
      if (endpoint.key === "none" && !key.value) return `No key for ${endpoint.host} is known: type it in the box.`;
      return endpoint.problem;
    },
    close: () => clearTimeout(timer),
  };
}
