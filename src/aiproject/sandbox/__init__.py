"""The sandbox: a local implementation of the iFlytek platform, shipped with the product.

It lets a fresh clone chat, transcribe speech and read pictures without credentials. Tests use it to reproduce every way
in which the real platform answers or fails to answer.

**Implemented**: the protocols, as strictly as the documents define them: signed URLs with the clock window of 300 s and
the ``Date`` header, the gateway's 401, 403 and 404 before the upgrade, every Spark path with its domain and limits,
image understanding, both dictation protocols, three OCR services, error codes, the order of frames, and the way
connections end. Where the extra ``aiproject[local]`` is installed, RapidOCR reads pictures and PocketSphinx transcribes
English speech. PocketSphinx makes many errors; a sherpa-onnx model named by ``AIPROJECT_SANDBOX_SPEECH_MODEL`` is more
accurate (`aiproject.sandbox.speech_models` lists the supported layouts). Each engine works offline in a child process
of its own, which the first call that needs it starts.

**Canned**: chat answers, labelled 【沙盒】 or ``[sandbox]``. The same question always gets the same answer, in its own
language; token counts are estimates. Image understanding reports the size and the hash of the picture. Without an
engine, dictation states the length of the clip and OCR the hash of the file; both texts are labelled.

**Not implemented**: fine-tuned models, Speex and MP3 audio, billing, daily and per-second limits (request those as
faults).

**Faults** are requested in the last user message, ``[[fault:error code=10014 at=middle]]``, or over HTTP from this
machine::

    curl -X POST http://127.0.0.1:$PORT/sandbox/faults -H 'Content-Type: application/json' \\
         -d '[{"service": "chat", "fault": "error", "code": 11202, "times": 2}]'
    curl http://127.0.0.1:$PORT/sandbox/calls
    curl -X DELETE http://127.0.0.1:$PORT/sandbox/faults

`aiproject.sandbox.faults.FAULTS` is the complete list; ``docs/en/reference/sandbox.md`` describes each fault.
"""
