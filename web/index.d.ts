/**
 * Loads the model: from the folder that this file is in, unless told otherwise.
 *
 * Resolves as soon as questions can be asked; the rest of the weights arrives while the first picture is looked at. `model.ready`
 * resolves when all are there.
 *
 * @throws {UnsupportedError} the browser or Node lacks something; {@link capabilities} says what
 * @throws {DownloadError} a file did not arrive or is the wrong one
 * @throws {ArgumentError} an option with an impossible value, or a name that is no option
 * @throws {EngineError} out of memory; weights of another version
 */
export function load(options?: LoadOptions): Promise<Model>;

/** What this browser or Node can do, and what would make it faster. JSON. */
export function capabilities(): Promise<Capabilities>;

/** What is chosen by kind of device where `load` is not told: the largest side, and the share of the device's memory. */
export const profiles: Readonly<Record<"desktop" | "phone", Readonly<{ side: number; share: number; memoryGb: number }>>>;

export interface LoadOptions {
  /** Where the package is served: its folder, ending in `/`. A `file:` URL in Node. Default: beside index.js, or where a bundler put it. */
  url?: string | URL;
  /** Called some 20 times a second at most while files arrive. */
  onProgress?: (progress: Progress) => void;
  /** Ends loading. A loaded model is ended by `close()`. */
  signal?: AbortSignal;
  /** Threads of the team, if there can be any (`capabilities().threads`). Default: by cores. */
  threads?: number;
  /** Pixels of the square that pictures are scaled to, one of `model.sides`. Smaller is faster and sees less. Default: by device. */
  side?: number;
  /** Default: told from the browser. */
  profile?: "desktop" | "phone";
  /** Which code to take. Default: the best one that runs here. */
  variant?: Variant;
  /** Whether to take the code with dot products in one instruction; the answers are the same. Default: `capabilities().dotProduct`. */
  dotProduct?: boolean;
  /** Where weights are kept for the next visit. Default `"auto"`: OPFS, else the Cache API, else nowhere. */
  cache?: CacheChoice;
  /** `false` runs on the page's own thread, in slices of 8 ms. Default `"auto"`: a worker where there can be one. */
  worker?: boolean | "auto";
  /** On the page's own thread, work happens only in `model.step(budgetMs)`. Implies `worker: false`. */
  manual?: boolean;
  /** Decodes picture files where the browser does not, which is in Node; may be used in browsers as well. */
  decode?: Decode;
  /** Pixels of the largest picture that is taken; 64 Mi unless told otherwise. */
  maxPixels?: number;
  /** As of `fetch`, for weights on another origin that wants cookies. Default `"same-origin"`. */
  credentials?: RequestCredentials;
  /** How patiently files are fetched. */
  download?: { retries?: number; backoffMs?: number; stallMs?: number };
}

export type Variant = "simd128" | "relaxed" | "threads";
export type CacheChoice = "auto" | "opfs" | "cache" | "none" | false | { folder: string };
export type Decode = (file: Uint8Array, type: string) => Pixels | Promise<Pixels>;

export interface Progress {
  /** `code`: what the model consists of; `weights`: they arrive; `ready`: all are there. */
  phase: "code" | "weights" | "ready";
  /** Bytes of weights. */
  loaded: number;
  total: number;
  /** From 0 to 1. */
  fraction: number;
  /** With `ready`: everything was kept from an earlier visit. */
  cached: boolean;
  /** With `ready`: why weights could not be kept for the next visit (no room, for one); `null` if they could. */
  storeProblem: string | null;
}

/** Bytes of RGB or RGBA, rows from top to bottom without gaps. */
export interface Pixels {
  data: Uint8Array | Uint8ClampedArray;
  width: number;
  height: number;
}

/** A picture: a file or its bytes, an address, something drawn, pixels, or what `encode` gave. */
export type ImageSource =
  | Blob
  | ArrayBuffer
  | Uint8Array
  | string
  | URL
  | ImageBitmap
  | ImageData
  | HTMLImageElement
  | HTMLCanvasElement
  | OffscreenCanvas
  | HTMLVideoElement
  | VideoFrame
  | Pixels
  | EncodedImage;

export interface Model extends AsyncDisposable {
  readonly name: string;
  readonly info: ModelInfo;
  /** Sides that pictures can be scaled to, ascending. */
  readonly sides: readonly Side[];
  readonly capabilities: Capabilities;
  /** All weights are there and verified; rejects with what hinders it. */
  readonly ready: Promise<void>;
  /** Asks about pictures, in a conversation of its own. Questions are answered one after the other. */
  ask(images: ImageSource | readonly ImageSource[] | null, question: string, options?: AskOptions): Answer;
  ask(question: string, options?: AskOptions): Answer;
  /** Looks at a picture once, for any number of questions. */
  encode(image: Exclude<ImageSource, EncodedImage>, options?: { side?: number; signal?: AbortSignal }): Promise<EncodedImage>;
  /** A conversation; options are for all of its answers. */
  chat(options?: AskOptions): Chat;
  tokenize(text: string): Promise<number[]>;
  /** Tries again what did not arrive, and only that. */
  resume(): Promise<void>;
  /** On the page's own thread: works for about so long; true if there is more to do. */
  step(budgetMs: number): boolean;
  /** Removes the weights from the browser's storage. */
  forget(): Promise<void>;
  /** Ends all work and gives the memory back. */
  close(): Promise<void>;
}

