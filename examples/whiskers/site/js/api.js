// The modules behind the page. Each call is one request, and each request one fresh instance of a module.

/** What the calls of this page have cost and met. */
export const figures = { instances: 0, failures: 0, latency: null };

/** Called after every change of `figures`. */
let changed = () => {};
export function onFigures(callback) {
  changed = callback;
}

export class ApiError extends Error {}

export const session = () => call("/session", { method: "POST" });
export const score = (ulid) => call(`/score?ulid=${ulid}`);
export const highscores = () => call("/highscore");
export const sign = (ulid, name) =>
  call("/highscore", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ ulid, name }),
  });

/** Sends a click. Once it is acknowledged, a second instance has been started to count it. */
export async function tally(ulid, food, correct) {
  await call(`/tally?ulid=${ulid}&food=${food}&correct=${correct}`, { method: "POST" });
  figures.instances += 1;
  changed();
}

async function call(path, options = {}) {
  const began = performance.now();
  let response;
  let body = {};
  try {
    response = await fetch(path, { cache: "no-store", ...options });
    body = await response.json();
  } catch {
    // No answer, or one that is not ours: reported below.
  }
  figures.latency = performance.now() - began;
  if (response) {
    figures.instances += 1;
  }
  if (!response?.ok) {
    figures.failures += 1;
    changed();
    throw new ApiError(body.error ?? (response ? `the ship answers ${response.status}` : "the ship does not answer"));
  }
  changed();
  return body;
}
