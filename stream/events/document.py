"""The page of messages and their schemas: ``make docs`` writes them, a test reads them."""

from __future__ import annotations

from pathlib import Path

from stream.events.schemas import MESSAGES, text

FOLDER = Path("docs/reference")

_HEAD = """# Messages

Made from the structs in `stream/events/` by `make docs`; do not edit. Each message has a JSON
Schema (draft 2020-12), which `hearback schema NAME` prints, too. What the fields mean is in
[events](../events.md) and [labels](../labels.md).

A schema says what a message must be by itself, as we write it. Fields that it does not name are
allowed. Inputs may also spell ids as integers and times as ISO 8601; a forget has a `member_id` or
a `job_id`; how many numbers a block has is the model's to say.

| message | topics | what it says | schema |
| --- | --- | --- | --- |
"""


def pages() -> dict[Path, str]:
    """Return the text of each file."""
    rows = [
        f"| `{name}` | {', '.join(f'`{topic}`' for topic in one.topics)} | {one.meaning} |"
        f" [{name}.json](schemas/{name}.json) |\n"
        for name, one in MESSAGES.items()
    ]
    found = {FOLDER / "messages.md": _HEAD + "".join(rows)}
    return found | {FOLDER / "schemas" / f"{name}.json": text(name) for name in MESSAGES}


if __name__ == "__main__":
    for path, content in pages().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")
