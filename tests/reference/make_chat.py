#!/usr/bin/env python3
"""Renders chat templates with transformers; writes tests/reference/chat.json.

The templates in chat/*.jinja have the structure of widely used ones, in words of their own. Needs transformers and
jinja2, no weights. Run from anywhere: python make_chat.py
"""

import json
from pathlib import Path

import jinja2
from transformers.utils.chat_template_utils import render_jinja_template

HERE = Path(__file__).parent

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather, in °C. <Not> a 'forecast' & not \"exact\".",
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"type": "string", "description": "Where"},
                "items": {"type": "array", "items": {"type": "string", "enum": ["rain", "wind"]}, "default": []},
                "limit": {"type": "number", "default": 1.5, "minimum": 0, "maximum": 1e20},
                "exact": {"type": "boolean", "default": True, "nothing": None, "empty": {}},
            },
            "required": ["place"],
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "now", "description": "The time", "parameters": {}}}


def message(role, content, **more):
    return {"role": role, "content": content, **more}


def call(name, arguments):
    return {"id": "call12345", "type": "function", "function": {"name": name, "arguments": arguments}}


CONVERSATIONS = {
    "user": [message("user", "Hello!")],
    "system": [message("system", " Be brief. "), message("user", "  Hi there \n")],
    "turns": [
        message("system", "You are a poet."),
        message("user", "One"),
        message("assistant", " First\nline "),
        message("user", "Two"),
        message("assistant", "Second"),
        message("user", "Three"),
    ],
    "empty": [message("user", ""), message("assistant", ""), message("user", "\n")],
    "unicode": [message("user", "Grüße 日本語 👩‍👩‍👧 'q' \"d\" <b>&amp;\u00a0{{ x }} {% if %}\t\\n")],
    "order": [message("user", "a"), message("user", "b")],
    "tool": [
        message("system", "Use tools."),
        message("user", "Weather in Zürich?"),
        message("assistant", None, tool_calls=[call("get_weather", {"place": "Zürich", "items": ["rain"], "limit": 2.0})]),
        message("tool", '{"rain": 0.1}', tool_call_id="call12345", name="get_weather"),
        message("assistant", "Almost dry."),
        message("user", "And now?"),
    ],
    "two_tools": [
        message("user", "Both"),
        message("assistant", "Let me see.", tool_calls=[call("now", {}), call("get_weather", {"place": "Rome"})]),
        message("tool", "12:00", tool_call_id="call12345", name="now"),
        message("tool", "sunny", tool_call_id="call12345", name="get_weather"),
    ],
    "thinking": [
        message("user", "1+1?"),
        message("assistant", "<think>\neasy\n</think>\n\n2"),
        message("user", "2+2?"),
        message("assistant", "4", reasoning_content="\nalso easy\n"),
        message("user", "3+3?"),
    ],
    "nobody": [],
}

# (tools, add_generation_prompt, extra)
SETTINGS = [
    (None, True, {}),
    (None, False, {"enable_thinking": False}),
    ([WEATHER, CLOCK], True, {"enable_thinking": False, "date_string": "4 Jul 2024"}),
    ([], True, {"enable_thinking": True}),
]
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


def main():
    rows = []
    for path in sorted((HERE / "chat").glob("*.jinja")):
        source = path.read_text()
        for name, messages in CONVERSATIONS.items():
            # The corners depend on the conversation in one place only.
            for tools, prompt, extra in SETTINGS[: 1 if path.stem == "odds" else None]:
                row = {"template": path.stem, "conversation": name, "tools": tools is not None and len(tools)}
                row |= {"add_generation_prompt": prompt, "extra": extra}
                try:
                    texts, _ = render_jinja_template(
                        [messages], tools=tools, chat_template=source, add_generation_prompt=prompt, **TOKENS, **extra
                    )
                    row["text"] = texts[0]
                except jinja2.exceptions.UndefinedError:
                    row["error"] = None  # the words are jinja2's own
                except jinja2.exceptions.TemplateError as error:
                    row["error"] = str(error)
                except TypeError:
                    row["error"] = None
                rows.append(row)
    out = {"tokens": TOKENS, "tools": [WEATHER, CLOCK], "conversations": CONVERSATIONS, "rows": rows}
    lines = [json.dumps(key) + ": " + json.dumps(value, ensure_ascii=False) for key, value in out.items()]
    lines[-1] = '"rows": [\n' + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]"
    (HERE / "chat.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    errors = sum("error" in row for row in rows)
    print(f"{len(rows)} renderings, {errors} of them errors")


if __name__ == "__main__":
    main()
