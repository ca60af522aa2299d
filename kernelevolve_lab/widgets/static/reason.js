// Asks in place for the reason of what a person decides about a candidate; nothing is sent without one.

import { h, setText } from "./dom.js";

const DECISIONS = {
  reject: { act: "Reject", tone: "kl-button-bad", why: "Why? The proposer is told, and nothing may descend from it." },
  appeal: { act: "Judge again", tone: "kl-button-main", why: "Why? It is judged again from scratch; every verdict stays in its history." },
  overrule: { act: "Overrule", tone: "kl-button-main", why: "Why does the flag not count? It stays in sight, as overruled by a person." },
};

export function reasonBar(store, done) {
  const name = h("span", {});
  const input = h("input", { class: "kl-input", type: "text", maxlength: "500" });
  const send = h("button", { type: "submit", class: "kl-button" }, "Send");
  const cancel = h("button", { type: "button", class: "kl-button", onclick: () => close() }, "Cancel");
  const root = h("form", { class: "kl-reason", hidden: true }, h("label", { class: "kl-reason-label" }, name, input), send, cancel);
  let asked = null;
  const check = () => {
    send.disabled = !input.value.trim();
    send.title = send.disabled ? "Give a reason first" : "";
  };
  function close() {
    root.hidden = true;
    done();
  }
  input.addEventListener("input", check);
  root.addEventListener("keydown", (event) => {
    if (event.key === "Escape") close();
    event.stopPropagation();
  });
  root.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!input.value.trim()) return;
    const { decision, ...details } = asked;
    store.command(decision, { ...details, reason: input.value.trim() });
    close();
  });
  return {
    root,
    open(decision, id, details = {}) {
      const row = store.rows.get(id);
      if (!row) return;
      if (decision === "reject" && row.rejected !== undefined) {
        store.tell("notice", { tone: "warn", text: `#${row.order} is rejected already: ${row.rejected}` });
        return;
      }
      const { act, tone, why } = DECISIONS[decision];
      asked = { decision, id, ...details };
      root.dataset.decision = decision;
      setText(name, `${act} #${row.order}${details.flag ? ` (${details.flag})` : ""}`);
      setText(send, act);
      send.className = `kl-button ${tone}`;
      input.placeholder = why;
      input.value = "";
      check();
      root.hidden = false;
      input.focus();
    },
  };
}
