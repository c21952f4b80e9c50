"""The page of a run: who may ask, what may be asked, what comes back, and what waits."""

import json
import os
import re
import signal
import socket
import threading
import time
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import pytest
from starlette.testclient import TestClient

import plmscope as ps
from plmscope.cli import main
from plmscope.data.proteins import Protein
from plmscope.errors import InputError, RunError
from plmscope.explaining.explainer import Explainer, ExplainSettings
from plmscope.exploring.changes import changed_odds
from plmscope.exploring.line import FullError, Line
from plmscope.exploring.requests import MOST_BYTES, read_asked, read_neuron, read_search, read_sequence
from plmscope.exploring.server import TOKEN_HEADER, application, listening, names_of, serve
from plmscope.exploring.session import Session

TOKEN, HOST = "a-token", "127.0.0.1:8765"
JSON = {"Content-Type": "application/json"}
FEW = ExplainSettings(copies=20, supporting=6, opposing=2, draws=4)
HOSTILE = '"><script>alert(1)</script>'


@pytest.fixture(scope="module")
def session(golden, tmp_path_factory):
    return Session(ps.open_run(golden.copy(tmp_path_factory.mktemp("explored") / "run")), settings=FEW)


@pytest.fixture(scope="module")
def client(session):
    app = application(session, token=TOKEN, hosts=names_of("127.0.0.1", 8765))
    with TestClient(app, base_url=f"http://{HOST}") as found:
        yield found


@pytest.fixture(scope="module")
def sequence(session):
    return session.opened.proteins("test")[0].sequence[:40]


def asking(client, what, sent, **headers):
    return client.post(f"/api/{what}", json=sent, headers={TOKEN_HEADER: TOKEN, **headers})


# --- who may ask


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"Host": "evil.example:8765"}, "not the name"),
        ({"Host": "127.0.0.1"}, "not the name"),
        ({"Host": "127.0.0.1:8765.evil.example"}, "not the name"),
        ({"Origin": "http://evil.example"}, "other pages"),
        ({"Origin": "null"}, "other pages"),
        ({"Origin": "https://127.0.0.1:8765"}, "other pages"),
        ({"Sec-Fetch-Site": "cross-site"}, "other pages"),
        ({"Sec-Fetch-Site": "same-site"}, "other pages"),
        ({TOKEN_HEADER: ""}, "token"),
        ({TOKEN_HEADER: "a-tokem"}, "token"),
        ({TOKEN_HEADER: f"{HOSTILE}é".encode()}, "token"),
    ],
)
def test_foreign_requests_are_refused(client, headers, said):
    for what in ("search", "nothing", "../../etc/passwd"):
        answer = client.post(f"/api/{what}", json={}, headers={TOKEN_HEADER: TOKEN, **headers})
        assert answer.status_code == 403 and said in answer.text
        assert "evil" not in answer.text and "script" not in answer.text
    page = client.get("/", params={"token": headers.get(TOKEN_HEADER, TOKEN)}, headers=headers)
    assert page.status_code == 403 and TOKEN not in page.text


def test_its_own_page_may_ask(client):
    answer = asking(client, "search", {}, Origin=f"http://{HOST}", **{"Sec-Fetch-Site": "same-origin"})
    assert answer.status_code == 200
    assert asking(client, "search", {}, Host="LOCALHOST:8765").status_code == 200
    assert client.get("/").status_code == 403


def test_the_page_runs_its_own_script_alone(client):
    one, two = (client.get("/", params={"token": TOKEN}) for _ in range(2))
    assert one.status_code == 200 and one.headers["content-type"].startswith("text/html")
    policy = one.headers["content-security-policy"]
    nonce = policy.split("'nonce-")[1].split("'")[0]
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy and "unsafe" not in policy
    assert one.text.count("<script") == one.text.count(f'nonce="{nonce}"') - 1  # and the styles
    assert nonce not in two.text
    for name, value in (("cache-control", "no-store"), ("referrer-policy", "no-referrer"), ("x-frame-options", "DENY")):
        assert one.headers[name] == value
    assert "http://" not in one.text.replace("http://www.w3.org/2000/svg", "") and "https://" not in one.text


def test_no_other_path_and_no_other_method(client):
    for path in ("/etc/passwd", "/../../etc/passwd", "/%2e%2e/study.toml", "/manifest.json", "/api/", "/static/x"):
        answer = client.get(path, headers={TOKEN_HEADER: TOKEN})
        assert answer.status_code in (403, 404) and "root:" not in answer.text
    assert client.get("/api/search", headers={TOKEN_HEADER: TOKEN}).status_code == 405
    assert client.post("/", params={"token": TOKEN}).status_code == 405


