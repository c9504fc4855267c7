"""The layer by loops over queries and keys, for one member: written from the formulas, in plain
Python, numpy and scipy.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq

from ssa_theory.mechanism import Form, Inputs, Mechanism, Parameters
from ssa_theory.mechanism.normalizers import Softmax

Array = np.ndarray


def gelu(z: float) -> float:
    return z * 0.5 * (1 + math.erf(z / math.sqrt(2)))


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


LINKS = {
    "Tanh": lambda f: 1 + math.tanh(f),
    "Sigmoid": lambda f: 2 * sigmoid(f),
    "Exp": math.exp,
    "Signed": lambda f: 1 + f,
}


@dataclass
class Token:
    """One token: its vector, scalar, labels, and W x in its role."""

    vector: Array | None = None
    feature: float | None = None
    labels: dict[str, int] | None = None
    projected: Array | None = None


@dataclass
class Member:
    """One member of an ensemble: a mechanism as fitted, in a form, with its parameters p."""

    mechanism: Mechanism
    form: Form
    p: dict[str, Array]

    def score(self, part: Any, name: str, token: Token) -> float:
        """f of one token."""
        p = {k.removeprefix(f"{name}."): v for k, v in self.p.items() if k.startswith(f"{name}.")}
        match type(part).__name__:
            case "Constant":
                return float(p["offset"])
            case "Linear":
                return float(np.dot(p["vector"], token.vector))
            case "Feature":
                return float(p["slope"] * token.feature + p["offset"])
            case "WeightShared":
                return sum(w * gelu(z) for w, z in zip(p["vector"], token.projected, strict=True))
            case "MLP":
                total = float(p["offset"])
                for unit, (weight, bias) in enumerate(zip(p["vector"], p["bias"], strict=True)):
                    total += weight * gelu(np.dot(p["hidden"][:, unit], token.vector) + bias)
                return total
            case "Table":
                return float(p["theta"][token.labels[part.label]])
            case other:
                raise NotImplementedError(f"write the loop of the score {other} here")

    def tau(self, role: str, token: Token, n: float) -> float:
        """The inverse temperature of one token whose query sees n keys; of a query, with c."""
        part = getattr(self.mechanism, role)
        scale = 1.0
        if role == "query" and "log_scale" in self.p:
            scale = math.exp(self.p["log_scale"])
        if part is None:
            return scale
        p = {k.removeprefix(f"{role}."): v for k, v in self.p.items()}
        c = math.exp(p["log_scale"]) if f"{role}.log_scale" in self.p else 1.0
        match type(part).__name__:
            case "Selective":
                tau = 1.0
                if part.score is not None:
                    tau = LINKS[type(part.link).__name__](self.score(part.score, role, token))
                if part.position:
                    tau += sigmoid(p["alpha"]) * math.log(n)
                return scale * tau
            case "Fixed":
                return scale * part.value
            case "Released":
                return c * (1 + math.exp(-math.exp(p["b"])) * math.log(n))
            case "LogPower":
                return c * math.log(n) ** part.exponent
            case "AdaptiveASEntmax":
                beta = math.log(1 + math.exp(np.dot(p["vector"], token.vector)))
                if part.position:
                    power = p["reach"] * math.tanh(np.dot(p["exponent"], token.vector))
                    beta *= math.log(max(n, 2)) ** float(power)
                return scale * float(p["delta"] + beta)
            case "ASEntmax":
                growth = 0.0 if n == 1 else math.log(n) ** math.exp(p["log_gamma"])
                return float(p["delta"]) + math.exp(p["log_beta"]) * growth
            case "YaRN":
                trained = part.trained_length or self.form.trained_length
                return c * (0.1 * math.log(max(n / trained, 1)) + 1) ** 2
            case "Llama4":
                trained = part.trained_length or self.form.trained_length
                return c * (1 + 0.1 * math.log(1 + n // trained))
            case "Power":
                return c * n ** float(p["gamma"])
            case other:
                raise NotImplementedError(f"write the loop of the temperature {other} here")

    def vectors(self, query: Token, key: Token, weight: Array) -> tuple[Array, Array]:
        """q and k."""
        q = weight if self.form.constant_query else weight.T @ query.vector
        k = self.p["key_map"].T @ key.vector if "key_map" in self.p else key.vector
        return q, k

    def z(
        self, query: Token, key: Token, given: float | None, n: float, name: str = "weight"
    ) -> float:
        """The score of one query and key by the map of this name."""
        mechanism = self.mechanism
        factor = self.tau("query", query, n) * self.tau("key", key, n)
        shift = self.p["shift.offset"] if mechanism.shift is not None else 0.0
        over = math.sqrt(self.form.dim) if self.form.over_root_dim else 1.0
        weight = self.p.get(name)
        plain = given if given is not None else np.dot(*self.vectors(query, key, weight)) / over
        match type(mechanism.score).__name__:
            case "Bilinear":
                z = factor * plain
            case "QKNorm":
                q, k = self.vectors(query, key, weight)
                cosine = np.dot(q, k) / math.sqrt(np.dot(q, q) * np.dot(k, k))
                z = factor * math.exp(self.p["score.log_gain"]) * cosine
            case "Softcap":
                cap = mechanism.score.cap
                z = cap * math.tanh(factor * plain / cap)
            case other:
                raise NotImplementedError(f"write the loop of the score map {other} here")
        bias = 0.0 if mechanism.bias is None else self.score(mechanism.bias, "bias", key)
        return float(z + factor * shift + bias)

    def row(self, z: Array) -> Array:
        """The weights of one query."""
        own = {k.removeprefix("normalizer."): float(v) for k, v in self.p.items() if v.ndim == 0}
        return row(self.mechanism.normalizer, own, z)

    def gate(self, query: Token) -> Array:
        """g of one query, a number a coordinate."""
        match type(self.mechanism.gate).__name__:
            case "NoneType":
                return np.ones(self.form.dim)
            case "ElementwiseGate":
                w = self.p["gate.weight"]
                return np.array([sigmoid(np.dot(w[:, c], query.vector)) for c in range(w.shape[1])])
            case "HeadGate":
                return np.full(self.form.dim, sigmoid(np.dot(self.p["gate.vector"], query.vector)))
            case other:
                raise NotImplementedError(f"write the loop of the gate {other} here")


def row(normalizer: Any, own: dict[str, float], z: Array) -> Array:
    """A normaliser's weights of one row of scores."""

    def soft(kept: Array, extra: float = 0.0) -> Array:
        if not kept.any():
            return np.zeros(len(z))
        weights = np.array([math.exp(s) if k else 0.0 for s, k in zip(z, kept, strict=True)])
        return weights / (math.fsum(weights) + extra)

    everything = np.full(len(z), True)
    match type(normalizer).__name__:
        case "Softmax":
            return soft(everything)
        case "EntropyAdaptive":
            p = soft(everything)
            h = -math.fsum(w * math.log(w) for w in p if w > 0)
            beta = -0.037 * h**4 + 0.481 * h**3 - 2.3 * h**2 + 4.917 * h - 1.791
            return row(Softmax(), {}, max(beta, 1.0) * z)
        case "Softpick":
            total = math.fsum(abs(math.exp(s) - 1) for s in z)
            return np.array([max(math.exp(s) - 1, 0) / (total or 1) for s in z])
        case "SoftmaxSink":
            return soft(everything, math.exp(own["sink"] if normalizer.learned else 0.0))
        case "Sparsemax":
            return simplex_projection(z)
        case "Entmax15":
            return tsallis(z, 1.5)
        case "Entmax":
            return tsallis(z, 1.01 + 0.99 * sigmoid(own["alpha_score"]))
        case "TopK":
            return soft(z >= np.sort(z)[-min(normalizer.top, len(z))])
        case "Threshold":
            return soft(z > 0)
        case "ReLA":
            positive = np.maximum(z, 0)
            return positive / positive.sum() if positive.any() else positive
        case other:
            raise NotImplementedError(f"write the loop of the normaliser {other} here")


