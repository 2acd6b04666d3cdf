/**
 * Where shards are kept for the next visit: the origin's private files (OPFS), the Cache API, a folder in Node, or nowhere.
 *
 * A shard is kept under its SHA-256, so a new version of a model downloads only what changed, and what is kept can be checked against its
 * name. Nothing here is trusted: the loader verifies every shard that it reads. A file that is shorter than its shard is the
 * beginning of a download that broke off, which goes on from there. A record for each package says which shards are its, so that those of
 * its former versions can be removed.
 */

import { pieces } from "./download.js";
import { nodeModule } from "./platform.js";

/**
 * @typedef {object} Entry one shard, there or not
 * @property {number} size bytes that are there
 * @property {(into: () => Uint8Array) => Promise<void>} read all of them, from the first on, into memory that may move meanwhile
 * @property {(chunk: Uint8Array, at: number) => void} write may throw where there is no room
 * @property {() => void} empty
 * @property {(bytes: () => Uint8Array<ArrayBuffer>) => Promise<void>} commit the shard is whole and verified; no shared memory
 * @property {() => void} close
 */

/**
 * @typedef {object} Store
 * @property {"opfs" | "cache" | "folder" | "none"} kind
 * @property {(sha256: string) => Promise<Entry | null>} open null where another tab has it open
 * @property {(sha256: string) => Promise<void>} remove
 * @property {() => Promise<Map<string, PackageRecord>>} records
 * @property {(id: string, record: PackageRecord | null) => Promise<void>} record
 */

/** @typedef {{ digest: string, shards: string[] }} PackageRecord */

const FOLDER = "tvlmc-weights";
const RECORD = ".package.json";

/** @type {Store} */
export const NONE = { kind: "none", open: async () => null, remove: async () => {}, records: async () => new Map(), record: async () => {} };

/**
 * The best store there is, or the one asked for; `NONE` where it cannot be had.
 *
 * @param {import("../index.js").CacheChoice} choice
 * @returns {Promise<Store>}
 */
export async function openStore(choice) {
  const scope = /** @type {any} */ (globalThis);
  const tries = {
    opfs: () => opfs(scope),
    cache: () => cacheApi(scope),
  };
  if (choice === "none" || choice === false) return NONE;
  if (typeof choice === "object") return folder(choice.folder);
  const order = choice === "opfs" || choice === "cache" ? [tries[choice]] : [tries.opfs, tries.cache];
  for (const each of order) {
    try {
      const store = await each();
      if (store) return store;
    } catch {
      // Private windows and strict settings refuse storage altogether; the next one may do.
    }
  }
  return NONE;
}

/**
 * Notes which shards a package has, and removes those of its former versions that no package has any more.
 *
 * @param {Store} store
 * @param {string} id
 * @param {PackageRecord} record
 * @returns {Promise<number>} how many were removed
 */
export async function keepOnly(store, id, record) {
  const records = await store.records();
  const former = records.get(id);
  await store.record(id, record);
  if (!former || former.digest === record.digest) return 0;
  records.set(id, record);
  const used = new Set([...records.values()].flatMap((each) => each.shards));
  const stale = former.shards.filter((sha256) => !used.has(sha256));
  for (const sha256 of stale) await store.remove(sha256);
  return stale.length;
}

/**
 * Removes a package's shards that no other package has.
 *
 * @param {Store} store
 * @param {string} id
 */
export async function forget(store, id) {
  const records = await store.records();
  const own = records.get(id);
  if (!own) return;
  records.delete(id);
  const used = new Set([...records.values()].flatMap((each) => each.shards));
  for (const sha256 of own.shards) if (!used.has(sha256)) await store.remove(sha256);
  await store.record(id, null);
}

/**
 * Private files of the origin, by sync access handles: written where the bytes belong, without a copy. Workers only.
 *
 * @param {any} scope
 * @returns {Promise<Store | null>}
 */
async function opfs(scope) {
  const root = await scope.navigator?.storage?.getDirectory?.();
  if (!root || typeof scope.FileSystemFileHandle?.prototype?.createSyncAccessHandle !== "function") return null;
  if (typeof scope.document !== "undefined") return null;
  const dir = await root.getDirectoryHandle(FOLDER, { create: true });
  return {
    kind: "opfs",
    async open(sha256) {
      const file = await dir.getFileHandle(sha256, { create: true });
      let handle;
      try {
        handle = await file.createSyncAccessHandle();
      } catch {
        return null;
      }
      return files({
        size: handle.getSize(),
        read: (into) => handle.read(into, { at: 0 }),
        write: (chunk, at) => handle.write(chunk, { at }),
        truncate: () => handle.truncate(0),
        flush: () => handle.flush(),
        close: () => handle.close(),
      });
    },
    remove: (sha256) => dir.removeEntry(sha256).catch(() => {}),
    async records() {
      /** @type {Map<string, PackageRecord>} */
      const records = new Map();
      for await (const [name, file] of dir.entries()) {
        if (name.endsWith(RECORD)) addRecord(records, name, await (await file.getFile()).text());
      }
      return records;
    },
    async record(id, record) {
      const name = id + RECORD;
      if (!record) return dir.removeEntry(name).catch(() => {});
      const handle = await (await dir.getFileHandle(name, { create: true })).createSyncAccessHandle();
      try {
        handle.truncate(0);
        handle.write(new TextEncoder().encode(JSON.stringify(record)), { at: 0 });
        handle.flush();
      } finally {
        handle.close();
      }
    },
  };
}

