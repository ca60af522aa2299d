// What the canvas charts share: sharpness, theme colours, redrawing at most once a frame, axes, and a tooltip.

import { h } from "./dom.js";

const COLOURS = ["fg", "fg2", "fg3", "grid", "bg", "accent", "good", "bad", "warn", "ghost", "dot"];

export class Chart {
  // `draw(g, box, colours)` paints into `box` {x, y, w, h}; `hit(x, y)` returns {id, text()} of what is under the pointer, or null.
  constructor(store, label, margins, draw, hit) {
    this.store = store;
    this.margins = margins;
    this.paint = draw;
    this.hit = hit;
    this.canvas = h("canvas", { class: "kl-canvas", role: "img", "aria-label": label });
    this.tip = h("div", { class: "kl-tip", hidden: true });
    this.root = h("div", { class: "kl-chart" }, this.canvas, this.tip);
    this.waiting = false;
    this.resized = new ResizeObserver(() => this.later());
    this.resized.observe(this.root);
    this.themed = new MutationObserver(() => this.recolour());
    this.themed.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-name", "data-jp-theme-light", "class"] });
    this.scheme = matchMedia("(prefers-color-scheme: dark)");
    this.onScheme = () => this.recolour();
    this.scheme.addEventListener("change", this.onScheme);
    this.canvas.addEventListener("mousemove", (event) => this.point(event));
    this.canvas.addEventListener("mouseleave", () => this.leave());
    this.canvas.addEventListener("click", () => this.under?.id && store.rows.has(this.under.id) && store.select(this.under.id));
  }

  // A front end may set its attributes before or after its colours: draw now, and once more when both must be there.
  recolour() {
    this.later();
    clearTimeout(this.again);
    this.again = setTimeout(() => this.later(), 300);
  }

  close() {
    clearTimeout(this.again);
    this.resized.disconnect();
    this.themed.disconnect();
    this.scheme.removeEventListener("change", this.onScheme);
  }

  later() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.waiting = false;
    const { clientWidth: width, clientHeight: height } = this.root;
    if (!width || !height) return;
    const ratio = window.devicePixelRatio || 1;
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio)) {
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
    }
    const style = getComputedStyle(this.root);
    const colours = Object.fromEntries(COLOURS.map((name) => [name, style.getPropertyValue(`--kel-${name}`).trim()]));
    colours.font = style.fontFamily;
    const g = this.canvas.getContext("2d");
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    g.clearRect(0, 0, width, height);
    const { left, right, top, bottom } = this.margins;
    this.box = { x: left, y: top, w: width - left - right, h: height - top - bottom };
    this.paint(g, this.box, colours);
  }

  point(event) {
    const at = this.canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - at.left, event.clientY - at.top];
    this.under = this.box ? this.hit(x, y) : null;
    this.canvas.style.cursor = this.under?.id && this.store.rows.has(this.under.id) ? "pointer" : "default";
    this.store.hover(this.under?.id ?? null);
    this.tip.hidden = !this.under;
    if (!this.under) return;
    this.tip.replaceChildren(...this.under.text().map((line, index) => h(index ? "div" : "b", {}, line)));
    const width = this.tip.offsetWidth;
    const right = x + 14 + width > at.width;
    this.tip.style.left = `${Math.max(2, right ? x - width - 10 : x + 14)}px`;
    this.tip.style.top = `${Math.min(y + 12, at.height - this.tip.offsetHeight - 2)}px`;
  }

  leave() {
    this.tip.hidden = true;
    this.under = null;
    this.store.hover(null);
  }
}

// A logarithmic scale from values to pixels.
export function logScale(low, high, from, to) {
  const [a, b] = [Math.log10(low), Math.log10(high)];
  return Object.assign((value) => from + ((Math.log10(value) - a) / (b - a)) * (to - from), { low, high });
}

// Powers of ten in the range, with 2 and 5 between them where there are few.
export function logTicks(low, high) {
  const decades = Math.log10(high / low);
  const steps = decades > 3 ? [1] : decades > 1.2 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 7];
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
    for (const step of steps) {
      const value = step * 10 ** power;
      if (value >= low * 0.999 && value <= high * 1.001) ticks.push(value);
    }
  }
  return ticks;
}

export function shortNumber(value) {
  if (value >= 1e12) return `${+(value / 1e12).toPrecision(3)}T`;
  if (value >= 1e9) return `${+(value / 1e9).toPrecision(3)}G`;
  if (value >= 1e6) return `${+(value / 1e6).toPrecision(3)}M`;
  if (value >= 1e3) return `${+(value / 1e3).toPrecision(3)}k`;
  return String(+value.toPrecision(2));
}

export function ring(g, x, y, radius, colour, width = 1.5) {
  g.beginPath();
  g.arc(x, y, radius, 0, 2 * Math.PI);
  g.strokeStyle = colour;
  g.lineWidth = width;
  g.stroke();
}

// Many discs as one path: one fill for all, whatever their number.
export function discs(g, places, radius, colour, alpha) {
  g.globalAlpha = alpha;
  g.fillStyle = colour;
  g.beginPath();
  for (const [x, y] of places) {
    g.moveTo(x + radius, y);
    g.arc(x, y, radius, 0, 2 * Math.PI);
  }
  g.fill();
  g.globalAlpha = 1;
}

// Many straight lines as one path.
export function strokes(g, lines, colour, width, alpha) {
  g.globalAlpha = alpha;
  g.strokeStyle = colour;
  g.lineWidth = width;
  g.beginPath();
  for (const [x1, y1, x2, y2] of lines) {
    g.moveTo(x1, y1);
    g.lineTo(x2, y2);
  }
  g.stroke();
  g.globalAlpha = 1;
}

export function disc(g, x, y, radius, colour, alpha = 1) {
  g.globalAlpha = alpha;
  g.beginPath();
  g.arc(x, y, radius, 0, 2 * Math.PI);
  g.fillStyle = colour;
  g.fill();
  g.globalAlpha = 1;
}

export function diamond(g, x, y, radius, colour) {
  g.beginPath();
  g.moveTo(x, y - radius);
  g.lineTo(x + radius, y);
  g.lineTo(x, y + radius);
  g.lineTo(x - radius, y);
  g.closePath();
  g.strokeStyle = colour;
  g.lineWidth = 1.5;
  g.stroke();
}

// The spot {x, y} nearest to a point, or null where none is within `reach` pixels.
export function nearest(spots, x, y, reach) {
  let found = null;
  let least = reach * reach;
  for (const spot of spots) {
    const distance = (spot.x - x) ** 2 + (spot.y - y) ** 2;
    if (distance <= least) [found, least] = [spot, distance];
  }
  return found;
}
