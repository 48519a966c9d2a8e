"""Files with provenance records, for `aigc_core::output::provenance`: written by Pillow and the
module `wave`, hashed here by the description in its documentation alone.

    pip install pillow
    python provenance.py ../fixtures/eval/provenance
"""
import hashlib, io, json, re, struct, sys, wave
from pathlib import Path
from PIL import Image
from PIL.PngImagePlugin import PngInfo

out = Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
record = {"generator": "reference 1.0", "model": "by hand", "seed": 2**64 - 1, "prompt": "猫 \"é\"\n\x1f\\/", "settings": {"b": 0.1, "a": [1, None, True], "c": [1e-5, 1e-4, 20.0, 1e16]}}
sha = lambda data: "sha256:" + hashlib.sha256(data).hexdigest()


def text(value):
    if isinstance(value, dict):
        return "{" + ",".join(text(key) + ":" + text(value[key]) for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(text, value)) + "]"
    if isinstance(value, float):  # 1e-05 is 1e-5, and 1e+16 is 1e16.
        return re.sub(r"e\+?(-?)0?", r"e\1", repr(value))
    return json.dumps(value, ensure_ascii=False)


def seal(content):
    fields = {"version": 1, "provenance": record, "content_hash": sha(content)}
    return text({**fields, "record_hash": sha(text(fields).encode())})


picture = Image.new("RGB", (9, 7))
picture.putdata([(25 * x, 30 * y, 9 * x * y % 256) for y in range(7) for x in range(9)])


def png(info=None):
    file = io.BytesIO()
    picture.save(file, "png", pnginfo=info)
    return file.getvalue()


def png_content(data):
    at, content = 8, b""
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        if kind not in (b"tEXt", b"zTXt", b"iTXt", b"tIME", b"caBX"):
            content += kind + data[at : at + 4] + data[at + 8 : at + 8 + length]
        at += 12 + length
    return content


for name, packed in [("plain", False), ("packed", True)]:
    info = PngInfo()
    info.add_itxt("aigc-provenance", seal(png_content(png())), zip=packed)
    info.add_text("Title", "by another program", zip=packed)
    (out / f"{name}.png").write_bytes(png(info))

file = io.BytesIO()
with wave.open(file, "wb") as sound:
    sound.setparams((1, 1, 8000, 0, "NONE", None))
    sound.writeframes(bytes(range(101)))
# `wave` writes the chunks `fmt ` and `data`; the data have an odd length.
sound = file.getvalue()
chunk = lambda kind, data: kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
body = sound[12:] + b"\0" * (len(sound) % 2)
body += chunk(b"LIST", b"INFO" + chunk(b"ISFT", b"reference\0")) + chunk(b"LIST", b"other")


def wav_content(body):
    at, content = 0, b""
    while at < len(body):
        kind, length = struct.unpack("<4sI", body[at : at + 8])
        data = body[at + 8 : at + 8 + length]
        if kind not in (b"aigc", b"C2PA", b"JUNK") and (kind != b"LIST" or data[:4] not in (b"INFO", b"adtl")):
            content += body[at : at + 8] + data
        at += 8 + length + length % 2
    return content


body += chunk(b"aigc", seal(wav_content(body)).encode())
(out / "sound.wav").write_bytes(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body)

file = io.BytesIO()
frames = [picture.quantize(8), picture.rotate(180).quantize(8)]
frames[0].save(file, "gif", save_all=True, append_images=frames[1:], duration=80, loop=0)
gif = file.getvalue()
data = seal(gif[6:]).encode()
blocks = b"".join(bytes([len(data[i : i + 255])]) + data[i : i + 255] for i in range(0, len(data), 255))
(out / "animation.gif").write_bytes(b"GIF89a" + gif[6:-1] + b"\x21\xff\x0bAIGCPROV1.0" + blocks + b"\0\x3b")
