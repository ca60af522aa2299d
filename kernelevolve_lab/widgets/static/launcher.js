// The choosers of the workbench: what to search, where, in what, how and for how long; and the runs of earlier days.

import { h, setText, timesText } from "./dom.js";
import { modelOptions } from "./options.js";

const DEFAULTS = { operator: "rms_norm", target: "cpu", language: "cpp", proposer: "schedule", policy: "evolutionary" };

const ABOUT = { manual: "You carry the prompts: the run gives one to copy into any chat, and judges what you paste back. No key is needed." };

function labelled(label, control) {
  return h("label", { class: "kl-field" }, h("span", {}, label), control);
}

export function launcher(store) {
  const choosers = {};
  for (const name of Object.keys(DEFAULTS)) choosers[name] = h("select", { class: "kl-select", name });
  const candidates = h("input", { class: "kl-input kl-number", type: "number", name: "candidates", min: "1", step: "1", value: "60", required: true });
  const seconds = h("input", { class: "kl-input kl-number", type: "number", name: "seconds", min: "1", step: "1", placeholder: "no limit" });
  const start = h("button", { type: "submit", class: "kl-button kl-button-main" }, "Start");
  const earlier = h("select", { class: "kl-select", "aria-label": "Open an earlier run" });
  const why = h("p", { class: "kl-why", role: "alert" });
  const about = h("p", { class: "kl-about" });
  const model = modelOptions(store, () => check());
  const welcome = h(
    "ol",
    { class: "kl-welcome", "aria-label": "What happens next" },
    ...[
      ["Choose", "An operator, where it runs and how long to look. Every chooser has a sensible start: Start works as it is."],
      ["Watch", "The machine's ceilings and PyTorch's own times come first, within seconds; then candidates, each compiled, checked against a float64 golden and timed in pairs."],
      ["Steer", "Reject a candidate with a reason, pin one, drop a hint, add a kernel of your own. Pause and stop at any time; nothing that was judged is lost."],
    ].map(([name, text]) => h("li", {}, h("b", {}, name), h("span", {}, text))),
  );
  const root = h(
    "form",
    { class: "kl-launcher", novalidate: true, "aria-label": "Start a search" },
    h("div", { class: "kl-fields" },
      labelled("Operator", choosers.operator),
      labelled("Target", choosers.target),
      labelled("Language", choosers.language),
      labelled("Proposer", choosers.proposer),
      labelled("Policy", choosers.policy),
      labelled("Candidates", candidates),
      labelled("Seconds", seconds),
      start,
      h("span", { class: "kl-stretch" }),
      labelled("Earlier runs", earlier)),
    about,
    model.root,
    why,
    welcome,
  );
  let problem = "";
  let offers = null;
  let starting = false;

  function fill(select, names, wanted, label = (name) => name) {
    const chosen = select.value || wanted;
    select.replaceChildren(...names.map((name) => h("option", { value: name }, label(name))));
    if (names.includes(chosen)) select.value = chosen;
  }

  // Only what serves the chosen target; until that is known, all there is.
  function offerLanguages() {
    fill(choosers.language, offers.serving[choosers.target.value] ?? offers.languages, offers.chosen?.language ?? DEFAULTS.language);
  }

  function choices(message) {
    offers = message;
    store.languages = message.languages;
    const lists = { operator: message.operators, target: message.targets, proposer: message.proposers, policy: message.policies };
    const label = (name) => (message.absent.includes(name) ? `${name} (not here)` : name);
    for (const [name, list] of Object.entries(lists)) fill(choosers[name], list, message.chosen?.[name] ?? DEFAULTS[name], label);
    offerLanguages();
    model.offer(message);
    model.show(choosers.proposer.value);
    const runs = message.runs.map((run) => h("option", { value: run.run }, [run.title, run.target, run.best ? timesText(run.best) : null, run.when].filter(Boolean).join(" · ")));
    earlier.replaceChildren(h("option", { value: "" }, message.runs.length ? "Open…" : "none stored yet"), ...runs);
    earlier.disabled = !message.runs.length;
    check();
  }

  // The first thing that keeps a search from starting, in words; empty when nothing does.
  function obstacle() {
    if (!offers) return "Waiting for the kernel.";
    if (starting) return "";
    const status = store.status?.status;
    if (status === "running" || status === "paused") return "This run is still on: stop it before you start another.";
    const missing = Object.entries(choosers).find(([, select]) => !select.value);
    if (missing?.[0] === "language") return `No language that is installed can be used on ${choosers.target.value}.`;
    if (missing) return `No ${missing[0]} is installed.`;
    const count = candidates.valueAsNumber;
    if (!Number.isInteger(count) || count < 1) return "Candidates must be a whole number of at least 1.";
    if (seconds.value !== "" && !(seconds.valueAsNumber > 0)) return "Seconds must be more than 0, or empty for no limit.";
    const asking = model.obstacle();
    if (asking) return asking;
    return offers.obstacles[`${choosers.target.value}/${choosers.language.value}`] ?? "";
  }

  function check() {
    welcome.hidden = Boolean(store.status) && store.status.status !== "empty";
    const text = obstacle();
    setText(about, ABOUT[choosers.proposer.value] ?? "");
    start.disabled = Boolean(text) || starting;
    start.title = text;
    setText(start, starting ? "Starting…" : "Start");
    const quiet = text && ["running", "paused"].includes(store.status?.status);
    why.dataset.tone = problem ? "bad" : "warn";
    setText(why, problem || (quiet || !offers ? "" : text));
  }

  async function ask(message) {
    starting = true;
    problem = "";
    check();
    const answer = await store.ask(message).catch(() => null);
    starting = false;
    if (answer && !answer.ok) problem = answer.text;
    check();
  }

  root.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (start.disabled || !(await model.enter()) || obstacle()) return;
    const chosen = Object.fromEntries(Object.entries(choosers).map(([name, select]) => [name, select.value]));
    const asked = model.root.hidden ? { options: {}, cost: null } : { options: model.values(), cost: model.cap() };
    model.fold();
    ask({ t: "start", ...chosen, ...asked, candidates: candidates.valueAsNumber, seconds: seconds.value === "" ? null : seconds.valueAsNumber });
  });
  root.addEventListener("input", (event) => {
    problem = "";
    if (event.target === choosers.target) offerLanguages();
    if (event.target === choosers.proposer) model.show(choosers.proposer.value);
    check();
  });
  root.addEventListener("keydown", (event) => event.stopPropagation());
  earlier.addEventListener("change", () => {
    if (earlier.value) ask({ t: "open", run: earlier.value });
    earlier.value = "";
  });
  store.on("choices", choices);
  store.on("status", check);
  check();
  return { root, close: model.close };
}
