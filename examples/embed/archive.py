"""Keep the attachments of mailboxes, each once.

    python archive.py store MAILBOX     store the attachments, and note them in catalogue.jsonl
    python archive.py list              say what there is; of zip files also what is in them
    python archive.py restore FOLDER    write all attachments to files

The stores are those of composition.toml, or of $CASTORE_COMPOSITION.
"""

from __future__ import annotations

import contextlib
import email
import io
import json
import mailbox
import shutil
import sys
import zipfile
from collections.abc import Iterator
from email import policy
from pathlib import Path

import attrs

import castore

CATALOGUE = Path("catalogue.jsonl")


@attrs.frozen
class Attachment:
    """One attachment: the mail it came in, its name there, and the name of its bytes."""

    mail: str
    name: str
    digest: castore.B3Digest
    size: int

    def line(self) -> str:
        """Return it as a line of the catalogue."""
        return json.dumps(attrs.asdict(self) | {"digest": str(self.digest)}) + "\n"

    @classmethod
    def parse(cls, line: str) -> Attachment:
        """Read a line of the catalogue."""
        values = json.loads(line)
        return cls(**values | {"digest": castore.B3Digest.parse(values["digest"])})


@attrs.define
class Progress:
    """A line on the terminal, told of each piece that was stored."""

    label: str
    total: int
    done: int = 0

    def __call__(self, count: int) -> None:
        """Add *count* bytes."""
        self.done += count
        if sys.stderr.isatty():
            end = "\n" if self.done == self.total else ""
            print(f"\r{self.label}: {100 * self.done // self.total} %", end=end, file=sys.stderr)


def attachments(path: str) -> Iterator[tuple[str, str, bytes]]:
    """Yield the attachments of a mailbox: id of the mail, file name, bytes."""
    box = mailbox.mbox(path, lambda f: email.message_from_binary_file(f, policy=policy.default), create=False)
    with contextlib.closing(box):
        for mail in box:
            for part in mail.iter_attachments():
                yield mail["Message-ID"], part.get_filename("unnamed"), part.get_payload(decode=True)


def catalogue() -> list[Attachment]:
    """Read the catalogue; without one there are no attachments."""
    return (
        [Attachment.parse(line) for line in CATALOGUE.read_text().splitlines()] if CATALOGUE.exists() else []
    )


def store(blobs: castore.BlobService, path: str) -> int:
    """Store what is new in a mailbox. A blob that is there already costs nothing but its hashing."""
    known = set(catalogue())
    with CATALOGUE.open("a") as file:
        for mail, name, data in attachments(path):
            progress = Progress(name, len(data))
            digest = blobs.put_file(io.BytesIO(data), progress=progress)
            attachment = Attachment(mail, name, digest, len(data))
            if attachment not in known:
                # The blob is stored: from here on the catalogue may speak of it.
                file.write(attachment.line())
                print(f"{digest}  {name}")
    return 0


def show(blobs: castore.BlobService) -> int:
    """List the catalogue. A reader is a file: `zipfile` fetches only the chunks with the directory."""
    for attachment in catalogue():
        reader = blobs.open_read(attachment.digest)
        print(f"{attachment.size:9,}  {attachment.name}{'' if reader else '  (absent)'}")
        if reader is not None:
            with reader, contextlib.suppress(zipfile.BadZipFile):
                for member in zipfile.ZipFile(reader).infolist():
                    print(f"{member.file_size:9,}    {member.filename}")
    return 0


def restore(blobs: castore.BlobService, folder: str) -> int:
    """Write the attachments to files in *folder*; one that cannot be read stops no other."""
    failed = 0
    Path(folder).mkdir(parents=True, exist_ok=True)
    for attachment in catalogue():
        target = Path(folder, f"{str(attachment.digest)[:8]}-{Path(attachment.name).name}")
        try:
            with blobs.open(attachment.digest) as reader, target.open("wb") as file:
                shutil.copyfileobj(reader, file)
        except (castore.BlobNotFoundError, castore.CorruptBlobError) as error:
            target.unlink(missing_ok=True)
            print(f"{attachment.name}: {error}", file=sys.stderr)
            failed = 1
    return failed


def main(arguments: list[str]) -> int:
    """Run one command; return the exit code."""
    commands = {("store", 2): store, ("list", 1): show, ("restore", 2): restore}
    command = commands.get((arguments[0] if arguments else "", len(arguments)))
    if command is None:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        with castore.open() as stores:
            return command(stores.blobs(), *arguments[1:])
    except (castore.CastoreError, OSError, mailbox.Error) as error:
        # Nothing that another mail would change: the stack is wrong, or a store or file cannot be used.
        print(error, file=sys.stderr)
        return 2 if isinstance(error, castore.CompositionError) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
