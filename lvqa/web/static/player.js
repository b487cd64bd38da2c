// A video that can be sought: the file itself, or what stands in for it where the browser can't play the file.

import { h } from "./dom.js";
import { clock } from "./text.js";

const WINDOW_SECONDS = 30; // of a preview that the server makes, one such part at a time
const STEP_SECONDS = 5;
const NOT_PLAYED = "The video can't be played here: it is shown frame by frame.";

/** Plays the file; if the browser can't, a preview that the server encodes; without a server, single pictures. */
export class Player {
  #source;
  #onTime;
  #video = null;
  #mode = "file";
  #offset = 0; // where the part that is loaded begins in the video
  #wanted = null; // a time to go to when the file is ready
  #end = null; // where the clip that plays ends
  #seconds = 0;

  constructor(source, onTime) {
    this.#source = source;
    this.#onTime = onTime;
    this.screen = h("video", { controls: true, playsinline: true, preload: "metadata", tabindex: "0", "aria-label": "video" });
    this.picture = h("img", { class: "screen", alt: "", hidden: true });
    this.note = h("p", { class: "small note", role: "status" });
    this.button = h("button", { type: "button", onclick: () => this.toggle() }, "Play");
    this.label = h("output", { class: "time" }, "0:00");
    const step = (seconds) => () => this.seek(this.#seconds + seconds);
    this.element = h("div", { class: "player" }, this.screen, this.picture, h("div", { class: "controls" },
      this.button,
      h("button", { type: "button", onclick: step(-1), "aria-label": "one second back" }, "-1 s"),
      h("button", { type: "button", onclick: step(1), "aria-label": "one second on" }, "+1 s"),
      this.label), this.note);
    const listen = (name, listener) => this.screen.addEventListener(name, listener);
    listen("loadedmetadata", () => this.#onReady());
    listen("error", () => this.#fallBack());
    listen("timeupdate", () => this.#onMoved());
    listen("play", () => { this.button.textContent = "Pause"; });
    listen("pause", () => { this.button.textContent = "Play"; });
    listen("ended", () => this.#onEnded());
  }

  get seconds() {
    return this.#seconds;
  }

  /** What is played: "file", "preview" or "pictures". */
  get mode() {
    return this.#mode;
  }

  open(video) {
    if (this.#video !== null && this.#video.id === video.id) return;
    [this.#video, this.#offset, this.#wanted, this.#end] = [video, 0, null, null];
    this.note.textContent = "";
    this.element.dataset.mode = this.#mode = "file";
    this.screen.hidden = false;
    this.screen.controls = this.picture.hidden = true;
    const url = this.#source.mediaUrl(video);
    if (url === null) this.#showPictures("The video is not beside this page: its stored pictures are shown.");
    else this.screen.src = url;
    this.#tell(0);
  }

  /** Go to a time, and leave the clip that played. */
  seek(seconds) {
    this.#end = null;
    this.#goTo(seconds);
  }

  /** Play from one time to another. */
  play(start, end) {
    this.#goTo(start, true);
    this.#end = end;
  }

  toggle() {
    if (this.#mode === "pictures") this.seek(this.#seconds + 1);
    else if (this.screen.paused) this.#start();
    else this.screen.pause();
  }

  /** React to a key of the page; returns whether it means something here. */
  onKey(key) {
    if (key === " ") this.toggle();
    else if (key === "ArrowLeft") this.seek(this.#seconds - STEP_SECONDS);
    else if (key === "ArrowRight") this.seek(this.#seconds + STEP_SECONDS);
    else return false;
    return true;
  }

  #start() {
    this.screen.play().catch(() => {}); // it was paused or replaced meanwhile, or an error event says why
  }

  #goTo(seconds, plays = false) {
    seconds = Math.min(Math.max(0, seconds), this.#video.duration_seconds);
    this.#tell(seconds);
    if (this.#mode === "pictures") return this.#drawPicture();
    if (this.#mode === "preview" && !(this.#offset <= seconds && seconds < this.#offset + WINDOW_SECONDS)) {
      return this.#loadWindow(seconds, plays);
    }
    if (this.screen.readyState === 0) this.#wanted = seconds;
    else this.screen.currentTime = seconds - this.#offset;
    if (plays) this.#start();
  }

  #tell(seconds) {
    this.#seconds = seconds;
    this.label.textContent = `${clock(seconds)} / ${clock(this.#video.duration_seconds)}`;
    this.#onTime(seconds);
  }

  #onReady() {
    if (this.screen.videoWidth === 0) return this.#fallBack(); // it plays the sound alone
    if (this.#mode === "preview") this.note.textContent = "This browser can't play the file: a preview is made, 30 seconds at a time.";
    if (this.#wanted !== null) this.screen.currentTime = this.#wanted - this.#offset;
    this.#wanted = null;
  }

  #onMoved() {
    if (this.#wanted !== null || this.screen.seeking) return;
    const seconds = this.#offset + this.screen.currentTime;
    if (this.#end !== null && seconds >= this.#end) {
      this.#end = null;
      this.screen.pause();
    }
    this.#tell(seconds);
  }

  #onEnded() {
    const next = this.#offset + WINDOW_SECONDS;
    if (this.#mode !== "preview" || next >= this.#video.duration_seconds) return;
    this.#loadWindow(next, true);
  }

  #fallBack() {
    if (this.screen.getAttribute("src") === null) return;
    const seconds = this.#wanted ?? this.#seconds, isPlaying = this.#end !== null;
    const canPreview = this.#mode === "file" && this.#source.clipUrl(this.#video, 0, 1) !== null;
    if (!canPreview) return this.#showPictures(NOT_PLAYED);
    this.element.dataset.mode = this.#mode = "preview";
    this.screen.controls = false; // they would tell the preview's time
    this.#loadWindow(seconds, isPlaying);
  }

  /** Have the part of the preview made that has this time. It is fetched whole: a player can then seek in it. */
  async #loadWindow(seconds, plays) {
    const video = this.#video, offset = Math.floor(seconds / WINDOW_SECONDS) * WINDOW_SECONDS;
    [this.#offset, this.#wanted] = [offset, seconds];
    this.note.textContent = "This browser can't play the file: a preview is being made.";
    const response = await fetch(this.#source.clipUrl(video, offset, Math.min(offset + WINDOW_SECONDS, video.duration_seconds)));
    if (video !== this.#video || offset !== this.#offset) return; // another part is wanted by now
    if (!response.ok) return this.#showPictures(NOT_PLAYED);
    URL.revokeObjectURL(this.screen.src);
    this.screen.src = URL.createObjectURL(await response.blob());
    if (plays) this.#start();
  }

  #showPictures(note) {
    this.element.dataset.mode = this.#mode = "pictures";
    this.screen.removeAttribute("src");
    this.screen.hidden = true;
    this.button.textContent = "Next frame";
    this.note.textContent = note;
    this.#drawPicture();
  }

  #drawPicture() {
    const url = this.#source.stillUrl(this.#video, this.#seconds);
    if (url !== null) this.picture.src = url;
    this.picture.alt = `frame at ${clock(this.#seconds)}`;
    this.picture.hidden = this.picture.getAttribute("src") === null;
  }
}