def simplex_projection(z: Array) -> Array:
    """The Euclidean projection on the simplex by sorting (Held, Wolfe and Crowder 1974)."""
    u = np.sort(z)[::-1]
    above = (np.cumsum(u) - 1) / np.arange(1, len(z) + 1)
    last = np.flatnonzero(u > above).max()
    return np.maximum(z - above[last], 0)


def tsallis(z: Array, alpha: float) -> Array:
    """alpha-entmax by Brent's method: theta where [(alpha - 1) z - theta]_+^(1 / (alpha - 1)) sums
    to one.
    """

    def weights(theta: float) -> Array:
        return np.maximum((alpha - 1) * z - theta, 0) ** (1 / (alpha - 1))

    top = (alpha - 1) * z.max()
    return weights(brentq(lambda theta: weights(theta).sum() - 1, top - 1, top, xtol=1e-15))


def by_loops(
    mechanism: Mechanism, form: Form, parameters: Parameters, inputs: Inputs, m: int
) -> dict[str, Array]:
    """All results of one member, by name; each tau (query, key)."""
    member = Member(mechanism, form, {k: v[..., m].numpy() for k, v in parameters.items()})
    queries, keys, given = _tokens(member, inputs, m)
    count = inputs.count if isinstance(inputs.count, float) else inputs.count.squeeze(-1).numpy()
    n = np.broadcast_to(count, len(queries))
    each = [[(i, j) for j in range(len(keys[i]))] for i in range(len(queries))]
    found: dict[str, Array] = {
        f"tau of {role}": np.array(
            [
                [member.tau(role, queries[i] if role == "query" else t[i][j], n[i]) for i, j in at]
                for at in each
            ]
        )
        for role, t in (("query", keys), ("key", keys), ("value", _values(member, keys)))
    }
    z = np.array(
        [[member.z(queries[i], keys[i][j], given[i][j], n[i]) for i, j in at] for at in each]
    )
    rows = np.array([member.row(r) for r in z])
    if mechanism.contrast is not None:
        name, share = "contrast.weight", float(member.p["contrast.share"])
        for i, at in enumerate(each):
            second = [member.z(queries[i], keys[i][j], given[i][j], n[i], name) for _, j in at]
            rows[i] -= share * member.row(np.array(second))
    positive = np.maximum(rows, 0)
    prediction = [p / p.sum() if p.any() else np.full(len(p), 1 / len(p)) for p in positive]
    found |= {"scores": z, "rows": rows, "prediction": np.array(prediction)}
    if form.values:
        output = []
        for i, query in enumerate(queries):
            total = np.zeros(form.dim)
            for j, key in enumerate(keys[i]):
                weight = rows[i, j] * found["tau of value"][i, j]
                total += weight * (member.p["value"].T @ key.vector)
            output.append(member.gate(query) * total)
        found["output"] = np.array(output)
    return found


