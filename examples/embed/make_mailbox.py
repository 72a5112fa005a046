"""Make a mailbox to try the archiver on, the same one each time: `python make_mailbox.py inbox.mbox`."""

from __future__ import annotations

import io
import mailbox
import random
import sys
import zipfile
from email.message import EmailMessage
from email.policy import SMTP


def photo(seed: int, size: int = 300_000) -> bytes:
    """Return bytes that do not compress, as those of a photo."""
    return random.Random(seed).randbytes(size)


def bundle(names: list[str]) -> bytes:
    """Return a zip file with some texts."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), f"{name}\n" * 1000)
    return file.getvalue()


def message(number: int, attachments: dict[str, bytes]) -> EmailMessage:
    """Return a mail with attachments."""
    mail = EmailMessage(policy=SMTP.clone(linesep="\n"))
    mail["From"] = "ada@example.org"
    mail["To"] = "grace@example.org"
    mail["Subject"] = f"Pictures, part {number}"
    mail["Message-ID"] = f"<{number}@example.org>"
    mail.set_content("See the attachments.")
    for name, data in attachments.items():
        mail.add_attachment(data, maintype="application", subtype="octet-stream", filename=name)
    return mail


def main(path: str) -> None:
    """Write three mails: a photo and notes; the photo again and another; the photo with more at its end."""
    beach, forest = photo(1), photo(2)
    mails = [
        message(1, {"beach.raw": beach, "notes.zip": bundle(["monday.txt", "tuesday.txt"])}),
        message(2, {"beach again.raw": beach, "forest.raw": forest}),
        message(3, {"beach.raw": beach + photo(3, 20_000)}),
    ]
    box = mailbox.mbox(path)
    for mail in mails:
        box.add(mail)
    box.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
