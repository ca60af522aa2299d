// Small helpers to build elements and to say numbers. Text is always set as text, never parsed as markup.

export function h(tag, props, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

export function s(tag, props, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(props ?? {})) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Put a text on the clipboard; false where the browser lets no page do that. `host` is where a helper may stand for a moment: pages that
// came over plain HTTP have no clipboard of their own, but may copy what is selected.
export async function copyText(text, host) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const helper = h("textarea", { class: "kl-hidden", readonly: true, "aria-hidden": "true" });
    helper.value = text;
    host.append(helper);
    helper.select();
    const copied = document.execCommand("copy");
    helper.remove();
    return copied;
  }
}

export const DASH = "–";

export function timesText(value) {
  if (value === undefined || value === null) return DASH;
  return `${value >= 100 ? value.toFixed(0) : value >= 20 ? value.toFixed(1) : value.toFixed(2)}×`;
}

export function scaledText(value, unit) {
  for (const [factor, prefix] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (Math.abs(value) >= factor) return `${+(value / factor).toPrecision(3)} ${prefix}${unit}`;
  }
  return `${+value.toPrecision(3)} ${unit}`;
}

export function secondsText(value) {
  if (value === undefined || value === null) return DASH;
  for (const [factor, unit] of [[1, "s"], [1e-3, "ms"], [1e-6, "µs"]]) {
    if (value >= factor) return `${+(value / factor).toPrecision(3)} ${unit}`;
  }
  return `${+(value / 1e-9).toPrecision(3)} ns`;
}

export function spanText(value) {
  const whole = Math.max(0, Math.round(value));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
  return `${Math.floor(whole / 3600)} h ${String(Math.floor((whole % 3600) / 60)).padStart(2, "0")} min`;
}

export function clockText(time) {
  return new Date(time * 1000).toLocaleTimeString([], { hour12: false });
}

export function bandText(ratio) {
  return ratio ? `[${ratio[1].toFixed(2)}, ${ratio[2].toFixed(2)}]` : "";
}

// The verdict of an interval against 1: its tone is never shown without the numbers.
export function ratioTone(ratio) {
  return ratio[1] > 1 ? "good" : ratio[2] < 1 ? "bad" : "quiet";
}

export function tabs(label, items, onSelect) {
  const buttons = new Map();
  const list = h("div", { class: "kl-tabs", role: "tablist", "aria-label": label });
  const select = (name, tell = true) => {
    for (const [other, button] of buttons) {
      button.setAttribute("aria-selected", String(other === name));
      button.tabIndex = other === name ? 0 : -1;
    }
    if (tell) onSelect(name);
  };
  for (const [name, text] of items) {
    const button = h("button", { type: "button", role: "tab", class: "kl-tab", "data-tab": name, onclick: () => select(name) }, text);
    buttons.set(name, button);
    list.append(button);
  }
  list.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const names = [...buttons.keys()];
    const next = names[(names.indexOf(document.activeElement?.dataset.tab) + step + names.length) % names.length];
    buttons.get(next).focus();
    select(next);
    event.preventDefault();
  });
  return { list, select, button: (name) => buttons.get(name) };
}
