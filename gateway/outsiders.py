"""What the hub hands to outsiders, by command: the ledger as files, the verifier."""

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from rich.console import Console

from gateway.settings import Settings

LEDGER_ACTIONS: Mapping[str, str] = {
    "export": "FOLDER",
    "verifier": "",
}


def run_ledger(given: argparse.Namespace, settings: Settings, out: Console) -> int:
    """Does what `isr-hub ledger ACTION` says; returns the exit status."""
    actions: Mapping[str, Callable[[argparse.Namespace, Settings, Console], int]] = {
        "export": _export,
        "verifier": _verifier,
    }
    wanted = len(LEDGER_ACTIONS[given.action].split())
    if len(given.words) != wanted:
        out.print(f"use it as: isr-hub ledger {given.action} {LEDGER_ACTIONS[given.action]}", markup=False)
        return 2
    return actions[given.action](given, settings, out)


def _export(given: argparse.Namespace, settings: Settings, out: Console) -> int:
    from gateway.hub import open_hub

    folder = Path(given.words[0])
    with open_hub(settings, alone=False) as hub:
        checkpoint = hub.ledger.export(folder)
    if given.json:
        print(json.dumps({"size": checkpoint.size, "root": checkpoint.root.hex(), "folder": str(folder)}))
    else:
        out.print(f"{checkpoint.size} entries in {folder}", markup=False, soft_wrap=True)
    return 0


def _verifier(given: argparse.Namespace, _settings: Settings, _out: Console) -> int:
    from consent.single_file import single_file

    print(json.dumps({"verify_ledger.py": single_file()}) if given.json else single_file(), end="")
    return 0
