// The run's log: the last lines, newest at the bottom, following unless the reader scrolled up.

import { clockText, h } from "./dom.js";
import { panel } from "./store.js";

const SHOWN = 300;

export function logPanel(store) {
  const list = h("ol", { class: "kl-log-lines", tabindex: "0", "aria-label": "Log lines" });
  const { root } = panel("log", "Log", list);

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
  return { root };
}
