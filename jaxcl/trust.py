"""Whose program a run directory holds. Opening a run executes its config.py; a stranger's is not executed unasked.

A run is believed to be one's own where its config.py is, to the letter, one that this user trained with on this machine
(RUN_DIR/made_here vouches for it, by a secret that never leaves the user's state folder), or one that is shipped with
jaxcl. Anything else needs `--trust`, once.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from jaxcl.shipped import shipped

FILE = "made_here"


def vouch(run_dir: str | Path, text: str) -> bool:
    """Says that a run's config, of this text, is this user's own; False where that cannot be written down, as where
    there is no home to keep a secret in."""
    secret = _secret(make=True)
    if secret is None:
        return False
    try:
        Path(run_dir, FILE).write_text(_seal(secret, text) + "\n")
    except OSError:
        return False
    return True


def is_own(run_dir: str | Path, text: str) -> bool:
    """Whether a run's config, of this text, is vouched for or shipped with jaxcl."""
    return _vouched(Path(run_dir), text) or _shipped(text)


def stranger(run_dir: str | Path, *, within: str | Path | None = None) -> str:
    """What is said of a run of which neither is so; `within`: the run that keeps it as its teacher, say."""
    return (
        f"{Path(run_dir) / 'config.py'} is a program, and opening the run executes it. It is not marked as trained by"
        " you on this machine, and does not come with jaxcl. Read it first; then `jaxcl evaluate"
        f" {within or run_dir} --trust` (in Python trust=True) executes it, and remembers it as yours."
    )


def unmarked(run_dir: str | Path) -> str:
    """What is said where a run cannot be marked as one's own."""
    return (
        f"{run_dir} cannot be marked as trained by you: {_state()} holds no secret and none can be written there."
        " To evaluate the run, give --trust; or set XDG_STATE_HOME to a folder that can be written."
    )


def _vouched(run_dir: Path, text: str) -> bool:
    secret = _secret(make=False)
    try:
        said = (run_dir / FILE).read_bytes()[:100].strip() if secret is not None else b""
    except OSError:
        return False
    return secret is not None and hmac.compare_digest(said, _seal(secret, text).encode())


def _shipped(text: str) -> bool:
    for path in shipped().values():
        try:
            if path.read_text() == text:
                return True
        except (OSError, UnicodeDecodeError):
            continue
    return False


def _seal(secret: bytes, text: str) -> str:
    return hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()


def _secret(*, make: bool) -> bytes | None:
    """The user's secret on this machine; None where there is none, and none can be made."""
    file = _state() / "secret"
    try:
        found = file.read_bytes()
        return found if len(found) == 32 else None
    except FileNotFoundError:
        if not make:
            return None
    except OSError:
        return None
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Whole at once, and not over one that another process makes at the same moment.
        mine = file.with_name(f"secret.{os.getpid()}")
        descriptor = os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.write(secrets.token_bytes(32))
        try:
            os.link(mine, file)
        except FileExistsError:
            pass
        mine.unlink()
        return file.read_bytes()
    except OSError:
        return None


def _state() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")) / "jaxcl"
