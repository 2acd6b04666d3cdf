/**
 * A question as the runtime reads it: the format is described in runtime-wasm/src/request.rs.
 *
 * @module
 */

import { EngineError } from "./refusal.js";

/** @typedef {import("./engine.js").EngineTurn} EngineTurn */
/** @typedef {import("./engine.js").EngineImage} EngineImage */
/** @typedef {import("./engine.js").AskOptions} AskOptions */

/** Stands for "the conversation goes on" where told turns are counted. */
const GOES_ON = 0xffffffff;

/**
 * The bytes of a question.
 * @param {EngineTurn[] | undefined} turns @param {EngineImage[]} images @param {string} text @param {AskOptions} options
 */
export function encodeRequest(turns, images, text, options) {
  const encoder = new TextEncoder();
  const all = [...(turns ?? []), { images, question: text, answer: "" }].map((turn) => ({
    images: turn.images ?? [],
    texts: [encoder.encode(turn.question), encoder.encode(turn.answer)],
  }));
  const size = all.reduce((sum, { images, texts }) => sum + 4 * images.length + texts[0].length + texts[1].length + 12, 40);
  const bytes = new Uint8Array(size);
  const view = new DataView(bytes.buffer);
  let at = 0;
  /** @param {number} value */
  const number = (value) => {
    view.setUint32(at, value, true);
    at += 4;
  };
  /** @param {number} value */
  const float = (value) => {
    view.setFloat32(at, value, true);
    at += 4;
  };
  number(whole("maxNewTokens", options.maxNewTokens ?? 256));
  number(options.ignoreEos ? 1 : 0);
  number(whole("speculation", options.speculation ?? 255));
  number(whole("topK", options.topK ?? 0));
  float(options.temperature ?? 0);
  float(options.topP ?? 1);
  float(options.repetitionPenalty ?? 1);
  view.setBigUint64(at, BigInt.asUintN(64, BigInt(options.seed ?? 0)), true);
  at += 8;
  number(turns ? turns.length : GOES_ON);
  for (const { images, texts } of all) {
    number(images.length);
    for (const image of images) number(image.handle);
    for (const text of texts) {
      number(text.length);
      bytes.set(text, at);
      at += text.length;
    }
  }
  return bytes;
}

/** A whole number that a word holds. @param {string} name @param {number} value */
function whole(name, value) {
  if (!Number.isInteger(value) || value < 0) throw new EngineError("argument", `${name}: ${value} is no whole number of 0 or more`);
  return Math.min(value, 0x7fffffff);
}