/**
 * A folder of Node's file system.
 *
 * @param {string} path
 * @returns {Promise<Store>}
 */
async function folder(path) {
  const fs = await nodeModule("fs");
  const { join } = await nodeModule("path");
  fs.mkdirSync(path, { recursive: true });
  const open = new Set();
  return {
    kind: "folder",
    async open(sha256) {
      // Two models of one process never write the same file at once; other processes are told apart by the digest alone.
      if (open.has(sha256)) return null;
      const at = join(path, sha256);
      const file = fs.openSync(at, fs.constants.O_RDWR | fs.constants.O_CREAT, 0o644);
      open.add(sha256);
      return files({
        size: fs.fstatSync(file).size,
        read: (into) => fs.readSync(file, into, 0, into.length, 0),
        write: (chunk, at) => fs.writeSync(file, chunk, 0, chunk.length, at),
        truncate: () => fs.ftruncateSync(file, 0),
        flush: () => fs.fdatasyncSync(file),
        close: () => {
          open.delete(sha256);
          fs.closeSync(file);
        },
      });
    },
    remove: async (sha256) => fs.rmSync(join(path, sha256), { force: true }),
    async records() {
      /** @type {Map<string, PackageRecord>} */
      const records = new Map();
      for (const name of fs.readdirSync(path)) {
        if (name.endsWith(RECORD)) addRecord(records, name, fs.readFileSync(join(path, name), "utf8"));
      }
      return records;
    },
    async record(id, record) {
      const at = join(path, id + RECORD);
      if (record) fs.writeFileSync(at, JSON.stringify(record));
      else fs.rmSync(at, { force: true });
    },
  };
}

/**
 * An entry over an open file that takes part in a download byte by byte.
 *
 * @param {{ size: number, read: (into: Uint8Array) => number, write: (chunk: Uint8Array, at: number) => number,
 *   truncate: () => void, flush: () => void, close: () => void }} file
 * @returns {Entry}
 */
function files(file) {
  let closed = false;
  const entry = {
    size: file.size,
    /** @param {() => Uint8Array} room */
    async read(room) {
      const into = room();
      const count = file.read(into);
      if (count !== into.length) throw new Error(`read ${count} of ${into.length} bytes`);
    },
    /** @param {Uint8Array} chunk @param {number} at */
    write(chunk, at) {
      if (at > entry.size) throw new Error(`a hole from byte ${entry.size} to ${at}`);
      const count = file.write(chunk, at);
      if (count !== chunk.length) throw new Error(`wrote ${count} of ${chunk.length} bytes`);
      entry.size = Math.max(entry.size, at + count);
    },
    empty() {
      file.truncate();
      entry.size = 0;
    },
    commit: async () => file.flush(),
    close() {
      if (!closed) file.close();
      closed = true;
    },
  };
  return entry;
}

/**
 * The Cache API: whole shards only. For pages without a worker, and browsers without sync access handles.
 *
 * @param {any} scope
 * @returns {Promise<Store | null>}
 */
async function cacheApi(scope) {
  if (!scope.caches) return null;
  /** @type {Cache} */
  const cache = await scope.caches.open(FOLDER);
  // Never fetched; keys have to be addresses of the web.
  const key = (/** @type {string} */ name) => new URL(`/${FOLDER}/${name}`, scope.location.origin).href;
  return {
    kind: "cache",
    async open(sha256) {
      const found = await cache.match(key(sha256));
      const size = Number(found?.headers.get("content-length") ?? 0);
      /** @type {Entry} */
      const entry = {
        size,
        async read(room) {
          const { read } = pieces(/** @type {Response} */ (found));
          const { length } = room();
          let at = 0;
          for (let next = await read(); !next.done && next.value; next = await read()) {
            if (at + next.value.length > length) throw new Error(`read more than ${length} bytes`);
            room().set(next.value, at);
            at += next.value.length;
          }
          if (at !== length) throw new Error(`read ${at} of ${length} bytes`);
        },
        write() {},
        empty() {
          entry.size = 0;
        },
        async commit(bytes) {
          if (entry.size > 0) return;
          const body = bytes();
          const headers = { "content-type": "application/octet-stream", "content-length": String(body.length) };
          await cache.put(key(sha256), new Response(body, { headers }));
        },
        close() {},
      };
      return entry;
    },
    async remove(sha256) {
      await cache.delete(key(sha256));
    },
    async records() {
      /** @type {Map<string, PackageRecord>} */
      const records = new Map();
      for (const request of await cache.keys()) {
        const name = request.url.slice(request.url.lastIndexOf("/") + 1);
        if (name.endsWith(RECORD)) addRecord(records, name, (await (await cache.match(request))?.text()) ?? "");
      }
      return records;
    },
    async record(id, record) {
      if (record) await cache.put(key(id + RECORD), new Response(JSON.stringify(record)));
      else await cache.delete(key(id + RECORD));
    },
  };
}

/**
 * A record that cannot be read counts as none.
 *
 * @param {Map<string, PackageRecord>} records
 * @param {string} name
 * @param {string} text
 */
function addRecord(records, name, text) {
  try {
    const { digest, shards } = JSON.parse(text);
    const names = Array.isArray(shards) ? shards.filter((each) => /^[0-9a-f]{64}$/.test(each)) : [];
    records.set(name.slice(0, -RECORD.length), { digest: String(digest), shards: names });
  } catch {
    // Removed by whoever writes the record next.
  }
}
