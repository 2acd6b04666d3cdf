/**
 * SHA-256 of bytes, by the platform where it has it, else in plain JavaScript.
 *
 * `crypto.subtle` is missing where a page is no secure context (plain http from another machine), and it takes no shared memory.
 */

const K = new Int32Array([
  0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
  0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
  0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
  0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
  0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
  0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
]);

/** Bytes between two returns to the event loop, about 10 ms of the JavaScript way. */
const SLICE = 1 << 20;

/** The JavaScript way, piece by piece. */
export class Sha256 {
  #state = new Int32Array([
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
  ]);
  #words = new Int32Array(64);
  #block = new Uint8Array(64);
  #filled = 0;
  #bytes = 0;

  /** @param {Uint8Array} bytes */
  update(bytes) {
    this.#bytes += bytes.length;
    let at = 0;
    if (this.#filled > 0) {
      at = Math.min(64 - this.#filled, bytes.length);
      this.#block.set(bytes.subarray(0, at), this.#filled);
      this.#filled += at;
      if (this.#filled < 64) return this;
      this.#compress(this.#block, 0);
      this.#filled = 0;
    }
    for (; at + 64 <= bytes.length; at += 64) this.#compress(bytes, at);
    this.#block.set(bytes.subarray(at), 0);
    this.#filled = bytes.length - at;
    return this;
  }

  /** In lower-case hex. Nothing can be added afterwards. */
  digest() {
    const block = this.#block;
    block[this.#filled++] = 0x80;
    if (this.#filled > 56) {
      block.fill(0, this.#filled);
      this.#compress(block, 0);
      this.#filled = 0;
    }
    block.fill(0, this.#filled);
    const view = new DataView(block.buffer);
    view.setUint32(56, Math.floor(this.#bytes / 0x20000000));
    view.setUint32(60, (this.#bytes << 3) >>> 0);
    this.#compress(block, 0);
    return Array.from(this.#state, (word) => (word >>> 0).toString(16).padStart(8, "0")).join("");
  }

  /**
   * @param {Uint8Array} bytes
   * @param {number} at
   */
  #compress(bytes, at) {
    const w = this.#words;
    for (let i = 0; i < 16; i++, at += 4) {
      w[i] = (bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3];
    }
    for (let i = 16; i < 64; i++) {
      const x = w[i - 15];
      const y = w[i - 2];
      const s0 = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3);
      const s1 = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10);
      w[i] = (w[i - 16] + s0 + w[i - 7] + s1) | 0;
    }
    const state = this.#state;
    let a = state[0];
    let b = state[1];
    let c = state[2];
    let d = state[3];
    let e = state[4];
    let f = state[5];
    let g = state[6];
    let h = state[7];
    for (let i = 0; i < 64; i++) {
      const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
      const t1 = (h + s1 + (g ^ (e & (f ^ g))) + K[i] + w[i]) | 0;
      const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
      const t2 = (s0 + ((a & b) | (c & (a | b)))) | 0;
      h = g;
      g = f;
      f = e;
      e = (d + t1) | 0;
      d = c;
      c = b;
      b = a;
      a = (t1 + t2) | 0;
    }
    state[0] = (state[0] + a) | 0;
    state[1] = (state[1] + b) | 0;
    state[2] = (state[2] + c) | 0;
    state[3] = (state[3] + d) | 0;
    state[4] = (state[4] + e) | 0;
    state[5] = (state[5] + f) | 0;
    state[6] = (state[6] + g) | 0;
    state[7] = (state[7] + h) | 0;
  }
}

/** Digests of one file after another: the platform copies what it is given, and so there is one such copy at a time. */
let queue = Promise.resolve();

/**
 * The digest of bytes, in lower-case hex. They are asked for anew for every piece, since wasm memory moves when it grows.
 *
 * @param {() => Uint8Array} bytes
 * @param {{ subtle?: SubtleCrypto | null, spare?: Spare }} [by]
 * @returns {Promise<string>}
 */
export function sha256(bytes, { subtle = globalThis.crypto?.subtle, spare = new Spare() } = {}) {
  const result = queue.then(() => (subtle ? platform(bytes(), subtle, spare) : plain(bytes)));
  queue = result.then(
    () => {},
    () => {},
  );
  return result;
}

/**
 * Room for a copy of shared memory, which the platform refuses. One serves many digests: a new one for each would wait for its
 * collection.
 */
export class Spare {
  #most;
  /** @type {ArrayBuffer | null} */
  #room = null;

  /** @param {number} [most] bytes of the longest copy */
  constructor(most = 0) {
    this.#most = most;
  }

  /** The bytes themselves, or a copy that is good until the next one. @param {Uint8Array} bytes @returns {Uint8Array<ArrayBuffer>} */
  unshared(bytes) {
    if (bytes.buffer instanceof ArrayBuffer) return /** @type {Uint8Array<ArrayBuffer>} */ (bytes);
    if (!this.#room || this.#room.byteLength < bytes.length) this.#room = new ArrayBuffer(Math.max(bytes.length, this.#most));
    const copy = new Uint8Array(this.#room, 0, bytes.length);
    copy.set(bytes);
    return copy;
  }

  /** Gives the room back at once: what is sent to nobody is nobody's, while what is let go waits for its collection. */
  free() {
    if (!this.#room) return;
    const { port1, port2 } = new MessageChannel();
    port1.postMessage(null, [this.#room]);
    port1.close();
    port2.close();
    this.#room = null;
  }
}

/**
 * @param {Uint8Array} bytes
 * @param {SubtleCrypto} subtle
 * @param {Spare} spare
 */
async function platform(bytes, subtle, spare) {
  const digest = new Uint8Array(await subtle.digest("SHA-256", spare.unshared(bytes)));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** @param {() => Uint8Array} bytes */
async function plain(bytes) {
  const hash = new Sha256();
  const length = bytes().length;
  for (let at = 0; at < length; at += SLICE) {
    hash.update(bytes().subarray(at, at + SLICE));
    await new Promise((resolve) => setTimeout(resolve));
  }
  return hash.digest();
}
