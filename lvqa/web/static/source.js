// Where a page gets what it shows: from the server that sent it, or from what was stored beside it.

/** Answers, pictures and videos of a running server. A video whose file is gone has no pictures. */
export class ServerSource {
  #url(video, rest) {
    return video.is_there === false ? null : `/api/videos/${video.id}/${rest}`;
  }

  pictureUrl(video, seconds, height = 135) {
    return this.#url(video, `frame?time=${seconds}&height=${height}`);
  }

  /** The picture that stands in for the player. */
  stillUrl(video, seconds) {
    return this.pictureUrl(video, seconds, 480);
  }

  pngUrl(video, seconds) {
    return this.#url(video, `frame?time=${seconds}&height=1080&form=png`);
  }

  /** All these frames as PNG, in one file. */
  archiveUrl(video, times) {
    return this.#url(video, `frames.zip?times=${times.join(",")}`);
  }

  /** Answers as a page that needs no other file. */
  async page(video, entries) {
    const body = JSON.stringify({ video: video.id, answers: entries.map(({ label, answer }) => ({ label, answer })) });
    const response = await fetch("/api/page", { method: "POST", headers: { "content-type": "application/json" }, body });
    return response.ok ? response.blob() : checked(response);
  }

  mediaUrl(video) {
    return this.#url(video, "media");
  }

  clipUrl(video, start, end, height = 480) {
    return this.#url(video, `clip?start=${start}&end=${end}&height=${height}`);
  }

  /** Call the API. Throws an Error with the server's own line. */
  async call(method, path, body) {
    const headers = body === undefined ? {} : { "content-type": "application/json" };
    return checked(await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) }));
  }

  /** Call the API and hand each of its events to `onEvent`; returns the one with the result. */
  async stream(method, path, body, onEvent, signal) {
    const headers = { accept: "text/event-stream", ...(body === undefined ? {} : { "content-type": "application/json" }) };
    const options = { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body) };
    const response = await fetch(path, options);
    if (!response.ok) await checked(response);
    let result = null;
    for await (const event of eventsOf(response)) {
      if (event.event === "error") throw new Error(event.error.message);
      if (event.event === "done") return result; // the event before it has the result
      result = event;
      onEvent(event);
    }
    throw new Error("the server stopped the work");
  }

  runs() {
    return this.call("GET", "/api/runs");
  }

  questions(run) {
    return this.call("GET", `/api/runs/${encodeURIComponent(run)}/questions`);
  }

  question(run, index) {
    return this.call("GET", `/api/runs/${encodeURIComponent(run)}/questions/${index}`);
  }

  numRows(run) {
    return this.call("GET", `/api/runs/${encodeURIComponent(run)}/size`);
  }

  saveNote(run, key, text) {
    return this.call("PUT", `/api/runs/${encodeURIComponent(run)}/notes`, { key, text });
  }
}

async function checked(response) {
  const content = response.status === 204 ? {} : await response.json().catch(() => null);
  if (response.ok) return content;
  const error = new Error(content?.error?.message ?? `the server answered with status ${response.status}`);
  error.status = response.status;
  throw error;
}

/** Yield the events of a stream: each is one line of JSON. */
async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line.startsWith("data: ")) yield JSON.parse(line.slice(6));
  }
}

/** What was stored as scripts beside a page, or in it: `window.lvqa` holds it. Nothing is fetched. */
export class StoredSource {
  #pictures(video) {
    return window.lvqa.pictures?.[video.id] ?? {};
  }

  pictureUrl(video, seconds) {
    const picture = this.#pictures(video)[seconds];
    return picture === undefined ? null : `data:image/jpeg;base64,${picture}`;
  }

  /** The stored picture that is nearest to a time. */
  stillUrl(video, seconds) {
    const times = Object.keys(this.#pictures(video)).map(Number);
    const nearest = times.sort((a, b) => Math.abs(a - seconds) - Math.abs(b - seconds))[0];
    return nearest === undefined ? null : this.pictureUrl(video, nearest);
  }

  pngUrl() {
    return null;
  }

  archiveUrl() {
    return null;
  }

  mediaUrl(video) {
    return video.media ?? null;
  }

  clipUrl() {
    return null;
  }

  async runs() {
    return { runs: Object.keys(window.lvqa.runs).map((name) => ({ name })) };
  }

  async questions(run) {
    const stored = window.lvqa.runs[run];
    return { ...stored, notes: { ...stored.notes, ...ownNotes(run) } };
  }

  async question(run, index) {
    const { files, videos } = window.lvqa.runs[run];
    await script(files[index]);
    const question = window.lvqa.questions[run][index];
    const pictures = videos[question.video.id]?.pictures;
    if (pictures) await script(pictures);
    return question;
  }

  async numRows(run) {
    return { num_rows: window.lvqa.runs[run].num_rows };
  }

  async saveNote(run, key, text) {
    localStorage.setItem(`lvqa notes ${run}`, JSON.stringify({ ...ownNotes(run), [key]: text }));
  }
}

/** The notes that were written on the stored page itself: they are this browser's. */
function ownNotes(run) {
  return JSON.parse(localStorage.getItem(`lvqa notes ${run}`) ?? "{}");
}

const scripts = new Map();

/** Run a data script that lies beside the page, once. */
function script(path) {
  if (!scripts.has(path)) {
    scripts.set(path, new Promise((resolve, reject) => {
      const element = document.createElement("script");
      element.src = path;
      element.onload = resolve;
      element.onerror = () => reject(new Error(`${path} is not beside this page`));
      document.head.append(element);
    }));
  }
  return scripts.get(path);
}