# --- what may be asked


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ({"sequence": ""}, "empty"),
        ({"sequence": "MK<script>"}, "'<' at position 3 is no residue"),
        ({"sequence": "../../etc/passwd"}, "'.' at position 1"),
        ({"sequence": "M" * 100_000}, "100,000 residues; the model takes"),
        ({"sequence": ">a\nMK\n>b\nMK"}, "more than one protein"),
        ({"sequence": ["M"]}, "sequence is text"),
        ({"sequence": "MKJ"}, "'J' at position 3 has no token"),
        ({"sequence": "MKT", "mutations": ["K1R"]}, "has M at 1"),
        ({"sequence": "MKT", "mutations": ["K2R"] * 51}, "at most 50"),
        ({"sequence": "MKT", "mutations": ["K2<"]}, "written like A12V"),
        ({"sequence": "MKT", "label": "9"}, "class '9' is not among those"),
        ({"sequence": "MKT", "label": 3}, "label is the name"),
        ({"sequence": "MKT", "path": "/etc/passwd"}, "unknown key 'path'"),
        ({"sequence": "MKT", "changes": [{"set": "x", "to": "zero"}]}, "no set 'x'"),
        ({"sequence": "MKT", "changes": [{"set": "class 2", "to": "half"}]}, "one of zero, mean, double"),
        ({"sequence": "MKT", "changes": [{"neurons": [[0, "key", 10**9]], "to": "zero"}]}, "neuron"),
        ({"sequence": "MKT", "changes": [{"neurons": [[0, "keys", 1]], "to": "zero"}]}, "a neuron is"),
        ({"sequence": "MKT", "changes": [{"to": "zero"}]}, "either neurons or"),
    ],
)
def test_one_line_says_what_is_wrong(client, sent, said):
    answer = asking(client, "decide", sent)
    assert answer.status_code == 400 and said in answer.json()["error"]
    assert len(answer.json()["error"].splitlines()) == 1
    assert (
        answer.headers["content-type"] == "application/json" and "nosniff" in answer.headers["x-content-type-options"]
    )


def test_what_is_no_question_is_refused(client):
    for body in (b"", b"[1]", b"nonsense", b"[" * 100_000, b'{"sequence": "MK\xff"}'):
        answer = client.post("/api/decide", content=body, headers={TOKEN_HEADER: TOKEN, **JSON})
        assert answer.status_code == 400 and "error" in answer.json()
    form = client.post("/api/decide", data={"sequence": "MKT"}, headers={TOKEN_HEADER: TOKEN})
    assert form.status_code == 400 and "application/json" in form.json()["error"]
    large = client.post(
        "/api/decide",
        content=b" " * (MOST_BYTES + 1),
        headers={TOKEN_HEADER: TOKEN, "Content-Type": "application/json"},
    )
    assert large.status_code == 400 and "larger than" in large.json()["error"]
    with pytest.raises(InputError, match="unknown key"):
        read_search({"modul": "key"})
    for bad in ([True, "key", 1], [0, "key"], [0, "key", -1], "0.key.1", None):
        with pytest.raises(InputError, match="a neuron is"):
            read_neuron(bad)


def test_names_are_cut_and_made_printable():
    asked = read_asked({"id": f"a\x1b[31m\n{'b' * 500}", "sequence": " mk\nT* "}, 10)
    assert asked.protein.sequence == "MKT" and len(asked.protein.id) == 200 and asked.protein.id.isprintable()
    assert read_sequence(f">{HOSTILE} x\nMKT", "", 10).id == HOSTILE
    assert read_sequence("MKT", " ", 10).id == "protein"


# --- what comes back


def test_the_same_as_explain(client, session, sequence):
    found = asking(client, "explain", {"id": HOSTILE, "sequence": sequence}).json()
    other = Explainer(session.opened, settings=FEW)
    other.__dict__["_distances"] = None  # one search of MMseqs2 is enough
    expected = json.loads(next(other([Protein(HOSTILE, sequence)])).to_json())
    searched = {"nearest_train", "identity", "nearest_label", "distance", "accuracy", "accuracy_low", "accuracy_high"}
    same = expected.keys() - searched - {"n_test", "in_training", "longest_train", "neurons"}
    assert {key: found[key] for key in same} == {key: expected[key] for key in same}
    acting = [neuron.pop("acting") for neuron in found["neurons"]]
    assert found["neurons"] == expected["neurons"] and all(text.startswith("mostly ") for text in acting)
    assert found["trust"] and len(found["tracks"]) == len(found["neurons"]) and found["null_copies"] == 20
    look = asking(client, "look", {"id": HOSTILE, "sequence": sequence}).json()
    assert look["null_copies"] == 0 and look["trust"] == "" and look["residues_outside"] == 0
    same = ("attribution", "position", "residue", "through", "concepts")
    assert [[r[k] for k in same] for r in look["residues"]] == [[r[k] for k in same] for r in found["residues"]]
    assert [neuron.pop("acting") for neuron in look["neurons"]] == acting and look["neurons"] == found["neurons"]
    assert look["chosen_effect"] == found["chosen_effect"]


