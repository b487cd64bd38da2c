// The times of an answer in the forms that other programs read.

import { spanText } from "./text.js";

const EDL_RATE = 25; // the time base of the list; its times are seconds of the video all the same

function two(number) {
  return String(number).padStart(2, "0");
}

/** A time as subtitles have it: "00:12:05,250". */
function subtitleTime(seconds) {
  const thousandths = Math.round(1000 * seconds), whole = Math.floor(thousandths / 1000);
  return `${two(Math.floor(whole / 3600))}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)},${String(thousandths % 1000).padStart(3, "0")}`;
}

/** A time as an edit list has it: "00:12:05:06", the last number a frame. */
function editTime(seconds) {
  const frames = Math.round(EDL_RATE * seconds), whole = Math.floor(frames / EDL_RATE);
  return `${two(Math.floor(whole / 3600))}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}:${two(frames % EDL_RATE)}`;
}

function quoted(value) {
  const text = String(value ?? "");
  return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

export function toCsv(rows) {
  return rows.map((row) => row.map(quoted).join(",") + "\n").join("");
}

/** The clips of the evidence that the model saw, in the order of time. */
function clipsOf(answer) {
  return answer.evidence.filter((clip) => clip.frames.length).sort((a, b) => a.start_seconds - b.start_seconds);
}

/** The clips with their scores; of an answer that searched for none, its frames. */
export function timesAsCsv(answer) {
  if (!answer.evidence.length) return toCsv([["frame_seconds"], ...answer.frames.map((frame) => [frame.time_seconds])]);
  const rows = answer.evidence.map((clip, index) =>
    [index + 1, clip.start_seconds, clip.end_seconds, clip.embed_score, clip.rerank_score, clip.frames.join(" ")]);
  return toCsv([["rank", "start_seconds", "end_seconds", "embed_score", "rerank_score", "frames_seconds"], ...rows]);
}

export function timesAsSrt(answer) {
  return clipsOf(answer).map((clip, index) =>
    `${index + 1}\n${subtitleTime(clip.start_seconds)} --> ${subtitleTime(clip.end_seconds)}\n${answer.question}\n${spanText(clip)}\n\n`).join("");
}

/** A list of cuts in the form CMX 3600: the clips one after the other. */
export function timesAsEdl(answer, video) {
  let at = 0;
  const lines = [`TITLE: ${answer.question.slice(0, 60)}`, "FCM: NON-DROP FRAME", ""];
  clipsOf(answer).forEach((clip, index) => {
    const length = clip.end_seconds - clip.start_seconds;
    const times = [clip.start_seconds, clip.end_seconds, at, at + length].map(editTime).join(" ");
    lines.push(`${String(index + 1).padStart(3, "0")}  AX       V     C        ${times}`, `* FROM CLIP NAME: ${video.name}`, "");
    at += length;
  });
  return lines.join("\n");
}
