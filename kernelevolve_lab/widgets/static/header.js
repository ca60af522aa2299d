// The head of a run: what runs, how far it is, what is best, and the buttons that hold or end it.

import { DASH, bandText, h, ratioTone, setText, spanText, timesText } from "./dom.js";

const WORDS = { empty: "No run", running: "Searching", paused: "Paused", interrupted: "Interrupted", finished: "Finished", stopped: "Stopped", failed: "Failed" };
const OVER = ["finished", "stopped", "failed"];
const ANNOUNCE_EVERY = 5000;

function metric(label) {
  const value = h("div", { class: "kl-metric-value" }, DASH);
  const note = h("div", { class: "kl-metric-note" }, " ");
  const root = h("div", { class: "kl-metric" }, h("div", { class: "kl-metric-label" }, label), value, note);
  return { root, value, note, label: root.firstChild };
}

const moneyText = (value) => `$${value.toFixed(value && value < 0.1 ? 3 : 2)}`;
const thousandsText = (count) => (count < 1000 ? String(count) : `${(count / 1000).toFixed(count < 10_000 ? 1 : 0)}k`);
// By how much one press raises the cap: a dollar, or a tenth of a cap that is below one.
const raised = (cap) => (cap >= 1 ? 1 : Math.max(0.001, cap / 10));

