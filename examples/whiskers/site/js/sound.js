// Small sounds, made on the spot: no file is loaded. Silent until the first click, as browsers ask for.

let context = null;
let on = true;

export function toggle() {
  on = !on;
  return on;
}

function note(frequency, at, length, { type = "triangle", gain = 0.08, to = frequency } = {}) {
  const begin = context.currentTime + at;
  const oscillator = context.createOscillator();
  const volume = context.createGain();
  oscillator.type = type;
  oscillator.frequency.setValueAtTime(frequency, begin);
  oscillator.frequency.exponentialRampToValueAtTime(to, begin + length);
  volume.gain.setValueAtTime(gain, begin);
  volume.gain.exponentialRampToValueAtTime(0.0001, begin + length);
  oscillator.connect(volume).connect(context.destination);
  oscillator.start(begin);
  oscillator.stop(begin + length);
}

function play(notes) {
  if (!on || typeof AudioContext === "undefined") {
    return;
  }
  context ??= new AudioContext();
  notes();
}

export const bell = () => play(() => [0, 0.18].forEach((at) => note(1320, at, 0.9, { type: "sine", gain: 0.12 })));
export const right = (combo) => play(() => note(440 * 2 ** (Math.min(combo, 16) / 12), 0, 0.14, { to: 880 }));
export const wrong = () => play(() => note(190, 0, 0.22, { type: "sawtooth", gain: 0.05, to: 110 }));
export const over = () => play(() => [523, 659, 784, 1047].forEach((pitch, step) => note(pitch, step * 0.13, 0.4)));
