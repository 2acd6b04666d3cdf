/** How the package is used from TypeScript; lines that must not type-check say so. */

import { ArgumentError, capabilities, DownloadError, load, profiles, TvlmError, type EncodedImage, type Model, type Progress } from "./index.js";

export async function usage(file: File, canvas: HTMLCanvasElement, out: HTMLElement, signal: AbortSignal): Promise<string> {
  await using model: Model = await load({
    url: new URL("https://example.org/model/"),
    onProgress: (progress: Progress) => console.log(progress.fraction),
    threads: 2,
    side: 512,
    profile: "phone",
    cache: "opfs",
    worker: "auto",
    signal,
  });
  for await (const piece of model.ask(file, "What is on the table?", { signal, maxNewTokens: 50 })) out.textContent += piece;
  const text: string = await model.ask([canvas, { data: new Uint8Array(12), width: 2, height: 2 }], "And here?");
  const image: EncodedImage = await model.encode(file, { side: 256 });
  const chat = model.chat({ temperature: 0.7 });
  const answer = chat.ask(image, "One?");
  const { stop, timings } = await answer.result;
  if (stop === "max-tokens" && timings) console.log(timings.decodeSteps);
  await chat.ask("Two?");
  // @ts-expect-error a question is a text
  model.ask(file, 3);
  // @ts-expect-error no picture
  model.ask({ x: 1 }, "q");
  // @ts-expect-error no reason to end
  if (stop === "eos") console.log();
  // @ts-expect-error no option
  await load({ turbo: true });
  // @ts-expect-error what was encoded is not encoded again
  await model.encode(image);
  image.release();
  return text;
}

export async function errors(): Promise<string> {
  try {
    const { advice, variant } = await capabilities();
    return [...advice, variant ?? "none", String(profiles.phone.side)].join();
  } catch (error) {
    if (error instanceof DownloadError || error instanceof ArgumentError) return error.code;
    if (error instanceof TvlmError) return JSON.stringify(error.details);
    throw error;
  }
}
