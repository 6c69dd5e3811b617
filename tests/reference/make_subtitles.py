"""Makes whisper/subtitles.json: files that openai-whisper writes of transcripts that were made up."""

import io
import json
from pathlib import Path

from whisper.utils import WriteSRT, WriteTSV, WriteTXT, WriteVTT

WRITERS = [WriteTXT, WriteVTT, WriteSRT, WriteTSV]
OPTIONS = [
    {},
    {"highlight_words": True},
    {"max_line_width": 12},
    {"max_line_width": 12, "max_line_count": 1},
    {"max_line_width": 16, "max_line_count": 2},
    {"max_line_width": 16, "max_line_count": 2, "highlight_words": True},
    {"max_words_per_line": 2},
    {"max_words_per_line": 3, "highlight_words": True},
]


def words(start: float, text: list[str], step: float = 0.3) -> list[dict]:
    times = [round(start + i * step, 2) for i in range(len(text) + 1)]
    return [{"word": word, "start": a, "end": b} for word, a, b in zip(text, times, times[1:])]


TEXTS = [
    (0.0, [" Hello", " there,", " everybody", " who", " listens."]),
    (2.5, [" It", " is", " über-long-and-unbreakable", " here", " now."]),
    (9.0, [" After", " a\tpause."]),
    (3599.9, [" One", " hour", " later", " -->", " the", " end."]),
]


def transcript(with_words: bool) -> dict:
    segments = []
    for start, text in TEXTS:
        timed = words(start, text)
        segment = {"start": start, "end": timed[-1]["end"], "text": "".join(text)}
        segments.append(segment | ({"words": timed} if with_words else {}))
    if with_words:
        # Words need not touch.
        segments[0]["words"][2]["end"] -= 0.1
    return {"segments": segments}


def files(result: dict, options: dict) -> dict:
    written = {}
    for writer in WRITERS:
        file = io.StringIO()
        extra = options if writer in (WriteVTT, WriteSRT) else {}
        writer(".").write_result(result, file=file, **extra)
        written[writer.extension] = file.getvalue()
    return written


if __name__ == "__main__":
    transcripts = {"segments": transcript(False), "words": transcript(True)}
    cases = [{"transcript": "segments", "options": {}, "files": files(transcripts["segments"], {})}]
    cases += [{"transcript": "words", "options": o, "files": files(transcripts["words"], o)} for o in OPTIONS]
    path = Path(__file__).parent / "whisper" / "subtitles.json"
    path.write_text(json.dumps({"transcripts": transcripts, "cases": cases}, ensure_ascii=False, indent=1) + "\n")
