/** Figures of all rounds as one table: medians, and how many times better ours is than the best peer. */

/** @param {number[]} list */
function median(list) {
  const sorted = [...list].sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? Number.NaN;
}

/** What is compared: a name, a figure's key, whether more is better, and how it is shown. */
const ROWS = [
  { what: "image tower, 1024 x 1024", key: "visionMs", show: (/** @type {number} */ v) => `${(v / 1e3).toFixed(2)} s` },
  { what: "the same, first after load", key: "firstVisionMs", show: (/** @type {number} */ v) => `${(v / 1e3).toFixed(2)} s` },
  { what: "prefill of 290", key: "prefillRate", more: true, show: (/** @type {number} */ v) => `${v.toFixed(1)} tokens/s` },
  { what: "decode at 300", key: "decodeRate", more: true, show: (/** @type {number} */ v) => `${v.toFixed(1)} tokens/s` },
  { what: "load, files served locally", key: "loadMs", show: (/** @type {number} */ v) => `${(v / 1e3).toFixed(2)} s` },
  { what: "most resident memory of the tab at 512 x 512", key: "peakBytes512", show: (/** @type {number} */ v) => `${(v / 1e6).toFixed(0)} MB` },
  { what: "of it private, files left out", key: "peakPrivateBytes512", show: (/** @type {number} */ v) => `${(v / 1e6).toFixed(0)} MB` },
  { what: "resident after the answers", key: "nowBytes512", show: (/** @type {number} */ v) => `${(v / 1e6).toFixed(0)} MB` },
  { what: "of it private, files left out", key: "nowPrivateBytes512", show: (/** @type {number} */ v) => `${(v / 1e6).toFixed(0)} MB` },
  { what: "of it WebAssembly's, weights included", key: "memoryBytes512", show: (/** @type {number} */ v) => `${(v / 1e6).toFixed(0)} MB` },
  { what: "most resident memory of the tab", key: "peakBytes", show: (/** @type {number} */ v) => `${(v / 1e6).toFixed(0)} MB` },
  { what: "most private memory of the tab", key: "peakPrivateBytes", show: (/** @type {number} */ v) => `${(v / 1e6).toFixed(0)} MB` },
];

/** @param {any[]} figures */
export function markdown(figures) {
  const lines = ["| work | threads | tvlmc | best peer | times better | others |", "|---|---|---|---|---|---|"];
  const all = [...new Set(figures.map((f) => f.threads))];
  for (const { what, key, more, show } of ROWS) {
    for (const threads of all) {
      const sides = [...new Set(figures.map((f) => f.side))].flatMap((side) => {
        const found = figures.filter((f) => f.side === side && f.threads === threads).flatMap((f) => f[key] ?? []);
        return found.length === 0 ? [] : [{ side, value: median(found) }];
      });
      sides.sort((a, b) => (more ? b.value - a.value : a.value - b.value));
      const own = sides.find((s) => s.side === "tvlmc");
      const [best, ...rest] = sides.filter((s) => s.side !== "tvlmc");
      if (!own) continue;
      if (!best) {
        lines.push(`| ${what} | ${threads} | ${show(own.value)} | | | |`);
        continue;
      }
      const times = more ? own.value / best.value : best.value / own.value;
      const others = rest.map((s) => `${show(s.value)}, ${s.side}`).join("; ");
      lines.push(`| ${what} | ${threads} | ${show(own.value)} | ${show(best.value)}, ${best.side} | ${times.toFixed(2)} | ${others} |`);
    }
  }
  return lines.join("\n");
}
