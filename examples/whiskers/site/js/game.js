// One game, without a page or a network: what the captain wants, and what the cook has served.

export class Game {
  /** `session` is the answer of `/session`; `start` and every other time is in milliseconds of one clock. */
  constructor(session, start) {
    this.ulid = session.ulid;
    this.length = session.seconds * 1000;
    this.demands = session.demands;
    this.start = start;
    this.combo = 0;
    this.bestCombo = 0;
    this.served = 0;
    this.right = 0;
  }

  /** From 0 to 1. */
  progress(now) {
    return Math.min(1, Math.max(0, (now - this.start) / this.length));
  }

  secondsLeft(now) {
    return Math.ceil((this.length - this.progress(now) * this.length) / 1000);
  }

  isOver(now) {
    return this.progress(now) >= 1;
  }

  /** The demand of this moment, its place in the menu, and the milliseconds until she changes her mind. */
  wanted(now) {
    const at = now - this.start;
    const place = this.demands.findLastIndex((demand) => demand.at <= at);
    const next = this.demands[place + 1]?.at ?? this.length;
    return { food: this.demands[Math.max(place, 0)].food, place, changesIn: next - at };
  }

  /** Serves a food; answers whether it was right. */
  serve(food, now) {
    const correct = this.wanted(now).food === food;
    this.served += 1;
    this.right += correct ? 1 : 0;
    this.combo = correct ? this.combo + 1 : 0;
    this.bestCombo = Math.max(this.bestCombo, this.combo);
    return correct;
  }
}
