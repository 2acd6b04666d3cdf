/**
 * Every way in which loading a model or asking it can fail.
 *
 * A few classes to catch by, a `code` for programs, which never changes once published, and a message that names the thing, what was
 * expected and found, and what to do. An aborted signal is not among them: then the signal's own reason is thrown, as `fetch` does.
 */

/** What all errors of this package have in common. */
export class TvlmError extends Error {
  /**
   * @param {string} code
   * @param {string} message
   * @param {{ cause?: unknown, details?: Record<string, unknown> }} [more]
   */
  constructor(code, message, more = {}) {
    super(message, more.cause === undefined ? undefined : { cause: more.cause });
    /** For programs; in lower case with hyphens. */
    this.code = code;
    /** Numbers and names of the message, for programs. */
    this.details = more.details ?? {};
  }
}

/** The browser, page or Node lacks something: SIMD, workers, a policy that allows WebAssembly, a decoder of pictures. */
export class UnsupportedError extends TvlmError {}

/** A file of the package did not arrive, or is not what it has to be. */
export class DownloadError extends TvlmError {}

/** A picture that cannot be used. */
export class ImageError extends TvlmError {}

/** An argument with an impossible value, a question that does not fit. */
export class ArgumentError extends TvlmError {}

/** The engine itself: out of memory, wrong or damaged weights, closed, crashed. */
export class EngineError extends TvlmError {}

const CLASSES = { TvlmError, UnsupportedError, DownloadError, ImageError, ArgumentError, EngineError };

// Minifiers rename classes; what users see and what travels between threads stays.
for (const [name, Class] of Object.entries(CLASSES)) {
  Object.defineProperty(Class.prototype, "name", { value: name, writable: true, configurable: true });
}

/**
 * @typedef {{ name: string, code?: string, message: string, details?: Record<string, unknown>, stack?: string }} PlainError
 */

/**
 * An error as it travels between threads.
 *
 * @param {unknown} error
 * @returns {PlainError}
 */
export function toPlain(error) {
  if (error instanceof TvlmError) {
    return { name: error.name, code: error.code, message: error.message, details: error.details };
  }
  if (error instanceof Error || error instanceof DOMException) {
    return { name: error.name, message: error.message, stack: error.stack };
  }
  return { name: "Error", message: String(error) };
}

/**
 * The error that was sent.
 *
 * @param {PlainError} plain
 * @returns {Error}
 */
export function fromPlain(plain) {
  if (plain.code !== undefined) {
    const Class = CLASSES[/** @type {keyof typeof CLASSES} */ (plain.name)] ?? TvlmError;
    return new Class(plain.code, plain.message, { details: plain.details });
  }
  if (plain.name === "AbortError") return abortError(plain.message);
  return new EngineError("crashed", `${plain.name}: ${plain.message}`, { details: { stack: plain.stack } });
}

/** Codes of the runtime that are the caller's to mend, and those about pictures; all others are the engine's. */
const ARGUMENTS = new Set(["argument", "prompt-too-long", "empty-prompt", "token-out-of-range"]);

/**
 * Gives what the engine threw its class.
 *
 * @param {unknown} error
 * @returns {Error}
 */
export function fromEngine(error) {
  if (error instanceof TvlmError || isAbort(error)) return /** @type {Error} */ (error);
  const { code, message } = /** @type {{ code?: unknown, message?: unknown }} */ (error ?? {});
  const text = typeof message === "string" ? message : String(error);
  if (error instanceof RangeError && /memory|allocat/i.test(text)) {
    return new EngineError("out-of-memory", `this engine gives no more memory (${text}): a smaller \`side\`, \`threads: 1\` or fewer tabs need less`, { cause: error });
  }
  if (typeof code !== "string") return new EngineError("crashed", text, { cause: error });
  const Class = ARGUMENTS.has(code) ? ArgumentError : code === "image" ? ImageError : EngineError;
  return new Class(code, text, { cause: error });
}

/**
 * @param {unknown} error
 * @returns {boolean}
 */
export function isAbort(error) {
  return error instanceof Error && error.name === "AbortError";
}

/** @param {string} [message] */
export function abortError(message = "This operation was aborted") {
  return new DOMException(message, "AbortError");
}
