// `/score?ulid=`: the score of a game, by food and in all.

import { getEnvironment } from "wasi:cli/environment@0.2.3";
import { Connection } from "fermyon:spin/redis@2.0.0";

const FOODS = ["tuna", "prawn", "chicken", "cream"];
const ULID = /^[0-7][0-9A-HJKMNP-TV-Z]{25}$/;

addEventListener("fetch", (event) => event.respondWith(answer(event.request)));

function answer(request) {
  if (request.method !== "GET") {
    return json(405, { error: "use GET" }, { allow: "GET" });
  }
  const ulid = new URL(request.url).searchParams.get("ulid")?.toUpperCase() ?? "";
  if (!ULID.test(ulid)) {
    return json(400, { error: `${JSON.stringify(ulid)} is not the ulid of a game: ask /session for one` });
  }
  try {
    const counts = score(ulid);
    const foods = Object.fromEntries(FOODS.map((food, at) => [food, counts[at]]));
    return json(200, { ulid, foods, total: counts.reduce((sum, count) => sum + count, 0) });
  } catch (error) {
    console.error(`/score of ${ulid}:`, describe(error));
    return json(503, { error: `the score cannot be read, Redis says: ${describe(error)}` });
  }
}

/** The right answers of a game, in the order of FOODS; a game that nobody knows has none. */
function score(ulid) {
  const address = new Map(getEnvironment()).get("REDIS_ADDRESS") ?? "redis://redis:6379";
  const words = [`whiskers:score:${ulid}`, ...FOODS];
  const redis = Connection.open(address);
  const found = redis.execute("HMGET", words.map((word) => ({ tag: "binary", val: new TextEncoder().encode(word) })));
  return found.map((count) => (count.tag === "binary" ? Number(new TextDecoder().decode(count.val)) : 0));
}

function describe(error) {
  const { tag, val } = error.payload ?? {};
  return val ?? tag ?? String(error);
}

function json(status, body, headers = {}) {
  return new Response(JSON.stringify(body), {
    status,
    headers: { "content-type": "application/json", "cache-control": "no-store", ...headers },
  });
}
