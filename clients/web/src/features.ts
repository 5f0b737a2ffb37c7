// A swipe's points to the encoder's channels; the rules stand in DECODE.md, section "Features".

import type { Point, Specification } from "./specification.ts";

/** Check points and let their clock begin at 0. */
export function checked(points: Point[], spec: Specification): Point[] {
  const { lowest, highest, fewest } = spec.points;
  if (points.length < fewest) throw new Error(`${points.length} points, expected at least ${fewest}`);
  points.forEach(([x, y, t], i) => {
    if (!(x >= lowest && x <= highest && y >= lowest && y <= highest)) {
      throw new Error(`point ${i} is (${x}, ${y}), expected 0 to 1 over the keyboard`);
    }
    if (!Number.isFinite(t) || (i > 0 && t < points[i - 1][2])) {
      throw new Error(`point ${i} has t = ${t}, expected milliseconds that never decrease`);
    }
  });
  return points.map(([x, y, t]) => [x, y, t - points[0][2]]);
}

/** Return one row of channels for each point, in the order of `spec.features.channels`. */
export function features(raw: Point[], spec: Specification): Float32Array[] {
  const points = checked(raw, spec);
  const keys = Object.values(spec.features.key_centres).map(([x, y]) => [Number(x), Number(y)]);
  const move = motion(points, spec.features.min_dt_s);
  return points.map(([x, y, t], i) => {
    const distances = Float64Array.from(keys, ([kx, ky]) => Math.sqrt((x - kx) ** 2 + (y - ky) ** 2));
    const near = distances.sort().subarray(0, spec.features.nearest_keys);
    const last = points.length - 1;
    const row = new Float32Array(spec.features.channels.length);
    const ends = [i / last, i === 0 ? 1 : 0, i === last ? 1 : 0];
    row.set([x, y, t / 1000, ...move[i], ...near, ...ends, ...spread(points, i, spec)]);
    return row;
  });
}

/** Return the channels from velocity_x to curvature of each point. */
function motion(points: Point[], minDt: number): number[][] {
  let [vx0, vy0, heading0] = [0, 0, 0];
  return points.map(([x, y, t], i) => {
    const [px, py, pt] = points[Math.max(i - 1, 0)];
    const dt = Math.max((t - pt) / 1000, minDt);
    const [dx, dy] = [x - px, y - py];
    const [vx, vy] = [dx / dt, dy / dt];
    const [ax, ay] = i < 2 ? [0, 0] : [(vx - vx0) / dt, (vy - vy0) / dt];
    const angle = Math.atan2(vy, vx);
    let turn = i < 2 ? 0 : angle - heading0;
    if (turn > Math.PI) turn -= 2 * Math.PI;
    if (turn < -Math.PI) turn += 2 * Math.PI;
    [vx0, vy0, heading0] = [vx, vy, Math.atan2(dy, dx)];
    const cosine = i === 0 ? 0 : Math.cos(angle);
    const [speed, acceleration] = [Math.sqrt(vx * vx + vy * vy), Math.sqrt(ax * ax + ay * ay)];
    return [vx, vy, speed, ax, ay, acceleration, angle, Math.sin(angle), cosine, turn];
  });
}

/** Return mean and deviation of x, of y, and the ranges of both, over the points around one. */
function spread(points: Point[], i: number, spec: Specification): number[] {
  const reach = Math.floor(spec.features.window_points / 2);
  const window = points.slice(Math.max(0, i - reach), i + reach + 1);
  const [x, y] = [0, 1].map((axis) => {
    const values = window.map((point) => point[axis]);
    const mean = values.reduce((a, b) => a + b, 0) / values.length;
    const variance = values.reduce((a, b) => a + (b - mean) ** 2, 0) / values.length;
    return [mean, Math.sqrt(variance), Math.max(...values) - Math.min(...values)];
  });
  return [x[0], x[1], y[0], y[1], x[2], y[2]];
}
