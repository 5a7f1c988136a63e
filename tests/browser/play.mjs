// Plays one game of Whiskers in headless Chromium, from the bell to the high-score table.
//
//   node play.mjs URL FOLDER-FOR-SCREENSHOTS

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { chromium } from "playwright-core";

const [, , url, pictures] = process.argv;
assert(url && pictures, "usage: node play.mjs URL FOLDER");
mkdirSync(pictures, { recursive: true });

const NAME = "TAR";
const KEYS = { tuna: "1", prawn: "2", chicken: "3", cream: "4" };
// A player's hand; the captain changes her mind no faster than every 700 ms.
const BETWEEN_CLICKS = 120;

const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
try {
  const page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
  const troubles = [];
  page.on("pageerror", (error) => troubles.push(error.message));
  page.on("console", (message) => message.type() === "error" && troubles.push(message.text()));
  page.on("requestfailed", (request) => troubles.push(`${request.url()}: ${request.failure()?.errorText}`));

  await page.goto(url);
  assert.match(page.url(), /\/index\.html$/, "the home page leads to the game");
  await page.getByRole("button", { name: "Ring the supper bell" }).click();
  await page.waitForSelector('body[data-stage="supper"]');

  // Every other click by mouse, every other by keyboard; one wrong on purpose.
  let clicks = 0;
  const stage = () => page.evaluate(() => document.body.dataset.stage);
  while ((await stage()) === "supper") {
    const wanted = await page.evaluate(() => document.getElementById("wish").src.match(/(\w+)\.svg$/)[1]);
    const food = clicks === 5 ? Object.keys(KEYS).find((other) => other !== wanted) : wanted;
    if (clicks % 2 === 0) {
      await page.keyboard.press(KEYS[food]);
    } else {
      await page.locator(`[data-food="${food}"]`).click();
    }
    clicks += 1;
    if (clicks === 40) {
      await page.screenshot({ path: join(pictures, "playing.png") });
    }
    await page.waitForTimeout(BETWEEN_CLICKS);
  }
  assert(clicks > 40, `only ${clicks} clicks in a game`);

  // The summary is filled in once the ship's own count has arrived.
  await page.waitForFunction(() => document.getElementById("summary").textContent.includes("plates served"));
  const final = Number(await page.textContent("#final"));
  const acknowledged = Number(await page.textContent("#score"));
  assert.equal(final, acknowledged, "the score is what was acknowledged");
  assert(final > 0 && final < clicks, `${final} morsels of ${clicks} clicks`);

  await page.fill("#name", NAME.toLowerCase());
  await page.getByRole("button", { name: "Sign the log" }).click();
  await page.waitForSelector('body[data-stage="signed"]');
  const mine = page.locator("#table li.mine");
  assert.equal(await mine.locator(".who").textContent(), NAME);
  assert.equal(Number(await mine.locator(".points").textContent()), final, "the table has the ship's count");
  assert.equal(await page.textContent("#failures"), "0");
  assert.deepEqual(troubles, [], "the browser complains");
  await page.screenshot({ path: join(pictures, "high-scores.png"), fullPage: true });
  console.log(`browser: ${clicks} clicks, ${final} morsels, ${NAME} is in the table; pictures in ${pictures}`);
} finally {
  await browser.close();
}
