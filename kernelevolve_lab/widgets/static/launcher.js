// The choosers of the workbench.

import { h } from "./dom.js";

export function launcher(store) {
  return { root: h("div", {}) };
}
