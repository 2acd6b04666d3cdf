// Does what a script says in several ways, and prints what each shows.

import { description, file, opened } from "./setup.mjs";

const script = JSON.parse(new TextDecoder().decode(file("script.json")));

/** Ways to bring a job to its end; `piece` is called for the text that comes, and may cancel. */
const ways = {
  async whole(job, piece) {
    for await (const text of job.pieces()) piece(text);
  },
  async run(job, piece) {
    // Cancelling wants pieces as they come.
    if (piece.counts) return ways.whole(job, piece);
    await job.run();
    piece(job.take());
  },
  async slices(job, piece) {
    for (;;) {
      const state = job.step(0);
      if (state === "waiting") throw new Error("all weights are there");
      piece(job.take());
      if (state === "done") return;
    }
  },
  async longSlices(job, piece) {
    if (piece.counts) return ways.slices(job, piece);
    for (let state = "again"; state !== "done"; ) state = job.step(1e6);
    piece(job.take());
  },
};

const refusal = ({ code, message }) => ({ code, message });

async function talk(engine, way) {
  const images = [];
  const shown = [];
  for (const action of script) {
    const asked = (action.images ?? []).map((handle) => images[handle]);
    let text = "";
    const answer = async (job, piece) => {
      await way(job, piece);
      const { tokens, prompt, stop, timings } = job.result;
      const counts = [timings.prefillRows, timings.decodeSteps, timings.drafted, timings.accepted];
      return { text, tokens: [...tokens], prompt: [...prompt], stop, counts, position: engine.position().used };
    };
    const append = (more) => (text += more);
    try {
      switch (action.do) {
        case "image": {
          const { width, height, channels, value, side } = action;
          const pixels = new Uint8Array(width * height * channels);
          for (let i = 0; i < width * height; i++) {
            for (let c = 0; c < channels; c++) pixels[i * channels + c] = value + 7 * i + 50 * c;
          }
          const job = engine.image(pixels, width, height, { side });
          await way(job, append);
          images.push(job.result);
          shown.push({ tokens: job.result.tokens });
          break;
        }
        case "reset":
          engine.reset();
          shown.push({ position: engine.position().used });
          break;
        case "tokenize":
          shown.push({ ids: [...engine.tokenize(action.text)] });
          break;
        case "cancel": {
          const job = engine.ask([], action.text, { maxNewTokens: 50, ignoreEos: true, speculation: 0 });
          let pieces = 0;
          const piece = (more) => {
            text += more;
            pieces += more.length;
            if (pieces >= action.after) job.cancel();
          };
          piece.counts = true;
          shown.push(await answer(job, piece));
          break;
        }
        case "after": {
          const turns = action.turns.map((turn) => ({ ...turn, images: turn.images.map((handle) => images[handle]) }));
          shown.push(await answer(engine.askAfter(turns, asked, action.text, action.options), append));
          break;
        }
        default:
          shown.push(await answer(engine.ask(asked, action.text, action.options), append));
      }
    } catch (error) {
      if (error.code === undefined) throw error;
      shown.push(refusal(error));
    }
  }
  engine.close();
  return shown;
}

const all = {};
for (const [name, way] of Object.entries(ways)) all[name] = await talk(await opened(), way);
// In memory that threads could share.
all.shared = await talk(await opened({ shared: true }), ways.whole);
// Where logits are finished for those who ask, which samplers do.
const weights = file("weights.tvlm");
const model = description(weights);
let finished = 0;
const { steps } = model.phases[5];
Object.defineProperty(model.phases[5], "steps", { get: () => (finished++, steps) });
all.late = await talk(await opened({ model, info: file("info-late.bin") }), ways.slices);
if (finished === 0) throw new Error("no logits were finished");
console.log(JSON.stringify(all));
