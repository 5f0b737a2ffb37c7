// A swipe's points to the encoder's channels; the rules stand in DECODE.md, section "Features".
#pragma once

#include <array>
#include <cmath>

#include "json.hpp"

using Point = std::array<double, 3>;  // x and y in keyboard units, t in milliseconds
using Rows = std::vector<std::vector<float>>;

// Check points and let their clock begin at 0.
inline std::vector<Point> checked(std::vector<Point> points, const Json& spec) {
  const double low = spec["lowest"].number, high = spec["highest"].number;
  if (points.size() < spec["fewest"].number) throw std::runtime_error("too few points for a swipe");
  const double start = points[0][2];
  double before = start;
  for (Point& point : points) {
    for (int axis : {0, 1})
      if (!(point[axis] >= low && point[axis] <= high))
        throw std::runtime_error("a coordinate is " + std::to_string(point[axis]) + ", expected 0 to 1 over the keyboard");
    if (!(point[2] >= before)) throw std::runtime_error("times should be milliseconds that never decrease");
    before = point[2];
    point[2] -= start;
  }
  return points;
}

// Mean, population standard deviation and range of an axis over the points around one.
inline std::array<double, 3> spread(const std::vector<Point>& points, int place, int reach, int axis) {
  const int first = std::max(0, place - reach), last = std::min<int>(points.size() - 1, place + reach);
  double total = 0, squares = 0, most = -INFINITY, least = INFINITY;
  for (int i = first; i <= last; ++i) {
    total += points[i][axis];
    most = std::max(most, points[i][axis]);
    least = std::min(least, points[i][axis]);
  }
  const double count = last - first + 1, mean = total / count;
  for (int i = first; i <= last; ++i) squares += (points[i][axis] - mean) * (points[i][axis] - mean);
  return {mean, std::sqrt(squares / count), most - least};
}

// Return a row of channels for each point, in the order of decode.json's features.channels.
inline Rows features(const std::vector<Point>& raw, const Json& spec) {
  const std::vector<Point> points = checked(raw, spec["points"]);
  const Json& rules = spec["features"];
  const int last = points.size() - 1, reach = rules["window_points"].integer() / 2;
  std::vector<std::array<double, 2>> keys;  // decimal text, as exact in every language
  for (const auto& key : rules["key_centres"].fields) keys.push_back({std::stod(key.second[0].text), std::stod(key.second[1].text)});
  const double least_dt = rules["min_dt_s"].number;
  const size_t nearest = rules["nearest_keys"].integer(), channels = rules["channels"].items.size();
  double vx0 = 0, vy0 = 0, heading0 = 0;
  Rows rows;
  for (int i = 0; i <= last; ++i) {
    const auto [x, y, t] = points[i];
    const auto [px, py, pt] = points[std::max(i - 1, 0)];
    const double dt = std::max((t - pt) / 1000, least_dt);
    const double vx = (x - px) / dt, vy = (y - py) / dt;
    const double ax = i < 2 ? 0 : (vx - vx0) / dt, ay = i < 2 ? 0 : (vy - vy0) / dt;
    const double angle = std::atan2(vy, vx);
    double turn = i < 2 ? 0 : angle - heading0;
    if (turn > M_PI) turn -= 2 * M_PI;
    if (turn < -M_PI) turn += 2 * M_PI;
    vx0 = vx, vy0 = vy, heading0 = std::atan2(y - py, x - px);
    std::vector<double> near;
    for (const auto& [kx, ky] : keys) near.push_back(std::sqrt((x - kx) * (x - kx) + (y - ky) * (y - ky)));
    std::sort(near.begin(), near.end());
    near.resize(nearest);
    const double speed = std::sqrt(vx * vx + vy * vy), acceleration = std::sqrt(ax * ax + ay * ay);
    std::vector<double> row{x, y, t / 1000, vx, vy, speed, ax, ay, acceleration, angle, std::sin(angle), i ? std::cos(angle) : 0, turn};
    row.insert(row.end(), near.begin(), near.end());
    const auto sx = spread(points, i, reach, 0), sy = spread(points, i, reach, 1);
    row.insert(row.end(), {double(i) / last, double(i == 0), double(i == last), sx[0], sx[1], sy[0], sy[1], sx[2], sy[2]});
    row.resize(channels);
    rows.emplace_back(row.begin(), row.end());
  }
  return rows;
}
