/**
 * The demo page: a picture, questions about it, answers as they are made.
 */

import { capabilities, load, TvlmError } from "../index.js";
import { offline } from "./offline.js";

/** @template {keyof HTMLElementTagNameMap} K @param {K} tag @param {string} id @returns {HTMLElementTagNameMap[K]} */
function get(tag, id) {
  const found = document.getElementById(id);
  if (found?.localName !== tag) throw new Error(`the page has no <${tag} id="${id}">`);
  return /** @type {HTMLElementTagNameMap[K]} */ (found);
}

const page = {
  drop: get("div", "drop"),
  preview: get("img", "preview"),
  empty: get("div", "empty"),
  file: get("input", "file"),
  log: get("ol", "log"),
  problem: get("p", "problem"),
  loading: get("div", "loading"),
  loadingText: get("label", "loading-text"),
  loadingBytes: get("span", "loading-bytes"),
  bar: get("progress", "bar"),
  load: get("button", "load"),
  form: get("form", "form"),
  question: get("textarea", "question"),
  send: get("button", "send"),
  stop: get("button", "stop"),
  status: get("p", "status"),
  facts: get("dl", "facts"),
  advice: get("ul", "advice"),
  side: get("select", "side"),
  isolate: get("button", "isolate"),
  forget: get("button", "forget"),
  shutter: get("dialog", "shutter"),
  video: get("video", "video"),
};

/** Megabytes that are loaded without being asked for. */
const UNASKED_MB = 30;
const LOADED = "tvlmc-loaded";

/** @typedef {import("../index.js").Model} Model */

/** @type {Promise<Model> | null} */
let loading = null;
/** @type {Model | null} */
let model = null;
/** @type {import("../index.js").Chat | null} */
let chat = null;
/** @type {Blob | null} */
let picture = null;
/** @type {import("../index.js").Answer | null} */
let answer = null;
/** The picture that is being drawn. @type {Promise<void> | null} */
let coming = null;
/** Whether a question is being asked. */
let asking = false;

/** The model; loads it once. */
function ready() {
  loading ??= start().catch((error) => {
    loading = null;
    page.load.hidden = false;
    throw error;
  });
  return loading;
}

async function start() {
  page.load.hidden = true;
  page.loading.hidden = false;
  page.loadingText.textContent = "Loading the model";
  const loaded = await load({ onProgress: showProgress });
  model = loaded;
  remember(LOADED, "yes");
  loaded.ready.then(() => (page.loading.hidden = true), showLateProblem);
  await showFacts();
  return loaded;
}

/** @param {import("../index.js").Progress} progress */
function showProgress({ phase, loaded, total, fraction }) {
  page.bar.value = fraction;
  page.loadingBytes.textContent = total ? `${megabytes(loaded)} of ${megabytes(total)} MB` : "";
  page.loading.hidden = phase === "ready";
}

/** Something broke after questions could be asked: what is missing can be tried again. @param {unknown} error */
function showLateProblem(error) {
  // Closing says so, too.
  if (!model) return;
  page.loading.hidden = true;
  page.load.hidden = false;
  page.load.textContent = "Go on loading the model";
  showProblem(error);
}

page.load.addEventListener("click", async () => {
  showProblem(null);
  page.load.hidden = true;
  try {
    if (!model) {
      await ready();
    } else {
      page.loading.hidden = false;
      await model.resume();
    }
  } catch (error) {
    if (model) showLateProblem(error);
    else showProblem(error);
  }
});

/** @param {unknown} error */
function showProblem(error) {
  page.problem.hidden = error === null;
  if (error === null) return;
  page.loading.hidden = true;
  page.problem.textContent = error instanceof Error ? error.message : String(error);
  if (!(error instanceof TvlmError)) console.error(error);
}

// ---- The picture ----

/** @param {Blob} blob @param {string} name */
function usePicture(blob, name) {
  if (blob.type && !blob.type.startsWith("image/")) {
    showProblem(new Error(`${name || "The file"} is no picture (${blob.type}).`));
    return;
  }
  showProblem(null);
  answer?.cancel();
  chat?.close();
  chat = null;
  picture = blob;
  page.log.replaceChildren();
  page.status.textContent = "";
  if (page.preview.src) URL.revokeObjectURL(page.preview.src);
  page.preview.src = URL.createObjectURL(blob);
  page.preview.alt = `Your picture${name ? `: ${name}` : ""}`;
  page.preview.hidden = false;
  page.empty.hidden = true;
  page.drop.classList.add("filled");
  if (page.load.hidden) ready().catch(showProblem);
}

page.preview.addEventListener("error", () => {
  showProblem(new Error("This browser cannot show the file as a picture."));
});
page.file.addEventListener("change", () => {
  const file = page.file.files?.[0];
  if (file) usePicture(file, file.name);
  // The same file may be chosen again.
  page.file.value = "";
});
addEventListener("paste", (event) => {
  const file = [...(event.clipboardData?.files ?? [])].find((each) => each.type.startsWith("image/"));
  if (!file) return;
  event.preventDefault();
  usePicture(file, "");
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  page.drop.classList.add("over");
});
addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) page.drop.classList.remove("over");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  page.drop.classList.remove("over");
  const file = event.dataTransfer?.files[0];
  if (file) usePicture(file, file.name);
});
page.drop.addEventListener("click", () => page.file.click());

