"""What the workbench offers where a model is asked: every option that a proposer has, the cap on money, and a key that goes nowhere."""

import json

import pytest
from test_workbench_widget import START, Bench

from kernelevolve_lab import registry
from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.proposers.chat import settings as chat
from kernelevolve_lab.widgets import options

KEY = "sk-typed-into-the-box-4711"


@pytest.fixture(autouse=True)
def _no_key(monkeypatch):
    monkeypatch.setattr(chat, "_keys", {})
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "KERNELEVOLVE_MODEL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def bench():
    made = Bench()
    made.view._probe()
    yield made
    made.view.close()


def test_every_option_of_the_chat_proposer_is_offered_and_explained():
    offered = {option["name"]: option for option in options.offered("chat")}
    assert set(offered) == set(chat.ChatSettings.model_fields)
    assert all(option["help"] for option in offered.values())
    assert [option["name"] for option in offered.values() if option["first"]] == list(options.FIRST)
    assert offered["diagnosis"]["kind"] == "choice" and offered["diagnosis"]["choices"] == ["rules", "model", "off"]
    assert offered["tools"] | {"help": ""} == {
        "name": "tools", "kind": "flag", "default": False, "least": None, "most": None, "choices": [], "help": "", "first": False,
    }  # fmt: skip
    assert (offered["temperature"]["kind"], offered["temperature"]["default"], offered["temperature"]["most"]) == ("number", None, 2)
    json.dumps(list(offered.values()))


def test_a_mixed_run_has_the_share_and_not_what_it_settles_itself():
    names = {option["name"] for option in options.offered("mixed")}
    assert names == set(chat.ChatSettings.model_fields) - {"tunable"} | {"model_share"}
    assert all(option["help"] for option in options.offered("mixed"))


def test_proposers_without_options_offer_none():
    assert [name for name in registry.names("proposers") if options.offered(name)] == ["chat", "mixed"]


def test_options_and_cap_reach_the_search(bench):
    chosen = {"model": "some-model", "knowledge": False, "unsandboxed": True}
    bench.view.comm.say({**START, "proposer": "chat", "options": chosen, "cost": 0.5, "ticket": "1"})
    bench.take("update")
    settings = bench.asked[0][1]
    assert (settings["model"], settings["knowledge"], settings["max_cost"]) == ("some-model", False, 0.5)
    assert "unsandboxed" not in settings, "only what the proposer offers"


def look(bench, **asked) -> dict:
    bench.view.comm.say({"t": "endpoint", "proposer": "chat", "options": {"model": "m"}, "cost": None, "ticket": "1", **asked})
    return bench.take("answer")


def test_a_missing_key_is_told_and_a_typed_one_counts_for_its_endpoint_alone(bench):
    assert (look(bench)["host"], look(bench)["key"]) == ("api.openai.com", "none")
    bench.view.comm.say({"t": "key", "key": KEY, "base_url": "https://one.example/v1", "ticket": "2"})
    assert bench.take("answer")["ok"]
    assert look(bench)["key"] == "none"
    told = look(bench, options={"model": "m", "base_url": "https://one.example/v1"})
    assert (told["key"], told["problem"]) == ("entered", "")
    assert look(bench, options={"model": "m", "base_url": "http://localhost:8000/v1"})["key"] == "not needed"


def test_what_a_proposer_refuses_is_told_before_a_run_is_made(bench, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert look(bench)["key"] == "environment"
    assert "of the form 'name*weight'" in look(bench, options={"model": "a*b"})["problem"]
    assert "'concurrency' of the chat proposer is wrong" in look(bench, options={"model": "a", "concurrency": 0})["problem"]
    assert "http:// or https://" in look(bench, options={"model": "a", "base_url": "example.com"})["text"]
    assert "price of 'nobodys-model' is not known" in look(bench, options={"model": "nobodys-model"}, cost=1.0)["problem"]
    priced = {"model": "nobodys-model", "price_input": 1.0, "price_output": 2.0}
    assert look(bench, options=priced, cost=1.0)["problem"] == ""


def test_a_typed_key_is_in_nothing_that_is_kept_or_said(bench, caplog):
    bench.view.comm.say({"t": "key", "key": KEY, "base_url": "", "ticket": "1"})
    bench.view.comm.say({"t": "key", "key": f"{KEY}\n{KEY}", "base_url": "", "ticket": "2"})
    assert not bench.take("answer")["ok"]
    look(bench)
    bench.view.comm.say({"t": "hello"})
    bench.take("choices")
    bench.view._tick()
    kept = [json.dumps(bench.view.get_state(), default=str), repr(bench.view.comm.messages), caplog.text, repr(vars(bench.view))]
    assert not [text for text in kept if KEY in text]
    assert chat.key_for("https://api.openai.com/v1").get_secret_value() == KEY


def test_a_proposer_that_cannot_be_loaded_offers_nothing(bench, monkeypatch):
    def broken():
        raise BadInput("It needs a library that is not here.")

    monkeypatch.setitem(registry._added["proposers"], "foreign", broken)
    bench.view._probe()
    assert bench.take("choices")["options"]["foreign"] == []