def test_a_mutation_is_the_mutated_protein(client, session, sequence):
    letter = "W" if sequence[4] != "W" else "A"
    name = f"{sequence[4]}5{letter}"
    mutant = sequence[:4] + letter + sequence[5:]
    one = asking(client, "look", {"sequence": sequence, "mutations": [name], "label": "2"}).json()
    two = asking(client, "look", {"sequence": mutant, "label": "2"}).json()
    assert one == two and one["residues"][4]["residue"] == letter and one["explained"] == "2"


def test_changes_are_interventions(client, session, sequence):
    """Against the folded network: one neuron at its mean as explain tells it, and a set."""
    look = asking(client, "look", {"sequence": sequence}).json()
    first = look["neurons"][0]
    neuron = [first["layer"], first["module"], first["neuron"]]
    held = asking(client, "decide", {"sequence": sequence, "changes": [{"neurons": [neuron], "to": "mean"}]}).json()
    y = look["explained"]
    assert held["before"]["log_odds"][y] == pytest.approx(look["log_odds"], abs=1e-4)
    fall = held["before"]["log_odds"][y] - held["after"]["log_odds"][y]
    assert fall == pytest.approx(first["effect"], abs=2e-4)
    own = asking(client, "decide", {"sequence": sequence, "changes": [{"set": f"class {y}", "to": "mean"}]}).json()
    assert own["sizes"] == [look["chosen_n"]]
    fall = own["before"]["log_odds"][y] - own["after"]["log_odds"][y]
    assert fall == pytest.approx(look["chosen_effect"], abs=2e-4)
    assert sum(own["after"]["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    doubled = asking(
        client, "decide", {"sequence": sequence, "changes": [{"neurons": [neuron], "to": "double"}]}
    ).json()
    assert abs(doubled["after"]["log_odds"][y] - doubled["before"]["log_odds"][y]) > 1e-6
    nothing = asking(client, "decide", {"sequence": sequence}).json()
    assert nothing["before"] == nothing["after"]


def test_the_later_change_of_a_neuron_counts(session, sequence):
    protein, some = Protein("p", sequence), np.arange(10, 60)
    zero, both = changed_odds(session.model, protein, [(some, 0.0)]), [(some, 2.0), (some, 0.0)]
    assert np.array_equal(zero, changed_odds(session.model, protein, both))
    assert not np.allclose(zero, changed_odds(session.model, protein, [(some, 2.0)]))
    assert not np.allclose(zero, changed_odds(session.model, protein, [(some, None)]))


def test_search_finds_what_the_tables_say(client, session):
    run, choices = session.opened.run, session.catalogue.choices()
    every = asking(client, "search", {}).json()
    assert every["total"] == len(session.model.index) and len(every["rows"]) == 50
    some = asking(client, "search", {"module": "key", "layer": 1}).json()
    assert some["total"] == session.model.index.widths[1] and {r["module"] for r in some["rows"]} == {"key"}
    table = run.table("associations")
    concept = choices["concepts"][0]
    own = table[(table["concept"] == concept) & table["confirmed"]].drop_duplicates(["layer", "module", "neuron"])
    found = asking(client, "search", {"concept": concept}).json()
    assert found["total"] == len(own) and all(concept in row["concepts"] or row["concepts"] for row in found["rows"])
    label = choices["labels"][0]
    ranked = [row["score"] for row in asking(client, "search", {"label": label}).json()["rows"]]
    assert ranked == sorted(ranked, reverse=True)
    cards = run.table("neuron_cards")
    motif = next(m for m in cards["motif"] if m)
    found = asking(client, "search", {"motif": motif.lower()}).json()
    assert found["total"] and all(motif in row["motif"] for row in found["rows"])
    assert asking(client, "search", {"motif": "(.*"}).json()["total"] == 0  # text, no pattern
    assert asking(client, "search", {"concept": HOSTILE}).status_code == 400


def test_activations_along_a_protein(client, session, sequence):
    found = asking(client, "along", {"sequence": sequence, "neuron": [1, "intermediate", 3]}).json()
    neuron = session.model.index.neuron(session.model.index.slice(session.model.index.sites[10]).start + 3)
    assert str(neuron) == "layer 1 intermediate 3"
    known = ps.activations(session.model, sequence, [neuron]).iloc[:, -1]
    assert found["values"] == pytest.approx(known.tolist(), rel=1e-4) and len(found["percentiles"]) == len(sequence)


def test_the_page_that_is_saved_opens_offline(client, sequence):
    page = asking(client, "page", {"id": HOSTILE, "sequence": sequence}).json()["html"]
    assert HOSTILE not in page and "default-src 'none'" in page and TOKEN not in page


# --- what waits


def test_the_line_is_short_and_quick_ones_come_first():
    line, begin, order = Line(most=2), threading.Event(), []
    slow = line.add(lambda: begin.wait(10))
    time.sleep(0.05)
    later = line.add(lambda: order.append("slow"))
    first = line.add(lambda: order.append("quick"), quick=True)
    with pytest.raises(FullError, match="busy: 2 requests wait already"):
        line.add(lambda: order.append("too many"))
    later.cancel()  # nobody waits for it any more: its place is free
    last = line.add(lambda: order.append("last"))
    begin.set()
    assert slow.result(5) and last.result(5) is None and first.done()
    assert order == ["quick", "last"]
    broken = line.add(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        broken.result(5)
    line.close(5)
    with pytest.raises(FullError):
        line.add(lambda: None)


def test_a_full_line_answers_at_once(session, sequence, monkeypatch):
    begin = threading.Event()
    monkeypatch.setattr(session, "explain", lambda asked, whole: begin.wait(10) and {})
    app = application(session, token=TOKEN, hosts=[HOST], most_waiting=1, longest_wait=0.3)
    with TestClient(app, base_url=f"http://{HOST}") as client:
        slow = [threading.Thread(target=asking, args=(client, "look", {"sequence": sequence})) for _ in range(2)]
        slow[0].start()
        time.sleep(0.1)
        waited = asking(client, "decide", {"sequence": sequence})  # is not begun in time
        assert waited.status_code == 503 and "no turn within" in waited.json()["error"]
        slow[1].start()
        time.sleep(0.1)
        start = time.monotonic()
        full = asking(client, "decide", {"sequence": sequence})
        assert full.status_code == 503 and "busy: 1 requests wait" in full.json()["error"]
        assert time.monotonic() - start < 0.2 and full.headers["retry-after"]
        begin.set()
        for one in slow:
            one.join(10)


# --- the start and the end


def test_names_and_addresses():
    assert names_of("::1", 9) == ["[::1]:9"]
    assert names_of("0.0.0.0", 9, ["lab.example"]) == ["0.0.0.0:9", "lab.example:9"]
    with pytest.raises(RunError, match="--allow-host"):
        names_of("0.0.0.0", 9)
    with pytest.raises(RunError, match="no name of a machine"):
        names_of("127.0.0.1", 9, ["a/b"])
    with listening("127.0.0.1", 0) as held:
        held.listen()
        port = held.getsockname()[1]
        with pytest.raises(RunError, match="--port 0 takes a free port"):
            listening("127.0.0.1", port)
    assert isinstance(held, socket.socket)


def test_it_serves_until_ctrl_c(session):
    """What is printed is an address that works, on this machine alone; a signal ends it."""
    said, seen = [], {}

    def look_and_stop():
        while not said:
            time.sleep(0.02)
        seen["address"] = said[0].removeprefix("explore: ")
        with urlopen(seen["address"], timeout=60) as answer:
            seen["page"] = answer.read()
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=look_and_stop)
    thread.start()
    serve(session, say=said.append)
    thread.join(20)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{32,}", seen["address"])
    assert b"Search neurons" in seen["page"] and said[-1] == "explore: stopped"
    with pytest.raises(URLError):
        urlopen(seen["address"], timeout=5)


def test_the_command_says_what_is_wrong_before_it_loads(capsys, tmp_path):
    assert main(["explore", str(tmp_path), "--host", "0.0.0.0", "--port", "0"]) == 2
    assert "--allow-host" in capsys.readouterr().err
    assert main(["explore", str(tmp_path), "--port", "0"]) == 2
    assert str(tmp_path) in capsys.readouterr().err
