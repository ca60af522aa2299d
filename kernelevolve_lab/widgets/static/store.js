// What a view knows of the run, kept up to date by messages from the kernel.

import { h } from "./dom.js";

const HELLO_EVERY = 1000;
const LOG_LINES = 500;

export class RunStore {
  constructor(model) {
    this.model = model;
    this.rows = new Map();
    this.status = null;
    this.frame = { cases: [], roofs: [], baselines: [], ridge: null, ridge_label: "", target: "" };
    this.log = [];
    this.selected = null;
    this.hovered = null;
    this.exports = [];
    this.skew = 0;
    this._n = 0;
    this._ticket = 0;
    this._waiting = new Map();
    this._listeners = new Map();
    this._onMessage = (message) => this._receive(message);
    model.on("msg:custom", this._onMessage);
    this.hello();
  }

  // Ask for the whole state until it comes: the kernel may be busy, or a message may get lost on a reload.
  hello() {
    clearInterval(this._again);
    this.live = false;
    const ask = () => this.model.send({ t: "hello" });
    this._again = setInterval(ask, HELLO_EVERY);
    ask();
  }

  close() {
    clearInterval(this._again);
    this.model.off("msg:custom", this._onMessage);
    for (const { reject } of this._waiting.values()) reject(new Error("the view was closed"));
    this._waiting.clear();
    this._listeners.clear();
  }

  on(topic, listener) {
    if (!this._listeners.has(topic)) this._listeners.set(topic, new Set());
    this._listeners.get(topic).add(listener);
  }

  tell(topic, detail) {
    for (const listener of this._listeners.get(topic) ?? []) listener(detail);
  }

  // Send something and wait for the kernel's answer to it.
  ask(message) {
    const ticket = `${Math.random().toString(36).slice(2, 8)}-${++this._ticket}`;
    return new Promise((resolve, reject) => {
      this._waiting.set(ticket, { resolve, reject });
      this.model.send({ ...message, ticket });
    });
  }

  async command(verb, details = {}) {
    const said = verb[0].toUpperCase() + verb.slice(1);
    this.tell("notice", { tone: "busy", text: `${said} sent` });
    try {
      const answer = await this.ask({ t: "command", verb, ...details });
      this.tell("notice", answer.ok ? { tone: "good", text: answer.text || `${said} accepted` } : { tone: "bad", text: answer.text });
      return answer.ok;
    } catch {
      return false;
    }
  }

  // What a person chose stays selected; until then the selection follows the best.
  select(id, chosen = true) {
    this.chosen ||= chosen;
    if (id === this.selected) return;
    this.selected = id;
    this.tell("selected", id);
  }

  hover(id) {
    if (id === this.hovered) return;
    this.hovered = id;
    this.tell("hovered", id);
  }

  now() {
    return Date.now() / 1000 - this.skew;
  }

  // Active seconds of the run as of now: the kernel tells them only when something happens.
  active() {
    const status = this.status;
    if (!status) return 0;
    return status.active + (status.status === "running" ? Math.max(0, this.now() - status.updated) : 0);
  }

  best() {
    return this.status?.best ? this.rows.get(this.status.best) : undefined;
  }

  _receive(message) {
    if (message.t === "answer") {
      const waiting = this._waiting.get(message.ticket);
      this._waiting.delete(message.ticket);
      waiting?.resolve(message);
    } else if (message.t === "stale") {
      this.tell("notice", { tone: "bad", text: `This view is stale: ${message.text}` });
    } else if (message.t === "update") {
      this._update(message);
    } else {
      this.tell(message.t, message);
    }
  }

  _update(message) {
    if (!message.whole && !this.live) return;
    if (!message.whole && message.n !== this._n + 1) {
      this.hello();
      return;
    }
    this._n = message.n;
    this.skew = Date.now() / 1000 - message.now;
    this.exports = message.exports;
    if (message.whole) {
      clearInterval(this._again);
      this.live = true;
      if (message.status.run !== this.status?.run) {
        this.selected = null;
        this.chosen = false;
      }
      this.rows = new Map();
      this.log = [];
    }
    this.status = message.status;
    if (message.frame) this.frame = message.frame;
    for (const row of message.rows) this.rows.set(row.id, row);
    this.log.push(...message.log);
    this.log.splice(0, this.log.length - LOG_LINES);
    if (message.frame) this.tell("frame");
    this.tell("rows", message.rows);
    this.tell("log", message.log);
    this.tell("status");
    if (!this.chosen && this.rows.size) this.select(this.status.best ?? this.rows.keys().next().value, false);
  }
}

// A part of the page with a heading; `id` is what `panels` names it.
export function panel(id, title, ...children) {
  const head = h("header", { class: "kl-panel-head" }, h("h3", {}, title));
  const body = h("div", { class: "kl-panel-body" }, ...children);
  return { root: h("section", { class: `kl-panel kl-${id}`, "aria-label": title }, head, body), head, body };
}
