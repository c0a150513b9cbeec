"""Options and fixtures of the benchmarks; README.md says how to run them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import demo
import pytest
from fresh_process import run_fresh
from measure import QuietProbe
from oracle import Oracle
from peers import OUR_OWN, PEERS, Peer, PeerUnavailableError, Target, load_peer
from prompts import PromptSource


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("ovfast benchmarks")
    group.addoption(
        "--rounds",
        type=int,
        default=int(os.environ.get("OVFAST_BENCH_ROUNDS", "0")) or None,
        help="rounds of each measurement instead of its own number (env OVFAST_BENCH_ROUNDS)",
    )
    group.addoption(
        "--peers",
        default=os.environ.get("OVFAST_BENCH_PEERS", ",".join(PEERS)),
        help=f"engines to run, the first is what ratios refer to: {','.join(PEERS)} "
        "(env OVFAST_BENCH_PEERS)",
    )
    group.addoption(
        "--model-dir",
        default=os.environ.get("OVFAST_BENCH_MODEL_DIR"),
        help="stock model directory instead of the demo model (env OVFAST_BENCH_MODEL_DIR)",
    )
    group.addoption(
        "--gguf",
        default=os.environ.get("OVFAST_BENCH_GGUF"),
        help="the GGUF file that --model-dir was made from (env OVFAST_BENCH_GGUF)",
    )
    group.addoption(
        "--packed-dir",
        default=os.environ.get("OVFAST_BENCH_PACKED_DIR"),
        help="--model-dir in packed form, for ovfast (env OVFAST_BENCH_PACKED_DIR)",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "target" in metafunc.fixturenames:
        names = ["given"] if metafunc.config.getoption("model_dir") else list(demo.FORMS)
        # Session scope also orders the tests by model, so that one is loaded at a time.
        metafunc.parametrize("target", names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def target(request: pytest.FixtureRequest) -> Target:
    option = request.config.getoption
    if request.param == "given":
        gguf, packed = option("gguf"), option("packed_dir")
        return Target(
            "given",
            Path(option("model_dir")),
            Path(gguf) if gguf else None,
            Path(packed) if packed else None,
        )
    gguf = demo.find(option("gguf"))
    if gguf is None:
        pytest.exit("no demo model in the cache: `make demo-model` fetches it", returncode=4)
    try:
        return demo.FORMS[request.param](gguf)
    except demo.CannotMakeError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def oracle(target: Target) -> Callable[[], Oracle]:
    """Loads the oracle when it is first asked for: after the engines have been measured."""
    return lru_cache(maxsize=1)(lambda: Oracle(target.model_dir))


@pytest.fixture(scope="session")
def peer_names(pytestconfig: pytest.Config) -> list[str]:
    names = [name.strip() for name in pytestconfig.getoption("peers").split(",")]
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        pytest.exit(f"unknown peers {unknown}; there are {list(PEERS)}", returncode=4)
    return names


@pytest.fixture(scope="session")
def prompts(target: Target) -> PromptSource:
    return PromptSource(target.model_dir)


@pytest.fixture(scope="session")
def probe() -> QuietProbe:
    return QuietProbe()


@pytest.fixture
def rounds(pytestconfig: pytest.Config) -> Callable[[int], int]:
    """The number of rounds: the test's own unless --rounds says otherwise."""
    forced: int | None = pytestconfig.getoption("rounds")
    return lambda own: forced or own


@pytest.fixture(scope="session")
def load(target: Target, prompts: PromptSource) -> Iterator[Callable[[str], Peer]]:
    """Loads each peer once, when first asked for; raises PeerUnavailableError every time if it cannot."""
    loaded: dict[str, Peer | PeerUnavailableError] = {}

    def get(name: str) -> Peer:
        if name not in loaded:
            try:
                if name not in OUR_OWN:
                    # Builds for another processor crash. Let them do so in a process of their own.
                    run_fresh(name, target, prompts.prompt(32, "trial"), 2)
                loaded[name] = load_peer(name, target)
            except PeerUnavailableError as error:
                loaded[name] = error
        peer = loaded[name]
        if isinstance(peer, PeerUnavailableError):
            raise peer
        return peer

    yield get
    for peer in loaded.values():
        if isinstance(peer, Peer):
            peer.close()


@pytest.fixture
def available(
    peer_names: list[str], load: Callable[[str], Peer], benchmark: object
) -> Callable[..., list[Peer]]:
    """Peers that run here. What does not is named in the result, with the reason."""

    def choose(*, without: tuple[str, ...] = (), batching: bool = False) -> list[Peer]:
        peers, absent = [], {}
        for name in peer_names:
            if name in without or (batching and not PEERS[name].batches):
                continue
            try:
                peers.append(load(name))
            except PeerUnavailableError as error:
                absent[name] = str(error)
        benchmark.extra_info["absent"] = absent
        if not peers:
            pytest.skip(f"none of the peers asked for takes part here: {absent or peer_names}")
        return peers

    return choose
