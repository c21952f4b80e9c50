"""How many steps of fine-tuning two cores make beside a busy neighbour, by how OpenMP's threads wait.

    python benchmarks/neighbour.py                    # about three minutes; on a machine that does nothing else
    python benchmarks/neighbour.py --neighbours 0     # the same without a neighbour: what sleeping costs

Every setting has a process of its own, bound to the same cores as the neighbours, that takes steps of AdamW on one
batch for some seconds; the settings take turns, so that other work on the machine meets all of them. The neighbours are
loops that never rest. *Spinning* is what GNU's OpenMP library does where nobody says anything; *as plmscope sets
it* says nothing either, and ``import plmscope`` does.

Prints a Markdown table.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from plmscope.threads import CHOICES

#: Name to threads and the user's own environment; 300,000 is the library's default.
SETTINGS: dict[str, tuple[int, dict[str, str]]] = {
    "one thread": (1, {}),
    "two threads, spinning": (2, {"GOMP_SPINCOUNT": "300000"}),
    "two threads, as plmscope sets it": (2, {}),
}
BUSY = "while True: pass"


def steps(seconds: float, threads: int, layers: int, width: int) -> tuple[int, float, float]:
    """Steps of fine-tuning in about so many seconds, the seconds that they took, and those of CPU time.

    A random ESM-2 of a shape, eight proteins of 200 residues.
    """
    import plmscope  # noqa: F401, I001  # before PyTorch, as in every command
    import torch
    from transformers import EsmConfig, EsmForSequenceClassification

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    config = EsmConfig(
        vocab_size=33, mask_token_id=32, pad_token_id=1, hidden_size=width, num_hidden_layers=layers,
        num_attention_heads=width // 16, intermediate_size=4 * width, position_embedding_type="rotary",
        max_position_embeddings=1026, emb_layer_norm_before=False, num_labels=6,
    )  # fmt: skip
    model = EsmForSequenceClassification(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    ids, labels = torch.randint(4, 24, (8, 202)), torch.arange(8) % 6

    def step() -> None:
        optimizer.zero_grad()
        model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss.backward()
        optimizer.step()

    step()  # what is set up once is set up
    done, started, used = 0, time.monotonic(), time.process_time()
    while time.monotonic() - started < seconds:
        step()
        done += 1
    return done, time.monotonic() - started, time.process_time() - used


def measured(name: str, args: argparse.Namespace) -> tuple[int, float, float]:
    """:func:`steps` under a setting, in a process of its own."""
    threads, own = SETTINGS[name]
    environment = {key: value for key, value in os.environ.items() if key not in (*CHOICES, "OMP_NUM_THREADS")}
    options = [f"--{key}={getattr(args, key)}" for key in ("seconds", "layers", "width")]
    said = subprocess.run(
        [sys.executable, str(Path(__file__)), *options, f"--threads={threads}"], env=environment | own,
        stdout=subprocess.PIPE, text=True, check=True,
    ).stdout  # fmt: skip
    done, wall, used = json.loads(said.splitlines()[-1])
    return int(done), float(wall), float(used)


def main(argv: Sequence[str] | None = None) -> None:
    """All settings in turn beside the neighbours."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15, help="of every process, beyond its start")
    parser.add_argument("--rounds", type=int, default=3, help="how often every setting has its turn")
    parser.add_argument("--neighbours", type=int, default=1, help="busy loops on the same cores")
    parser.add_argument("--cores", type=int, default=2, help="cores that all of them share (Linux)")
    parser.add_argument("--layers", type=int, default=6, help="of the model")
    parser.add_argument("--width", type=int, default=320, help="of the model, a multiple of 16")
    parser.add_argument("--threads", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.threads:
        print(json.dumps(steps(args.seconds, args.threads, args.layers, args.width)))
        return
    if hasattr(os, "sched_setaffinity"):  # those that are started inherit it
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.cores])
    neighbours = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(args.neighbours)]
    found: dict[str, list[tuple[int, float, float]]] = {name: [] for name in SETTINGS}
    try:
        for _ in range(args.rounds):
            for name, rows in found.items():
                rows.append(measured(name, args))
    finally:
        for one in neighbours:
            one.kill()
            one.wait()
    print(
        f"{args.cores} cores, {args.neighbours} busy neighbour{'' if args.neighbours == 1 else 's'}, {args.layers} "
        f"layers of width {args.width}, 8 proteins of 200 residues a step, {args.rounds} x {args.seconds:g} s.\n"
    )
    print("| threads wait | steps a minute | fewest and most in a round | CPU s a step |\n| --- | --- | --- | --- |")
    for name, rows in found.items():
        done, wall, used = (sum(column) for column in zip(*rows, strict=True))
        rates = [60 * row[0] / row[1] for row in rows]
        cost = f"{used / done:.2f}" if done else ""
        print(f"| {name} | {60 * done / wall:.1f} | {min(rates):.1f} to {max(rates):.1f} | {cost} |")


if __name__ == "__main__":
    main()
