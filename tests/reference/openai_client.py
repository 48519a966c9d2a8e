"""OpenAI's Python client (`pip install openai`) against the example server `serve`.

    python tests/reference/openai_client.py FOLDER

`FOLDER/serve.json` has `base_url` and `api_key` of a server whose model is the one of
`examples/serve/tests/common`: images have one colour each, by seed and number. It has no queue, and
reads bodies of at most a million bytes. `open_url` is that of such a server without a key. Prints
the names of the cases that passed, as JSON; the first case that fails ends the script.
"""
import asyncio, base64, io, json, pathlib, struct, sys, threading, time, urllib.request, zlib

import openai

case = json.loads((pathlib.Path(sys.argv[1]) / "serve.json").read_text())
client = openai.OpenAI(base_url=case["base_url"], api_key=case["api_key"], max_retries=0)
passed = []


def check(function):
    """Runs a case, and notes that it passed."""
    function()
    passed.append(function.__name__)


def png(width, height, pixels, alpha=True):
    """A PNG of pixels in rows, without a library."""
    channels = 4 if alpha else 3
    rows = b"".join(b"\0" + bytes(v for pixel in pixels[y * width:(y + 1) * width] for v in pixel[:channels])
                    for y in range(height))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 6 if alpha else 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def size_of(data):
    """Width and height of a PNG."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n", data[:16]
    return struct.unpack(">II", data[16:24])


def decoded(image):
    return base64.b64decode(image.b64_json)


def pixels(data):
    """The rows of a PNG, without the settings that its text has."""
    at, rows = 8, b""
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at:at + 8])
        rows += data[at + 8:at + 8 + length] if kind == b"IDAT" else b""
        at += 12 + length
    return zlib.decompress(rows)


opaque = png(16, 8, [(9, 8, 7, 255)] * 128)
hole = png(16, 8, [(0, 0, 0, 0)] * 64 + [(0, 0, 0, 255)] * 64)


def models():
    found = client.models.list().data
    assert [model.id for model in found] == ["squares"], found
    assert client.models.retrieve("squares").object == "model"


def generations_url():
    answer = client.images.generate(prompt="A cat wearing a hat", n=2, size="64x64")
    assert len(answer.data) == 2 and answer.created > 1_700_000_000
    for image in answer.data:
        with urllib.request.urlopen(image.url) as response:
            assert response.headers["content-type"] == "image/png"
            assert size_of(response.read()) == (64, 64)
    assert answer.usage.total_tokens == 0


def generations_base64():
    answer = client.images.generate(model="squares", prompt="a cat", n=3, size="48x32", response_format="b64_json",
                                    quality="low", user="me", extra_body={"seed": 5, "negative_prompt": "a dog"})
    assert [size_of(decoded(image)) for image in answer.data] == [(48, 32)] * 3
    assert answer.size == "48x32" and answer.quality == "low" and answer.background == "opaque"
    again = client.images.generate(prompt="a cat", size="48x32", response_format="b64_json",
                                   extra_body={"seed": 5, "first_image": 2})
    first, _, third = (pixels(decoded(image)) for image in answer.data)
    assert pixels(decoded(again.data[0])) == third != first


def output_formats():
    for name, start in (("png", b"\x89PNG"), ("jpeg", b"\xff\xd8\xff"), ("webp", b"RIFF")):
        answer = client.images.generate(prompt="a cat", output_format=name, response_format="b64_json")
        assert decoded(answer.data[0]).startswith(start) and answer.output_format == name


def edits():
    answer = client.images.edit(image=io.BytesIO(opaque), prompt="a hat", n=2, response_format="b64_json")
    assert [size_of(decoded(image)) for image in answer.data] == [(16, 8)] * 2
    # A list has another name in the form.
    answer = client.images.edit(image=[("a.png", opaque, "image/png")], prompt="a hat", response_format="b64_json")
    assert len(answer.data) == 1


def edits_with_mask():
    whole = client.images.edit(image=opaque, prompt="a hat", response_format="b64_json")
    part = client.images.edit(image=opaque, mask=hole, prompt="a hat", response_format="b64_json")
    assert decoded(whole.data[0]) != decoded(part.data[0])


def edits_without_mask_channel():
    try:
        client.images.edit(image=opaque, mask=png(16, 8, [(0, 0, 0)] * 128, alpha=False), prompt="a hat")
    except openai.BadRequestError as error:
        assert error.param == "mask", error
    else:
        raise AssertionError("a mask without transparency was accepted")


def variations():
    answer = client.images.create_variation(image=opaque, n=2)
    assert len(answer.data) == 2 and answer.data[0].url.startswith("http://127.0.0.1")


def streaming():
    stream = client.images.generate(prompt="a cat", stream=True, partial_images=2, extra_body={"num_inference_steps": 6})
    events = list(stream)
    kinds = [event.type for event in events]
    assert kinds == ["image_generation.partial_image"] * 2 + ["image_generation.completed"], kinds
    assert [event.partial_image_index for event in events[:2]] == [0, 1]
    assert all(size_of(decoded(event)) == (64, 64) for event in events)
    assert events[2].usage.total_tokens == 0 and events[2].output_format == "png"


def streaming_edits():
    stream = client.images.edit(image=opaque, prompt="a hat", stream=True, partial_images=1)
    kinds = [event.type for event in stream]
    assert kinds == ["image_edit.partial_image", "image_edit.completed"], kinds


def raw_answer():
    raw = client.images.with_raw_response.generate(prompt="a cat")
    assert raw.headers["x-request-id"].startswith("req_") and len(raw.parse().data) == 1


def asynchronous():
    async def ask():
        async with openai.AsyncOpenAI(base_url=case["base_url"], api_key=case["api_key"], max_retries=0) as other:
            return await other.images.generate(prompt="a cat", response_format="b64_json")
    assert size_of(decoded(asyncio.run(ask()).data[0])) == (64, 64)


def fails(kind, status, code, param, call):
    """Checks the error of a call: class, status, and all four keys of the object."""
    try:
        call()
    except kind as error:
        assert error.status_code == status and error.code == code and error.param == param, (error, error.param)
        assert set(error.body) == {"message", "type", "param", "code"} and error.request_id.startswith("req_")
        return error
    raise AssertionError("there was no error")


def error_authentication():
    other = client.with_options(api_key="sk-wrong")
    error = fails(openai.AuthenticationError, 401, "invalid_api_key", None, lambda: other.images.generate(prompt="a"))
    assert "sk-wrong" not in str(error)


def error_permission():
    """A page of another site may not use a server without a key."""
    other = client.with_options(base_url=case["open_url"])
    fails(openai.PermissionDeniedError, 403, "origin_not_allowed", None,
          lambda: other.images.generate(prompt="a", extra_headers={"Origin": "https://example.org"}))
    assert len(other.images.generate(prompt="a").data) == 1


def error_invalid_value():
    for param, value in (("n", 0), ("n", 11), ("size", "20x20"), ("size", "big"), ("quality", "best"), ("prompt", " "),
                         ("response_format", "png"), ("background", "transparent"), ("output_compression", 50)):
        arguments = {"prompt": "a", param: value}
        error = fails(openai.BadRequestError, 400, "invalid_value", param, lambda: client.images.generate(**arguments))
        assert error.type == "invalid_request_error"


def error_unknown_parameter():
    fails(openai.BadRequestError, 400, "unknown_parameter", "odd",
          lambda: client.images.generate(prompt="a", extra_body={"odd": 1}))
    fails(openai.BadRequestError, 400, "unknown_parameter", "style",
          lambda: client.images.edit(image=opaque, prompt="a", extra_body={"style": "vivid"}))


def error_missing_parameter():
    fails(openai.BadRequestError, 400, "missing_required_parameter", "prompt",
          lambda: client.post("/images/generations", body={}, cast_to=object))


def error_model_not_found():
    fails(openai.NotFoundError, 404, "model_not_found", "model",
          lambda: client.images.generate(prompt="a", model="gpt-image-1"))
    fails(openai.NotFoundError, 404, "model_not_found", "model", lambda: client.models.retrieve("gpt-image-1"))


def error_not_found():
    fails(openai.NotFoundError, 404, "not_found", None,
          lambda: client.chat.completions.create(model="squares", messages=[]))


def error_method():
    fails(openai.APIStatusError, 405, "method_not_allowed", None,
          lambda: client.get("/images/generations", cast_to=object))


def error_too_large():
    fails(openai.APIStatusError, 413, "request_too_large", None,
          lambda: client.images.edit(image=opaque + bytes(2_000_000), prompt="a"))


def error_content_type():
    fails(openai.APIStatusError, 415, "unsupported_content_type", None,
          lambda: client.post("/images/variations", body={}, cast_to=object))


def error_image():
    for data in (b"<html>", opaque[:len(opaque) // 2]):
        fails(openai.BadRequestError, 400, "invalid_value", "image", lambda: client.images.edit(image=data, prompt="a"))
    small = png(8, 8, [(0, 0, 0, 0)] * 64)
    fails(openai.BadRequestError, 400, "invalid_value", "mask",
          lambda: client.images.edit(image=opaque, mask=small, prompt="a"))


def error_server():
    for prompt in ("fail", "panic"):
        fails(openai.InternalServerError, 500, "server_error", None, lambda: client.images.generate(prompt=prompt))


def error_busy():
    """While one request is made and none may wait, others are refused; the client's own tries succeed."""
    slow = threading.Thread(target=lambda: client.images.generate(prompt="a", extra_body={"num_inference_steps": 100}))
    slow.start()
    time.sleep(0.3)
    error = fails(openai.RateLimitError, 429, "rate_limit_exceeded", None, lambda: client.images.generate(prompt="a"))
    assert 1 <= float(error.response.headers["retry-after"]) <= 120
    # The answer arrives though the server does not want the body.
    fails(openai.RateLimitError, 429, "rate_limit_exceeded", None,
          lambda: client.images.edit(image=opaque + bytes(900_000), prompt="a"))
    answer = client.with_options(max_retries=5).images.generate(prompt="a")
    assert len(answer.data) == 1
    slow.join()


