"""The MCP server against the SDK's own client: over stdin and stdout in a real process, and over HTTP."""

import asyncio
import base64
import os
import sys
from io import BytesIO
from pathlib import Path

import httpx2
import pytest
from mcp import Client, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from PIL import Image
from pipelines import make_pipeline
from servers import call, running_server

TOOLS = {"list_videos", "index_video", "search", "ask", "evidence_frames"}
OPTIONS = ["a red ball", "a blue box"]


@pytest.fixture(scope="module")
def videos(synthetic_video) -> Path:
    return synthetic_video().parent


@pytest.fixture(scope="module")
def outside(synthetic_video) -> Path:
    return synthetic_video(seed=12)


async def use_all_tools(transport, outside: Path) -> dict[str, object]:
    """Call every tool as a client does, and return what came back."""
    progress = []

    async def on_progress(step: float, total: float | None, message: str | None) -> None:
        progress.append((step, message))

    async with Client(transport) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        (video,) = (await client.call_tool("list_videos")).structured_content["videos"]
        indexed = await client.call_tool("index_video", {"video": video["id"]}, progress_callback=on_progress)
        hits = await client.call_tool("search", {"query": "a red ball", "video": video["path"], "top": 2})
        question = {"question": "What is there?", "options": OPTIONS}
        answer = await client.call_tool("ask", {**question, "video": video["id"], "frames": 4})
        of_library = await client.call_tool("ask", question)
        times = [frame["time_seconds"] for frame in answer.structured_content["frames"]]
        pictures = await client.call_tool("evidence_frames", {"video": video["id"], "times_seconds": times[:2]})
        refused = [
            await client.call_tool("ask", {"question": "What is it?", "video": str(outside)}),
            await client.call_tool("ask", {"question": "What is it?", "video": f"{video['path']}/../../../etc/passwd"}),
            await client.call_tool("evidence_frames", {"video": video["id"], "times_seconds": [1e6]}),
            await client.call_tool("search", {"query": "x", "video": video["id"], "top": 0}),
        ]
    assert not any(result.is_error for result in (indexed, hits, answer, of_library, pictures))
    return {
        "tools": tools,
        "video": video,
        "progress": progress,
        "hits": hits.structured_content["results"],
        "answer": answer.structured_content,
        "of_library": of_library.structured_content,
        "times": times,
        "pictures": pictures.content,
        "refused": refused,
    }


def check(results: dict[str, object], tiny, store: Path) -> None:
    """Check what came back against the pipeline itself."""
    assert results["tools"].keys() == TOOLS
    for tool in results["tools"].values():
        assert tool.description and all("description" in x for x in tool.input_schema["properties"].values())
    path = results["video"]["path"]
    expected = make_pipeline(tiny, store).ask(path, "What is there?", options=OPTIONS, frames=4)
    answer = results["answer"]
    assert (answer["answer"], answer["option"]) == (expected.text, expected.option)
    assert answer["option_scores"] == pytest.approx(expected.option_scores, abs=1e-5)
    assert results["times"] == list(expected.frames)
    assert results["of_library"]["video"]["path"] == path
    assert len(results["hits"]) == 2
    steps = [step for step, _ in results["progress"]]
    assert steps == sorted(set(steps)) and any("indexing" in message for _, message in results["progress"])
    texts, pictures = results["pictures"][::2], results["pictures"][1::2]
    assert [text.text.split()[0] for text in texts] == [f"{seconds:g}" for seconds in results["times"][:2]]
    for picture in pictures:
        assert picture.mime_type == "image/jpeg"
        assert Image.open(BytesIO(base64.b64decode(picture.data))).height <= 360
    assert all(result.is_error for result in results["refused"])
    lines = [result.content[0].text for result in results["refused"]]
    assert ["folders that are served" in line for line in lines[:2]] == [True, True]
    assert "the video ends at" in lines[2]


@pytest.mark.slow
def test_the_sdks_client_calls_all_tools_over_stdio(tiny, videos, outside, store, tmp_path):
    """stdout belongs to the protocol: the client would fail at anything else there."""
    arguments = ["-m", "lvqa.cli", "mcp", str(videos), "--model", "tiny", "--store", str(store)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    server = StdioServerParameters(command=sys.executable, args=arguments, env=environment)
    with (tmp_path / "stderr").open("w+", encoding="utf-8") as errors:
        results = asyncio.run(use_all_tools(stdio_client(server, errlog=errors), outside))
        errors.seek(0)
        assert "Traceback" not in errors.read()
    check(results, tiny, store)


@pytest.mark.slow
def test_the_sdks_client_calls_all_tools_over_http(tiny, videos, outside, store):
    token = "a token of 24 characters"

    async def use(url: str) -> dict[str, object]:
        async with httpx2.AsyncClient(headers={"authorization": f"Bearer {token}"}) as client:
            return await use_all_tools(streamable_http_client(f"{url}/mcp", http_client=client), outside)

    with running_server(tiny, store, videos, token=token) as url:
        assert call(url, "POST", "/mcp", {})[0] == 401
        assert call(url, "POST", "/mcp", {}, authorization=f"Bearer {token}", host="evil.example")[0] == 403
        results = asyncio.run(use(url))
    check(results, tiny, store)


@pytest.mark.slow
def test_a_model_that_is_not_there_is_said_by_every_tool(videos, store):
    arguments = ["-m", "lvqa.cli", "mcp", str(videos), "--model", "/nowhere", "--store", str(store)]
    server = StdioServerParameters(command=sys.executable, args=arguments, env=dict(os.environ))

    async def list_videos():
        async with Client(stdio_client(server)) as client:
            return await client.call_tool("list_videos")

    result = asyncio.run(list_videos())
    assert result.is_error
    assert "/nowhere" in result.content[0].text
