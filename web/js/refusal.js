/**
 * What the engine throws.
 *
 * @module
 */

/** A refusal, with a code that stays the same between versions. */
export class EngineError extends Error {
  /** @param {string} code @param {string} message */
  constructor(code, message) {
    super(message);
    this.name = "EngineError";
    this.code = code;
  }
}
