"""What to do instead, for the words that people try who know other programs."""

from __future__ import annotations

from typing import Final

_PUT: Final = "`castore put FILE` stores a file, or all files of a folder, and prints their digests."
_GET: Final = "`castore get DIGEST -o FILE` writes a blob to a file; without -o, to stdout."
_GET_ALL: Final = "`castore export ROOT FOLDER` makes the folder that `castore import` has stored under ROOT."
_COPY: Final = "`castore copy --from NAME --to NAME --all` sends what the other service lacks."
_REMOVE: Final = (
    "No command removes one blob. `castore gc --roots FILE` keeps what refs name and what FILE lists, and"
    " removes all else that is older than a week; `--dry-run` shows what would go."
)
_LIST: Final = "`castore list` prints the digests of all blobs; names of files are not kept."
_STAT: Final = "`castore stat` shows how much a service has, `castore stat DIGEST` the size of a blob."
_VERIFY: Final = "`castore verify` checks all that a service has, and mends it with `--repair-from NAME`."
_CHECK: Final = "`castore check` checks the composition, with `--connect` its services, too."
_LOCATE: Final = "`castore locate DIGEST` tells which services have a blob."
_CONFIG: Final = (
    "The composition is a file that you write, composition.toml; without one, blobs go to your data folder."
    " `castore check` checks it, `castore plugins` shows the types of services."
)
_INIT: Final = "There is nothing to set up: the first `castore put` makes the store. " + _CONFIG
_BACKUP: Final = (
    "`castore import FOLDER` stores a folder and prints its root, from which `castore export ROOT FOLDER`"
    " makes it again."
)
_MOUNT: Final = (
    "`castore mount ROOT FOLDER` shows a tree as a folder, `castore mount FOLDER` all refs;"
    " `castore umount FOLDER` ends that."
)
_SERVE: Final = (
    "`castore serve` serves blobs and directories over gRPC, to castore, snix and tvix; `castore http ROOT`"
    " shows a folder in the browser."
)
_NAMES: Final = (
    "`castore ref set NAME ROOT` lets a name stand for a root, `castore import FOLDER --snapshot NAME` keeps"
    " versions of a folder, and `castore ref list` lists them."
)
_LOCKS: Final = "Locks and leases end with the process that has them; there is nothing to unlock."
_SECRETS: Final = (
    "castore does not encrypt. Secrets of services are in the environment, as `${NAME}` in composition.toml,"
    " or in files."
)
_COMPLETION: Final = (
    'For bash: eval "$(_CASTORE_COMPLETE=bash_source castore)"; `castore --help` has it for zsh and fish.'
)

HINTS: Final = {
    word: hint
    for words, hint in {
        "add store save upload write create insert hash digest b3sum sum": _PUT,
        "read show download fetch view open": _GET,
        "restore checkout extract unpack": _GET_ALL,
        "push pull sync mirror clone replicate transfer cp mv move migrate": _COPY,
        "rm remove delete del unlink erase drop purge prune forget clean cleanup vacuum evict": _REMOVE,
        "dir ll list-blobs blobs index": _LIST,
        "df size info status usage count stats": _STAT,
        "fsck scrub repair heal fix audit recover rebuild": _VERIFY,
        "validate lint doctor test ping diagnose": _CHECK,
        "where which whereis search": _LOCATE,
        "exists contains have": "`castore has DIGEST` tells whether a blob is there.",
        "config configure edit settings": _CONFIG,
        "init setup new bootstrap remote repo": _INIT,
        "backup archive snapshot": _BACKUP,
        "unmount fuse mountpoint fusermount": _MOUNT,
        "server daemon listen web ui browse": _SERVE,
        "refs tag tags log history snapshots commit branch name": _NAMES,
        "lock unlock break-lock": _LOCKS,
        "encrypt decrypt key keys password passwd login logout auth": _SECRETS,
        "types backends drivers": "`castore plugins` shows the types of services.",
        "draw plot dot viz show-graph": "`castore graph` draws the composition, also as dot, mermaid or svg.",
        "version": "`castore --version` prints it.",
        "upgrade update self-update": "Use what installed castore, such as pip. Stores need no upgrade.",
        "completion completions": _COMPLETION,
        "compact optimize dedup dedupe compress recompress": (
            f"Blobs share chunks, and these are compressed, from the start. {_STAT}"
        ),
    }.items()
    for word in words.split()
}
"""What is said for each word that is no command."""
