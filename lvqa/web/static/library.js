// The library: the videos of a server, what is indexed, and a search over all.

import { h, replace } from "./dom.js";
import { ServerSource } from "./source.js";
import { clock, counted, scoresText, spanText } from "./text.js";

const NUM_HITS = 12;

class LibraryPage {
  #source = new ServerSource();
  #jobs = new Map(); // video id -> what its card shows of its indexing

  async start(root) {
    this.query = h("input", { type: "search", placeholder: "Search all indexed videos", "aria-label": "search" });
    this.hits = h("div", { class: "cards", "aria-live": "polite" });
    this.path = h("input", { type: "text", placeholder: "/path/of/a/video.mp4", "aria-label": "path of a video on the server" });
    this.file = h("input", { type: "file", accept: "video/*,.mkv,.avi,.ts", multiple: true, hidden: true, onchange: () => this.#upload([...this.file.files]) });
    this.status = h("p", { class: "status", role: "status" });
    this.list = h("div", { class: "cards videos" });
    this.failures = h("div");
    const submit = (work) => (event) => { event.preventDefault(); this.#try(work); };
    replace(root,
      h("form", { class: "row search", role: "search", onsubmit: submit(() => this.#search()) }, this.query, h("button", { class: "primary" }, "Search")),
      this.status, this.hits,
      h("div", { class: "row add" },
        h("button", { type: "button", onclick: () => this.file.click() }, "Upload videos"), this.file, h("span", { class: "small" }, "or drop them here, or"),
        h("form", { class: "row", onsubmit: submit(() => this.#addPath()) }, this.path, h("button", {}, "Add by path"))),
      this.list, this.failures);
    root.addEventListener("dragover", (event) => { event.preventDefault(); root.classList.add("dropping"); });
    root.addEventListener("dragleave", () => root.classList.remove("dropping"));
    root.addEventListener("drop", (event) => {
      event.preventDefault();
      root.classList.remove("dropping");
      this.#upload([...event.dataTransfer.files]);
    });
    await this.#refresh();
    const { jobs } = await this.#source.call("GET", "/api/jobs");
    for (const job of jobs) if (job.kind === "index" && ["waiting", "running"].includes(job.state)) this.#follow(job.video, job.job);
  }

  async #try(work) {
    this.status.classList.remove("warning");
    this.status.textContent = "";
    try {
      await work();
    } catch (error) {
      this.status.classList.add("warning");
      this.status.textContent = error.message;
    }
  }

  async #refresh() {
    const { videos, failures } = await this.#source.call("GET", "/api/videos");
    replace(this.list, videos.map((video) => this.#card(video)));
    if (!videos.length) replace(this.list, h("p", {}, "There is no video yet. Upload one, or name a folder: lvqa serve videos/"));
    replace(this.failures, failures.map(({ path, error }) => h("p", { class: "warning" }, error.includes(path) ? error : `${path}: ${error}`)));
  }

  #card(video) {
    const address = `/videos/${video.id}`, progress = h("div", { class: "indexing", role: "status" });
    this.#jobs.set(video.id, progress);
    this.#drawIndexed(video, progress);
    return h("article", { class: "card" },
      h("a", { class: "card-play", href: address },
        h("span", { class: "card-pictures" }, h("img", { src: `/api/videos/${video.id}/thumbnail`, alt: "", loading: "lazy" })), h("strong", {}, video.name)),
      h("p", { class: "small" }, `${clock(video.duration_seconds)}, ${video.width} x ${video.height}`, video.is_there ? null : ", the file is gone"),
      video.warnings.map((warning) => h("p", { class: "warning small" }, warning)), progress,
      h("p", {}, h("button", { type: "button", class: "plain small", onclick: () => this.#remove(video) }, video.is_upload ? "Delete" : "Forget")));
  }

  #drawIndexed(video, progress) {
    replace(progress, video.is_indexed ? h("span", { class: "small" }, "indexed")
      : h("button", { type: "button", onclick: () => this.#try(() => this.#index(video.id)) }, "Index"));
  }

  async #index(videoId) {
    const { job } = await this.#source.call("POST", `/api/videos/${videoId}/index`);
    this.#follow(videoId, job);
  }

  /** Show how far the indexing of a video is. */
  #follow(videoId, job) {
    const progress = this.#jobs.get(videoId);
    if (progress === undefined) return;
    const bar = h("progress", { "aria-label": "indexing" }), label = h("span", { class: "small" }, "waiting");
    replace(progress, bar, label, h("button", { type: "button", onclick: () => this.#source.call("DELETE", `/api/jobs/${job}`) }, "Stop"));
    this.#try(async () => {
      try {
        await this.#source.stream("GET", `/api/jobs/${job}/events`, undefined, (event) => {
          if (event.event !== "indexing") return;
          [bar.max, bar.value, label.textContent] = [event.total, event.done, `${event.done} of ${event.total}`];
        });
      } finally {
        this.#drawIndexed(await this.#source.call("GET", `/api/videos/${videoId}`), progress);
      }
    });
  }

  async #remove(video) {
    const question = video.is_upload ? `Delete ${video.name} and its index?` : `Forget ${video.name} and its index? The file stays.`;
    if (!confirm(question)) return;
    await this.#try(async () => {
      await this.#source.call("DELETE", `/api/videos/${video.id}`);
      await this.#refresh();
    });
  }

  async #addPath() {
    await this.#source.call("POST", "/api/videos", { path: this.path.value });
    this.path.value = "";
    await this.#refresh();
  }

  async #upload(files) {
    for (const file of files) {
      await this.#try(async () => {
        await send(file, (share) => { this.status.textContent = `${file.name}: ${Math.round(100 * share)}% sent`; });
        this.status.textContent = `${file.name} is there`;
      });
    }
    await this.#refresh();
  }

  async #search() {
    const query = this.query.value.trim();
    if (!query) return replace(this.hits);
    this.status.textContent = "searching";
    const { results, warnings } = await this.#source.call("POST", "/api/search", { library: true, query, top: NUM_HITS });
    this.status.textContent = `${counted(results.length, "moment")} for "${query}"${warnings.length ? `; ${warnings.join("; ")}` : ""}`;
    replace(this.hits, results.map((hit) => this.#hit(hit)));
  }

  #hit(hit) {
    const video = { id: hit.video_id }, name = hit.path?.split("/").pop() ?? hit.video_id;
    const middle = Math.floor((hit.start_seconds + hit.end_seconds) / 2);
    const picture = h("span", { class: "card-pictures" }, h("img", { src: this.#source.pictureUrl(video, middle), alt: "", loading: "lazy" }));
    const play = () => picture.replaceChildren(h("video", { src: this.#source.clipUrl(video, hit.start_seconds, hit.end_seconds), controls: true, autoplay: true, playsinline: true }));
    return h("article", { class: "card" },
      h("button", { type: "button", class: "card-play", "aria-label": `play ${name}, ${spanText(hit)}`, onclick: play }, picture, h("strong", {}, `${name}, ${spanText(hit)}`)),
      h("p", { class: "small" }, scoresText(hit)), h("a", { class: "small", href: `/videos/${hit.video_id}#t=${hit.start_seconds}` }, "open the video here"));
  }
}

/** Send a file; `onProgress` is called with the share that was sent. */
function send(file, onProgress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PUT", `/api/uploads/${encodeURIComponent(file.name)}`);
    request.upload.onprogress = (event) => onProgress(event.loaded / event.total);
    request.onload = () => {
      if (request.status < 300) return resolve();
      reject(new Error(JSON.parse(request.responseText).error.message));
    };
    request.onerror = () => reject(new Error(`${file.name}: the server can't be reached`));
    request.send(file);
  });
}

/** Fill the page of the library. */
export function startLibrary(root) {
  return new LibraryPage().start(root);
}
