"""Stored claims, beside the result that they are of. They are read without it, as to open a result
takes a second.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analysis.claims.claim import from_dict, to_dict
from analysis.claims.ledger import Evidence
from analysis.store.files import file_digest, write_whole

_PARTS = ("claims", "registry", "declared")


def result_path(name: str, out: Path) -> Path:
    """Where an experiment's result is stored."""
    return out / name / "result.nc"


def not_run(name: str) -> str:
    """What is said of an experiment without a result."""
    return f"not run: `ssa-theory run {name}` makes it"


def save_claims(evidence: Evidence, result: Path, origin: Mapping[str, str]) -> None:
    """Write the claims of a result. origin: what they are made from, `result` its fingerprint."""
    content = {
        "registry": evidence.hashes,
        "declared": evidence.declared,
        "claims": [to_dict(claim) for claim in evidence.claims],
    }
    stored = {"made_from": origin, "fingerprint": _fingerprint(content), **content}
    text = json.dumps(stored, indent=1) + "\n"
    write_whole(_beside(result), lambda temporary: temporary.write_text(text, encoding="utf-8"))


def load_evidence(name: str, out: Path) -> Evidence:
    """The stored claims of an experiment, and under which registry and settings they were made.

    Raises ValueError where it was not run, for a damaged file, and for claims of another result
    than the stored one.
    """
    result = result_path(name, out)
    if not result.is_file():
        raise ValueError(not_run(name))
    record = _read(_beside(result))
    if record["made_from"].get("result") != file_digest(result):
        raise ValueError(
            f"the stored claims {_beside(result)} are not of the result beside them, which is"
            f" damaged or changed since: redraw them with `ssa-theory plot {name}`"
        )
    claims = tuple(from_dict(one) for one in record["claims"])
    return Evidence(claims, record["registry"], record["declared"])


def made_from(result: Path) -> dict[str, str] | None:
    """The origin of the claims that are stored beside a result; None without any to be read."""
    try:
        return _read(_beside(result))["made_from"]
    except (OSError, ValueError):
        return None


def _beside(result: Path) -> Path:
    return result.with_name("claims.json")


def _fingerprint(record: Mapping[str, Any]) -> str:
    """Of stored claims with their registry and settings, the same before writing and after reading."""
    text = json.dumps([record[part] for part in _PARTS])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record.get("made_from"), dict) or not set(_PARTS) <= set(record):
            raise ValueError("it lacks its parts")
        if record.get("fingerprint") != _fingerprint(record):
            raise ValueError("its content is not what was stored")
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"the stored claims {path} are missing or damaged ({error}): redraw them with"
            f" `ssa-theory plot {path.parent.name}`"
        ) from error
    return record
