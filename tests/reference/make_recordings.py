"""Makes audio/tone.*: one second of two tones, as ffmpeg encodes it; and audio/silent.mp4, a film without sound.

The left channel has 440 Hz, the right one 1250 Hz, both at half height, 44.1 kHz. `tone-cut.mp3` ends in the middle of a frame.
"""

import subprocess
from pathlib import Path

FOLDER = Path(__file__).parent / "audio"
TONES = "aevalsrc=exprs=0.5*sin(2*PI*440*t)|0.5*sin(2*PI*1250*t):sample_rate=44100:duration=1"
CODECS = {
    "flac": ["-c:a", "flac", "-sample_fmt", "s16"],
    "mp3": ["-c:a", "libmp3lame", "-b:a", "64k"],
    "ogg": ["-c:a", "libvorbis", "-q:a", "1"],
    "m4a": ["-c:a", "aac", "-b:a", "192k"],
}


def encode(source, codec, name):
    exact = ["-fflags", "+bitexact", "-flags", "+bitexact", "-map_metadata", "-1"]
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", source, *codec, *exact, FOLDER / name], check=True)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, codec in CODECS.items():
        encode(TONES, codec, f"tone.{name}")
    whole = (FOLDER / "tone.mp3").read_bytes()
    (FOLDER / "tone-cut.mp3").write_bytes(whole[: len(whole) // 2 + 50])
    encode("color=size=16x16:rate=5:duration=1", ["-c:v", "mpeg4"], "silent.mp4")
