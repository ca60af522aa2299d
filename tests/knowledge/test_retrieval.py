"""Pages: their heads, folders, and what a query finds."""

import pytest
from run_states import TARGET, state_of

from kernelevolve_lab import registry
from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.knowledge.diagnosis import diagnose
from kernelevolve_lab.knowledge.page import Page, read
from kernelevolve_lab.knowledge.retrieval import CONTENT, KnowledgeBase, Query

HEAD = "---\ntitle: T\nsummary: S\n{more}---\nThe body.\n"


def page(name: str, body: str = "", **tags) -> Page:
    return Page(name, name, "", body, **{tag: frozenset(values) for tag, values in tags.items()})


def names(hits) -> list[str]:
    return [hit.page.name for hit in hits]


def test_tags_choose_and_words_rank():
    base = KnowledgeBase(
        [
            page("stores", "streaming stores avoid reading lines", bottleneck={"memory"}),
            page("tiles", "register tiles and packing", bottleneck={"compute"}),
            page("loads", "prefetch and many loads in flight", bottleneck={"memory"}),
            page("warps", "streaming stores on warps", platform={"nvidia"}, bottleneck={"memory"}),
        ]
    )
    query = Query("cpu", "cpp", bottleneck="memory", words="which stores save reading of lines")
    assert names(base.search(query)) == ["stores", "loads"]
    assert names(base.search(Query("cpu", "cpp", bottleneck="compute"))) == ["tiles"]
    assert names(base.search(query, limit=1)) == ["stores"]


def test_pages_made_for_the_case_come_before_general_ones():
    base = KnowledgeBase([page("general", "rows rows rows"), page("special", "other words", family={"row"}, bottleneck={"memory"})])
    assert names(base.search(Query("cpu", "cpp", "memory", "improve", "row", "rows"))) == ["special", "general"]


@pytest.mark.parametrize("words", ["", "zzzz qqqq", "the of and", "???"])
def test_words_that_nothing_knows_still_find_by_tags(words):
    base = KnowledgeBase([page("a", "alpha", bottleneck={"memory"}), page("b", "beta")])
    assert names(base.search(Query("cpu", "cpp", "memory", words=words))) == ["a", "b"]


def test_empty_base_finds_nothing():
    assert KnowledgeBase([]).search(Query("cpu", "cpp", words="stores")) == ()


def test_own_page_replaces_a_shipped_one(tmp_path, monkeypatch):
    own = tmp_path / "home" / "share" / "knowledge"
    from kernelevolve_lab import paths

    own = paths.data_dir() / "knowledge" / "languages"
    own.mkdir(parents=True)
    (own / "cpp.md").write_text(HEAD.format(more="platform: [cpu]\n"))
    more = tmp_path / "more"
    more.mkdir()
    (more / "mine.md").write_text(HEAD.format(more="bottleneck: memory\n"))
    monkeypatch.setenv("KERNELEVOLVE_KNOWLEDGE", str(more))
    base = KnowledgeBase.load()
    assert base.page("languages/cpp").body == "The body."
    assert base.page("mine").bottleneck == {"memory"}
    assert "hardware/cpu/streaming_stores" in base.pages


def test_missing_folder_of_the_environment_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("KERNELEVOLVE_KNOWLEDGE", str(tmp_path / "nowhere"))
    with pytest.raises(BadInput, match="nowhere"):
        KnowledgeBase.load()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no head", "must begin with a head"),
        ("---\ntitle: T\n---\nx", "no 'summary'"),
        ("---\ntitle: T\nsummary: S\nplatform: [gpu]\n---\nx", "platform 'gpu'"),
        ("---\ntitle: T\nsummary: S\ncolour: red\n---\nx", "known key"),
    ],
)
def test_broken_page_names_its_file(tmp_path, text, words):
    path = tmp_path / "broken.md"
    path.write_text(text)
    with pytest.raises(BadInput, match=r"broken\.md") as caught:
        read(path, "broken")
    assert words in str(caught.value)


def test_unknown_page_lists_what_there_is():
    with pytest.raises(BadInput, match="constraints/judge"):
        KnowledgeBase.load().page("nothing")


def test_shipped_pages_are_whole():
    """Every page has a head that can be read, says where its knowledge is from, and is short enough to share a prompt."""
    base = KnowledgeBase.load([CONTENT])
    assert {"index", "constraints/judge"} <= base.pages.keys()
    for name, shipped in base.pages.items():
        assert len(shipped.body) < 8000, name
        assert name == "index" or name.startswith("constraints/") or shipped.sources, f"{name} names no source"
        assert base.constraints("cpu", "cpp"), "rules are part of every prompt"


@pytest.mark.parametrize(
    ("operator", "page"),
    [
        ("softmax", "online_softmax"),
        ("rms_norm", "row_kernels"),
        ("bias_gelu", "tanh_gelu_erf"),
        ("matmul", "gemm_microkernel"),
        ("conv1d", "convolution"),
        ("optimized_fm", "small_batched_products"),
        ("map_id_transform", "branch_free_search"),
        ("batch_event_truncate", "jagged_kernels"),
    ],
)
def test_drafts_are_given_the_page_that_is_about_them(operator, page):
    loaded = registry.load("operators", operator)
    query = diagnose(loaded, TARGET, state_of()).query(loaded, TARGET, "cpp")
    assert page in [name.rsplit("/", 1)[-1] for name in names(KnowledgeBase.load([CONTENT]).search(query))]