def _tokens(member: Member, inputs: Inputs, m: int) -> tuple[list, list, list]:
    """The query tokens; the keys of each; the given scores of each."""
    p = member.p
    if inputs.given is not None:
        given = inputs.given[..., m].tolist()
        return [Token()] * len(given), [[Token()] * len(g) for g in given], given

    def of(tokens: Any, at: tuple[int, ...], weight: Array | None) -> Token:
        vector = tokens.vector[at][..., m].numpy()
        feature = None if tokens.feature is None else float(tokens.feature[at][m])
        labels = {k: int(v[at][m]) for k, v in tokens.labels.items()}
        projected = None if weight is None or weight.ndim == 1 else weight.T @ vector
        return Token(vector, feature, {"token": at[0]} | labels, projected)

    own = inputs.keys.vector.ndim == 4
    length = inputs.keys.vector.shape[-3]
    if inputs.query is None:
        queries = [Token()] * len(inputs.keys.vector)
    else:
        queries = [of(inputs.query, (i,), p["weight"]) for i in range(len(inputs.query.vector))]
    keys = [
        [of(inputs.keys, (i, j) if own else (j,), p["weight"].T) for j in range(length)]
        for i in range(len(queries))
    ]
    return queries, keys, [[None] * length] * len(queries)


def _values(member: Member, keys: list) -> list:
    """The keys in the role of values, whose projection is by W_v."""
    if "value" not in member.p:
        return keys
    weight = member.p["value"]
    return [
        [Token(t.vector, t.feature, t.labels, weight.T @ t.vector) for t in row] for row in keys
    ]
