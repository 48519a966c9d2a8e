"""Tokens of texts by tiktoken and transformers with GPT-2's vocabulary; if the two differ, nothing
is written.

    pip install tiktoken transformers
    python gpt2_tokens.py DATA tests/fixtures/text/gpt2-tokens.json

DATA has `gpt2-tokenizer` (`encoder.json`, `vocab.bpe`) and the corpora (see `AIGC_DATA`).

`files`    counts of lines and tokens, and SHA-256 of the tokens (four bytes each, little-endian):
           of the lines one by one, each with its line end and followed by the number 0xffffffff,
           and of the whole file
`planes`   the same of every Unicode character, 65,536 at a time, beside letters, digits, spaces and
           itself
`runs`     the same of repeated texts
`texts`    awkward texts, and their tokens separated by spaces
"""
import hashlib, json, pathlib, shutil, struct, sys, tempfile
import tiktoken, transformers
from tiktoken.load import data_gym_to_mergeable_bpe_ranks

data, out = map(pathlib.Path, sys.argv[1:])
vocabulary, merges = data / "gpt2-tokenizer/encoder.json", data / "gpt2-tokenizer/vocab.bpe"
pattern = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
openai = tiktoken.Encoding("gpt2", pat_str=pattern, special_tokens={"<|endoftext|>": 50256},
                           mergeable_ranks=data_gym_to_mergeable_bpe_ranks(str(merges), str(vocabulary)))
with tempfile.TemporaryDirectory() as directory:
    shutil.copy(vocabulary, f"{directory}/vocab.json"); shutil.copy(merges, f"{directory}/merges.txt")
    other = transformers.GPT2Tokenizer.from_pretrained(directory)


def tokens(text):
    ids = openai.encode(text, allowed_special="all")
    assert ids == other.encode(text, verbose=False), f"tiktoken and transformers differ on {text[:200]!r}"
    assert openai.decode(ids) == text
    return ids


def digest(ids):
    return hashlib.sha256(struct.pack(f"<{len(ids)}I", *ids)).hexdigest()


def corpus(name):
    text = (data / name).read_bytes().decode()
    parts = text.split("\n")
    lines = [tokens(line) for line in [part + "\n" for part in parts[:-1]] + parts[-1:] if line]
    marked, whole = [token for line in lines for token in [*line, 0xFFFFFFFF]], tokens(text)
    print(name, len(lines), "lines", len(marked) - len(lines), "tokens of lines", len(whole), "of the whole")
    return dict(lines=len(lines), tokens_of_lines=len(marked) - len(lines), digest_of_lines=digest(marked), tokens=len(whole), digest=digest(whole))


def plane(number):
    codes = (code for code in range(number << 16, (number + 1) << 16) if not 0xD800 <= code < 0xE000)
    return digest([token for code in codes for token in tokens("a{0}1{0}{0} {0}'s{0} \n".format(chr(code)))])


files = ["wikitext-2/wiki.test.raw.txt", "wikitext-2/wiki.test.tokens.txt", "wikitext-2/wiki.valid.tokens.txt",
         "tiny-shakespeare/input.txt", "chinese-poetry/tangshi300.json"]
