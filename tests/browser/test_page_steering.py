"""What a person does on the page reaches the run, by keyboard and pointer, and nothing else does."""


def test_the_keyboard_moves_inspects_compares_and_pins(show):
    run = show(events=150)
    ids = run.ids()
    run.row(0).click()
    for key in ("ArrowDown", "ArrowDown", "ArrowUp"):
        run.page.keyboard.press(key)
    run.settle()
    assert run.page.evaluate("document.activeElement.dataset.id") == ids[1]
    assert run.row(1).get_attribute("aria-selected") == "true"
    assert run.page.locator(".kl-inspect-name code").inner_text() == ids[1]
    run.page.keyboard.press("d")
    run.settle()
    assert run.page.locator(".kl-diff").count() == 1
    assert run.page.get_by_role("tab", name="Diff").get_attribute("aria-selected") == "true"
    run.row(1).focus()
    run.page.keyboard.press("p")
    run.settle()
    assert run.handle.state.entries[ids[1]].pinned
    assert run.row(1).get_by_text("pinned").count() == 1
    run.page.keyboard.press("p")
    run.settle()
    assert not run.handle.state.entries[ids[1]].pinned, "the same key takes it back"


def test_rejecting_asks_for_a_reason_and_tells_the_run(show):
    run = show(events=150)
    identity = run.ids()[2]
    run.row(2).click()
    run.page.keyboard.press("x")
    button = run.page.locator(".kl-reason button[type=submit]")
    assert button.is_disabled() and button.get_attribute("title") == "Give a reason first"
    run.page.keyboard.type("reads past the end of the row")
    run.page.keyboard.press("Enter")
    run.settle()
    assert run.handle.state.entries[identity].rejected == "reads past the end of the row"
    assert run.ids()[2] != identity, "it gives up its rank"
    run.page.get_by_label("Find candidates").fill(identity)
    run.settle()
    assert run.row(0).get_by_text("rejected").get_attribute("title") == "reads past the end of the row"
    assert run.page.locator(".kl-requests li").first.get_attribute("data-state") == "applied"


def test_an_appeal_asks_for_a_reason_beside_the_rejection(show):
    run = show(events=150)
    identity = run.ids()[1]
    run.row(1).click()
    run.settle()
    run.page.get_by_role("button", name="Appeal…").click()
    run.page.keyboard.type("too good to be true")
    run.page.keyboard.press("Enter")
    run.settle()
    command = run.handle.state.requests[-1].command
    assert (command.command, command.candidate, command.reason) == ("appeal", identity, "too good to be true")


def test_escape_leaves_a_candidate_alone(show):
    run = show(events=150)
    run.row(2).click()
    run.page.keyboard.press("x")
    run.page.keyboard.type("no")
    run.page.keyboard.press("Escape")
    run.settle()
    assert all(entry.rejected is None for entry in run.handle.state.entries.values())
    assert run.page.locator(".kl-reason").is_hidden()


def test_a_hint_is_sent_and_acknowledged(show):
    run = show(events=100)
    hint = run.page.get_by_label("Hint for the proposer")
    hint.fill("keep the row in registers")
    hint.press("Control+Enter")
    run.settle()
    assert run.handle.state.hints == ("keep the row in registers",)
    assert "The next prompts carry the hint." in run.page.locator(".kl-requests").inner_text()
    assert hint.input_value() == ""


def test_an_edited_copy_goes_to_the_front_of_the_queue(show):
    run = show(events=100)
    run.row(1).click()
    run.settle()
    parent = run.page.locator(".kl-inspect-name code").inner_text()
    run.page.get_by_role("button", name="Edit a copy").click()
    run.settle()
    source = run.page.get_by_label("Source to enqueue")
    assert source.input_value() == run.handle.state.entries[parent].candidate.source
    source.fill("// mine\n" + source.input_value())
    run.page.get_by_role("button", name="Enqueue").click()
    run.settle()
    command = run.handle.state.requests[-1].command
    assert command.parents == (parent,) and command.source.startswith("// mine") and command.language == "cpp"


def test_what_is_off_says_why(show):
    run = show()
    for button in run.page.locator(".kel button:disabled").all():
        if button.is_visible():
            assert button.get_attribute("title"), button.inner_text()
    assert run.page.get_by_role("button", name="Stop").get_attribute("title") == "The run is not running"


def test_keys_never_reach_the_notebook(show):
    run = show(events=100)
    run.page.evaluate(
        """() => { window.leaked = []; document.addEventListener('keydown', (event) => {
        if (!event.target.closest('[data-lm-suppress-shortcuts=true]')) window.leaked.push(event.key); }); }"""
    )
    run.row(1).click()
    for key in ("x", "Escape", "d", "j"):
        run.page.keyboard.press(key)
    assert run.page.evaluate("window.leaked") == []
    assert run.page.locator(".kl-view[data-lm-suppress-shortcuts=true]").count() == 1
