// The page: what is shown and heard, and what the cook's clicks do.

import * as api from "./api.js";
import { Game } from "./game.js";
import * as sound from "./sound.js";

const $ = (id) => document.getElementById(id);
const body = document.body;
const foods = [...document.querySelectorAll(".food")];
const names = Object.fromEntries(foods.map((button) => [button.dataset.food, button.querySelector("span").textContent]));

const CRAVINGS = ["{}!", "{}. Now!", "Is that {} I smell?", "Only {} will do.", "A captain needs {}.", "{}, cook!"];
const PRAISE = ["Mrrrow!", "Yes. More.", "Passable.", "Again!", "Nom.", "Purrrr."];
const SCORN = ["Bilge!", "That? No.", "Walk the plank, cook.", "Hsss!", "Do I look like a gull?"];

/** How long before she changes her mind the bubble begins to tremble, in milliseconds. */
const OMEN = 260;

let game = null;
let pending = new Set();
let moodUntil = 0;

const pick = (lines) => lines[Math.floor(Math.random() * lines.length)];
const stage = (name) => (body.dataset.stage = name);
const mood = (name) => (body.dataset.mood = name);

function say(text) {
  $("speech").textContent = text;
}

function restart(element, name) {
  element.classList.remove(name);
  void element.getBoundingClientRect();
  element.classList.add(name);
}

function show(id, text) {
  const element = $(id);
  if (element.textContent !== text) {
    element.textContent = text;
  }
  return element;
}

// The figures at the foot, and the ship that they row.

api.onFigures(() => {
  show("instances", String(api.figures.instances));
  show("failures", String(api.figures.failures));
  show("latency", api.figures.latency === null ? "–" : `${Math.max(1, Math.round(api.figures.latency))} ms`);
  restart($("ship"), "stroke");
});

// A game from the bell to the table.

async function begin() {
  $("start").disabled = true;
  $("trouble").textContent = "";
  try {
    const session = await api.session();
    game = new Game(session, performance.now());
  } catch (error) {
    $("trouble").textContent = `Supper cannot begin: ${error.message}.`;
    return;
  } finally {
    $("start").disabled = false;
  }
  pending = new Set();
  shown = -1;
  show("score", "0");
  show("combo", "×0");
  sound.bell();
  stage("supper");
  foods[0].focus({ preventScroll: true });
  foods[0].blur();
  window.scrollTo({ top: 0, behavior: "smooth" });
  requestAnimationFrame(tick);
}

let shown = -1;

function tick(now) {
  if (game.isOver(now)) {
    finish();
    return;
  }
  const progress = game.progress(now);
  const seconds = game.secondsLeft(now);
  body.style.setProperty("--dusk", progress.toFixed(3));
  body.style.setProperty("--way", progress.toFixed(3));
  $("fuse").style.strokeDashoffset = (progress * 100).toFixed(2);
  show("clock", String(seconds));
  body.toggleAttribute("data-hurry", seconds <= 5);

  const wanted = game.wanted(now);
  if (wanted.place !== shown) {
    shown = wanted.place;
    $("wish").src = `art/${wanted.food}.svg`;
    restart($("bubble"), "change");
    say(pick(CRAVINGS).replace("{}", names[wanted.food]));
    $("aloud").textContent = names[wanted.food];
    moodUntil = 0;
    mood("wants");
  } else if (moodUntil && now > moodUntil) {
    moodUntil = 0;
    mood("wants");
  }
  $("bubble").classList.toggle("fickle", wanted.changesIn < OMEN);
  requestAnimationFrame(tick);
}

function serve(food, button) {
  const now = performance.now();
  if (body.dataset.stage !== "supper" || game.isOver(now)) {
    return;
  }
  const correct = game.serve(food, now);
  restart(show("combo", `×${game.combo}`), "bump");
  restart(button, correct ? "right" : "wrong");
  setTimeout(() => button.classList.remove("right", "wrong"), 180);
  mood(correct ? "happy" : "cross");
  moodUntil = now + (correct ? 420 : 620);
  say(pick(correct ? PRAISE : SCORN));
  toss(food, button);
  if (correct) {
    sound.right(game.combo);
    navigator.vibrate?.(12);
  } else {
    sound.wrong();
  }

  const click = api.tally(game.ulid, food, correct).then(
    () => correct && acknowledged(),
    () => spark("adrift!", false),
  );
  pending.add(click);
  click.finally(() => pending.delete(click));
  if (!correct) {
    spark(pick(["no!", "bleh", "hss"]), false);
  }
}

/** A right answer counts once the ship has said so. */
function acknowledged() {
  restart(show("score", String(Number($("score").textContent) + 1)), "bump");
  spark(game.combo > 4 ? `+1 ×${game.combo}` : "+1", true);
}

