// The run's log: the last lines, newest at the bottom, following unless the reader scrolled up; below them what models are writing now.

import { clockText, h } from "./dom.js";
import { panel } from "./store.js";

const SHOWN = 300;

export function logPanel(store) {
  const list = h("ol", { class: "kl-log-lines", tabindex: "0", "aria-label": "Log lines" });
  const writing = h("div", { class: "kl-writing", "aria-label": "Replies that are arriving", hidden: true });
  const { root } = panel("log", "Log", list, writing);

  function line([, time, level, text]) {
    return h("li", { "data-level": level }, h("time", {}, clockText(time)), level === "info" ? null : h("b", {}, level), h("span", {}, text));
  }

  let known = null;
  store.on("log", (lines) => {
    const follow = list.scrollHeight - list.scrollTop - list.clientHeight < 30;
    if (known !== store.log[0]?.[0] && lines.length === store.log.length) list.replaceChildren();
    known = store.log[0]?.[0];
    list.append(...lines.slice(-SHOWN).map(line));
    while (list.childElementCount > SHOWN) list.firstElementChild.remove();
    if (follow && lines.length) list.scrollTop = list.scrollHeight;
  });

  function reply({ index, parents, since, characters, text }) {
    const waited = Math.max(0, store.now() - since);
    const from = parents.length ? `from ${parents.join(" and ")}` : "a draft";
    const head = h("b", {}, `Request ${index}, ${from}: ${characters ? `${characters} characters` : "waiting"} after ${waited.toFixed(0)} s`);
    return h("div", {}, head, text ? h("pre", {}, text) : null);
  }

  store.on("writing", ({ items, more }) => {
    writing.hidden = !items.length;
    writing.replaceChildren(...items.map(reply), ...(more > 0 ? [h("div", {}, `and ${more} more`)] : []));
    for (const text of writing.querySelectorAll("pre")) text.scrollTop = text.scrollHeight;
  });
  store.on("status", () => {
    if (!["running", "paused"].includes(store.status.status)) writing.hidden = true;
  });
  return { root };
}