def error_stream():
    fails(openai.BadRequestError, 400, "invalid_value", "size",
          lambda: client.images.generate(prompt="a", size="20x20", stream=True))
    fails(openai.InternalServerError, 500, "server_error", None,
          lambda: client.images.generate(prompt="fail", stream=True))


def error_in_stream():
    """An error after the first step is the last event: the status was sent before."""
    kinds = []
    try:
        for event in client.images.generate(prompt="fail later", stream=True, partial_images=3):
            kinds.append(event.type)
    except openai.APIError as error:
        assert error.code == error.type == "server_error" and error.param is None, error
        assert set(error.body) == {"message", "type", "param", "code"}, error.body
    else:
        raise AssertionError("there was no error")
    assert kinds == ["image_generation.partial_image"], kinds


def hanging_up():
    """A client that leaves frees its place: the next request is made at once."""
    stream = client.images.generate(prompt="a", stream=True, partial_images=1, extra_body={"num_inference_steps": 200})
    stream.close()
    for _ in range(100):
        try:
            client.images.generate(prompt="a")
            return
        except openai.RateLimitError:
            time.sleep(0.02)
    raise AssertionError("the place is not free after two seconds")


for function in (models, generations_url, generations_base64, output_formats, edits, edits_with_mask,
                 edits_without_mask_channel, variations, streaming, streaming_edits, raw_answer, asynchronous,
                 error_authentication, error_permission, error_invalid_value, error_unknown_parameter,
                 error_missing_parameter, error_model_not_found, error_not_found, error_method, error_too_large,
                 error_content_type, error_image, error_server, error_busy, error_stream, error_in_stream, hanging_up):
    check(function)
print(json.dumps({"openai": openai.__version__, "passed": passed}))
