"""The sandbox: a local stand-in of the iFlytek platform, shipped with the product.

It lets a fresh clone chat, dictate and read pictures without credentials, and lets tests meet every way in which the
real platform answers, or fails to.

**Real**: the protocols, as strict as the documents: signed URLs with the 300 s clock window and the ``Date`` header,
the gateway's 401, 403 and 404 before the upgrade, every Spark path with its domain and limits, image understanding,
both dictation protocols, three picture text services, error codes, frame order, and how connections end. Pictures are
read by RapidOCR and English speech is heard by PocketSphinx where the extra ``aiproject[local]`` is installed;
PocketSphinx is rough, and a sherpa-onnx model named by ``AIPROJECT_SANDBOX_SPEECH_MODEL`` hears better
(`aiproject.sandbox.speech_models` lists the layouts). Both run offline, in a child process each, started by the first
call that needs it.

**Canned**: chat answers, labelled 【沙盒】 or ``[sandbox]``, the same each time for the same question, in its language;
token counts are estimates. Image understanding tells size and hash of the picture. Without an engine, dictation states
the length of the clip and picture text the hash of the file, both labelled.

**Missing**: fine-tuned models, Speex and MP3 audio, billing, daily and per-second limits (order those as faults).

**Faults** are ordered in the last user message, ``[[fault:error code=10014 at=middle]]``, or over HTTP from this
machine::

    curl -X POST http://127.0.0.1:$PORT/sandbox/faults -H 'Content-Type: application/json' \\
         -d '[{"service": "chat", "fault": "error", "code": 11202, "times": 2}]'
    curl http://127.0.0.1:$PORT/sandbox/calls
    curl -X DELETE http://127.0.0.1:$PORT/sandbox/faults

`aiproject.sandbox.faults.FAULTS` is the whole list; ``docs/en/reference/sandbox.md`` explains it.
"""
