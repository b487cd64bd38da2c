// The frames that a model saw, as small pictures that can be enlarged.

import { h, replace } from "./dom.js";
import { clock, isInside } from "./text.js";

/** Make the pictures of an answer's frames; a click goes there, and enlarges the picture. */
export function framesOf(source, video, answer, onSeek) {
  const truth = answer.evidence_seconds ?? null;
  const buttons = answer.frames.map((frame, index) => {
    const seconds = frame.time_seconds, url = source.pictureUrl(video, seconds);
    const remark = frame.substituted ? ", damaged: another one was shown" : "";
    const isSeen = isInside(seconds, truth);
    return h("button", {
      type: "button", class: isSeen ? "frame inside" : "frame", title: "enlarge",
      "aria-label": `frame at ${clock(seconds)}${remark}${isSeen ? ", inside the annotated time" : ""}`,
      onclick: () => { onSeek(seconds); enlarge(source, video, answer, index); },
    }, url === null ? h("span", { class: "no-picture" }) : h("img", { src: url, alt: "", loading: "lazy", decoding: "async" }),
    h("span", {}, `${clock(seconds)}${remark}`));
  });
  return h("div", { class: "frames" }, buttons);
}

let dialog = null;

/** Show a frame large; the arrows go to the others. */
function enlarge(source, video, answer, index) {
  dialog?.remove();
  let current = index;
  const picture = h("img", { alt: "" }), label = h("output"), frames = answer.frames;
  const show = (next) => {
    current = (next + frames.length) % frames.length;
    const seconds = frames[current].time_seconds;
    const url = source.pictureUrl(video, seconds, 1080);
    picture.hidden = url === null;
    if (url !== null) picture.src = url;
    picture.alt = `frame at ${clock(seconds)}`;
    const png = source.pngUrl(video, seconds);
    replace(label, `${clock(seconds)}, frame ${current + 1} of ${frames.length} `,
      png === null ? null : h("a", { href: png, download: `frame-${seconds}.png` }, "PNG"));
  };
  const step = (by) => () => show(current + by);
  dialog = h("dialog", {
    "aria-label": "an enlarged frame",
    onkeydown: (event) => {
      event.stopPropagation();
      if (event.key === "ArrowLeft") show(current - 1);
      if (event.key === "ArrowRight") show(current + 1);
    },
    onclick: (event) => { if (event.target === dialog || event.target === picture) dialog.close(); },
  }, picture, h("form", { method: "dialog" },
    h("button", { type: "button", "aria-label": "previous frame", onclick: step(-1) }, "\u2190"), label,
    h("button", { type: "button", "aria-label": "next frame", onclick: step(1) }, "\u2192"), h("button", { autofocus: true }, "Close")));
  document.body.append(dialog);
  show(current);
  dialog.showModal();
}