get("button", "sample").addEventListener("click", () => {
  coming = drawExample().then((blob) => usePicture(blob, "an example"), showProblem);
});

/** Shapes on a plain ground. */
function drawExample() {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 512;
  const draw = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  draw.fillStyle = "#e8e2d4";
  draw.fillRect(0, 0, 512, 512);
  draw.fillStyle = "#d22f27";
  draw.beginPath();
  draw.arc(165, 190, 92, 0, 7);
  draw.fill();
  draw.fillStyle = "#2456c6";
  draw.fillRect(282, 272, 165, 165);
  return /** @type {Promise<Blob>} */ (
    new Promise((resolve, reject) => canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("no picture could be drawn"))), "image/png"))
  );
}

// ---- The camera ----

const camera = get("button", "camera");
camera.hidden = !navigator.mediaDevices?.getUserMedia;
camera.addEventListener("click", async () => {
  try {
    page.video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1280 } } });
  } catch (error) {
    showProblem(new Error(`The camera cannot be used: ${/** @type {Error} */ (error).message}`));
    return;
  }
  page.shutter.showModal();
  await page.video.play();
});
get("button", "take").addEventListener("click", async () => {
  const canvas = document.createElement("canvas");
  canvas.width = page.video.videoWidth;
  canvas.height = page.video.videoHeight;
  canvas.getContext("2d")?.drawImage(page.video, 0, 0);
  canvas.toBlob((blob) => blob && usePicture(blob, "from the camera"), "image/png");
  page.shutter.close();
});
get("button", "leave").addEventListener("click", () => page.shutter.close());
page.shutter.addEventListener("close", () => {
  const stream = /** @type {MediaStream | null} */ (page.video.srcObject);
  for (const track of stream?.getTracks() ?? []) track.stop();
  page.video.srcObject = null;
});

// ---- Questions ----

page.form.addEventListener("submit", (event) => {
  event.preventDefault();
  ask(page.question.value);
});
page.question.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  page.form.requestSubmit();
});
get("div", "suggestions").addEventListener("click", (event) => {
  if (event.target instanceof HTMLButtonElement) ask(event.target.textContent ?? "");
});
page.stop.addEventListener("click", () => answer?.cancel());
addEventListener("keydown", (event) => {
  if (event.key === "Escape") answer?.cancel();
});

/** What is shown while nothing is said yet. */
const STAGES = {
  waiting: "Waiting…",
  picture: "Opening the picture…",
  vision: "Looking at the picture…",
  question: "Reading the question…",
  answer: "",
  done: "",
};

/** One question at a time, after the picture that it is about. @param {string} text */
async function ask(text) {
  if (asking) return;
  asking = true;
  try {
    await coming;
    await answerTo(text.trim());
  } finally {
    asking = false;
  }
}

/** @param {string} question */
async function answerTo(question) {
  if (question === "") {
    page.question.focus();
    return;
  }
  if (!picture) {
    showProblem(new Error("Choose a picture first."));
    return;
  }
  showProblem(null);
  page.question.value = "";
  const entry = addEntry(question);
  busy(true);
  try {
    const loaded = model ?? (await ready());
    const first = chat === null;
    chat ??= loaded.chat({ maxNewTokens: 256 });
    answer = chat.ask(first ? picture : null, question, {
      side: Number(page.side.value) || undefined,
      onStage: (stage) => {
        entry.stage.textContent = STAGES[stage];
      },
    });
    for await (const piece of answer) {
      entry.answer.append(piece);
      page.log.scrollTop = page.log.scrollHeight;
    }
    showResult(await answer.result, first);
  } catch (error) {
    if (entry.answer.textContent === "") entry.item.remove();
    if (page.log.children.length === 0) chat = null;
    showProblem(error);
  } finally {
    answer = null;
    entry.stage.textContent = "";
    entry.answer.classList.remove("working");
    entry.item.removeAttribute("aria-busy");
    busy(false);
  }
}

/** @param {string} question */
function addEntry(question) {
  const item = document.createElement("li");
  item.setAttribute("aria-busy", "true");
  const [asked, stage, said] = ["question", "stage", "answer working"].map((name) => {
    const line = document.createElement("p");
    line.className = name;
    return line;
  });
  asked.textContent = question;
  stage.textContent = STAGES.waiting;
  item.append(asked, stage, said);
  page.log.append(item);
  item.scrollIntoView({ block: "nearest" });
  return { item, stage, answer: said };
}

/** @param {boolean} on */
function busy(on) {
  page.send.hidden = on;
  page.stop.hidden = !on;
  page.side.disabled = on || !model;
  if (on) page.status.textContent = "";
}