function toss(food, button) {
  const image = new Image();
  image.src = `art/${food}.svg`;
  image.alt = "";
  image.className = "toss";
  image.style.setProperty("--from", `${(foods.indexOf(button) - 1.5) * 130}%`);
  image.addEventListener("animationend", () => image.remove());
  $("sparks").append(image);
  setTimeout(() => image.remove(), 900);
}

function spark(text, good) {
  const element = document.createElement("span");
  element.className = good ? "spark" : "spark no";
  element.textContent = text;
  element.style.setProperty("--dx", `${Math.random() * 9 - 4.5}rem`);
  $("sparks").append(element);
  setTimeout(() => element.remove(), 950);
}

async function finish() {
  const played = game;
  stage("over");
  mood("full");
  sound.over();
  body.removeAttribute("data-hurry");
  show("clock", "0");
  $("fuse").style.strokeDashoffset = "100";
  say("Enough. The captain shall nap.");
  $("aloud").textContent = "Time is up";
  $("entry-trouble").textContent = "";
  $("name").value = "";
  plates({});
  show("final", $("score").textContent);
  show("summary", "Counting the plates…");
  await Promise.allSettled([...pending]);
  const counted = await count(played, Number($("score").textContent));
  if (counted) {
    show("final", String(counted.total));
    plates(counted.foods);
  }
  const aim = played.served ? Math.round((played.right / played.served) * 100) : 0;
  show("summary", `${played.served} plates served, ${aim} % of them right, ${played.bestCombo} in a row at best.`);
  if (matchMedia("(hover: hover)").matches) {
    $("name").focus();
  }
}

/** The score as the ship has it, once it has counted everything that it acknowledged. */
async function count(played, acknowledged) {
  let counted = null;
  for (let tries = 0; tries < 20; tries += 1) {
    try {
      counted = await api.score(played.ulid);
    } catch {
      // Shown among the failures at the foot.
    }
    if (counted?.total >= acknowledged) {
      break;
    }
    await new Promise((wake) => setTimeout(wake, 150));
  }
  return counted;
}

function plates(counts) {
  $("plates").replaceChildren(
    ...Object.entries(counts).map(([food, eaten]) => {
      const line = document.createElement("li");
      const image = new Image();
      image.src = `art/${food}.svg`;
      image.alt = names[food];
      line.append(image, String(eaten));
      return line;
    }),
  );
}

function table(scores, mine) {
  const lines = scores.map(({ ulid, name, score }) => {
    const line = document.createElement("li");
    line.classList.toggle("mine", ulid === mine);
    for (const [kind, text] of [["who", name], ["points", score]]) {
      const part = document.createElement("span");
      part.className = kind;
      part.textContent = text;
      line.append(part);
    }
    return line;
  });
  if (lines.length === 0) {
    const line = document.createElement("li");
    line.className = "nobody";
    line.textContent = "No cook has signed the log yet.";
    lines.push(line);
  }
  $("table").replaceChildren(...lines);
}

async function refresh(mine) {
  try {
    table((await api.highscores()).scores, mine);
  } catch {
    // The table stays as it was; the failure is counted at the foot.
  }
}

$("entry").addEventListener("submit", async (event) => {
  event.preventDefault();
  const name = $("name").value.toUpperCase();
  $("entry-trouble").textContent = "";
  try {
    const signed = await api.sign(game.ulid, name);
    table(signed.scores, game.ulid);
    stage("signed");
    say(signed.rank === 1 ? `${name}, head cook of the fleet!` : `${name} is number ${signed.rank} of the fleet.`);
    $("again").focus();
  } catch (error) {
    $("entry-trouble").textContent = `Not signed: ${error.message}.`;
  }
});

$("start").addEventListener("click", begin);
$("again").addEventListener("click", begin);

for (const button of foods) {
  // `pointerdown` and not `click`: a cook in a hurry does not wait for the finger to rise.
  button.addEventListener("pointerdown", (event) => {
    if (event.button === 0) {
      serve(button.dataset.food, button);
    }
  });
  // A click without a pointer: the keyboard's, or an assistive technology's.
  button.addEventListener("click", (event) => {
    if (event.detail === 0) {
      serve(button.dataset.food, button);
    }
  });
}

$("sound").addEventListener("click", () => $("sound").setAttribute("aria-pressed", String(sound.toggle())));

document.addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "INPUT") {
    return;
  }
  const button = foods[Number(event.key) - 1];
  if (button) {
    button.classList.add("down");
    setTimeout(() => button.classList.remove("down"), 90);
    serve(button.dataset.food, button);
  } else if (event.key.toLowerCase() === "m") {
    $("sound").click();
  }
});

refresh();