texts = [
    "", " ", "  ", "   ", "\t", "\n", "\r\n", "\n\n", "\r\n\r\n", " \n", "\n ", "\t \t", " a", "a ", "  a  ", "a\n b\n\n c \n", "a\r\nb\rc",
    # Contractions, in each case, after each kind of character, and with the other apostrophe.
    "'s 't 're 've 'm 'll 'd", "it's don't they're we've I'm she'll he'd", "IT'S DON'T THEY'RE WE'VE I'M SHE'LL HE'D", "'S'T", "x's1's 's's''s",
    "it\u2019s", "'", "''", "'sa", " 's", "'\u0301s", "o'clock rock'n'roll '90s",
    # Numbers, in several scripts, and characters that resemble digits.
    "0", "007", "3.14159", "1,234,567.89", "-1e-10", "0x1F", "1st2nd", "a1b2c3", "\u0663\u0664\u0665", "\u0967\u0968\u0969", "\u00bd\u00b2\u2167\u3007\u2460",
    "\U0001d7d8\U0001d7d9", "12\u00a0345", "1 2  3   4",
    # Characters of several code points.
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466", "\U0001f3f3\ufe0f\u200d\U0001f308", "\U0001f44d\U0001f3fd", "\U0001f1e9\U0001f1ea\U0001f1eb", "1\ufe0f\u20e3",
    "\u2764\ufe0f\u2764", "e\u0301", "\u00e9", "\u0301", " \u0301", "a\u0301\u0302\u0303\u0304b", "Z\u0351\u036b\u0343\u033a\u032ba", "\u1100\u1161\u11a8", "\uac01", "\u0e01\u0e33", "\u0915\u094d\u0937\u093f",
    # From right to left, and direction marks.
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645", "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd", "a\u202eb\u202cc", "\u200f\u200e", "\u0628\u0650\u0633\u0652\u0645\u0650",
    # No spaces between words.
    "\u4f60\u597d\uff0c\u4e16\u754c\u3002", "\u5e8a\u524d\u660e\u6708\u5149\uff0c\u7591\u662f\u5730\u4e0a\u971c\u3002", "\u3053\u3093\u306b\u3061\u306f\u4e16\u754c", "\uc548\ub155\ud558\uc138\uc694", "\U00020000\U0002a6d6", "\uff21\uff22\uff23\uff11\uff12",
    # Spaces of every width, and zero-width characters.
    "a\u00a0b", "\u00a0", "\u00a0\u00a0 a", "a\u2003b\u2009c\u200ad", "a\u3000b", "a\u2028b\u2029c", "a\u0085b", "a\x0bb\x0cc", "a\u200bb", "a\u200cb\u200dc", "a\u2060b", "\ufeffa", "a\ufeff", "\u180e", "\u1680a", "a\u00adb",
    # Control characters, noncharacters and the replacement character.
    "".join(map(chr, range(32))), "\x00", "\x00\x00a", "\x1b[31mred\x1b[0m", "\x7f\x80\x9f", "\ufffd", "\ufffd\ufffda", "\ud7ff", "\ue000", "\ud7ff\ue000", "\uf8ff", "\ufdd0", "\ufffe", "\uffff",
    "\U0001fffe\U0010ffff", "\U000e0001\U000e0041", "\U00010000", "\u00c3\u00a9", "\u00ef\u00bf\u00bd", "\u00ed\u00a0\u0080", "\u0100\u0120\u010a", "\u0120hello",
    # Special tokens, and strings close to them.
    "<|endoftext|>", "a<|endoftext|>b", " <|endoftext|> ", "<|endoftext|><|endoftext|>", "<|endoftext|", "<|EndOfText|>", "<| endoftext |>", "<s></s>[UNK]", "\u2581a",
    # All together.
    "Hello, world!", "fn main() {\n\tprintln!(\"{:?}\", x_1 += 2);\n}\n", "https://example.org/a?b=c&d=%20#e", "  \t\n  caf\u00e9 na\u00efve \u4e2d\u6587 \u0416\u0443\u043a 42\u00a0% \U0001f600!?...  ", "a\u0301's \u0661's \u4e2d's \U0001f600's",
    "\u00df\u1e9e\u0130\u0131\u01c5\ufb01\u2126", "\u00b5 \u03bc \u2211\u222b\u221e\u2260", "_a__b___", "...---...!!!???", "$\u20ac\u00a3\u20bf",
]
units = ["a", " ", "\n", "\t", "0", "'", "'s", "\u00e9", "\u0301", "\u4e2d", "\U0001f600", "\u200d", "\u00a0", " \n", " a", "a ", "ab1 ", "\r\n", "Aa", "\ufffd", "\x00", "\u0663", "<|endoftext|>"]
assert len(texts) == len(set(texts))


def run(text, times):
    ids = tokens(text * times)
    return dict(text=text, times=times, tokens=len(ids), digest=digest(ids))


case = dict(
    versions=dict(tiktoken=tiktoken.__version__, transformers=transformers.__version__),
    files={name: corpus(name) for name in files}, planes=[plane(number) for number in range(17)],
    runs=[run(text, times) for text in units for times in (2, 3, 17, 4099)],
    texts={text: " ".join(map(str, tokens(text))) for text in texts})
out.write_text(json.dumps(case, indent=1) + "\n")