/** @param {import("../index.js").AnswerResult} result @param {boolean} first */
function showResult({ text, stop, timings, memoryBytes }, first) {
  const parts = [];
  if (timings) {
    if (first) parts.push(`picture ${seconds(timings.preprocessMs + timings.visionMs)}`);
    parts.push(`question ${seconds(timings.prefillMs)}`);
    if (timings.decodeMs > 0) parts.push(`${Math.round((timings.decodeSteps * 1000) / timings.decodeMs)} tokens/s`);
  }
  if (memoryBytes) parts.push(`${megabytes(memoryBytes)} MB memory`);
  if (model) parts.push(backend(model.info));
  if (stop === "max-tokens") parts.push("cut off at 256 tokens");
  if (stop === "context-full") parts.push("the conversation is full: choose a picture to begin anew");
  if (stop === "cancelled") parts.push("stopped");
  page.status.replaceChildren(hidden(`Answer: ${text}. `), parts.join(" · "));
}

/** For screen readers, which hear an answer once and whole. @param {string} text */
function hidden(text) {
  const span = document.createElement("span");
  span.className = "hidden";
  span.textContent = text;
  return span;
}

// ---- Backend and settings ----

async function showFacts() {
  const found = model?.capabilities ?? (await capabilities());
  /** @type {[string, string][]} */
  const facts = [
    ["Code", model ? backend(model.info) : `${found.variant ?? "none"} can run here`],
    ["Processor", `${found.cores} ${found.cores === 1 ? "core" : "cores"}`],
    ["Device memory", found.deviceMemoryGb === null ? "not told" : `${found.deviceMemoryGb} GB or more`],
    ["Relaxed SIMD", found.relaxedSimd ? "yes" : "no"],
    ["Isolated page", found.crossOriginIsolated ? "yes" : "no"],
  ];
  if (model) {
    const kept = { opfs: "private files (OPFS)", cache: "browser cache", folder: "folder", none: "not kept" };
    facts.push(
      ["Runs in", model.info.worker ? "a worker" : "this page's thread"],
      ["Weights", `${megabytes(model.info.weightBytes)} MB, ${kept[model.info.cache]}`],
      ["Memory at most", `${megabytes(model.info.peakBytes)} MB`],
      ["Profile", model.info.profile],
    );
  }
  page.facts.replaceChildren(
    ...facts.map(([name, value]) => {
      const entry = document.createElement("div");
      const term = document.createElement("dt");
      const fact = document.createElement("dd");
      term.textContent = name;
      fact.textContent = value;
      entry.append(term, fact);
      return entry;
    }),
  );
  page.advice.replaceChildren(
    ...found.advice.map((line) => {
      const entry = document.createElement("li");
      entry.textContent = line;
      return entry;
    }),
  );
  page.isolate.hidden = found.crossOriginIsolated || !("serviceWorker" in navigator) || !found.relaxedSimd;
  page.forget.disabled = !model || model.info.cache === "none";
  if (!model || page.side.options.length > 0) return;
  for (const { side, tokens } of model.sides) page.side.add(new Option(`${side} × ${side} pixels, ${tokens} tokens`, String(side), false, side === model.info.side));
  page.side.disabled = false;
}

page.side.addEventListener("change", () => {
  // The picture is looked at again, in a conversation of its own.
  chat?.close();
  chat = null;
});
page.isolate.addEventListener("click", async () => {
  page.isolate.disabled = true;
  try {
    await offline({ isolate: true });
    location.reload();
  } catch (error) {
    showProblem(error);
    page.isolate.disabled = false;
  }
});
page.forget.addEventListener("click", async () => {
  try {
    await model?.forget();
    remember(LOADED, null);
    page.forget.disabled = true;
  } catch (error) {
    showProblem(error);
  }
});

/** @param {import("../index.js").ModelInfo} info */
function backend({ variant, threads, side }) {
  const code = { simd128: "SIMD", relaxed: "relaxed SIMD", threads: "relaxed SIMD" }[variant];
  return `${code}, ${threads} ${threads === 1 ? "thread" : "threads"}, ${Number(page.side.value) || side} px`;
}

/** @param {number} bytes */
function megabytes(bytes) {
  const value = bytes / 1e6;
  return value < 10 ? value.toFixed(1) : String(Math.round(value));
}

/** @param {number} ms */
function seconds(ms) {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

/** Storage may be switched off. @param {string} key @param {string | null} value */
function remember(key, value) {
  try {
    if (value === null) localStorage.removeItem(key);
    else localStorage.setItem(key, value);
  } catch {
    // Then it is asked for again.
  }
}

function wasLoaded() {
  try {
    return localStorage.getItem(LOADED) !== null;
  } catch {
    return false;
  }
}

offline().catch((error) => console.warn(`tvlmc: no use without a network: ${error.message}`));
showFacts().catch(showProblem);
if (Number(document.documentElement.dataset.weightsMb) <= UNASKED_MB || wasLoaded()) ready().catch(showProblem);
else page.load.hidden = false;
