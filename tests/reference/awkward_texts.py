"""What the tokenizer fixtures learn from, and the texts that they must take apart."""

import unicodedata

CORPUS = """\
The lighthouse keeper counted the steps again: one hundred and ninety-nine, as there had been
yesterday and the day before. Below him the sea was grey, and the wind that came over the water
smelled of rain. He had kept this light for thirty years; he'd never seen a ship turn away from it.
"It's going to be a long night," he said, and nobody answered, because nobody else was there.
When the storm came, it came quickly. The windows shook, the lamp was burning, and somewhere far
out there was another light, very small, that wasn't a star. They're coming, he thought. We'll see
whether they've read the chart, and whether I'm still any good at this.
In the morning there were 12 boats in the harbour, 3 more than the day before, and the year 1987
was written over the door in white paint. The keeper's daughter made tea; the sailors told stories.
def keep(light, hours=12):
    for hour in range(hours):
        if light.is_burning():
            print(f"hour {hour}: burning", end="\\n")
    return {"light": light, "hours": [0, 1, 2]}
La mer était grise et le vent sentait la pluie. Der Leuchtturmwärter zählte die Stufen.
El guardián del faro contó los escalones. Смотритель маяка снова пересчитал ступени.
灯台守はもう一度階段を数えた。灯塔看守人又数了一遍台阶。등대지기는 다시 계단을 세었다.
"""

# Each special token is text like any other to the tokenizers that do not have it.
SPECIALS = [
    "<s>", "</s>", "<unk>", "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|endoftext|>",
    "<|im_start|>", "<|im_end|>", "<tool_call>",
]  # fmt: skip

SPACES = [
    "", " ", "  ", "   ", " a", "  a", "a ", "a  ", "a  b", "a   b    c     d", "\t", "a\tb\t\tc", "\n", "\n\n", "\n\n\n",
    "a\nb", "a \n b", "a\n\n  b\n", "a\r\nb\r\n\r\nc", "\r", " \n \r\n\t \n", "a\u00a0b\u00a0 c", "a\u3000b",
    "a\u2028b\u2029c", "a\u0085b", "a\u000bb\u000cc", "a\u200bb\u200c\u200dc", "\ufeffa\ufeff", "a\u180eb", "▁", "a▁b ▁ c",
    " trailing newline and space \n ", "tabs\tand  spaces \t mixed\t ",
]  # fmt: skip

WORDS = [
    "The lighthouse keeper counted the steps again.",
    "I'm we've they'll don't he'd it's you're I'M WE'VE THEY'LL DON'T HE'D IT'S YOU'RE",
    "'s 'S '' 'x ' s’s rock'n'roll 'ſ o'clock'",
    "the Lighthouses, unlighthoused; LIGHTHOUSE lighthouse-lighthouse",
    "unmergeable  unmergeable unmergeables",
    "0 7 42 365 1987 12345 123456 1234567 1,000,000 3.14159 -1.5e-10 0x1F 1st 2nd",
    "٣٤٥ १२३ 一二三 ½ ² ³ ⅷ Ⅻ ① 𝟘𝟙𝟚 a1b22c333d4444",
    "for (int i = 0; i < n; ++i) {\n\tsum += a[i] * b[i];  // c != d && e\n}\n",
    "    def f(self, *args, **kwargs):\n        return {**kwargs, 'x': args[0]}\n\n\n    # end",
    "https://example.org/a/b?c=d&e=%20#f user@example.org C:\\dir\\file.txt",
    "!!! ??? ... --- === ((())) [[]] {{}} <> \"\" '' `` ~~ @# $% ^& *_",
    "hello!\n\nworld?!\n...\n  (yes)",
    "ab" * 100,
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
]

SCRIPTS = [
    "naïve café Ærøskøbing Łódź İstanbul ıI ß ẞ ŉ ǅ",
    "Съешь ещё этих мягких французских булок",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία",
    "שָׁלוֹם עוֹלָם and then مَرْحَبًا بِالعَالَم ١٢٣",
    "नमस्ते दुनिया ক্ষ தமிழ் ไทยไม่มีช่องว่าง ລາວ မြန်မာ ខ្មែរ",
    "灯台守はもう一度階段を数えた。カタカナ ﾊﾝｶｸ 「引用」",
    "灯塔看守人又数了一遍台阶，然后点亮了灯。",
    "등대지기는 다시 계단을 세었다. \u1112\u1161\u11ab\u1100\u1173\u11af",
    "e\u0301 \u00e9 A\u030a \u212b \u0041\u0301\u0328 \u0958 \ufb01 \u1e9b\u0323 o\u0308\u0304",
    "\u0301",
    "\u0301\u0302\u0303 a\u0301\u0302\u0303\u0304\u0305 \u20dd \u0903",
    "🙂 👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 🇳🇴🇯🇵 ☃️ ☃ 1️⃣ #️⃣ 🏴󠁧󠁢󠁳󠁣󠁴󠁿",
    "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘",
    "\u202eright to left\u202c \u2066isolated\u2069 \u200e\u200f\u00ad",
    "𝔉𝔯𝔞𝔨𝔱𝔲𝔯 𝒮𝒸𝓇𝒾𝓅𝓉 ｆｕｌｌｗｉｄｔｈ ⓒⓘⓡⓒⓛⓔ",
    "".join(map(chr, range(0x20))),
    "".join(map(chr, range(0x7F, 0x100))),
]


def category_samples() -> str:
    """Two early characters of each general category, apart and after a letter: pre-tokenizers choose by category."""
    samples: dict[str, list[str]] = {}
    for code in [*range(0xD800), *range(0xE000, 0x11000)]:
        members = samples.setdefault(unicodedata.category(chr(code)), [])
        if len(members) < 2:
            members.append(chr(code))
    del samples["Cn"]  # which of these exist depends on the version of Unicode
    return " ".join(f"{first}{second} a{first}" for first, second in map(lambda m: (m[0], m[-1]), samples.values()))


def planes() -> list[str]:
    """From each of the 17 planes: its ends, and a character or two between them."""
    return [
        f"plane {plane}: " + "".join(chr(plane << 16 | low) for low in (0x21, 0x500, 0x4E01, 0xF900, 0xFFFD, 0xFFFE, 0xFFFF))
        for plane in range(17)
    ]  # fmt: skip


def specials_in_text() -> list[str]:
    texts = list(SPECIALS)
    texts += [f"a {token} b" for token in SPECIALS]
    texts += [f"{token}{token}a" for token in SPECIALS]
    texts += ["<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n", "<|im_st", "<|im_start", "<s", "< s >", "<|eot_id|", "<S>", "<0x0A>"]
    return texts


TEXTS = [*SPACES, *WORDS, *SCRIPTS, category_samples(), *planes(), *specials_in_text()]
