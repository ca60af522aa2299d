"""A page that shows a view outside JupyterLab: the real JavaScript, JupyterLab's themes, and the real Python view behind a mock comm."""

from __future__ import annotations

import json
from pathlib import Path

import jupyterlab
from fake_handle import FakeHandle
from mock_comm import MockComm

from kernelevolve_lab.widgets import assets
from kernelevolve_lab.widgets.run_view import RunView

_THEMES = Path(jupyterlab.__file__).parent / "themes" / "@jupyterlab"
_PAGE = """<!doctype html><meta charset="utf-8"><title>stage</title><style>%(theme)s</style><style>%(css)s</style>
<body data-jp-theme-light="%(light)s" style="margin:0;padding:12px;background:var(--jp-layout-color1);overflow:auto">
<div id="cell" style="width:%(width)s"></div>
<script type="module">
const source = %(esm)s;
const module = await import(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
const listeners = new Set();
const traits = %(traits)s;
window.model = {
  get: (name) => traits[name],
  set: (name, value) => { traits[name] = value; },
  save_changes() {},
  send: (content) => window.kelSend(JSON.stringify(content)),
  on: (name, listener) => listeners.add(listener),
  off: (name, listener) => listeners.delete(listener),
};
window.receive = (text) => { for (const listener of [...listeners]) listener(JSON.parse(text), []); };
window.listeners = listeners;
window.mountView = () => (window.unmount = module.default.render({ model: window.model, el: document.getElementById("cell") }));
window.mountView();
window.ready = true;
</script>"""


class Stage:
    """One page with one view. `tick()` runs the view's pump by hand and carries the messages both ways."""

    def __init__(self, page, view, dark: bool = False, width: str = "auto") -> None:
        self.page, self.view = page, view
        self.comm: MockComm = view.comm
        page.expose_function("kelSend", lambda text: self.comm.say(json.loads(text)))
        theme = (_THEMES / f"theme-{'dark' if dark else 'light'}-extension" / "index.css").read_text("utf-8")
        html = _PAGE % {
            "theme": theme,
            "css": assets.styles(),
            "light": "false" if dark else "true",
            "esm": json.dumps(assets.bundle("view.js")).replace("</", "<\\/"),
            "traits": json.dumps({"panels": list(view.panels), "name": view.name}),
            "width": width,
        }
        page.route("http://stage.test/**", lambda route: route.fulfill(body=html, content_type="text/html; charset=utf-8"))
        page.goto("http://stage.test/")
        page.wait_for_function("window.ready")
        self.tick()

    def tick(self, rounds: int = 1) -> None:
        for _ in range(rounds):
            self.page.wait_for_timeout(20)
            self.view._tick()
            for message in self.comm.take():
                self.page.evaluate("text => window.receive(text)", json.dumps(message))
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def settle(self) -> None:
        """Until what was asked for has been answered: selections ask after a moment."""
        self.tick()
        self.page.wait_for_timeout(150)
        self.tick(2)


class Shown:
    """A run on a stage."""

    def __init__(self, browser, candidates=60, events=10**6, size=(1500, 1000), dark=False, panels=None, **page) -> None:
        self.handle = FakeHandle(candidates)
        self.handle.play(events)
        self.view = RunView(self.handle, **({"panels": panels} if panels else {}))
        self.view._pump.start = lambda: None
        self.view._view_count = 1
        self.page = browser.new_page(viewport={"width": size[0], "height": size[1]}, **page)
        self.page.set_default_timeout(10_000)
        self.errors: list[str] = []
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.stage = Stage(self.page, self.view, dark)
        self.settle = self.stage.settle

    def row(self, number: int):
        return self.page.locator(".kl-board tr[data-id]").nth(number)

    def ids(self) -> list[str]:
        return self.page.eval_on_selector_all(".kl-board tr[data-id]", "rows => rows.map(row => row.dataset.id)")

    def close(self) -> None:
        self.page.close()
        self.view.close()
        assert self.errors == []
