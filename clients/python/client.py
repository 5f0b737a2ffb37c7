"""A third client, in plain Python: written from docs/client.md, decode.json and DECODE.md alone.

It imports nothing of this project: ``json`` and ``math``, ONNX Runtime, and numpy for its tensors.
``python client.py BUNDLE ENCODER [STEP] < swipes.jsonl`` decodes swipes as the other clients do.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from pathlib import Path

import numpy as np
import onnxruntime

NONE = -math.inf


def features(points, spec):
    """Return a row of channels for each point (x, y, t)."""
    limits, rules = spec["points"], spec["features"]
    if len(points) < limits["fewest"]:
        raise ValueError("too few points")
    for x, y, _ in points:
        if not (limits["lowest"] <= min(x, y) and max(x, y) <= limits["highest"]):
            raise ValueError("coordinates are not in keyboard units")
    start = points[0][2]
    points = [(x, y, t - start) for x, y, t in points]
    keys = [(float(x), float(y)) for x, y in rules["key_centres"].values()]
    last, reach = len(points) - 1, rules["window_points"] // 2
    rows, velocity, heading = [], (0.0, 0.0), 0.0
    for i, (x, y, t) in enumerate(points):
        before = points[max(i - 1, 0)]
        dt = max((t - before[2]) / 1000, rules["min_dt_s"])
        dx, dy = x - before[0], y - before[1]
        vx, vy = dx / dt, dy / dt
        ax, ay = ((vx - velocity[0]) / dt, (vy - velocity[1]) / dt) if i >= 2 else (0.0, 0.0)
        angle = math.atan2(vy, vx)
        turn = angle - heading if i >= 2 else 0.0
        turn -= 2 * math.pi if turn > math.pi else 0.0
        turn += 2 * math.pi if turn < -math.pi else 0.0
        velocity, heading = (vx, vy), math.atan2(dy, dx)
        near = sorted(math.hypot(x - kx, y - ky) for kx, ky in keys)[: rules["nearest_keys"]]
        window = points[max(0, i - reach) : i + reach + 1]
        (mean_x, std_x, range_x), (mean_y, std_y, range_y) = (
            statistics([point[axis] for point in window]) for axis in (0, 1)
        )
        motion = [vx, vy, math.hypot(vx, vy), ax, ay, math.hypot(ax, ay)]
        angles = [angle, math.sin(angle), math.cos(angle) if i else 0.0, turn]
        place = [i / last, float(i == 0), float(i == last)]
        row = [x, y, t / 1000, *motion, *angles, *near, *place]
        row += [mean_x, std_x, mean_y, std_y, range_x, range_y]
        rows.append(row + [0.0] * (len(rules["channels"]) - len(row)))
    return rows


def statistics(values):
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
    return mean, deviation, max(values) - min(values)


def log_add(a, b):
    return max(a, b) + math.log1p(math.exp(-abs(a - b)))


class Trie:
    """Words as nested dictionaries; a node is a dictionary with its letters and two entries."""

    def __init__(self, text, spellings):
        self.spellings = spellings
        self.root = {"prior": NONE, "best": NONE, "next": {}}
        for line in text.splitlines():
            word, prior = line.split("\t")
            path = [self.root]
            for letter in word:
                new = {"prior": NONE, "best": NONE, "next": {}}
                path.append(path[-1]["next"].setdefault(letter, new))
            path[-1]["prior"] = float(prior)
            for node in path:
                node["best"] = max(node["best"], float(prior))

    def continuations(self, node, *, first):
        for spelling in self.spellings:
            if (spelling["starts"] or not spelling["letters"]) and not first:
                continue
            reached = node
            for letter in spelling["letters"]:
                reached = reached["next"].get(letter) if reached else None
            if reached:
                yield spelling["label"], reached


class Client:
    """A pair of files of a bundle."""

    def __init__(self, folder, encoder, step=None):
        self.folder = Path(folder)
        self.spec = json.loads(self.read("decode.json"))
        if self.spec["schema"] != 1:
            raise ValueError("decode.json has another schema")
        step = step or self.spec["files"][encoder]["step"]
        known = json.loads(self.read("known_answers.json"))
        pairs = [p for p in known["pairs"] if (p["encoder"], p["step"]) == (encoder, step)]
        if not pairs:
            raise ValueError(f"no known answers of {encoder} and {step}")
        # A step whose parts are called apart: the prediction network, and its joint behind it.
        halves = self.spec["files"][step]
        names = [encoder, step] if "part" not in halves else [encoder, step, halves["other_half"]]
        self.files = [self.spec["files"][name] for name in names]
        self.sessions = [self.open(name, self.spec["files"][name]) for name in names]
        self.predicted = {}
        words = self.spec["lexicon_search"]["words"]
        text = self.checked(words["file"], words["sha256"]).decode("utf-8")
        self.trie = Trie(text, self.spec["spellings"])
        self.self_test(known, pairs[0])

    def read(self, name):
        return (self.folder / name).read_bytes()

    def checked(self, name, digest):
        data = self.read(name)
        if hashlib.sha256(data).hexdigest() != digest:
            raise ValueError(f"{name} is not the bundle's (SHA-256)")
        return data

    def open(self, name, file):
        options, wanted = onnxruntime.SessionOptions(), self.spec["session_options"]["onnx"]
        options.intra_op_num_threads = wanted["intra_op_threads"]
        options.inter_op_num_threads = wanted["inter_op_threads"]
        data = self.checked(name, file["sha256"])
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def run(self, which, values):
        file = self.files[which]
        feeds = {
            item["name"]: np.asarray(value, item["dtype"])
            for item, value in zip(file["inputs"], values, strict=True)
        }
        names = [item["name"] for item in file["outputs"]]
        return self.sessions[which].run(names, feeds)

    def encode(self, rows):
        if len(rows) > self.files[0]["max_trace_len"]:
            raise ValueError("more points than the encoder takes")
        self.predicted = {}
        encoded, lengths = self.run(0, [np.asarray(rows).T[None], [len(rows)]])
        return [encoded[0, :, frame] for frame in range(int(lengths[0]))]

    def step(self, y, state, frame):
        if len(self.files) == 3:
            prediction, *new = self.predict(y, state)
            (logits,) = self.run(2, [frame[None], prediction])
        else:
            logits, *new = self.run(1, [[y], *state, frame[None]])
        raw = logits[0].tolist()
        if self.files[-1]["scores"] == "log_probs":
            return raw, raw, tuple(new)
        total = max(raw) + math.log(sum(math.exp(value - max(raw)) for value in raw))
        return raw, [value - total for value in raw], tuple(new)

    def predict(self, y, state):
        # As long as a hypothesis writes no label, its state is the same object. It is held here, so
        # that no other one gets its id.
        key = (y, id(state))
        if key not in self.predicted:
            self.predicted[key] = (state, self.run(1, [[y], *state]))
        return self.predicted[key][1]

    def start(self):
        sizes = self.spec["dimensions"]
        zeros = np.zeros((sizes["pred_layers"], 1, sizes["pred_hidden"]), np.float32)
        return self.spec["start_symbol"], (zeros, zeros)

    def greedy(self, frames):
        rules, (y, state) = self.spec["greedy"], self.start()
        found = {"steps": [], "tokens": [], "frames": [], "score": 0.0}
        frame = written = 0
        while frame < len(frames):
            raw, log_probs, new = self.step(y, state, frames[frame])
            found["steps"].append({"frame": frame, "y_prev": y, "logits": raw})
            label = raw.index(max(raw))
            full = rules["max_symbols"] is not None and written + 1 >= rules["max_symbols"]
            kind = "label_at_max_symbols" if full else "label"
            rule = rules["blank" if label == self.spec["blank_id"] else kind]
            if rule["writes"]:
                found["tokens"].append(label)
                found["frames"].append(frame)
                found["score"] += log_probs[label]
                y, written = label, written + 1
            if rule["keeps_state"]:
                state = new
            if rule["moves_frames"]:
                written = 0
            frame += rule["moves_frames"]
        return found

    def search(self, frames):
        search, (y, state) = self.spec["lexicon_search"], self.start()
        weight = search["prior_weight"]
        beam = [((), self.trie.root, y, state, 0.0)]
        for frame in frames:
            beam = self.next_beam(beam, frame, search)
        words = {}
        for tokens, node, _, _, p in beam:
            if node["prior"] > NONE:
                words.setdefault(id(node), []).append((p, tokens, node["prior"]))
        found = []
        for group in words.values():
            p = group[0][0]
            for other in group[1:]:
                p = log_add(p, other[0])
            _, tokens, prior = max(group)
            text = "".join(self.spec["labels"][token] for token in tokens)
            text = text.replace("▁", " ").strip()
            found.append({"text": text, "score": p + weight * prior, "log_prob": p})
        return sorted(found, key=lambda word: -word["score"])[: search["top"]]

    def next_beam(self, beam, frame, search):
        def rank(item):
            return item[4] + search["prior_weight"] * item[1]["best"]

        closed, best, blank = {}, NONE, self.spec["blank_id"]
        for emitted in range(search["max_symbols"] + 1):
            grown = []
            for tokens, node, y, state, p in beam:
                _, log_probs, new = self.step(y, state, frame)
                item = (tokens, node, y, state, p + log_probs[blank])
                best = max(best, rank(item))
                if tokens in closed:
                    item = (*item[:4], log_add(item[4], closed[tokens][4]))
                closed[tokens] = item
                if emitted < search["max_symbols"]:
                    for label, reached in self.trie.continuations(node, first=not tokens):
                        grown.append(((*tokens, label), reached, label, new, p + log_probs[label]))
            if not grown:
                break
            limit = max(best, *map(rank, grown)) - search["threshold_nats"]
            grown = sorted(grown, key=rank, reverse=True)[: search["beam"]]
            beam = [item for item in grown if rank(item) >= limit]
            if not beam:
                break
        kept = sorted(closed.values(), key=rank, reverse=True)[: search["beam"]]
        return [item for item in kept if rank(item) >= rank(kept[0]) - search["threshold_nats"]]

    def self_test(self, known, pair):
        allowed = pair["tolerances"]
        for swipe, answer in list(zip(known["swipes"], pair["answers"], strict=True))[:3]:
            rows = features(swipe["points"], self.spec)
            wanted = np.array(swipe["features"])
            most = known["feature_tolerance"] * np.maximum(1, abs(wanted))
            check("features", (abs(np.array(rows, np.float32) - wanted) <= most).all())
            frames, encoded = self.encode(rows), np.array(answer["encoded"])
            check("frames", len(frames) == len(encoded))
            rms = math.sqrt((encoded**2).mean())
            check("encoding", abs(np.array(frames) - encoded).max() <= allowed["encoded"] * rms)
            found = self.greedy(frames)
            check("steps", len(found["steps"]) == len(answer["steps"]))
            for own, other in zip(found["steps"], answer["steps"], strict=True):
                check("step", (own["frame"], own["y_prev"]) == (other["frame"], other["y_prev"]))
                error = abs(np.array(own["logits"]) - np.array(other["logits"])).max()
                check("logits", error <= allowed["logits"])
            check("tokens", all(found[key] == answer[key] for key in ("tokens", "frames")))
            check("score", abs(found["score"] - answer["score"]) <= allowed["score"])
            if swipe is not known["swipes"][0]:
                continue  # a search costs more than all the rest
            words = self.search(frames)
            first = answer["words"][0]
            check("first word", words[:1] and words[0]["text"] == first["text"])
            check("word score", abs(words[0]["score"] - first["score"]) <= allowed["score"])


def check(what, fits):
    if not fits:
        raise ValueError(f"self-test: {what} are not the known ones")


def main():
    try:
        client = Client(*sys.argv[1:])
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"error: {error}")
    print(json.dumps({"self_test": "passed"}))
    for line in sys.stdin:
        rows = features(json.loads(line), client.spec)
        frames = client.encode(rows)
        found = client.greedy(frames)
        row = {"features": np.array(rows, np.float32).tolist(), "words": client.search(frames)}
        print(json.dumps({**row, "tokens": found["tokens"], "score": found["score"]}))


if __name__ == "__main__":
    main()
