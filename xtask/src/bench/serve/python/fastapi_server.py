"""A FastAPI server of an exported network, run by uvicorn.

A forward pass takes less time than asking another thread for it, so it is computed where the request is read, and every
process has a thread of ONNX Runtime.
"""

import json
import os

from fastapi import FastAPI, Request, Response
from network import Network

network = Network(os.environ["BUNDLE"], threads=1)
app = FastAPI()


@app.get("/health")
async def health() -> str:
    """Say that requests are welcome."""
    return "ok"


@app.post("/classify")
async def classify(request: Request) -> Response:
    """Classify the image that the body is."""
    image = network.decode(await request.body())
    answer = network.answer(network.logits(image[None])[0])
    return Response(json.dumps(answer), media_type="application/json")