export function header(store) {
  const pill = h("span", { class: "kl-pill" });
  const title = h("h2", { class: "kl-title" });
  const facts = h("span", { class: "kl-facts" });
  const phase = h("span", { class: "kl-phase" });
  const live = h("div", { class: "kl-hidden", "aria-live": "polite", role: "status" });

  const button = (text, verb, hint) => h("button", { type: "button", class: "kl-button", title: hint, onclick: () => store.command(verb) }, text);
  const pause = button("Pause", "pause", "Let what is being judged finish, then wait");
  const resume = button("Resume", "resume", "Go on searching");
  const stop = button("Stop", "stop", "End the search; what was judged stays");
  const extend = h("button", { type: "button", class: "kl-button", title: "Add 25 candidates and, where time is bounded, 60 seconds to the budget", onclick: () => store.command("extend", { candidates: 25, seconds: 60 }) }, "+25");
  const raise = h("button", { type: "button", class: "kl-button", hidden: true, onclick: () => store.command("extend", { cost: raised(store.status.budget.cost) }) }, "+$");
  const exporter = h("button", { type: "button", class: "kl-button", onclick: () => exporting.toggle() }, "Export");
  const controls = h("div", { class: "kl-controls", role: "group", "aria-label": "Control of the search" }, pause, resume, stop, extend, raise, exporter);

  const exporting = exportBar(store);
  const best = metric("Best");
  const second = metric("Best");
  const roof = metric("Of the roof");
  const count = metric("Judged");
  const time = metric("Time left");
  const cost = metric("Cost");
  best.root.classList.add("kl-metric-main");
  roof.root.classList.add("kl-metric-wide");
  count.root.classList.add("kl-metric-wide");
  const bar = h("div", { class: "kl-progress", role: "progressbar", "aria-label": "Budget used", "aria-valuemin": "0", "aria-valuemax": "100" }, h("span", {}));
  count.root.append(bar);

  const root = h(
    "header",
    { class: "kl-head" },
    h("div", { class: "kl-head-line" }, pill, title, h("div", { class: "kl-head-facts" }, phase, facts), controls),
    h("div", { class: "kl-metrics" }, best.root, second.root, roof.root, count.root, time.root, cost.root),
    exporting.root,
    live,
  );

  function enable(element, reason, title) {
    element.disabled = Boolean(reason);
    element.title = reason || title;
  }

  // Where the target is not here candidates can be correct, but no times are taken.
  const untimed = () => [...store.rows.values()].some((row) => row.verdict === "correct" && row.evidence !== "measured");

  function drawBest(status) {
    const row = store.best();
    const names = Object.keys(row?.speedups ?? {});
    const main = row?.main ?? names[0];
    const other = names.find((name) => name !== main);
    for (const [tile, name] of [[best, main], [second, other]]) {
      const ratio = name && row.speedups[name];
      tile.value.dataset.tone = ratio ? ratioTone(ratio) : "none";
      setText(tile.label, name ? `Best vs ${name}` : "Best");
      setText(tile.value, ratio ? timesText(ratio[0]) : DASH);
      setText(tile.note, ratio ? `${bandText(ratio)} · ${row.evidence}` : untimed() ? "not timed: the target is not here" : "nothing correct yet");
    }
    second.root.hidden = !other;
    const place = status.best_roof;
    setText(roof.value, place ? `${Math.round(place.share * 100)} % of ${place.of}` : DASH);
    setText(roof.note, place ? place.text.replace(/, [\d]+ % of .*? \(/, ", ").replace(")", "") : untimed() ? "not timed" : "no place on the roofline yet");
    roof.root.title = place?.text ?? "";
  }

  function drawClock() {
    const status = store.status;
    if (!status) return;
    const active = store.active();
    const budget = status.budget;
    const pace = status.judged >= 2 ? active / status.judged : null;
    const lefts = [];
    if (budget.seconds) lefts.push(budget.seconds - active);
    if (budget.candidates && pace) lefts.push((budget.candidates - status.judged) * pace);
    const ended = OVER.includes(status.status);
    const left = lefts.length ? Math.max(0, Math.min(...lefts)) : null;
    setText(time.label, ended ? "Took" : "Time left");
    setText(time.value, ended ? spanText(active) : left === null ? DASH : `${budget.candidates && pace ? "~" : ""}${spanText(left)}`);
    setText(time.note, ended ? (pace ? `${(60 / pace).toFixed(1)} candidates a minute` : " ") : `${spanText(active)} so far${pace ? ` · ${(60 / pace).toFixed(0)} a minute` : ""}`);
    const shares = [];
    if (budget.candidates) shares.push(status.judged / budget.candidates);
    if (budget.seconds) shares.push(active / budget.seconds);
    if (budget.cost) shares.push(status.cost / budget.cost);
    const share = ended ? 1 : Math.min(1, Math.max(0, ...shares));
    bar.firstChild.style.width = `${(share * 100).toFixed(1)}%`;
    bar.setAttribute("aria-valuenow", String(Math.round(share * 100)));
  }

  // Says the latest new best, at most once in five seconds; what was there when the page opened is not news.
  let saidBest;
  let speaking;
  let quietUntil = 0;
  function announce(status) {
    saidBest ??= status.best ?? "";
    if (!status.best || status.best === saidBest || speaking) return;
    speaking = setTimeout(() => {
      speaking = undefined;
      const row = store.best();
      if (!row) return;
      saidBest = row.id;
      quietUntil = Date.now() + ANNOUNCE_EVERY;
      live.textContent = `New best ${timesText(row.fitness)} over ${row.main}, candidate number ${row.order}, ${row.title}`;
    }, Math.max(0, quietUntil - Date.now()));
  }

  function draw() {
    const status = store.status;
    const state = status.status;
    const over = OVER.includes(state);
    pill.dataset.status = state;
    setText(pill, WORDS[state] ?? state);
    setText(title, status.title || "Kernel search");
    setText(facts, [status.target, status.language, [status.proposer, status.policy].filter(Boolean).join(" / "), status.run].filter(Boolean).join("  ·  "));
    const words = over ? status.reason : state === "interrupted" ? "nobody drives this run any more" : state === "running" && status.phase !== "searching" ? status.phase : "";
    setText(phase, words ? words[0].toUpperCase() + words.slice(1) : "");
    phase.title = words;
    drawBest(status);
    setText(count.value, status.budget.candidates && state !== "empty" ? `${status.judged} / ${status.budget.candidates}` : String(status.judged));
    const correct = [...store.rows.values()].filter((row) => row.verdict === "correct").length;
    setText(count.note, `${correct} correct${status.failed_proposals ? ` · ${status.failed_proposals} proposals failed` : ""}`);
    const cap = status.budget.cost;
    setText(cost.value, `${moneyText(status.cost)}${cap ? ` / ${moneyText(cap)}` : ""}`);
    setText(cost.note, status.tokens_in + status.tokens_out ? `${thousandsText(status.tokens_in)} tokens in · ${thousandsText(status.tokens_out)} out` : "no model asked");
    cost.root.title = `${status.tokens_in} tokens sent, ${status.tokens_out} received; ${cap ? `at most ${moneyText(cap)} may be spent` : "no cap on the cost"}`;
    raise.hidden = !cap;
    setText(raise, `+${moneyText(raised(cap))}`);
    pause.hidden = state !== "running" && state !== "empty";
    resume.hidden = !pause.hidden || state === "finished";
    const none = state === "empty" ? "There is no run yet" : "";
    enable(pause, none, "Let what is being judged finish, then wait");
    enable(resume, none, state === "paused" ? "Go on searching" : "Take the run up again in this process");
    enable(stop, none || (over || state === "interrupted" ? "The run is not running" : ""), "End the search; what was judged stays");
    enable(extend, none, `Add 25 candidates${status.budget.seconds ? " and 60 seconds" : ""} to the budget${over ? "; the run goes on" : ""}`);
    enable(raise, none, `Raise the cap on the cost by ${moneyText(raised(cap))}${over ? "; the run goes on" : ""}`);
    enable(exporter, none || (!store.exports.length ? "This run cannot be exported from here" : !status.best && !untimed() ? "There is nothing correct to export yet" : ""), "Write the best candidate, or the selected one, to a folder");
    announce(status);
    drawClock();
  }

  store.on("status", draw);
  const clock = setInterval(drawClock, 1000);
  return {
    root,
    close() {
      clearInterval(clock);
      clearTimeout(speaking);
    },
  };
}

// Asks in what form and where to write a candidate: the selected one where that is correct, else the best.
function exportBar(store) {
  const what = h("select", { class: "kl-select", "aria-label": "Candidate to export" });
  const form = h("select", { class: "kl-select", "aria-label": "Format" });
  const folder = h("input", { class: "kl-input", type: "text", "aria-label": "Folder", spellcheck: "false" });
  const write = h("button", { type: "submit", class: "kl-button kl-button-main" }, "Write");
  const said = h("span", { class: "kl-export-said", role: "status" });
  const root = h("form", { class: "kl-export", hidden: true }, h("b", {}, "Export"), what, " as ", form, " into ", folder, write, h("button", { type: "button", class: "kl-button", onclick: () => { root.hidden = true; } }, "Close"), said);
  root.addEventListener("keydown", (event) => {
    if (event.key === "Escape") root.hidden = true;
    event.stopPropagation();
  });
  root.addEventListener("submit", async (event) => {
    event.preventDefault();
    write.disabled = true;
    said.dataset.tone = "busy";
    setText(said, "Writing…");
    const answer = await store.ask({ t: "export", id: what.value, format: form.value, folder: folder.value.trim() }).catch(() => null);
    write.disabled = false;
    if (!answer) return;
    said.dataset.tone = answer.ok ? "good" : "bad";
    setText(said, answer.text);
  });
  return {
    root,
    toggle() {
      root.hidden = !root.hidden;
      if (root.hidden) return;
      setText(said, "");
      const selected = store.rows.get(store.selected);
      const offered = [store.best(), selected?.verdict === "correct" ? selected : null].filter(Boolean);
      if (!offered.length) offered.push([...store.rows.values()].find((row) => row.verdict === "correct"));
      what.replaceChildren(...[...new Set(offered)].map((row) => h("option", { value: row.id }, `${row.id === store.status.best ? "the best, " : row === selected ? "the selected, " : ""}#${row.order} ${row.title}`)));
      form.replaceChildren(...store.exports.map((name) => h("option", { value: name }, name)));
      form.value = store.exports.includes("module") ? "module" : store.exports[0];
      folder.value ||= `exports/${store.status.operator}`;
      form.focus();
    },
  };
}
