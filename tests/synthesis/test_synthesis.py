"""The grammars: templates, items and personas as text."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from recsim_llm.errors import ConfigError, DataError
from recsim_llm.synthesis import demographics as people_tables
from recsim_llm.synthesis.domains import DOMAINS, domain_named
from recsim_llm.synthesis.free_text_personas import free_text_persona
from recsim_llm.synthesis.grammar import TemplateWriter, polish, read_themes, read_words
from recsim_llm.synthesis.items import make_items
from recsim_llm.synthesis.personas import Voice, make_personas

WORLDS = sorted(DOMAINS)
SEED = 11


@pytest.fixture(scope="module", params=WORLDS)
def written(request):
    domain = domain_named(request.param)
    return domain, make_items(domain, SEED), make_personas(domain, SEED, count=600)


def writer(seed: int = 0, **words: tuple[str, ...]) -> TemplateWriter:
    return TemplateWriter((words,), np.random.Generator(np.random.PCG64(seed)))


def test_slots_alternatives_and_marks() -> None:
    pen = writer(club=("Alpha", "Beta"), person=("Ada Byron",))
    text = pen.write("{club#a} beat {club} {3-9}-{3-9}, said {person#p}; {person#p.last} [smiled|smiled]. {club#a} won")
    first, second = re.match(r"(\w+) beat (\w+) (\d)-\3, said Ada Byron; Byron smiled\. \1 won", text).group(1, 2)
    assert {first, second} == {"Alpha", "Beta"}
    assert writer().write("[#x up|down] and [#x rise|fall]") in ("Up and rise", "Down and fall")


def test_templates_that_cannot_end_or_name_unknown_lists_are_refused() -> None:
    with pytest.raises(DataError, match="refers to itself"):
        writer(a=("{a} {a}",)).write("{a}")
    with pytest.raises(DataError, match="no list"):
        writer().write("{nothing}")


@pytest.mark.parametrize(
    ("raw", "right"),
    [
        ("a owl and an dog", "An owl and a dog"),
        ("a hour, a honest man, an university, an one-off", "An hour, an honest man, a university, a one-off"),
        ("a 8-kilo bag, a 11-storey block, an 12-storey one", "An 8-kilo bag, an 11-storey block, a 12-storey one"),
        ("a MP and an UFO", "An MP and a UFO"),
        ("he plays in A minor. a end", "He plays in A minor. An end"),
        ("the 2th, 3th, 11th, 21th and the fiveth", "The 2nd, 3rd, 11th, 21st and the fifth"),
        ("two  words . yes", "Two words. Yes"),
        ("Halden Rovers's keeper", "Halden Rovers' keeper"),
    ],
)
def test_polish(raw: str, right: str) -> None:
    assert polish(raw) == right


def test_no_two_items_share_text_or_title(written) -> None:
    domain, items, _ = written
    assert len(items) == domain.items >= 1_200
    for field in ("text", "title", "item_id"):
        common = Counter(getattr(item, field).lower() for item in items).most_common(1)[0]
        assert common[1] == 1, common


def test_themes_are_even_and_facets_are_used(written) -> None:
    _, items, _ = written
    themes = Counter(item.theme for item in items)
    assert len(themes) >= 24
    assert min(themes.values()) >= 50
    assert all(len({i.facet for i in items if i.theme == theme}) >= 3 for theme in themes)


VOWEL = re.compile(r"\b(an?) ([A-Za-z]+|\d+)")


def test_articles_agree(written) -> None:
    """Judged by the sound of the next word, with a list of its own."""
    _, items, people = written
    silent = ("hour", "honest", "heir")
    you = ("uni", "use", "usu", "eur", "one", "uk")
    for text in [item.text for item in items] + [item.title for item in items] + [person.text for person in people]:
        for article, word in VOWEL.findall(text):
            low = word.lower()
            if (word.isupper() and len(word) > 1) or len(word) == 1:
                continue  # letters are said by their names
            if word.isdigit():
                vowel = word in ("8", "11", "18") or word.startswith("8")
            else:
                vowel = (low[0] in "aeiou" and not low.startswith(you)) or low.startswith(silent)
                vowel = vowel or low.startswith(("unin", "unim"))
            assert (article == "an") == vowel, f"{article} {word} in {text!r}"


def test_texts_are_clean(written) -> None:
    _, items, people = written
    for text in [item.text for item in items] + [person.text for person in people]:
        assert not re.search(r"[{}\[\]<>|#]|  | [.,;]|\.\.|\?\.", text), text
        assert text[0].isupper() or text[0].isdigit() or not text[0].isascii(), text
        assert text.endswith((".", "!")), text
        assert not re.search(r"\b1 (?:goals|points|weeks|months|days|minutes|people|percent more)\b", text), text
        assert not re.search(r"\b(\w{3,}) \1\b", text.replace("ten ten", "")), text
    for item in items:
        assert 2 <= len(re.findall(r"[.!?](?= |$)", item.text)) <= 7, item.text
        assert 8 <= len(item.text.split()) <= 90


RELEASED = {"music": (0.92, 60), "ads": (0.80, 30), "video": (0.85, 60), "ecommerce": (0.85, 60)}
"""Share of the items that are there before day 0, and the day by which the last is out."""


def test_columns_of_items(written) -> None:
    domain, items, _ = written
    day = np.array([item.released_at for item in items])
    bait = np.array([item.clickbait for item in items])
    quality = np.array([item.quality for item in items])
    if domain.name == "news":
        counts = Counter(np.floor(day).astype(int).tolist())
        assert set(counts) == set(range(-6, 14))
        assert max(counts.values()) - min(counts.values()) <= 1
    elif domain.name in RELEASED:
        share, last = RELEASED[domain.name]
        assert (day < 0).mean() == pytest.approx(share, abs=0.005)
        assert last - 2 < day.max() <= last
    else:
        assert set(Counter(np.floor(day).astype(int).tolist()).items()) == {(number, 26) for number in range(-3, 45)}
    high = bait > 0.5
    assert high.mean() == pytest.approx(domain.clickbait_share, abs=0.03)
    assert bait.min() >= 0
    assert quality[high].mean() < quality[~high].mean() - 0.5
    assert len({item.provider for item in items}) > 20
    assert all(item.price >= 0 for item in items)


def test_statements_stand_in_the_paragraph(written) -> None:
    _, _, people = written
    for person in people:
        text = person.text.lower()
        assert person.liked
        assert person.disliked
        assert not set(person.liked) & set(person.disliked)
        for statement in person.statements:
            assert statement.object.lower() in text, (statement, person.text)
            assert statement.sentence.lower() in text, (statement, person.text)
            assert -1 <= statement.valence <= 1
            assert statement.valence != 0


def test_personas_are_varied_and_follow_the_published_proportions(written) -> None:
    _, _, people = written
    assert len({person.text for person in people}) == len(people)
    for field, table in (("gender", "GENDERS"), ("age_band", "AGE_BANDS"), ("region", "REGIONS")):
        expected = getattr(people_tables, table)
        assert sum(expected.values()) == pytest.approx(1)
        seen = Counter(getattr(person, field) for person in people)
        assert set(seen) <= set(expected)
        # chi-square at alpha = 1e-4 over all three tables: critical value for 5 degrees of freedom 25.7
        statistic = sum(
            (seen[name] - share * len(people)) ** 2 / (share * len(people)) for name, share in expected.items()
        )
        assert statistic < 25.7, (field, seen)
    first = sum(bool(re.search(r"\b(I|my|me)\b", person.text)) for person in people) / len(people)
    assert 0.5 < first < 0.7


def test_groups_lean_towards_their_themes(written) -> None:
    domain, _, _ = written
    people = make_personas(domain, SEED, count=1_500)
    young = [p for p in people if p.age_band == "18-24"]
    old = [p for p in people if p.age_band in ("55-64", "65+")]
    young_themes = {
        "music": "hip hop", "news": "video games", "ads": "mobile games", "video": "skateboarding",
        "ecommerce": "headphones", "social": "dating",
    }  # fmt: skip
    theme = young_themes[domain.name]
    share = [sum(theme in p.liked for p in group) / len(group) for group in (young, old)]
    assert share[0] > 1.3 * share[1]


def test_same_seed_same_words_and_other_seed_others() -> None:
    domain = DOMAINS["news"]
    assert make_items(domain, 5, count=48) == make_items(domain, 5, count=48)
    assert make_items(domain, 5, count=48) != make_items(domain, 6, count=48)
    assert make_personas(domain, 5, count=20) == make_personas(domain, 5, count=20)
    assert make_personas(domain, 5, count=20) != make_personas(domain, 6, count=20)


def test_voices() -> None:
    frame = "{I} <have> a weakness for {o}, and {my} heart <study> {me}"
    assert Voice("first", "Ada").speak(frame) == "I have a weakness for {o}, and my heart study me"
    assert (
        Voice("woman", "Ada").speak(frame, named=True).startswith("Ada has a weakness for {o}, and her heart studies")
    )
    assert Voice("nonbinary", "Kim").speak("{I} <am> here") == "they are here"
    assert Voice("nonbinary", "Kim").speak("{I} <am> here", named=True) == "Kim is here"


def test_held_out_phrasings_are_held_out(written) -> None:
    """No frame and no name of a thing is shared with built-in paragraphs or with what the classifier was fitted on."""
    from recsim_llm.encoders.stance import training_statements

    domain, _, people = written
    themes = read_themes(domain.file)
    held = read_words("heldout.txt")
    known = read_words("people.txt")

    def bare(frame: str) -> str:
        return re.sub(r"[^a-z ]", "", frame.lower().replace("{o}", "").replace("{i}", "i")).strip()

    fitted = " | ".join(text.lower() for text in training_statements()[0])
    for kind in ("like", "dislike"):
        shown = {bare(frame) for name in (kind, f"{kind}_mild") for frame in known[name]}
        for frame in held[kind]:
            assert bare(frame) not in shown
            words = Voice("first", "").speak(frame).lower().replace("{o}", " ").split("  ")
            longest = max((part.strip(" ,:?") for part in words), key=len)
            assert longest not in fitted, frame
    public = {thing for theme in themes for facet in theme.facets for thing in facet.objects}
    for theme in themes:
        for facet in theme.facets:
            assert facet.reserved
            assert not set(facet.reserved) & public
    text = free_text_persona(people[0], themes, 0)
    assert text == free_text_persona(people[0], themes, 0)
    assert all(statement.object.lower() not in text.lower() for statement in people[0].statements)


def test_unknown_world_and_exhausted_grammar() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'music'"):
        domain_named("musik")
    with pytest.raises(ConfigError, match="no more new titles"):
        make_items(DOMAINS["music"], 0, count=20_000)