export interface ModelInfo {
  readonly name: string;
  /** Pairs code and weights. */
  readonly digest: string;
  readonly toolVersion: string;
  readonly license: string | null;
  readonly maxContext: number;
  /** How keys and values are kept: as the recipe says that the package was compiled with. */
  readonly kv: "int8" | "f16" | "f32";
  readonly sides: readonly Side[];
  readonly weightBytes: number;
  readonly variant: Variant;
  /** Whether its dot products are one instruction each. */
  readonly dotProduct: boolean;
  readonly threads: number;
  readonly profile: "desktop" | "phone";
  /** The side that pictures are scaled to unless a call says otherwise. */
  readonly side: number;
  /** Most memory that it takes with this side and these threads, weights included. */
  readonly peakBytes: number;
  /** Whether that is within the profile's share of the device's memory. */
  readonly fits: boolean;
  readonly cache: "opfs" | "cache" | "folder" | "none";
  /** Shards of former versions that were removed from storage. */
  readonly staleShardsRemoved: number;
  readonly worker: boolean;
}

export interface Side {
  readonly side: number;
  /** Positions of the context that a picture takes. */
  readonly tokens: number;
  /** Memory with one thread, weights included. */
  readonly peakBytes: number;
}

export interface AskOptions {
  signal?: AbortSignal;
  /** Most tokens of the answer. */
  maxNewTokens?: number;
  /** 0 (greedy, the default) to 100. */
  temperature?: number;
  topK?: number;
  topP?: number;
  repetitionPenalty?: number;
  seed?: number;
  ignoreEos?: boolean;
  /** Most tokens guessed at once; does not change the answer. */
  speculation?: number;
  /** Side for pictures of this question. */
  side?: number;
  onStage?: (stage: Stage) => void;
}

/** Waiting for its turn, decoding the picture's file, looking at it, reading the question, answering. */
export type Stage = "waiting" | "picture" | "vision" | "question" | "answer" | "done";

/**
 * An answer in the making. `for await` gives its pieces, `await` its text. It begins at once; leaving the loop early cancels it. An aborted signal
 * throws the signal's reason.
 */
export interface Answer extends AsyncIterable<string>, PromiseLike<string> {
  /** So far. */
  readonly text: string;
  readonly stage: Stage;
  readonly result: Promise<AnswerResult>;
  /** Ends it with what is there. */
  cancel(): void;
  catch<B = never>(onError?: ((reason: any) => B | PromiseLike<B>) | null): Promise<string | B>;
  finally(onEnd?: (() => void) | null): Promise<string>;
}

export interface AnswerResult {
  text: string;
  /** The model ended it, or a bound did. */
  stop: "end" | "max-tokens" | "context-full" | "cancelled";
  /** Tokens made. */
  tokens: number;
  promptTokens: number;
  /** `null` where it was cancelled before it began. */
  timings: Timings | null;
  /** Of the wasm memory, after the answer. */
  memoryBytes: number | null;
}

/** Of the latest picture and answer. */
export interface Timings {
  preprocessMs: number;
  visionMs: number;
  prefillMs: number;
  /** Positions that were computed for the question. */
  prefillRows: number;
  decodeMs: number;
  decodeSteps: number;
  drafted: number;
  accepted: number;
}

export interface Chat {
  readonly turns: readonly { images: number; question: string; answer: string }[];
  ask(images: ImageSource | readonly ImageSource[] | null, question: string, options?: AskOptions): Answer;
  ask(question: string, options?: AskOptions): Answer;
  /** Begins anew. */
  reset(): void;
  /** Gives back what its pictures take. */
  close(): void;
}

export interface EncodedImage {
  readonly side: number;
  readonly tokens: number;
  readonly timings: Timings;
  /** Gives its memory back, once no conversation needs it. */
  release(): void;
}

export interface Capabilities {
  runtime: "browser" | "node";
  webassembly: boolean;
  simd: boolean;
  relaxedSimd: boolean;
  /** Measured in some milliseconds: the processor has dot products of bytes, and the engine uses them. */
  dotProduct: boolean;
  /** A team of threads can run: shared memory, relaxed SIMD, workers. */
  threads: boolean;
  sharedMemory: boolean;
  crossOriginIsolated: boolean;
  secureContext: boolean;
  worker: boolean;
  cores: number;
  /** Chromium tells it, rounded and bounded; Node tells it. */
  deviceMemoryGb: number | null;
  mobile: boolean;
  opfs: boolean;
  cacheApi: boolean;
  storage: { quotaBytes: number | null; usedBytes: number | null } | null;
  /** The best code that runs here; `null` where none does. */
  variant: Variant | null;
  /** How to enable more, in sentences. */
  advice: string[];
}

/** What all errors of this package have in common. An aborted signal throws its own reason instead. */
export class TvlmError extends Error {
  /** For programs; never changes once published. */
  readonly code: string;
  readonly details: Record<string, unknown>;
}
/** `no-webassembly`, `no-simd`, `no-relaxed-simd`, `no-threads`, `no-variant`, `no-worker`, `no-decoder`, `csp` */
export class UnsupportedError extends TvlmError {}
/** `http-status`, `html-instead`, `wrong-length`, `wrong-digest`, `truncated`, `stalled`, `network`, `no-file`, `not-wasm`, `bad-manifest` */
export class DownloadError extends TvlmError {}
/** `image`, `image-empty`, `image-too-large`, `image-undecodable`, `image-kind`, `image-length`, `image-detached`, `image-tainted`, `image-address` */
export class ImageError extends TvlmError {}
/** `argument`, `prompt-too-long`, `empty-prompt`, `token-out-of-range` */
export class ArgumentError extends TvlmError {}
/**
 * `out-of-memory`, `closed`, `crashed`, `poisoned`; of weights that are not this model's, which the loader's checks come before: `weights-wrong-build`,
 * `weights-truncated`, `weights-overlong`, `not-weights`, `weights-format`, `weights-damaged`, `weights-section`, `tokenizer`; `program`, a bug
 */
export class EngineError extends TvlmError {}
